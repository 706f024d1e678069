/* The denoising loop of one picture: from noise to latents.
 *
 *     e = denoiser(x, t), for the negative prompt and the prompt at once
 *     e = e_negative + s (e_prompt - e_negative)                                    (Ho and Salimans 2022, equation 6)
 *     e = phi e std(e_prompt) / std(e) + (1 - phi) e                                (Lin et al. 2023, equations 15 and 16)
 *     x = scheduler_step(x, e)
 *
 * A denoiser that also predicts a variance (learned sigma) has twice the channels: the first half is e. */
#include <math.h>
#include <string.h>

#include "pipelines/generation.h"
#include "pipelines/layout.h"

static double deviation(const float *x, int64_t count) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < count; i++) sum += x[i];
    double mean = sum / (double)count;
    for (int64_t i = 0; i < count; i++) squares += (x[i] - mean) * (x[i] - mean);
    return sqrt(squares / (double)count);
}

/* Gives e the deviation that the prompt's own prediction has, by the share `rescale`. */
static void rescale_guided(float *e, const float *prompt, int64_t count, float rescale) {
    float ratio = (float)(deviation(prompt, count) / deviation(e, count));
    for (int64_t i = 0; i < count; i++) e[i] = rescale * (e[i] * ratio) + (1.0f - rescale) * e[i];
}

/* The first g->channels of each position's channels, in place and in order. */
static void drop_variance(const struct generation *g, float *e, int64_t batch, int64_t channels) {
    if (channels == g->channels) return;
    for (int64_t i = 0; i < batch * g->positions; i++) memmove(e + i * g->channels, e + i * channels, (size_t)g->channels * sizeof(float));
}

/* F32 [batch, n] of the family's size conditions, the same in every row; empty if it has none. */
static struct tensor size_conditions(struct generation *g, int64_t batch) {
    const struct pipeline_class *class = g->pipeline->class;
    float values[6];
    if (class->size_conditions == NULL) return (struct tensor){0};
    int n = class->size_conditions(g->request, g->width, g->height, values);
    struct tensor t = run_tensor(&g->run, DTYPE_F32, SHAPE(batch, n));
    for (int64_t b = 0; b < batch && t.data != NULL; b++) memcpy((float *)t.data + b * n, values, (size_t)n * sizeof(float));
    return t;
}

/* Row `row` of a state of both prompts, or both rows (row -1). */
static struct tensor row_of(struct tensor state, int row) {
    if (row < 0 || state.data == NULL || state.shape[0] == 1) return state;
    state.shape[0] = 1;
    state.data = (char *)state.data + (size_t)row * tensor_bytes(&state);
    return state;
}

/* The denoiser's outputs for sample x, F32 [batch, rows, columns, channels or more]: for both prompts, or for one of them (row). */
static struct tensor run_denoiser(struct generation *g, const struct denoiser *d, int step, const float *x, int row) {
    struct run *run = &g->run;
    int64_t batch = g->guided && row < 0 ? 2 : 1;
    float t = g->scheduler->timesteps[step], timesteps[2] = {t, t}, scale = g->request->guidance_scale, scales[2] = {scale, scale};
    struct tensor latents = run_tensor(run, DTYPE_F32, SHAPE(batch, g->rows, g->columns, g->channels));
    struct tensor sizes = size_conditions(g, batch);
    if (run_failed(run)) return latents;
    for (int64_t b = 0; b < batch; b++)
        g->scheduler->class->scale_model_input(g->scheduler, step, (float *)latents.data + b * g->count, x, (size_t)g->count);
    const struct prompt_states *s = &g->states;
    struct denoiser_inputs inputs = {
        .latents = latents,
        .timesteps = timesteps,
        .text = row_of(s->text, row),
        .pooled = row_of(s->pooled, row),
        .text_mask = row_of(s->text_mask, row),
        .text_2 = row_of(s->text_2, row),
        .text_2_mask = row_of(s->text_2_mask, row),
        .guidance = g->pipeline->class->distilled ? tensor_of(scales, DTYPE_F32, SHAPE(batch)) : (struct tensor){0},
        .size_conditions = sizes,
    };
    const struct team *team = &g->pipeline->team;
    if (team_degree(team, MESH_PATCH) == 1 || !team->naive_patch) return denoiser_forward(d, run, &inputs);
    return naive_patch_forward(d, run, team->mesh->group[MESH_PATCH], team->split, step - g->first_step, &inputs);
}

/* The predictions for sample x, F32 [1 or 2, count]: where the two of guidance are two ranks' work, each makes one and they exchange them. */
static const float *predictions(struct generation *g, const struct denoiser *d, int step, const float *x, tessera_error *error) {
    struct team *team = &g->pipeline->team;
    bool cut = g->guided && team_degree(team, MESH_CFG) == 2;
    struct tensor outputs = run_denoiser(g, d, step, x, cut ? team_coordinate(team, MESH_CFG) : -1);
    struct tensor both = cut ? run_tensor(&g->run, DTYPE_F32, SHAPE(2, g->count)) : outputs;
    if (run_status(&g->run, error) != TESSERA_OK) return NULL;
    drop_variance(g, outputs.data, outputs.shape[0], outputs.shape[3]);
    if (!cut) return outputs.data;
    size_t bytes = (size_t)g->count * sizeof(float);
    comm_label(team->mesh->group[MESH_CFG], "cfg");
    tessera_status status = comm_all_gather(team->mesh->group[MESH_CFG], outputs.data, both.data, (const size_t[]){bytes, bytes}, error);
    return status == TESSERA_OK ? both.data : NULL;
}

/* The guided prediction for sample x: into out [count]. */
static tessera_status predict(struct generation *g, const struct denoiser *d, int step, const float *x, float *out, tessera_error *error) {
    size_t scope = run_enter(&g->run);
    g->run.parallel = team_denoiser(&g->pipeline->team);
    const float *e = predictions(g, d, step, x, error);
    float s = g->guidance_scale;
    g->run.parallel = NULL;
    if (e == NULL) return error != NULL ? error->status : TESSERA_ERROR_INTERNAL;
    const float *prompt = e + g->count;
    if (!g->guided) {
        memcpy(out, e, (size_t)g->count * sizeof(float));
    } else {
        for (int64_t i = 0; i < g->count; i++) out[i] = e[i] + s * (prompt[i] - e[i]);
        if (g->request->guidance_rescale > 0.0f) rescale_guided(out, prompt, g->count, g->request->guidance_rescale);
    }
    arena_release(g->run.arena, scope);
    return TESSERA_OK;
}

/* What a stochastic sampler adds in one step to picture `index`: as torch does, drawn for all pictures at once, though only one is worked
 * on. NULL if the sampler wants none. */
static const float *draw_fresh_noise(struct generation *g, struct random_generator *generator, int index) {
    if (g->fresh_noise == NULL) return NULL;
    size_t total = (size_t)g->count * (size_t)g->request->num_images;
    random_normal(generator, g->fresh_noise, total);
    layout_channels_last(g->fresh_noise + total, g->fresh_noise + (size_t)index * g->count, g->channels, g->positions);
    return g->fresh_noise + total;
}

/* From x, noised as the first step wants it, to latents. */
static tessera_status take_steps(struct generation *g, int index, float *x, float *prediction, struct scheduler_state *state,
                                 tessera_error *error) {
    int made = index - g->request->first_image, steps = g->scheduler->num_steps - g->first_step, all = g->image->count * steps;
    struct random_generator generator = g->generator;
    struct component *component;
    TRY(pipeline_component(g->pipeline, g->pipeline->denoiser, &component, error));
    for (int i = 0; i < steps; i++) {
        TRY(generation_report(g, TESSERA_PHASE_DENOISE, made * steps + i, all, error));
        displaced_step(&g->pipeline->team.displaced, i);
        TRY(predict(g, component->denoiser, g->first_step + i, x, prediction, error));
        scheduler_step(g->scheduler, state, g->first_step + i, x, prediction, draw_fresh_noise(g, &generator, index), (size_t)g->count);
    }
    return generation_report(g, TESSERA_PHASE_DENOISE, (made + 1) * steps, all, error);
}

tessera_status generation_denoise(struct generation *g, int index, float *x, float *prediction, tessera_error *error) {
    struct scheduler_state state;
    layout_channels_last(prediction, g->noise + (size_t)index * g->count, g->channels, g->positions);
    if (g->init_latents != NULL)
        g->scheduler->class->add_noise(g->scheduler, g->first_step, x, g->init_latents, prediction, (size_t)g->count);
    else
        for (int64_t i = 0; i < g->count; i++) x[i] = prediction[i] * g->scheduler->init_noise_sigma;
    TRY(scheduler_state_init(g->scheduler, (size_t)g->count, &state, error));
    tessera_status status = take_steps(g, index, x, prediction, &state, error);
    scheduler_state_free(&state);
    tessera_status last = displaced_reset(&g->pipeline->team.displaced, status == TESSERA_OK ? error : NULL);
    return status != TESSERA_OK ? status : last;
}
