/* From a request to pictures: what all families share.
 *
 *     text:     prompt, negative prompt -> states                              (pipeline_class.encode_prompts)
 *     encode:   init picture -> latents x_0                                    (picture to picture only)
 *     denoise:  x_T = noise, or x_s = add_noise(x_0) at the first step kept;   each step:
 *               e = denoiser(x, t);  e = e_negative + guidance (e_prompt - e_negative)   (Ho and Salimans 2022, equation 6)
 *               x = scheduler_step(x, e)
 *     decode:   x_0 / scaling + shift -> picture
 *
 * Pictures are made one after the other, so memory does not grow with their number; noise is drawn for all at once, as torch does for a
 * batch. Latents and noise live in float32, [rows, columns, channels]. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/random.h"
#include "pipelines/layout.h"
#include "pipelines/pipeline.h"

/* Feature maps of the autoencoder larger than this are worked on in strips of rows. */
#define STRIP_BYTES ((size_t)64 << 20)

struct generation {
    struct pipeline *pipeline;
    const tessera_request *request;
    tessera_image *image;
    struct run run;
    struct scheduler *scheduler;
    struct prompt_states states;     /* row 0 the negative prompt's when guided */
    int64_t rows, columns, channels; /* of the latents */
    int64_t positions, count;        /* rows * columns; times channels */
    int64_t patch_size;
    int first_step; /* picture to picture skips the steps before */
    bool guided;
    struct random_generator generator; /* after the pictures' noise is drawn, where each picture's fresh noise begins */
    float *noise;                      /* [num_images, channels, rows, columns] as drawn */
    float *fresh_noise;  /* of one step: like noise, then [rows, columns, channels] of one picture; NULL if the sampler wants none */
    float *init_latents; /* [rows, columns, channels], or NULL */
};

static tessera_status report(const struct generation *g, tessera_phase phase, int done, int total, tessera_error *error) {
    if (g->request->progress == NULL || g->request->progress(g->request->progress_user, phase, done, total)) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_CANCELLED, "stopped on request");
}

static tessera_status run_status(const struct run *run, tessera_error *error) {
    if (run_failed(run) && error != NULL) *error = run->error;
    return run->error.status;
}

static tessera_status check_request(const tessera_request *r, tessera_error *error) {
    if (r->prompt == NULL) return error_set(error, TESSERA_ERROR_ARGUMENT, "prompt: is missing");
    if (r->num_inference_steps < 1)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "steps: %d: at least 1 is needed", r->num_inference_steps);
    if (r->num_images < 1 || r->first_image < 0 || r->first_image >= r->num_images)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "num-images: pictures %d to %d: none to make", r->first_image, r->num_images - 1);
    if (!isfinite(r->guidance_scale)) return error_set(error, TESSERA_ERROR_ARGUMENT, "guidance-scale: must be a finite number");
    if (r->max_sequence_length < 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "max-sequence-length: %d: must not be negative", r->max_sequence_length);
    if (!(r->strength >= 0.0f && r->strength <= 1.0f))
        return error_set(error, TESSERA_ERROR_ARGUMENT, "strength: %g: must lie between 0 and 1", r->strength);
    return TESSERA_OK;
}

/* Derives the latents' size from denoiser and autoencoder, and what the denoiser wants of the text. Where components do not stay open,
 * neither is in memory while the text is encoded. */
static tessera_status size_latents(struct generation *g, tessera_error *error) {
    const tessera_request *r = g->request;
    struct component *transformer, *vae;
    TRY(pipeline_component(g->pipeline, "transformer", &transformer, error));
    TRY(pipeline_component(g->pipeline, "vae", &vae, error));
    if (transformer->denoiser == NULL || vae->autoencoder == NULL)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: transformer is no denoiser or vae no autoencoder, by their config.json",
                         g->pipeline->folder);
    const struct denoiser *d = transformer->denoiser;
    int64_t scale = vae->autoencoder->scale, unit = scale * d->patch_size;
    if (r->width < 1 || r->height < 1 || r->width % unit != 0 || r->height % unit != 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "size %dx%d: width and height must be multiples of %lld for this model", r->width,
                         r->height, (long long)unit);
    g->rows = r->height / scale;
    g->columns = r->width / scale;
    if (d->max_patches > 0 && (g->rows / d->patch_size > d->max_patches || g->columns / d->patch_size > d->max_patches))
        return error_set(error, TESSERA_ERROR_ARGUMENT, "size %dx%d: this model's position embedding ends at %lld pixels a side", r->width,
                         r->height, (long long)(d->max_patches * unit));
    g->channels = d->in_channels;
    if (d->out_channels != d->in_channels || vae->autoencoder->latent_channels != g->channels)
        return error_set(error, TESSERA_ERROR_FORMAT,
                         "%s: transformer (in_channels %lld, out_channels %lld) and vae (latent_channels %lld) do not fit together",
                         g->pipeline->folder, (long long)d->in_channels, (long long)d->out_channels,
                         (long long)vae->autoencoder->latent_channels);
    g->positions = g->rows * g->columns;
    g->count = g->positions * g->channels;
    g->patch_size = d->patch_size;
    g->pipeline->text_channels = d->text_channels;
    g->pipeline->pooled_channels = d->pooled_channels;
    pipeline_done_with(g->pipeline, "transformer");
    pipeline_done_with(g->pipeline, "vae");
    return TESSERA_OK;
}

/* diffusers' get_timesteps in its own double arithmetic: strength is rounded to six decimals, so that 0.6f is Python's 0.6 again
 * (5 steps at 0.6 skip 5 - 3.0 = 2; from 0.6f's own value, a little above 0.6, it would be 1). */
static int first_step_of(int steps, float strength) {
    double decimal = rint((double)strength * 1e6) / 1e6;
    double kept = fmin(steps * decimal, steps);
    return (int)fmax(steps - kept, 0.0);
}

static tessera_status set_timesteps(struct generation *g, tessera_error *error) {
    char path[4096];
    const tessera_request *r = g->request;
    snprintf(path, sizeof path, "%s/scheduler", g->pipeline->folder);
    TRY(scheduler_open(path, r->scheduler, &g->scheduler, error));
    if (g->scheduler->class->flow_matching != g->pipeline->class->flow_matching)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: scheduler %s is not for this model, which was %strained by flow matching",
                         g->pipeline->folder, g->scheduler->class->name, g->pipeline->class->flow_matching ? "" : "not ");
    int64_t patch = g->patch_size;
    float mu = g->scheduler->needs_mu ? scheduler_mu(g->scheduler, (g->rows / patch) * (g->columns / patch)) : 0.0f;
    TRY(scheduler_set_timesteps(g->scheduler, r->num_inference_steps, mu, error));
    if (r->init_image == NULL) return TESSERA_OK;
    g->first_step = first_step_of(r->num_inference_steps, r->strength);
    if (g->first_step >= r->num_inference_steps)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "strength %g of %d steps leaves no step to do: raise one of them", r->strength,
                         r->num_inference_steps);
    return TESSERA_OK;
}

static tessera_status encode_text(struct generation *g, tessera_error *error) {
    const tessera_request *r = g->request;
    const char *prompts[2] = {r->negative_prompt != NULL ? r->negative_prompt : "", r->prompt};
    g->guided = r->guidance_scale > 1.0f;
    TRY(report(g, TESSERA_PHASE_TEXT, 0, 1, error));
    double start = clock_seconds();
    TRY(g->pipeline->class->encode_prompts(g->pipeline, &g->run, prompts + !g->guided, 1 + g->guided, r->max_sequence_length, &g->states,
                                           error));
    g->image->seconds_text = clock_seconds() - start;
    g->image->operations_text = g->run.operations;
    return report(g, TESSERA_PHASE_TEXT, 1, 1, error);
}

/* z = mean + exp(logvar / 2) noise; x_0 = (z - shift) * scaling. moments [rows, columns, 2 channels], noise as torch draws it. */
static void sample_latents(struct generation *g, const struct autoencoder *vae, const float *moments, const float *noise) {
    for (int64_t i = 0; i < g->positions; i++)
        for (int64_t c = 0; c < g->channels; c++) {
            const float *m = moments + i * 2 * g->channels + c;
            float z = m[0] + expf(0.5f * m[g->channels]) * noise[c * g->positions + i];
            g->init_latents[i * g->channels + c] = (z - vae->shift_factor) * vae->scaling_factor;
        }
}

/* The init picture's latents; draws from the generator first, as diffusers' latent_dist.sample does. */
static tessera_status encode_init_image(struct generation *g, struct random_generator *generator, tessera_error *error) {
    const tessera_request *r = g->request;
    struct component *vae;
    TRY(pipeline_component(g->pipeline, "vae", &vae, error));
    if (!vae->autoencoder->has_encoder)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s/vae: has no encoder: picture to picture needs one", g->pipeline->folder);
    TRY(report(g, TESSERA_PHASE_ENCODE, 0, 1, error));
    double start = clock_seconds();
    g->init_latents = malloc((size_t)g->count * sizeof(float));
    float *noise = malloc((size_t)g->count * sizeof(float));
    size_t scope = run_enter(&g->run);
    struct tensor pixels = run_tensor(&g->run, DTYPE_F32, SHAPE(1, r->height, r->width, 3));
    tessera_status status =
        g->init_latents == NULL || noise == NULL ? error_set(error, TESSERA_ERROR_MEMORY, "out of memory") : run_status(&g->run, error);
    if (status == TESSERA_OK) {
        for (int64_t i = 0; i < (int64_t)r->width * r->height * 3; i++)
            ((float *)pixels.data)[i] = (float)r->init_image[i] / 255.0f * 2.0f - 1.0f;
        struct tensor moments = autoencoder_kl_encode(vae->autoencoder, &g->run, pixels);
        status = run_status(&g->run, error);
        if (status == TESSERA_OK) {
            random_normal(generator, noise, (size_t)g->count);
            sample_latents(g, vae->autoencoder, moments.data, noise);
        }
    }
    arena_trim(g->run.arena, scope);
    free(noise);
    g->image->seconds_encode = clock_seconds() - start;
    return status == TESSERA_OK ? report(g, TESSERA_PHASE_ENCODE, 1, 1, error) : status;
}

static tessera_status draw_noise(struct generation *g, struct random_generator *generator, tessera_error *error) {
    size_t total = (size_t)g->count * (size_t)g->request->num_images;
    g->noise = malloc(total * sizeof(float));
    if (g->noise == NULL)
        return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for the noise of %d pictures", g->request->num_images);
    random_normal(generator, g->noise, total);
    if (!g->scheduler->wants_noise) return TESSERA_OK;
    g->fresh_noise = malloc((total + (size_t)g->count) * sizeof(float));
    return g->fresh_noise != NULL ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a sampler's noise");
}

/* The denoiser's prediction for sample x, guided: into out [count]. */
static tessera_status predict(struct generation *g, const struct denoiser *d, int step, const float *x, float *out, tessera_error *error) {
    struct run *run = &g->run;
    int64_t batch = 1 + g->guided;
    float t = g->scheduler->timesteps[step], timesteps[2] = {t, t}, s = g->request->guidance_scale;
    size_t scope = run_enter(run);
    struct tensor latents = run_tensor(run, DTYPE_F32, SHAPE(batch, g->rows, g->columns, g->channels));
    TRY(run_status(run, error));
    for (int64_t b = 0; b < batch; b++)
        g->scheduler->class->scale_model_input(g->scheduler, step, (float *)latents.data + b * g->count, x, (size_t)g->count);
    struct denoiser_inputs inputs = {.latents = latents, .timesteps = timesteps, .text = g->states.text, .pooled = g->states.pooled};
    struct tensor e = denoiser_forward(d, run, &inputs);
    TRY(run_status(run, error));
    const float *first = e.data, *second = first + g->count;
    if (g->guided)
        for (int64_t i = 0; i < g->count; i++) out[i] = first[i] + s * (second[i] - first[i]);
    else
        memcpy(out, first, (size_t)g->count * sizeof(float));
    arena_release(run->arena, scope);
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
    int made = index - g->request->first_image, steps = g->scheduler->num_steps - g->first_step;
    struct random_generator generator = g->generator;
    struct component *component;
    TRY(pipeline_component(g->pipeline, "transformer", &component, error));
    for (int i = 0; i < steps; i++) {
        TRY(report(g, TESSERA_PHASE_DENOISE, made * steps + i, g->image->count * steps, error));
        TRY(predict(g, component->denoiser, g->first_step + i, x, prediction, error));
        scheduler_step(g->scheduler, state, g->first_step + i, x, prediction, draw_fresh_noise(g, &generator, index), (size_t)g->count);
    }
    return report(g, TESSERA_PHASE_DENOISE, (made + 1) * steps, g->image->count * steps, error);
}

/* Latents of picture `index` into x. */
static tessera_status denoise(struct generation *g, int index, float *x, float *prediction, tessera_error *error) {
    struct scheduler_state state;
    layout_channels_last(prediction, g->noise + (size_t)index * g->count, g->channels, g->positions);
    if (g->init_latents != NULL)
        g->scheduler->class->add_noise(g->scheduler, g->first_step, x, g->init_latents, prediction, (size_t)g->count);
    else
        for (int64_t i = 0; i < g->count; i++) x[i] = prediction[i] * g->scheduler->init_noise_sigma;
    TRY(scheduler_state_init(g->scheduler, (size_t)g->count, &state, error));
    tessera_status status = take_steps(g, index, x, prediction, &state, error);
    scheduler_state_free(&state);
    return status;
}

static void store_pixels(float *out, uint8_t *bytes, const float *picture, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        float value = fminf(fmaxf(picture[i] * 0.5f + 0.5f, 0.0f), 1.0f);
        out[i] = value;
        bytes[i] = (uint8_t)lrintf(value * 255.0f);
    }
}

static tessera_status decode(struct generation *g, int made, const float *x, tessera_error *error) {
    struct component *component;
    TRY(report(g, TESSERA_PHASE_DECODE, made, g->image->count, error));
    TRY(pipeline_component(g->pipeline, "vae", &component, error));
    const struct autoencoder *vae = component->autoencoder;
    size_t scope = run_enter(&g->run);
    struct tensor z = run_tensor(&g->run, DTYPE_F32, SHAPE(1, g->rows, g->columns, g->channels));
    TRY(run_status(&g->run, error));
    for (int64_t i = 0; i < g->count; i++) ((float *)z.data)[i] = x[i] / vae->scaling_factor + vae->shift_factor;
    struct tensor picture = g->pipeline->vae_tiling ? autoencoder_kl_decode_tiled(vae, &g->run, z) : autoencoder_kl_decode(vae, &g->run, z);
    TRY(run_status(&g->run, error));
    int64_t count = (int64_t)g->image->width * g->image->height * 3;
    store_pixels(g->image->pixels_f32 + made * count, g->image->pixels + made * count, picture.data, count);
    layout_channels_first(g->image->latents + made * g->count, x, g->channels, g->positions);
    arena_trim(g->run.arena, scope);
    return report(g, TESSERA_PHASE_DECODE, made + 1, g->image->count, error);
}

static tessera_status make_pictures(struct generation *g, tessera_error *error) {
    float *x = malloc((size_t)g->count * sizeof(float)), *prediction = malloc((size_t)g->count * sizeof(float));
    tessera_status status = x == NULL || prediction == NULL ? error_set(error, TESSERA_ERROR_MEMORY, "out of memory") : TESSERA_OK;
    for (int i = g->request->first_image; i < g->request->num_images && status == TESSERA_OK; i++) {
        double start = clock_seconds(), operations = g->run.operations;
        status = denoise(g, i, x, prediction, error);
        g->image->seconds_denoise += clock_seconds() - start;
        g->image->operations_denoise += g->run.operations - operations;
        if (i + 1 == g->request->num_images) pipeline_done_with(g->pipeline, "transformer");
        if (status != TESSERA_OK) break;
        start = clock_seconds(), operations = g->run.operations;
        status = decode(g, i - g->request->first_image, x, error);
        g->image->seconds_decode += clock_seconds() - start;
        g->image->operations_decode += g->run.operations - operations;
    }
    free(x);
    free(prediction);
    return status;
}

static tessera_status allocate_image(struct generation *g, tessera_error *error) {
    tessera_image *image = g->image;
    *image = (tessera_image){.count = g->request->num_images - g->request->first_image,
                             .width = g->request->width,
                             .height = g->request->height,
                             .latent_channels = (int)g->channels,
                             .latent_height = (int)g->rows,
                             .latent_width = (int)g->columns};
    size_t pixels = (size_t)image->count * (size_t)image->width * (size_t)image->height * 3;
    image->pixels = malloc(pixels);
    image->pixels_f32 = malloc(pixels * sizeof(float));
    image->latents = malloc((size_t)image->count * (size_t)g->count * sizeof(float));
    if (image->pixels == NULL || image->pixels_f32 == NULL || image->latents == NULL)
        return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for %d pictures of %dx%d", image->count, image->width, image->height);
    return TESSERA_OK;
}

static tessera_status generate(struct generation *g, tessera_error *error) {
    TRY(check_request(g->request, error));
    TRY(size_latents(g, error));
    TRY(allocate_image(g, error));
    TRY(set_timesteps(g, error));
    TRY(encode_text(g, error));
    random_seed(&g->generator, g->request->seed);
    if (g->request->init_image != NULL) TRY(encode_init_image(g, &g->generator, error));
    TRY(draw_noise(g, &g->generator, error));
    return make_pictures(g, error);
}

tessera_status pipeline_generate(struct pipeline *p, const tessera_request *request, tessera_image *image, tessera_error *error) {
    struct generation g = {.pipeline = p, .request = request, .image = image};
    g.run = (struct run){.backend = p->backend, .arena = p->arena, .dtype = p->dtype, .strip_bytes = STRIP_BYTES};
    tessera_status status = generate(&g, error);
    arena_trim(p->arena, 0);
    scheduler_free(g.scheduler);
    free(g.noise);
    free(g.fresh_noise);
    free(g.init_latents);
    if (status != TESSERA_OK) tessera_image_free(image);
    return status;
}
