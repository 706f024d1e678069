/* From noise to latents: how a request calls the denoising loop (denoise.c), for one picture or
 * several together. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipelines/channel_order.h"
#include "pipelines/denoise.h"
#include "pipelines/generation.h"

/* Pictures first .. first + count of a request during denoising. */
struct batch {
    struct generation *g;
    int first, count;
    struct random_generator *generators; /* [count]: where each one's fresh noise goes on */
    float *const *x;                     /* [count] latents */
};

/* What a stochastic sampler adds in one step: as torch does, drawn for all pictures at once, though
 * only one is worked on. */
static const float *draw_fresh_noise(void *user, int picture) {
    const struct batch *batch = user;
    struct generation *g = batch->g;
    size_t total = (size_t)g->count * (size_t)g->request->num_images;
    random_normal(&batch->generators[picture], g->fresh_noise, total);
    channels_last(g->fresh_noise + total, g->fresh_noise + (size_t)(batch->first + picture) * (size_t)g->count, g->channels, g->positions);
    return g->fresh_noise + total;
}

static tessera_status check_finite(const struct batch *batch, int picture, int steps_done, tessera_error *error) {
    const struct generation *g = batch->g;
    char when[48];
    snprintf(when, sizeof when, ", step %d of %d", g->first_step + steps_done, g->scheduler->num_steps);
    return pipeline_check_finite(g->pipeline, g->pipeline->denoiser, when, batch->x[picture], (size_t)g->count, error);
}

/* The pictures of a batch take their steps in turn. */
static tessera_status report(void *user, int picture, int steps_done, tessera_error *error) {
    const struct batch *batch = user;
    const struct generation *g = batch->g;
    int steps = g->scheduler->num_steps - g->first_step, before = (batch->first - g->request->first_image) * steps;
    bool ended = steps_done == steps;
    TRY(check_finite(batch, picture, steps_done, error));
    int done = ended ? (picture + 1) * steps : steps_done * batch->count + picture;
    if (ended && picture < batch->count - 1) return TESSERA_OK;
    return generation_report(g, TESSERA_PHASE_DENOISE, before + done, g->image->count * steps, error);
}

/* Passes a step's latents to the caller, channels first. */
static void show_step(void *user, int picture, int steps_done, const float *x, const float *x_0) {
    const struct batch *batch = user;
    const struct generation *g = batch->g;
    float *latents = g->scratch, *predicted = latents + g->count;
    channels_first(latents, x, g->channels, g->positions);
    channels_first(predicted, x_0, g->channels, g->positions);
    const tessera_step step = {.image = batch->first + picture,
                               .done = steps_done,
                               .total = g->scheduler->num_steps - g->first_step,
                               .latent_channels = (int)g->channels,
                               .latent_height = (int)g->rows,
                               .latent_width = (int)g->columns,
                               .latents = latents,
                               .x_0 = predicted};
    g->request->step(g->request->step_user, &step);
}

enum { MAX_SIZE_CONDITIONS = 6 };

/* F32 [batch, n] of the family's size conditions, the same in every row of `values`, in the host's
 * memory; empty if it has none. */
static struct tensor size_conditions(const struct generation *g, int64_t batch, float values[2 * MAX_SIZE_CONDITIONS]) {
    const struct pipeline_class *class = g->pipeline->class;
    if (class->size_conditions == NULL) return (struct tensor){0};
    int n = class->size_conditions(g->request, g->width, g->height, values);
    if (batch == 2) memcpy(values + n, values, (size_t)n * sizeof(float));
    return tensor_of(values, DTYPE_F32, SHAPE(batch, n));
}

/* Noise, or the init picture with noise, as the first step needs it. */
static void noise_sample(struct generation *g, int index, float *x) {
    const float *noise = g->noise + (size_t)index * (size_t)g->count;
    channels_last(g->scratch, noise, g->channels, g->positions);
    if (g->init_latents != NULL)
        g->scheduler->class->add_noise(g->scheduler, g->first_step, x, g->init_latents, g->scratch, (size_t)g->count);
    else
        for (int64_t i = 0; i < g->count; i++) x[i] = g->scratch[i] * g->scheduler->init_noise_sigma;
}

/* A request in the form of denoise.h. */
static struct denoising denoising_of(struct generation *g, const struct component *denoiser, struct tensor sizes, const float *scales) {
    const struct prompt_states *s = &g->states;
    const tessera_request *r = g->request;
    return (struct denoising){
        .denoiser = denoiser->denoiser,
        .stages = g->pipeline->stages,
        .num_stages = g->pipeline->num_stages,
        .scheduler = g->scheduler,
        .team = &g->pipeline->team,
        .run = g->runs[ROLE_DENOISER],
        .workers = g->pipeline->workers,
        .folder = g->pipeline->slots[pipeline_slot_index(g->pipeline, g->pipeline->denoiser)].folder,
        .inputs = {.text = s->text,
                   .pooled = s->pooled,
                   .text_mask = s->text_mask,
                   .text_2 = s->text_2,
                   .text_2_mask = s->text_2_mask,
                   .guidance = g->pipeline->class->distilled ? tensor_of((void *)(uintptr_t)scales, DTYPE_F32, SHAPE(g->guided ? 2 : 1))
                                                             : (struct tensor){0},
                   .size_conditions = sizes},
        .guided = g->guided,
        .guidance_scale = g->guidance_scale,
        .guidance_rescale = r->guidance_rescale,
        .first_step = g->first_step,
        .rows = g->rows,
        .columns = g->columns,
        .channels = g->channels,
        .step_cache = r->step_cache,
        .step_cache_threshold = r->step_cache_threshold,
        .report = report,
        .arrived = r->step != NULL && team_rank(&g->pipeline->team) == 0 ? show_step : NULL,
        .fresh_noise = g->fresh_noise != NULL ? draw_fresh_noise : NULL,
    };
}

/* Moves the encoded prompts to the denoiser's device. */
static tessera_status move_states(struct generation *g, tessera_error *error) {
    struct run *run = g->runs[ROLE_DENOISER];
    struct prompt_states *s = &g->states;
    struct tensor *const states[] = {&s->text, &s->pooled, &s->text_mask, &s->text_2, &s->text_2_mask};
    uint64_t before = run->backend->counts.moved;
    for (size_t i = 0; i < sizeof states / sizeof *states; i++) *states[i] = run_move(run, g->runs[ROLE_TEXT], *states[i]);
    g->image->bytes_moved += run->backend->counts.moved - before;
    return run_status(run, error);
}

/* The rank that gets the pictures is told of steps, and those that take them need to know: also
 * where a device map has all blocks on one. */
static tessera_status agree_on_steps(struct generation *g, bool *shown, tessera_error *error) {
    struct team *team = &g->pipeline->team;
    *shown = g->request->step != NULL && team_rank(team) == 0;
    return team_degree(team, MESH_PIPEFUSION) > 1 ? team_broadcast(team, 0, shown, sizeof *shown, error) : TESSERA_OK;
}

/* Opens this rank's blocks; if it has none, only the description. */
static tessera_status open_denoiser(struct pipeline *p, const struct component **out, tessera_error *error) {
    struct component *opened = NULL;
    if (!pipeline_has_blocks(p)) return pipeline_describe(p, p->denoiser, out, error);
    TRY(pipeline_component(p, p->denoiser, &opened, error));
    *out = opened;
    return TESSERA_OK;
}

tessera_status generation_denoise(struct generation *g, int first, int count, float *const *x, tessera_error *error) {
    const struct component *component;
    TRY(open_denoiser(g->pipeline, &component, error));
    if (first == g->request->first_image) TRY(pipeline_meet(g->pipeline, error));
    if (first == g->request->first_image) TRY(move_states(g, error));
    struct random_generator generators[count];
    struct batch batch = {.g = g, .first = first, .count = count, .generators = generators, .x = x};
    size_t scope = run_enter(g->runs[ROLE_DENOISER]);
    const float scales[2] = {g->request->guidance_scale, g->request->guidance_scale};
    float size_values[2 * MAX_SIZE_CONDITIONS];
    struct tensor sizes = size_conditions(g, g->guided ? 2 : 1, size_values);
    struct denoising d = denoising_of(g, component, sizes, scales);
    d.user = &batch;
    TRY(agree_on_steps(g, &d.shows_x_0, error));
    const float *control[count];
    if (g->control_latents != NULL) d.extra = control, d.extra_channels = g->channels;
    for (int i = 0; i < count; i++) {
        if (d.extra != NULL) control[i] = g->control_latents + (size_t)(first + i) * (size_t)g->count;
        generators[i] = g->generator;
        noise_sample(g, first + i, x[i]);
    }
    TRY(denoise_pictures(&d, count, x, error));
    arena_release(g->runs[ROLE_DENOISER]->arena, scope);
    g->image->blocks += d.blocks;
    g->image->blocks_skipped += d.blocks_skipped;
    return TESSERA_OK;
}
