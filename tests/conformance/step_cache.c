/* Kind step_cache: a whole loop of sampling over one transformer with a step cache; which steps
 * were skipped, what was compared with the threshold, the guided predictions and the latents after
 * each step.
 *
 * In bfloat16 the numbers compared and the predictions are left out, as their errors are several
 * times those of a pass; decisions are not, since cases keep them a fifth away from the threshold.
 * Where the mesh has a ring and nothing else that cuts a picture, the loop is run once more with
 * displaced patches. No case has both, so latents must be finite, and all ranks must have skipped
 * the same steps. */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>

#include "cached_forward.h"
#include "loop.h"

enum { MAX_STEPS = 64 };

/* What the case has of its cache. */
struct wanted {
    enum step_cache_kind kind;
    double threshold;
    bool skips[MAX_STEPS];
};

/* One time through the loop. */
struct passage {
    const struct wanted *wanted;
    const struct denoiser *denoiser;
    struct loop loop;
    struct step_cache cache;
    char skipped[MAX_STEPS + 1]; /* 's' or '.' per step */
};

static tessera_status read_wanted(const struct conformance_case *c, struct wanted *wanted, tessera_error *error) {
    const struct json *json = c->io.json;
    const char *name = "";
    int64_t skipped[MAX_STEPS];
    int count = 0, kind = 0;
    TRY(json_double(json, "threshold", 0.0, &wanted->threshold, error));
    TRY(json_string(json, "cache", "", &name, error));
    TRY(json_ints(json, "skipped", 0, MAX_STEPS - 1, skipped, MAX_STEPS, &count, error));
    for (int i = 0; i < count; i++) wanted->skips[skipped[i]] = true;
    while (step_cache_kind_name(kind) != NULL && strcmp(step_cache_kind_name(kind), name) != 0) kind++;
    if (kind == STEP_CACHE_KINDS) return error_set(error, TESSERA_ERROR_FORMAT, "field cache: \"%s\" is no step cache", name);
    wanted->kind = (enum step_cache_kind)kind;
    return TESSERA_OK;
}

/* ---- checks ---- */

static void check_decision(struct conformance_case *c, const struct passage *passage, int step) {
    bool skipped = passage->skipped[step] == 's';
    const cJSON *wanted = cJSON_GetArrayItem(json_find(c->io.json, "compared"), step);
    double compared = passage->cache.compared;
    if (skipped != passage->wanted->skips[step]) case_fail(c, "step %d: %s, at %g", step, skipped ? "skipped" : "computed", compared);
    if (c->dtype != DTYPE_F32) return;
    if (!cJSON_IsNumber(wanted) != isnan(compared)) case_fail(c, "step %d: %g was compared", step, compared);
    if (cJSON_IsNumber(wanted) && fabs(compared - wanted->valuedouble) > c->io.atol + c->io.rtol * wanted->valuedouble)
        case_fail(c, "step %d: %g was compared instead of %g", step, compared, wanted->valuedouble);
}

/* All blocks are asked for in each step; a first-block cache runs one of them always. */
static void check_counts(struct conformance_case *c, const struct passage *passage) {
    int64_t skipped = 0, blocks = passage->denoiser->num_blocks;
    int64_t left_out = blocks - (passage->wanted->kind == STEP_CACHE_FIRST_BLOCK ? 1 : 0), wanted = passage->loop.steps * blocks;
    for (int i = 0; i < passage->loop.steps; i++) skipped += passage->skipped[i] == 's' ? left_out : 0;
    if (passage->cache.blocks != wanted || passage->cache.blocks_skipped != skipped)
        case_fail(c, "%lld of %lld blocks skipped were counted, not %lld of %lld", (long long)passage->cache.blocks_skipped,
                  (long long)passage->cache.blocks, (long long)skipped, (long long)wanted);
}

/* ---- a loop ---- */

static struct tensor predict(struct conformance_case *c, const struct loop *loop, int step, const struct denoiser_inputs *in, void *user) {
    struct passage *passage = user;
    struct tensor out = cached_forward(&passage->cache, passage->denoiser, &c->run, in, step == loop->steps - 1);
    if (!run_failed(&c->run)) return case_host(c, out);
    case_error(c, &c->run.error);
    if (c->world->ranks > 1) comm_abort(c->world->comm, &c->run.error);
    return (struct tensor){0};
}

/* Against the case's numbers where nothing is displaced. */
static void run_steps(struct conformance_case *c, bool displaces, struct passage *passage) {
    struct loop *loop = &passage->loop;
    for (int i = 0; i < loop->steps; i++) {
        size_t scope = run_enter(&c->run);
        int64_t skipped = passage->cache.blocks_skipped;
        parallel_begin(&c->parallel,
                       &(struct strategy_moment){.steps = (int)loop->steps, .step = i, .patch = PATCHES_WHOLE, .predictions = 1});
        struct tensor noise = loop_guided(c, loop, i, predict, passage);
        if (noise.data == NULL) return;
        passage->skipped[i] = passage->cache.blocks_skipped > skipped ? 's' : '.';
        loop_step(loop, i, noise);
        if (!displaces) {
            check_decision(c, passage, i);
            if (c->dtype == DTYPE_F32) loop_check(c, "out.noise", loop->noise, i, noise);
            loop_check(c, "out.latents", loop->wanted, i, loop->latents);
        }
        run_leave_all(&c->run, scope, NULL, 0);
    }
    check_counts(c, passage);
}

static tessera_status begin(struct conformance_case *c, struct passage *passage, tessera_error *error) {
    struct comm *const groups[STEP_CACHE_GROUPS] = {c->mesh->group[MESH_SEQUENCE], c->mesh->group[MESH_CFG], c->mesh->group[MESH_TENSOR]};
    TRY(loop_read(c, &passage->loop, error));
    if (passage->loop.steps > MAX_STEPS || passage->loop.noise.data == NULL)
        return error_set(error, TESSERA_ERROR_FORMAT, "out.noise is missing, or more than %d steps", MAX_STEPS);
    return step_cache_open(&passage->cache, passage->wanted->kind, passage->wanted->threshold, passage->denoiser, 0, groups, error);
}

static void run_passage(struct conformance_case *c, const struct wanted *wanted, const struct denoiser *denoiser, bool displaces) {
    struct passage passage = {.wanted = wanted, .denoiser = denoiser};
    tessera_error error = {0};
    const struct strategy_choice patches = {.patch_strategy = &displaced_patches_strategy, .warmup_steps = 1};
    bool composed = !displaces || spread_patches(c, &patches, &error) == TESSERA_OK;
    if (composed && begin(c, &passage, &error) == TESSERA_OK)
        run_steps(c, displaces, &passage);
    else
        case_error(c, &error);
    if (parallel_reset(&c->parallel, &error) != TESSERA_OK) case_error(c, &error);
    if (displaces && !run_failed(&c->run)) {
        const struct tensor *latents = &passage.loop.latents;
        if (comm_check_same(c->world->comm, "skipped steps", passage.skipped, &error) != TESSERA_OK) case_error(c, &error);
        for (int64_t i = 0; latents->data != NULL && i < tensor_count(latents); i++)
            if (!isfinite(((const float *)latents->data)[i])) case_fail(c, "displaced patches: latents are not finite");
    }
    step_cache_close(&passage.cache);
    loop_free(&passage.loop);
}

void conform_step_cache(struct conformance_case *c) {
    struct wanted wanted = {0};
    struct spread_denoiser d = {0};
    tessera_error error = {0};
    const int *degrees = c->mesh->degrees;
    double scale = 0;
    struct tensor latents = case_picture(&c->io, case_name(&c->io, "in.sample", "in.hidden_states"));
    if (read_wanted(c, &wanted, &error) != TESSERA_OK || json_double(c->io.json, "guidance_scale", 0.0, &scale, &error) != TESSERA_OK) {
        case_error(c, &error);
    } else if (spread_open(c, scale > 0, latents, &d)) {
        run_passage(c, &wanted, d.denoiser, false);
        bool displaces = degrees[MESH_RING] > 1 && degrees[MESH_ULYSSES] == 1 && degrees[MESH_TENSOR] == 1;
        if (displaces && !run_failed(&c->run)) run_passage(c, &wanted, d.denoiser, true);
    }
    spread_close(&d);
    free(latents.data);
}
