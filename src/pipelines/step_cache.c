/* See step_cache.h.
 *
 * The kept tensors have memory of their own, because a run's arena is emptied after each step.
 * While blocks run, `residual` holds their input; afterwards it becomes what they added:
 *
 *     residual := h_in;  blocks;  residual := h_out - residual
 *
 * Differences are made in float32 and rounded to the tokens' type; sums are float64. The backend
 * computes both; the host gets two numbers and decides. */
#include "pipelines/step_cache.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/memory.h"

struct step_cache_patch {
    struct tensor before;    /* first block: h_1 - h_0 of the last computed step; tea: m of the step before. Stage 0 only */
    struct tensor residual;  /* what this stage's blocks (first block: but block 0) added in the last computed step */
    double accumulated;      /* tea: a */
    struct backend *backend; /* whose memory the two are */
};

/* ---- opening ---- */

const char *step_cache_kind_name(int kind) {
    static const char *const names[STEP_CACHE_KINDS] = {"fbcache", "teacache"};
    return kind >= 0 && kind < STEP_CACHE_KINDS ? names[kind] : NULL;
}

/* What their authors recommend for Flux: 0.08 (ParaAttention, in diffusers' documentation) and 0.25
 * (TeaCache4FLUX: 1.5 times as fast). Without a polynomial TeaCache has 0.1, which leaves out as
 * much as a first-block cache does (docs/step-caches.md). */
static double default_threshold(enum step_cache_kind kind, const struct denoiser *denoiser) {
    if (kind == STEP_CACHE_FIRST_BLOCK) return 0.08;
    return denoiser->class->change_polynomial != NULL ? 0.25 : 0.1;
}

tessera_status step_cache_open(struct step_cache *cache, enum step_cache_kind kind, double threshold, const struct denoiser *denoiser,
                               int patches, struct comm *const groups[STEP_CACHE_GROUPS], tessera_error *error) {
    assert(patches >= 0);
    memset(cache, 0, sizeof *cache);
    if (!(threshold >= 0.0 && isfinite(threshold)))
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "step cache threshold %g: a relative change above 0 is needed, or 0 for %s's default of %g", threshold,
                         step_cache_kind_name(kind), default_threshold(kind, denoiser));
    if (denoiser->class->first_input == NULL)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                         "step cache %s: %s has no one stream of tokens that its blocks add to; step caches are for transformers",
                         step_cache_kind_name(kind), denoiser->class->name);
    cache->kind = kind;
    cache->threshold = threshold > 0.0 ? threshold : default_threshold(kind, denoiser);
    memcpy(cache->groups, groups, sizeof cache->groups);
    cache->patches = calloc((size_t)patches + 1, sizeof *cache->patches);
    if (cache->patches == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "step cache: no memory for %d patches", patches);
    cache->num_patches = patches + 1;
    return TESSERA_OK;
}

static void give_back(struct step_cache_patch *patch, const struct tensor *kept) {
    if (kept->data != NULL) patch->backend->ops->release(patch->backend, kept->data, tensor_bytes(kept));
}

static void forget(struct step_cache_patch *patch) {
    give_back(patch, &patch->before);
    give_back(patch, &patch->residual);
    *patch = (struct step_cache_patch){0};
}

void step_cache_close(struct step_cache *cache) {
    for (int i = 0; i < cache->num_patches; i++) forget(&cache->patches[i]);
    free(cache->patches);
    memset(cache, 0, sizeof *cache);
}

/* ---- tensors ---- */

static bool same_shape(const struct tensor *a, const struct tensor *b) {
    bool same = a->dtype == b->dtype && a->ndim == b->ndim;
    for (int i = 0; same && i < a->ndim; i++) same = a->shape[i] == b->shape[i];
    return same;
}

/* A copy of `from` in memory of its own, which is used again where it has the shape. */
static void keep(struct run *run, struct step_cache_patch *patch, struct tensor *kept, const struct tensor *from) {
    if (run_failed(run)) return;
    if (kept->data == NULL || !same_shape(kept, from)) {
        give_back(patch, kept);
        patch->backend = run->backend;
        *kept = *from;
        kept->data = run->backend->ops->alloc(run->backend, tensor_bytes(from), NULL);
    }
    if (kept->data != NULL)
        backend_copy(run->backend, kept, from);
    else
        error_set(&run->error, TESSERA_ERROR_MEMORY, "step cache: no memory for %zu bytes; leave the cache out", tensor_bytes(from));
}

/* ---- decisions ---- */

/* What ranks add up; `missing` counts those that have nothing to compare with. */
struct change_sums {
    double change, before, missing;
};

static struct change_sums sums_of(struct run *run, const struct tensor *now, const struct tensor *before) {
    struct change_sums sums = {0};
    if (before->data == NULL || !same_shape(now, before)) return (struct change_sums){.missing = 1};
    struct tensor both = run_tensor(run, DTYPE_F64, SHAPE(2));
    if (run_failed(run)) return sums;
    run->backend->ops->distance(run->backend, &both, now, before);
    double *values = run_map(run, &both, MAP_READ); /* the decision is the host's: it waits for two numbers */
    if (values != NULL) sums.change = values[0], sums.before = values[1];
    run_unmap(run, &both, values, MAP_READ);
    return sums;
}

/* d(now, before) over all ranks, the same bits on each: all_reduce adds in the order of ranks. NaN
 * where there is nothing to compare. */
static double relative_change(const struct step_cache *cache, struct run *run, const struct tensor *now, const struct tensor *before) {
    struct change_sums sums = sums_of(run, now, before);
    for (int i = 0; i < STEP_CACHE_GROUPS && !run_failed(run); i++) {
        struct comm *group = cache->groups[i];
        if (group == NULL || comm_size(group) == 1) continue;
        comm_label(group, "step cache");
        run_checked(run, comm_all_reduce(group, &sums, sizeof sums / sizeof(double), COMM_F64, &run->error), (struct tensor){0});
    }
    return sums.missing > 0 ? NAN : sums.change / sums.before;
}

/* Horner's rule. */
static double polynomial(const double *coefficients, double x) {
    double value = 0.0;
    if (coefficients == NULL) return x;
    for (int i = 0; i < DENOISER_CHANGE_POWERS; i++) value = value * x + coefficients[i];
    return value;
}

/* Runs block 0; what it added in the last computed step is in `before`. */
static bool decide_first_block(struct step_cache *cache, const struct denoiser *denoiser, struct run *run, size_t scope,
                               struct step_cache_patch *patch, struct denoiser_state *state) {
    struct tensor entered = state->picture;
    *state = denoiser_block(denoiser, run, 0, *state);
    struct tensor added = run_tensor(run, entered.dtype, entered.ndim, entered.shape);
    if (run_failed(run)) return false;
    run->backend->ops->subtract(run->backend, &added, &state->picture, &entered);
    cache->compared = relative_change(cache, run, &added, &patch->before);
    bool skip = cache->compared < cache->threshold;
    if (!skip) keep(run, patch, &patch->before, &added);
    denoiser_keep_state(run, scope, state);
    return skip;
}

static bool decide_tea(struct step_cache *cache, const struct denoiser *denoiser, struct run *run, bool last_step,
                       struct step_cache_patch *patch, const struct denoiser_state *state) {
    size_t scope = run_enter(run);
    struct tensor input = denoiser_first_input(denoiser, run, state);
    if (run_failed(run)) return false;
    double change = relative_change(cache, run, &input, &patch->before);
    keep(run, patch, &patch->before, &input);
    run_leave_all(run, scope, NULL, 0);
    patch->accumulated += polynomial(denoiser->class->change_polynomial, change);
    cache->compared = last_step ? NAN : patch->accumulated;
    bool skip = cache->compared < cache->threshold;
    if (!skip) patch->accumulated = 0.0;
    return skip;
}

/* ---- blocks ---- */

/* `state` as the blocks first .. end - 1 would leave it, with what they added in the last computed
 * step. */
static struct denoiser_state reuse(const struct denoiser *denoiser, struct run *run, int first, int end,
                                   const struct step_cache_patch *patch, struct denoiser_state state) {
    if (run_failed(run)) return (struct denoiser_state){0};
    if (first < end) {
        assert(patch->residual.data != NULL && same_shape(&patch->residual, &state.picture));
        run->backend->ops->add(run->backend, &state.picture, &state.picture, &patch->residual);
    }
    if (end == denoiser->num_blocks) state.text = state.text_mask = (struct tensor){0};
    return state;
}

/* Runs blocks first .. end - 1 and keeps what they add. */
static struct denoiser_state compute(const struct denoiser *denoiser, struct run *run, int first, int end, size_t scope,
                                     struct step_cache_patch *patch, struct denoiser_state state) {
    if (first == end) return state;
    keep(run, patch, &patch->residual, &state.picture);
    state = denoiser_blocks(denoiser, run, first, end, scope, state);
    if (!run_failed(run)) run->backend->ops->subtract(run->backend, &patch->residual, &state.picture, &patch->residual);
    return state;
}

struct denoiser_state step_cache_run(struct step_cache *cache, const struct denoiser *denoiser, struct run *run, struct span blocks,
                                     size_t scope, int patch, bool last_step, struct denoiser_state state, bool *skip) {
    int first = (int)blocks.first, end = (int)(blocks.first + blocks.count);
    if (cache == NULL) return denoiser_blocks(denoiser, run, first, end, scope, state);
    if (run_failed(run)) return (struct denoiser_state){0};
    assert(patch >= 0 && patch < cache->num_patches);
    struct step_cache_patch *mine = &cache->patches[patch];
    if (patch > 0) forget(&cache->patches[0]);
    cache->blocks += blocks.count;
    if (first == 0 && end > 0 && cache->kind == STEP_CACHE_FIRST_BLOCK) {
        *skip = decide_first_block(cache, denoiser, run, scope, mine, &state);
        first = 1;
    } else if (first == 0 && end > 0) {
        *skip = decide_tea(cache, denoiser, run, last_step, mine, &state);
    }
    if (!*skip) return compute(denoiser, run, first, end, scope, mine, state);
    cache->blocks_skipped += end - first;
    return reuse(denoiser, run, first, end, mine, state);
}
