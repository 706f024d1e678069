/* See denoise.h. One step of one picture:
 *
 *     e = denoiser(x, t), for the negative prompt and the prompt
 *     e = e_negative + s (e_prompt - e_negative)                                    (Ho and Salimans 2022, equation 6)
 *     e = phi e std(e_prompt) / std(e) + (1 - phi) e                                (Lin et al. 2023, equations 15 and 16)
 *     x = scheduler_step(x, e)
 *
 * The work is a list of units, the same on every rank: a step of a picture, of one of its
 * predictions, or of one of its patches. Each stage of the pipeline goes through the list and runs
 * its blocks on every unit, while the other stages run theirs on units before and after:
 *
 *     stage 0   embed, blocks  |1|2|3|4|1|2|...      patches of a picture: patch 1 may begin its next step when its last one is taken,
 *     stage 1          blocks    |1|2|3|4|1|...      for which it needs no other patch (Fang et al. 2024, PipeFusion, figure 3)
 *     stage 2  blocks, finish      |1|2|3|4|...
 *                     + guidance, sampler --> x of the patch, to stage 0
 *
 * Without a pipeline there is one stage, and a unit is a step. A patch sees the others as they were
 * one step before (pipefusion.h), so the first steps are those of the whole picture. With one patch
 * a pipeline is exact; then the two predictions, and several pictures, keep the stages busy.
 * Samplers keep each patch's history. Guidance rescaling takes the whole picture's statistics from
 * this patch's sums and the other patches' sums of the step before.
 *
 * If workers compute blocks, units of all pictures are under way at once, and pictures go on
 * independently: denoise_workers.c. */
#include "pipelines/denoise.h"

#include <stdlib.h>
#include <string.h>

#include "pipelines/flow.h"

/* Runs this rank's stages one after the other, each for the predictions that follow each other:
 * while one prediction is at another rank, this rank computes the other. *u becomes the unit after
 * them. */
static tessera_status run_predictions(struct flow *f, struct unit *u, tessera_error *error) {
    struct unit first = *u;
    int predictions = first.prediction == 0 ? 2 : 1;
    for (f->at = 0; f->at < f->held; f->at++) {
        f->stage = f->relays[f->at].stage;
        *u = first;
        for (int i = 0; i < predictions; i++, *u = flow_next_unit(f, *u)) TRY(flow_run_unit(f, *u, error));
        relay_pass(&f->relays[f->at], predictions);
    }
    f->stage = f->relays->stage;
    return TESSERA_OK;
}

static tessera_status report(const struct flow *f, struct unit u, tessera_error *error) {
    bool begins = u.patch <= 0 && u.prediction <= 0;
    return begins && f->d->report != NULL ? f->d->report(f->d->user, u.picture, u.step, error) : TESSERA_OK;
}

static tessera_status run_units(struct flow *f, tessera_error *error) {
    for (struct unit u = flow_unit_of(f, 0, 0); u.step < f->steps;) {
        if (f->stage != 0) TRY(flow_await_latents(f, u, error));
        TRY(report(f, u, error));
        TRY(run_predictions(f, &u, error));
    }
    for (int i = 0; i < f->pictures && comm_size(f->pipe) > 1; i++) {
        int last = f->d->stages->ranks[f->stages - 1];
        comm_label(f->pipe, "latents");
        TRY(comm_broadcast(f->pipe, last, f->x[i], (size_t)f->count * sizeof(float), error));
        if (flow_tells(f) && last != 0) flow_tell_arrived(f, (struct unit){.step = f->steps - 1, .picture = i, .patch = PATCHES_WHOLE});
    }
    for (int i = 0; i < f->pictures; i++) {
        if (f->d->report != NULL) TRY(f->d->report(f->d->user, i, f->steps, error));
    }
    return TESSERA_OK;
}

/* ---- beginning and end ---- */

/* In steps of the whole picture, is each prediction a unit of its own? With a step cache it is not,
 * because the cache decides for both. */
static bool keeps_predictions_apart(const struct team *team, const tessera_workers *workers, bool guided, bool has_cache) {
    if (workers != NULL) return guided;
    return team_stages(team) > 1 && guided && team_degree(team, MESH_CFG) == 1 && !has_cache;
}

int denoise_at_once(const struct team *team, const tessera_workers *workers, bool guided, bool has_cache, int pictures) {
    int stages = team_stages(team), predictions = keeps_predictions_apart(team, workers, guided, has_cache) ? 2 : 1;
    if (workers != NULL) {
        int most = (workers->at_once + predictions - 1) / predictions;
        return pictures < most ? pictures : most;
    }
    if (stages == 1 || team->choice.patches > 1) return 1;
    int enough = (stages + 2 * (predictions - 1)) /
                 predictions; /* a picture is back at the first stage stages + predictions - 1 units after it began */
    return pictures < enough ? pictures : enough;
}

static tessera_status open_caches(struct flow *f, tessera_error *error) {
    struct denoising *d = f->d;
    const struct team *team = d->team;
    if (d->step_cache == NULL) return TESSERA_OK;
    int kind = 0;
    while (step_cache_kind_name(kind) != NULL && strcmp(step_cache_kind_name(kind), d->step_cache) != 0) kind++;
    if (kind == STEP_CACHE_KINDS)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "step cache \"%s\": it must be fbcache or teacache", d->step_cache);
    if (parallel_splits_pictures(&f->chain))
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "step cache %s: not with naive patches, which are pictures of their own",
                         d->step_cache);
    if (d->run->backend->reproducible && team_size(team) > 1)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                         "step cache %s: reproducible kernels have one only where a rank makes a picture alone, as it adds sums over ranks",
                         d->step_cache);
    f->caches = calloc((size_t)f->pictures * (size_t)f->held, sizeof *f->caches);
    if (f->caches == NULL) return flow_out_of_memory(error);
    struct comm *groups[STEP_CACHE_GROUPS] = {0};
    if (team->mesh != NULL)
        groups[0] = team->mesh->group[MESH_CUT], groups[1] = team->mesh->group[MESH_CFG], groups[2] = team->mesh->group[MESH_TENSOR];
    for (int i = 0; i < f->pictures * f->held; i++)
        TRY(step_cache_open(&f->caches[i], (enum step_cache_kind)kind, d->step_cache_threshold, d->denoiser,
                            f->patches > 1 ? f->patches : 0, groups, error));
    return TESSERA_OK;
}

static tessera_status check_patches(const struct flow *f, tessera_error *error) {
    const struct denoising *d = f->d;
    int64_t rows = d->rows / d->denoiser->patch_size, columns = d->columns / d->denoiser->patch_size;
    int sharers = comm_size(f->chain.cut_group);
    if (f->patches == 1) return TESSERA_OK;
    if (rows < f->patches)
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "num-pipeline-patch %d: the picture has %lld rows of tokens: at most %lld are possible", f->patches,
                         (long long)rows, (long long)rows);
    if (rows / f->patches * columns >= sharers) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_ARGUMENT,
                     "a patch of %lld tokens cannot be cut over %d ranks: lower num-pipeline-patch, ring or ulysses",
                     (long long)(rows / f->patches * columns), sharers);
}

static tessera_status open_flow(struct flow *f, tessera_error *error) {
    struct denoising *d = f->d;
    TRY(flow_check_workers(f, error));
    TRY(team_compose(d->team, &f->chain, error));
    f->chain.text_tokens = d->denoiser->text_stream ? d->inputs.text.shape[1] : 0;
    d->run->parallel = team_needs_chain(d->team) ? &f->chain : NULL;
    TRY(check_patches(f, error));
    size_t count = (size_t)f->count, views = f->patches > 1 ? (size_t)f->patches : 0;
    f->states = calloc((size_t)f->pictures + views, sizeof *f->states);
    f->predictions = f->prediction_memory = malloc(3 * count * sizeof(float));
    f->sums = calloc((size_t)f->patches, sizeof *f->sums);
    if (d->shows_x_0) f->x_0 = calloc((size_t)f->pictures * count, sizeof *f->x_0);
    f->relays = calloc((size_t)f->held, sizeof *f->relays);
    if (f->states == NULL || f->predictions == NULL || f->sums == NULL || f->relays == NULL || (d->shows_x_0 && f->x_0 == NULL))
        return flow_out_of_memory(error);
    f->prediction = f->predictions + 2 * count;
    TRY(relay_open(f->relays, f->held, f->pipe, d->denoiser, d->stages, d->run, f->patches + 1, error));
    for (int k = 0; k < f->held; k++) f->relays[k].may_skip = d->step_cache != NULL, f->relays[k].shows_x_0 = d->shows_x_0;
    for (int i = 0; i < f->pictures; i++) TRY(scheduler_state_init(d->scheduler, count, &f->states[i], error));
    TRY(open_caches(f, error));
    return d->workers != NULL ? flow_open_courses(f, error) : TESSERA_OK;
}

static void close_flow(struct flow *f) {
    struct denoising *d = f->d;
    if (f->relays != NULL) relay_close(f->relays, f->held);
    free(f->relays);
    parallel_free(&f->chain);
    for (int i = 0; f->states != NULL && i < f->pictures; i++) scheduler_state_free(&f->states[i]);
    for (int i = 0; f->caches != NULL && i < f->pictures * f->held; i++) {
        d->blocks_skipped += f->caches[i].blocks_skipped;
        step_cache_close(&f->caches[i]);
    }
    flow_close_courses(f);
    free(f->caches);
    free(f->states);
    free(f->prediction_memory);
    free(f->sums);
    free(f->x_0);
}

tessera_status denoise_pictures(struct denoising *d, int pictures, float *const *x, tessera_error *error) {
    const struct team *team = d->team;
    struct flow f = {.d = d,
                     .pictures = pictures,
                     .steps = d->scheduler->num_steps - d->first_step,
                     .patches = team->choice.patches > 1 ? team->choice.patches : 1,
                     .whole_steps = team->whole_steps,
                     .x = x,
                     .positions = d->rows * d->columns,
                     .count = d->rows * d->columns * d->channels,
                     .pipe = team->mesh != NULL ? team->mesh->group[MESH_PIPEFUSION] : NULL,
                     .held = d->num_stages > 1 ? d->num_stages : 1,
                     .stage = d->stages != NULL ? d->stages->me : 0,
                     .stages = d->stages != NULL ? d->stages->count : 1};
    f.predictions_apart = keeps_predictions_apart(team, d->workers, d->guided, d->step_cache != NULL);
    f.arriving = flow_unit_of(&f, 0, 0);
    struct parallel *before = d->run->parallel;
    tessera_error local = {0};
    tessera_status status = open_flow(&f, &local);
    if (status == TESSERA_OK) status = d->workers != NULL ? flow_run_with_workers(&f, &local) : run_units(&f, &local);
    if (status == TESSERA_OK) status = parallel_reset(&f.chain, &local);
    if (status != TESSERA_OK) team_job_fail(d->team, &local); /* before buffers go: nothing more comes into them */
    parallel_reset(&f.chain, NULL);
    close_flow(&f);
    d->run->parallel = before;
    return status == TESSERA_OK ? TESSERA_OK : error_set(error, status, "%s", local.message);
}
