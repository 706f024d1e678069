/* From a request to pictures: the work that all families have in common.
 *
 *     text:     prompt, negative prompt -> states                              (pipeline_class.encode_prompts)
 *     encode:   init picture -> latents x_0; control picture -> its latents    (picture.c; if the request has such pictures)
 *     denoise:  x_T = noise, or x_s = add_noise(x_0) at the first step kept;   then step by step to x_0 (denoise.c)
 *     decode:   x_0 -> picture                                                 (picture.c)
 *
 * Pictures are made one after the other, so memory does not grow with their number. Their noise is
 * drawn at once, as torch does for a batch. Latents and noise are float32, [rows, columns,
 * channels]. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/strategy.h"
#include "pipelines/channel_order.h"
#include "pipelines/denoise.h"
#include "pipelines/generation.h"
#include "pipelines/request.h"
#include "pipelines/text_ahead.h"

enum { MANY_PATCHES = 8, FEW_ROWS = 15 /* of latents in each */ };

/* Checks that the denoiser is a denoiser and the autoencoder an autoencoder. */
static tessera_status check_kinds(const struct pipeline *p, const struct denoiser *d, const struct autoencoder *vae, tessera_error *error) {
    if (d != NULL && vae != NULL) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: %s is no denoiser or vae no autoencoder, by their config.json", p->folder,
                     p->denoiser);
}

/* Does this rank speak for all that make pictures? */
static bool is_speaker(const struct generation *g) {
    const struct team *team = &g->pipeline->team;
    return team_rank(team) == 0 && team_coordinate(team, MESH_DATA) == 0;
}

/* Gives a notice if the working size is not the requested size. */
static void announce_size(const struct generation *g) {
    const tessera_request *r = g->request;
    bool resized = g->pipeline->class->nearest_size == NULL || g->pipeline->class->scales_back;
    if ((g->width == r->width && g->height == r->height) || !is_speaker(g)) return;
    if (!r->use_resolution_binning || r->init_image != NULL)
        pipeline_notice(g->pipeline, r, "size %dx%d: this model draws %dx%d, the next multiples of 16 below", r->width, r->height, g->width,
                        g->height);
    else if (resized)
        pipeline_notice(g->pipeline, r,
                        "size %dx%d: drawn at %dx%d, the nearest size of the model's training, and scaled (--no-resolution-binning "
                        "draws at the size itself)",
                        r->width, r->height, g->width, g->height);
    else
        pipeline_notice(g->pipeline, r,
                        "size %dx%d: the picture is %dx%d, the nearest size of the model's training (--no-resolution-binning keeps "
                        "the size)",
                        r->width, r->height, g->width, g->height);
}

/* Gives a notice if displaced patches may draw another picture: the published correction of group
 * norms fails with many low patches, as docs/quality.md measures; with 16 rows each its authors
 * found it sound. */
static void announce_patches(const struct generation *g, const struct denoiser *d) {
    const struct strategy_choice *choice = &g->pipeline->team.choice;
    int patches = team_degree(&g->pipeline->team, MESH_PATCH);
    bool corrects = displaced_patches_strategy.applies(choice) && choice->sync_mode == SYNC_CORRECTED_ASYNC_GN;
    bool suspect = patches >= MANY_PATCHES && g->rows / patches <= FEW_ROWS;
    if (!suspect || d->row_unit == 0 || !corrects || !is_speaker(g)) return;
    pipeline_notice(g->pipeline, g->request,
                    "patch %d with sync-mode corrected_async_gn: so many low patches of a U-Net (%lld latent rows each) often draw another "
                    "picture than one process does; --sync-mode stale_gn stays nearer to it",
                    patches, (long long)(g->rows / patches));
}

/* The working size in pixels: one of the bins only if the request has no picture. */
static tessera_status choose_size(struct generation *g, tessera_error *error) {
    const tessera_request *r = g->request;
    g->width = r->width;
    g->height = r->height;
    return pipeline_working_size(g->pipeline, r->use_resolution_binning && r->init_image == NULL, &g->width, &g->height, error);
}

tessera_status pipeline_size_unit(struct pipeline *p, int *out, tessera_error *error) {
    const struct component *denoiser, *vae;
    TRY(pipeline_describe(p, p->denoiser, &denoiser, error));
    TRY(pipeline_describe(p, p->autoencoder, &vae, error));
    TRY(check_kinds(p, denoiser->denoiser, vae->autoencoder, error));
    *out = (int)(vae->autoencoder->scale * denoiser->denoiser->patch_size);
    return TESSERA_OK;
}

static long long nearest_multiple(int side, int64_t unit) {
    int64_t below = side > 0 ? (side + unit / 2) / unit * unit : unit;
    return below > 0 ? below : unit;
}

static tessera_status check_size(const struct generation *g, const struct denoiser *d, int64_t unit, tessera_error *error) {
    if (g->width < 1 || g->height < 1 || g->width % unit != 0 || g->height % unit != 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "size %dx%d: width and height must be multiples of %lld for this model; try %lldx%lld", g->width,
                         g->height, (long long)unit, nearest_multiple(g->width, unit), nearest_multiple(g->height, unit));
    if (g->request->init_image != NULL && (g->width != g->request->width || g->height != g->request->height))
        return error_set(error, TESSERA_ERROR_ARGUMENT, "size %dx%d: this model works at %dx%d: give a starting picture of that size",
                         g->request->width, g->request->height, g->width, g->height);
    int64_t longer = g->width > g->height ? g->width : g->height;
    if (d->max_side > 0 && longer / unit > d->max_side)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "size %dx%d: this model's position embedding ends at %lld pixels a side", g->width,
                         g->height, (long long)(d->max_side * unit));
    return TESSERA_OK;
}

/* A request must have a control picture exactly if the family works from one. */
static tessera_status check_control(const struct generation *g, tessera_error *error) {
    const struct pipeline *p = g->pipeline;
    if (p->class->has_control == (g->request->control_image != NULL)) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_ARGUMENT,
                     p->class->has_control
                         ? "control-image: is missing: %s (%s) draws after a control picture, such as a depth map or edges"
                         : "control-image: %s (%s) takes no control picture: leave it out",
                     p->name, p->class->name);
}

/* Derives the latents' size from what denoiser and autoencoder say of themselves, and what the
 * denoiser wants of the text. */
static tessera_status fit_latents(struct generation *g, const struct denoiser *d, const struct autoencoder *vae, tessera_error *error) {
    struct pipeline *p = g->pipeline;
    TRY(check_kinds(p, d, vae, error));
    TRY(choose_size(g, error));
    announce_size(g);
    TRY(denoiser_check_degrees(d, team_degree(&p->team, MESH_ULYSSES), team_degree(&p->team, MESH_TENSOR), error));
    TRY(check_size(g, d, vae->scale * d->patch_size, error));
    g->rows = g->height / vae->scale;
    g->columns = g->width / vae->scale;
    g->channels = pipeline_latent_channels(p, d);
    if ((d->out_channels != g->channels && d->out_channels != 2 * g->channels) || vae->latent_channels != g->channels ||
        g->channels * (1 + p->class->extra.latents) + p->class->extra.channels != d->in_channels)
        return error_set(error, TESSERA_ERROR_FORMAT,
                         "%s: %s (in_channels %lld, out_channels %lld) and vae (latent_channels %lld) do not fit together", p->folder,
                         p->denoiser, (long long)d->in_channels, (long long)d->out_channels, (long long)vae->latent_channels);
    g->positions = g->rows * g->columns;
    g->count = g->positions * g->channels;
    g->patch_size = d->patch_size;
    announce_patches(g, d);
    p->text_channels = d->text_channels;
    p->pooled_channels = d->pooled_channels;
    return TESSERA_OK;
}

/* Neither component's weights are touched: a rank that does not decode never opens the autoencoder,
 * and where components do not stay open the denoiser is opened once, after the text. */
static tessera_status size_latents(struct generation *g, tessera_error *error) {
    const struct component *denoiser, *vae;
    TRY(pipeline_describe(g->pipeline, g->pipeline->denoiser, &denoiser, error));
    TRY(pipeline_describe(g->pipeline, g->pipeline->autoencoder, &vae, error));
    return fit_latents(g, denoiser->denoiser, vae->autoencoder, error);
}

/* diffusers' get_timesteps in its own double arithmetic: strength is rounded to six decimals, so
 * that 0.6f is Python's 0.6 again (5 steps at 0.6 skip 5 - 3.0 = 2; from 0.6f's own value, a little
 * above 0.6, it would be 1). */
static int first_step_of(int steps, float strength, bool whole) {
    double decimal = rint((double)strength * 1e6) / 1e6;
    double kept = fmin(steps * decimal, steps);
    return (int)fmax(steps - (whole ? floor(kept) : kept), 0.0);
}

static tessera_status open_scheduler(struct generation *g, tessera_error *error) {
    const struct json *config;
    TRY(pipeline_scheduler_config(g->pipeline, &config, error));
    TRY(scheduler_open_with(config, g->request->scheduler, g->request->scheduler_config, &g->scheduler, error));
    g->scheduler->functions = elementary_of(g->runs[ROLE_DENOISER]->backend->reproducible);
    return TESSERA_OK;
}

static tessera_status set_timesteps(struct generation *g, tessera_error *error) {
    const tessera_request *r = g->request;
    const struct pipeline_class *class = g->pipeline->class;
    TRY(open_scheduler(g, error));
    if (g->scheduler->flow_matching != class->flow_matching)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                         "%s: scheduler %s, as it is configured, is not for this model, which was %strained by flow matching: take %s",
                         g->pipeline->folder, g->scheduler->class->name, class->flow_matching ? "" : "not ",
                         class->flow_matching ? "the model's own or FlowMatchEulerDiscreteScheduler (euler)" : "another");
    g->scheduler->sigmas_from_steps = class->sigmas_from_steps;
    int64_t patch = g->patch_size;
    float mu = g->scheduler->needs_mu ? scheduler_mu(g->scheduler, (g->rows / patch) * (g->columns / patch)) : 0.0f;
    TRY(scheduler_set_timesteps(g->scheduler, r->num_inference_steps, mu, error));
    if (r->init_image == NULL) return TESSERA_OK;
    g->keeps_init = r->strength == 0.0f;
    if (g->keeps_init) return TESSERA_OK;
    g->first_step = first_step_of(r->num_inference_steps, r->strength, class->whole_steps);
    if (g->first_step >= r->num_inference_steps)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "strength %g of %d steps leaves no step to do: raise one of them", r->strength,
                         r->num_inference_steps);
    return TESSERA_OK;
}

static tessera_status check_widths(const struct generation *g, tessera_error *error) {
    const struct pipeline *p = g->pipeline;
    int64_t text = g->states.text.shape[2], pooled = g->states.pooled.data != NULL ? g->states.pooled.shape[1] : 0;
    if (text == p->text_channels && (p->pooled_channels == 0 || pooled == p->pooled_channels)) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT,
                     "%s/%s/config.json: the denoiser reads %lld text and %lld pooled channels, but the text encoders give %lld and %lld",
                     p->folder, p->denoiser, (long long)p->text_channels, (long long)p->pooled_channels, (long long)text,
                     (long long)pooled);
}

/* The scale of guidance by a negative prompt; 1 or less: no guidance. */
static float guidance_of(const struct pipeline_class *class, const tessera_request *r) {
    if (!class->distilled) return r->guidance_scale;
    return r->negative_prompt != NULL ? r->true_cfg_scale : 1.0f;
}

/* Ends a phase: closes its component and gives back the pages of its temporaries, if the model is
 * offloaded. */
static void end_phase(struct generation *g, const char *name) {
    if (name != NULL) pipeline_done_with(g->pipeline, name);
    for (int role = 0; role < PIPELINE_ROLES && g->pipeline->offload != OFFLOAD_NONE; role++)
        arena_trim(g->runs[role]->arena, arena_mark(g->runs[role]->arena));
}

static tessera_status tell_text(void *user, int done, int total, tessera_error *error) {
    return generation_report(user, TESSERA_PHASE_TEXT, done, total, error);
}

static tessera_status encode_text(struct generation *g, tessera_error *error) {
    const tessera_request *r = g->request;
    bool distilled = g->pipeline->class->distilled;
    g->guidance_scale = guidance_of(g->pipeline->class, r);
    g->guided = g->guidance_scale > 1.0f;
    if (!g->guided && team_degree(&g->pipeline->team, MESH_CFG) > 1)
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "cfg degree 2: this picture is not guided, so there is one prediction: leave --use-cfg-parallel out%s",
                         distilled ? ", or give --true-cfg-scale and --negative-prompt" : " or raise --guidance-scale above 1");
    struct prompts prompts = {.texts = {r->prompt}, .count = 1, .request = r};
    if (g->guided) prompts = (struct prompts){.texts = {r->negative_prompt, r->prompt}, .count = 2, .request = r};
    prompts.tell = tell_text, prompts.user = g;
    if (g->pipeline->offload != OFFLOAD_NONE) prompts.ahead = g->control->ahead;
    if (prompts.ahead != NULL) prompts.ahead->room = offload_room(g->pipeline, TEXT_AHEAD_BYTES);
    TRY(generation_report(g, TESSERA_PHASE_TEXT, 0, 1, error));
    double start = generation_clock(g);
    TRY(r->states != NULL ? generation_take_states(g, error)
                          : g->pipeline->class->encode_prompts(g->pipeline, g->runs[ROLE_TEXT], r, &prompts, &g->states, error));
    TRY(check_widths(g, error));
    g->image->seconds_text = generation_clock(g) - start;
    g->image->operations_text = g->runs[ROLE_TEXT]->operations;
    end_phase(g, NULL); /* each encoder went when its states were made */
    return generation_report(g, TESSERA_PHASE_TEXT, 1, 1, error);
}

static tessera_status draw_noise(struct generation *g, struct random_generator *generator, tessera_error *error) {
    size_t total = (size_t)g->count * (size_t)g->request->num_images;
    g->noise = malloc(total * sizeof(float));
    if (g->noise == NULL)
        return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for the noise of %d pictures", g->request->num_images);
    const tessera_request *r = g->request;
    if (r->latents != NULL && r->num_latents != total)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "latents: %zu numbers are given; %d of %lldx%lldx%lld are %zu", r->num_latents,
                         r->num_images, (long long)g->channels, (long long)g->rows, (long long)g->columns, total);
    if (r->latents != NULL)
        memcpy(g->noise, r->latents, total * sizeof(float));
    else
        random_normal(generator, g->noise, total);
    if (!g->scheduler->wants_noise) return TESSERA_OK;
    g->fresh_noise = malloc((total + (size_t)g->count) * sizeof(float));
    return g->fresh_noise != NULL ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a sampler's noise");
}

/* Makes the latents of pictures first .. first + count, in x. */
static tessera_status denoise_batch(struct generation *g, int first, int count, float *const *x, tessera_error *error) {
    double start = generation_clock(g), operations = g->runs[ROLE_DENOISER]->operations;
    uint64_t copied = g->runs[ROLE_DENOISER]->backend->counts.copied;
    TRY(generation_denoise(g, g->request->first_image + first, count, x, error));
    g->image->bytes_copied += g->runs[ROLE_DENOISER]->backend->counts.copied - copied;
    g->image->seconds_denoise += generation_clock(g) - start;
    g->image->operations_denoise += g->runs[ROLE_DENOISER]->operations - operations;
    if (first + count == g->image->count) end_phase(g, g->pipeline->denoiser);
    return TESSERA_OK;
}

static tessera_status decode_batch(struct generation *g, int first, int count, float *const *x, tessera_error *error) {
    double start = generation_clock(g), operations = g->runs[ROLE_AUTOENCODER]->operations;
    for (int i = 0; i < count; i++) TRY(generation_decode(g, first + i, x[i], error));
    g->image->seconds_decode += generation_clock(g) - start;
    g->image->operations_decode += g->runs[ROLE_AUTOENCODER]->operations - operations;
    if (first + count == g->image->count) end_phase(g, g->pipeline->autoencoder);
    return TESSERA_OK;
}

/* Decodes a picture as soon as it is denoised; if phases free their components, when all pictures
 * are. */
static tessera_status make_batches(struct generation *g, int at_once, float *const *x, tessera_error *error) {
    int count = g->image->count;
    bool by_phase = g->pipeline->offload != OFFLOAD_NONE;
    for (int i = 0; i < count; i += at_once) {
        int n = count - i < at_once ? count - i : at_once;
        TRY(denoise_batch(g, i, n, x + i, error));
        if (!by_phase) TRY(decode_batch(g, i, n, x + i, error));
    }
    return by_phase ? decode_batch(g, 0, count, x, error) : TESSERA_OK;
}

/* `work` with the latents of all pictures to be made, x[i] [rows, columns, channels], and
 * g->scratch. */
static tessera_status with_latents(struct generation *g, tessera_status (*work)(struct generation *, float *const *x, tessera_error *),
                                   tessera_error *error) {
    size_t count = (size_t)g->image->count;
    float *memory = malloc((count + 2) * (size_t)g->count * sizeof(float)), **x = malloc(count * sizeof *x);
    tessera_status status = TESSERA_OK;
    if (memory == NULL || x == NULL) {
        status = error_set(error, TESSERA_ERROR_MEMORY, "out of memory for the latents of %zu pictures", count);
    } else {
        for (size_t i = 0; i < count; i++) x[i] = memory + i * (size_t)g->count;
        g->scratch = memory + count * (size_t)g->count;
        status = work(g, x, error);
    }
    free(x);
    free(memory);
    return status;
}

static tessera_status make_pictures(struct generation *g, float *const *x, tessera_error *error) {
    return make_batches(g, denoise_at_once(&g->pipeline->team, g->pipeline->workers, g->guided, g->request->step_cache != NULL, g->image->count), x, error);
}

/* Allocates the memory of `count` pictures. */
static tessera_status allocate_pictures(const struct generation *g, tessera_image *image, int count, tessera_error *error) {
    bool gets_pixels = team_rank(&g->pipeline->team) == 0 && !g->request->latents_only;
    size_t pixels = (size_t)count * (size_t)image->width * (size_t)image->height * 3;
    image->pixels = gets_pixels ? malloc(pixels) : NULL;
    image->pixels_f32 = gets_pixels ? malloc(pixels * sizeof(float)) : NULL;
    image->latents = malloc((size_t)count * (size_t)g->count * sizeof(float));
    if ((gets_pixels && (image->pixels == NULL || image->pixels_f32 == NULL)) || image->latents == NULL)
        return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for %d pictures of %dx%d", count, image->width, image->height);
    return TESSERA_OK;
}

static tessera_status allocate_image(struct generation *g, tessera_error *error) {
    tessera_image *image = g->image;
    bool scaled = g->pipeline->class->scales_back; /* others' pictures stay as large as they were worked at */
    const tessera_request *r = g->request;
    *image = (tessera_image){.struct_size = sizeof(tessera_image),
                             .count = r->made_images > 0 ? r->made_images : r->num_images - r->first_image,
                             .width = scaled ? r->width : g->width,
                             .height = scaled ? r->height : g->height,
                             .latent_channels = (int)g->channels,
                             .latent_height = (int)g->rows,
                             .latent_width = (int)g->columns};
    if (r->deliver == NULL) return allocate_pictures(g, image, image->count, error);
    g->one = *image;
    g->one.count = 1;
    return allocate_pictures(g, &g->one, 1, error);
}

/* Workers compute with the model's own weights, without LoRA. */
static tessera_status check_workers(const struct generation *g, tessera_error *error) {
    if (g->pipeline->workers == NULL || lora_set_count(g->pipeline->loras) == 0) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_UNSUPPORTED, "LoRA: changes weights of blocks that workers compute: leave it out, or draw without "
                                                       "workers");
}

/* Does the request make sense, and how large is it? */
static tessera_status begin(struct generation *g, unsigned roles, tessera_error *error) {
    TRY(check_workers(g, error));
    TRY(request_check(g->request, error));
    TRY(size_latents(g, error));
    g->pipeline->held_memory = g->control->ahead != NULL ? g->control->ahead->bytes : 0;
    TRY(offload_choose(g->pipeline, g->request, roles, g->width, g->height, error));
    for (int role = 0; role < PIPELINE_ROLES; role++) offload_set_run(g->pipeline, g->runs[role]);
    for (int i = 0; i < g->pipeline->num_slots; i++) pipeline_done_with(g->pipeline, g->pipeline->slots[i].name); /* of a request before */
    return TESSERA_OK;
}

/* Encodes the given pictures; the autoencoder is loaded again after the last step. */
static tessera_status encode_pictures(struct generation *g, tessera_error *error) {
    TRY(generation_encode(g, &g->generator, error));
    end_phase(g, g->pipeline->autoencoder);
    return TESSERA_OK;
}

/* The phases of a request for pictures. */
static unsigned roles_of(const tessera_request *r) {
    bool has_pixels = !r->latents_only || r->init_image != NULL || r->control_image != NULL;
    return 1u << ROLE_DENOISER | (r->states == NULL ? 1u << ROLE_TEXT : 0) | (has_pixels ? 1u << ROLE_AUTOENCODER : 0);
}

static tessera_status generate(struct generation *g, tessera_error *error) {
    TRY(begin(g, roles_of(g->request), error));
    TRY(check_control(g, error));
    TRY(allocate_image(g, error));
    TRY(set_timesteps(g, error));
    random_seed(&g->generator, g->request->seed);
    g->generator.functions = elementary_of(g->runs[ROLE_DENOISER]->backend->reproducible);
    if (g->keeps_init) {
        TRY(encode_pictures(g, error));
        return generation_keep_init(g, error);
    }
    TRY(encode_text(g, error));
    TRY(encode_pictures(g, error));
    TRY(draw_noise(g, &g->generator, error));
    return with_latents(g, make_pictures, error);
}

static tessera_status encode_alone(struct generation *g, tessera_error *error) {
    TRY(begin(g, 1u << ROLE_TEXT, error));
    TRY(encode_text(g, error));
    return generation_give_states(g, g->states_out, error);
}

static tessera_status decode_given(struct generation *g, float *const *x, tessera_error *error) {
    for (int i = 0; i < g->image->count; i++)
        channels_last(x[i], g->given_latents + (size_t)i * (size_t)g->count, g->channels, g->positions);
    return decode_batch(g, 0, g->image->count, x, error);
}

static tessera_status decode_alone(struct generation *g, tessera_error *error) {
    TRY(begin(g, 1u << ROLE_AUTOENCODER, error));
    TRY(allocate_image(g, error));
    size_t wanted = (size_t)g->count * (size_t)g->image->count;
    if (g->given_values != wanted)
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "latents: %zu numbers, but %d pictures of %dx%d have %zu: give the size that they were made for", g->given_values,
                         g->image->count, g->request->width, g->request->height, wanted);
    for (size_t i = 0; i < wanted; i++)
        if (!isfinite(g->given_latents[i])) return error_set(error, TESSERA_ERROR_FORMAT, "latents: hold NaN or infinity");
    return with_latents(g, decode_given, error);
}

int pipeline_at_once(const struct pipeline *p, const tessera_request *r) {
    return denoise_at_once(&p->team, p->workers, guidance_of(p->class, r) > 1.0f, r->step_cache != NULL, r->num_images > 0 ? r->num_images : 1);
}

/* Opens a run for each backend that some role uses. */
static tessera_status open_runs(struct generation *g, tessera_error *error) {
    const struct pipeline *p = g->pipeline;
    for (int role = 0; role < PIPELINE_ROLES; role++) {
        int same = 0;
        while (p->backends[same] != p->backends[role]) same++;
        g->runs[role] = &g->own[same];
        if (same < role) continue;
        struct arena *arena = p->backends[role]->ops->arena(p->backends[role], g->control->memory_limit, error);
        g->own[role] = (struct run){.backend = p->backends[role], .arena = arena, .dtype = p->dtype, .strip_bytes = PIPELINE_STRIP_BYTES};
        if (arena == NULL) return error->status;
    }
    return TESSERA_OK;
}

/* Runs some phases: g has pipeline, request, control and image. */
static tessera_status run_phases(struct generation *g, tessera_status (*phases)(struct generation *, tessera_error *),
                                 tessera_error *error) {
    struct pipeline *p = g->pipeline;
    double loaded = p->seconds_load;
    p->disk = (struct stream_counts){0};
    tessera_status status = adapters_use(p, g->request, error);
    if (status == TESSERA_OK) status = open_runs(g, error);
    if (status == TESSERA_OK) status = phases(g, error);
    if (status != TESSERA_OK) team_job_fail(&p->team, error); /* before buffers go: nothing more comes into them */
    for (int i = 0; status != TESSERA_OK && i < p->num_slots; i++) pipeline_done_with(p, p->slots[i].name);
    g->image->seconds_load = p->seconds_load - loaded;
    g->image->disk_bytes = p->disk.bytes_read;
    g->image->seconds_disk = p->disk.seconds_waited;
    for (int role = 0; role < PIPELINE_ROLES; role++) arena_free(g->own[role].arena);
    scheduler_free(g->scheduler);
    free(g->noise);
    free(g->fresh_noise);
    free(g->init_latents);
    free(g->control_latents);
    tessera_image_free(&g->one);
    if (status != TESSERA_OK) tessera_image_free(g->image);
    return status;
}

tessera_status pipeline_generate(struct pipeline *p, const tessera_request *request, const struct generation_control *control,
                                 tessera_image *image, tessera_error *error) {
    struct generation g = {.pipeline = p, .request = request, .control = control, .image = image};
    return run_phases(&g, generate, error);
}

tessera_status pipeline_encode(struct pipeline *p, const tessera_request *request, const struct generation_control *control,
                               tessera_states *states, tessera_image *costs, tessera_error *error) {
    struct generation g = {.pipeline = p, .request = request, .control = control, .image = costs, .states_out = states};
    return run_phases(&g, encode_alone, error);
}

tessera_status pipeline_decode(struct pipeline *p, const tessera_request *request, const float *latents, size_t values, tessera_image *image,
                               tessera_error *error) {
    const struct generation_control control = {0};
    struct generation g = {.pipeline = p, .request = request, .control = &control, .image = image, .given_latents = latents, .given_values = values};
    return run_phases(&g, decode_alone, error);
}

