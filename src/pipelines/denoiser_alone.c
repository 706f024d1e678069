/* tessera_sample: the denoising loop for authors who try out a model, with raw inputs in place of a
 * pipeline's prompts.
 *
 *     folder -> denoiser's description -> mesh, patches, stages -> this rank's weights -> denoise_pictures of one picture
 *
 * The call opens everything and closes it at its end. */
#include "tessera_model.h"

#include <math.h>
#include <stdlib.h>

#include "base/random.h"
#include "models/registry.h"
#include "pipelines/channel_order.h"
#include "pipelines/denoise.h"
#include "pipelines/options.h"
#include "pipelines/pipeline.h"
#include "pipelines/world.h"

struct sampler {
    tessera_sampling *asked;
    tessera_mesh mesh;
    struct team team;
    struct stages stages;
    struct component described, component; /* without weights; this rank's share */
    struct scheduler *scheduler;
    struct backend *backend;
    struct run run;
    struct random_generator generator; /* of a stochastic sampler's noise */
    float *noise;                      /* [2, channels, rows, columns]: as drawn, and as latents lie; NULL: none is drawn */
};

/* ---- checks ---- */

static tessera_status check_options(const tessera_sampling *asked, const tessera_mesh *mesh, tessera_error *error) {
    if (mesh->map != NULL) return error_set(error, TESSERA_ERROR_ARGUMENT, "mesh.map: is of a whole model, and tessera_sample has a denoiser alone");
    if (asked->denoiser == NULL || asked->scheduler == NULL)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_sample: the denoiser's or the scheduler's folder is NULL");
    enum dtype dtype;
    TRY(dtype_of_activations(asked->dtype, &dtype, error));
    if (asked->num_denoisers < 0 || (asked->num_denoisers > 0 && asked->denoisers == NULL))
        return error_set(error, TESSERA_ERROR_ARGUMENT, "denoisers: %d of them, but denoisers is %s", asked->num_denoisers,
                         asked->denoisers == NULL ? "NULL" : "given");
    if (asked->num_inference_steps < 1)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "steps: %d: at least 1", asked->num_inference_steps);
    if (!isfinite(asked->guidance_scale) || !isfinite(asked->guidance_rescale))
        return error_set(error, TESSERA_ERROR_ARGUMENT, "guidance_scale and guidance_rescale must be finite");
    if (asked->guidance_scale == 0.0f && mesh->cfg > 1)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "cfg degree %d: without guidance there is one prediction", mesh->cfg);
    return TESSERA_OK;
}

/* Each input is there for each prompt, or not at all. */
static tessera_status check_inputs(const tessera_sampling *asked, tessera_error *error) {
    const struct denoiser_inputs *in = &asked->inputs;
    int64_t prompts = asked->guidance_scale != 0.0f ? 2 : 1;
    const struct {
        const char *name;
        const struct tensor *tensor;
    } inputs[] = {
        {"text", &in->text},
        {"pooled", &in->pooled},
        {"text_mask", &in->text_mask},
        {"text_2", &in->text_2},
        {"text_2_mask", &in->text_2_mask},
        {"guidance", &in->guidance},
        {"size_conditions", &in->size_conditions},
    };
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
        const struct tensor *t = inputs[i].tensor;
        if (t->data == NULL || (t->ndim > 0 && t->shape[0] == prompts && t->dtype == DTYPE_F32)) continue;
        return error_set(error, TESSERA_ERROR_ARGUMENT, "inputs.%s: must be F32 of %lld rows: %s", inputs[i].name, (long long)prompts,
                         prompts == 2 ? "the negative prompt's and the prompt's" : "one, as the picture is not guided");
    }
    return TESSERA_OK;
}

static tessera_status check_size(const tessera_sampling *asked, const struct denoiser *d, size_t count, tessera_error *error) {
    const struct tensor latents = {.data = &count, .ndim = 4, .shape = {1, asked->rows, asked->columns, d->in_channels}};
    TRY(denoiser_check_latents(d, &latents, error));
    if (count == (size_t)tensor_count(&latents)) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_ARGUMENT, "latents: %zu numbers, but %lld rows, %lld columns and %lld channels are %lld", count,
                     (long long)asked->rows, (long long)asked->columns, (long long)d->in_channels, (long long)tensor_count(&latents));
}

/* ---- opening ---- */

static struct component_source source_of(const tessera_sampling *asked, struct load_scope scope) {
    return (struct component_source){
        .folder = asked->denoiser, .scope = scope, .denoisers = asked->denoisers, .num_denoisers = asked->num_denoisers};
}

static tessera_status describe(struct sampler *s, tessera_error *error) {
    const tessera_sampling *asked = s->asked;
    struct component_source source = source_of(asked, (struct load_scope){0});
    TRY(dtype_of_activations(asked->dtype, &s->run.dtype, error));
    TRY(component_describe(&source, s->run.dtype, &s->described, error));
    if (s->described.denoiser != NULL) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: no denoiser, by its config.json", asked->denoiser);
}

static size_t latent_count(const struct sampler *s) {
    return (size_t)(s->asked->rows * s->asked->columns * s->described.denoiser->in_channels);
}

static tessera_status open_noise(struct sampler *s, tessera_error *error) {
    random_seed(&s->generator, s->asked->seed);
    s->generator.functions = elementary_of(s->asked->kernels == TESSERA_KERNELS_REPRODUCIBLE);
    s->noise = malloc(2 * latent_count(s) * sizeof *s->noise);
    return s->noise != NULL ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a sampler's noise");
}

/* The sampler's steps for a picture of so many tokens. */
static tessera_status open_scheduler(struct sampler *s, tessera_error *error) {
    const tessera_sampling *asked = s->asked;
    int64_t patch = s->described.denoiser->patch_size, tokens = (asked->rows / patch) * (asked->columns / patch);
    TRY(scheduler_open(asked->scheduler, NULL, &s->scheduler, error));
    s->scheduler->functions = elementary_of(asked->kernels == TESSERA_KERNELS_REPRODUCIBLE);
    if (s->scheduler->wants_noise) TRY(open_noise(s, error));
    float mu = s->scheduler->needs_mu ? scheduler_mu(s->scheduler, tokens) : 0.0f;
    return scheduler_set_timesteps(s->scheduler, asked->num_inference_steps, mu, error);
}

/* Who does what, and this rank's weights. */
static tessera_status open_share(struct sampler *s, tessera_error *error) {
    const tessera_mesh *mesh = &s->mesh;
    const struct denoiser *whole = s->described.denoiser;
    TRY(team_open(&s->team, mesh, error));
    TRY(team_set_patches(&s->team, mesh, whole->row_unit == 0, error));
    TRY(denoiser_check_degrees(whole, team_degree(&s->team, MESH_ULYSSES), team_degree(&s->team, MESH_TENSOR), error));
    TRY(stages_open(whole, team_degree(&s->team, MESH_PIPEFUSION), team_coordinate(&s->team, MESH_PIPEFUSION), mesh->stage_blocks,
                    s->team.shares.stages, &s->stages, error));
    struct component_source source = source_of(s->asked, team_scope(&s->team, stages_blocks(&s->stages)));
    TRY(component_open(&source, s->run.dtype, &s->component, error));
    return component_load(&s->component, error);
}

static tessera_status open_run(struct sampler *s, tessera_error *error) {
    if (s->asked->kernels == TESSERA_KERNELS_REPRODUCIBLE) TRY(team_check_reproducible(&s->team, error));
    s->backend = device_open(NULL, s->asked->kernels, team_threads(&s->team, s->asked->threads), error);
    struct arena *arena = s->backend == NULL ? NULL : s->backend->ops->arena(s->backend, 0, error);
    s->run = (struct run){.backend = s->backend, .arena = arena, .dtype = s->run.dtype, .strip_bytes = PIPELINE_STRIP_BYTES};
    return arena != NULL ? TESSERA_OK : error->status;
}

/* ---- sampling ---- */

static const float *draw_noise(void *user, int picture) {
    struct sampler *s = user;
    float *ordered = s->noise + latent_count(s);
    (void)picture;
    random_normal(&s->generator, s->noise, latent_count(s));
    channels_last(ordered, s->noise, s->described.denoiser->in_channels, s->asked->rows * s->asked->columns);
    return ordered;
}

static tessera_status report(void *user, int picture, int steps_done, tessera_error *error) {
    const tessera_sampling *asked = ((struct sampler *)user)->asked;
    (void)picture;
    if (asked->progress == NULL || asked->progress(asked->progress_user, TESSERA_PHASE_DENOISE, steps_done, asked->num_inference_steps))
        return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_CANCELLED, "stopped on request");
}

static void observe(void *user, int picture, int step, const float *prediction, const float *x) {
    const tessera_sampling *asked = ((struct sampler *)user)->asked;
    (void)picture;
    if (asked->report != NULL) asked->report(asked->user, step, prediction, x);
}

static tessera_status denoise(struct sampler *s, float *latents, tessera_error *error) {
    tessera_sampling *asked = s->asked;
    struct denoising d = {.denoiser = s->component.denoiser,
                          .stages = &s->stages,
                          .num_stages = 1,
                          .scheduler = s->scheduler,
                          .team = &s->team,
                          .run = &s->run,
                          .inputs = asked->inputs,
                          .guided = asked->guidance_scale != 0.0f,
                          .guidance_scale = asked->guidance_scale,
                          .guidance_rescale = asked->guidance_rescale,
                          .rows = asked->rows,
                          .columns = asked->columns,
                          .channels = s->component.denoiser->in_channels,
                          .step_cache = asked->step_cache,
                          .step_cache_threshold = asked->step_cache_threshold,
                          .user = s,
                          .fresh_noise = s->noise != NULL ? draw_noise : NULL,
                          .report = report,
                          .observe = observe};
    TRY(denoise_pictures(&d, 1, &latents, error));
    asked->blocks = d.blocks;
    asked->blocks_skipped = d.blocks_skipped;
    return TESSERA_OK;
}

/* All that comes before the first step. */
static tessera_status open_all(struct sampler *s, size_t count, tessera_error *error) {
    TRY(check_options(s->asked, &s->mesh, error));
    TRY(check_inputs(s->asked, error));
    TRY(describe(s, error));
    TRY(check_size(s->asked, s->described.denoiser, count, error));
    TRY(open_scheduler(s, error));
    TRY(open_share(s, error));
    return open_run(s, error);
}

/* Two jobs: of the world, until all ranks stand, and of the picture. */
static tessera_status sample(struct sampler *s, float *latents, size_t count, tessera_error *error) {
    tessera_status readable = mesh_read(s->asked->mesh, &s->mesh, error);
    struct comm *world = s->mesh.world != NULL ? s->mesh.world->comm : NULL;
    tessera_status status = comm_job_begin(world, error);
    if (status == TESSERA_OK) status = readable;
    if (status == TESSERA_OK) status = open_all(s, count, error);
    TRY(comm_job_end(world, status, error));
    status = team_job_begin(&s->team, error);
    if (status == TESSERA_OK) status = denoise(s, latents, error);
    return team_job_end(&s->team, status, error);
}

tessera_status tessera_sample(tessera_sampling *sampling, float *latents, size_t count, tessera_error *error) {
    tessera_error own;
    if (error == NULL) error = &own;
    *error = (tessera_error){0};
    if (sampling == NULL || latents == NULL) return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_sample: sampling or latents is NULL");
    struct sampler s = {.asked = sampling};
    tessera_status status = sample(&s, latents, count, error);
    arena_free(s.run.arena);
    backend_free(s.backend);
    scheduler_free(s.scheduler);
    component_close(&s.component);
    component_close(&s.described);
    stages_free(&s.stages);
    team_close(&s.team);
    free(s.noise);
    return status;
}
