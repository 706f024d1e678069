/* Step caches away from a sampler: blocks cut into stages, patches with states of their own, what a
 * skipped step leaves, what is refused. The numbers themselves are compared with the reference by
 * the conformance program (kind step_cache). */
#include "pipelines/step_cache.h"

#include "cached_forward.h"
#include "models/denoiser_test.h"

#define CASES "tests/cases/step_cache/"
#define LARGE 10.0 /* a threshold that any step stays below */

enum { STAGES = 3, STEPS = 4 };

static struct comm *const no_groups[STEP_CACHE_GROUPS];

/* A case's inputs, at timestep `timestep`. */
static struct denoiser_inputs inputs_at(const struct denoiser_inputs *given, float timestep, float *room) {
    struct denoiser_inputs in = *given;
    int64_t batch = in.text.shape[0], count = tensor_count(&given->latents);
    static const float scales[2] = {3.5f, 3.5f};
    float *latents = room + 2;
    room[0] = room[1] = timestep;
    for (int64_t b = 0; b < batch; b++) memcpy(latents + b * count, given->latents.data, (size_t)count * sizeof *latents);
    in.latents.data = latents;
    in.latents.shape[0] = batch;
    in.timesteps = room;
    in.guidance = tensor_of((void *)scales, DTYPE_F32, SHAPE(batch));
    return in;
}

static struct step_cache opened(enum step_cache_kind kind, double threshold, const struct denoiser *d, int patches) {
    struct step_cache cache;
    tessera_error error = {0};
    CHECK(step_cache_open(&cache, kind, threshold, d, patches, no_groups, &error) == TESSERA_OK, "%s", error.message);
    return cache;
}

/* One step over STAGES stages, each with a cache of its own; the first one's decision is told to
 * the others. */
static struct tensor run_stages(struct step_cache *caches, const struct denoiser *d, struct run *run, const struct denoiser_inputs *in,
                                bool last_step, bool *skip) {
    const int bounds[STAGES + 1] = {0, 1, d->num_blocks - 1, d->num_blocks};
    size_t scope = run_enter(run);
    struct denoiser_state state = d->class->embed(d, run, in, DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_TEXT);
    for (int i = 0; i < STAGES; i++) {
        struct span blocks = {bounds[i], bounds[i + 1] - bounds[i]};
        state = step_cache_run(&caches[i], d, run, blocks, scope, 0, last_step, state, skip);
        if (*skip) CHECK(state.num_skips == 0, "a skipped stage left %d skips", state.num_skips);
    }
    CHECK(state.text.data == NULL && state.text_mask.data == NULL, "the text outlives the last block");
    return run_leave(run, scope, d->class->finish(d, run, state));
}

/* A schedule on which some steps change little: the same sums as with one stage, and the same
 * decisions. */
static void check_stages(const struct case_io *c, const struct denoiser *d, struct run *run, const struct denoiser_inputs *given,
                         enum step_cache_kind kind, double threshold) {
    static const float timesteps[STEPS] = {900.0f, 899.9f, 300.0f, 299.9f};
    float *room = malloc(2 * tensor_bytes(&given->latents) + 2 * sizeof *room);
    struct step_cache whole = opened(kind, threshold, d, 0), caches[STAGES];
    int64_t asked = 0, left_out = 0;
    for (int i = 0; i < STAGES; i++) caches[i] = opened(kind, threshold, d, 0);
    for (int i = 0; i < STEPS; i++) {
        size_t scope = run_enter(run);
        struct denoiser_inputs in = inputs_at(given, timesteps[i], room);
        int64_t skipped = whole.blocks_skipped;
        bool skip = false, last_step = i == STEPS - 1;
        struct tensor one = cached_forward(&whole, d, run, &in, last_step);
        struct tensor many = run_stages(caches, d, run, &in, last_step, &skip);
        CHECK(!run_failed(run), "%s", run->error.message);
        CHECK(skip == (whole.blocks_skipped > skipped), "step %d: the stages decided otherwise", i);
        CHECK(skip == (i == 1 || (i == 3 && kind == STEP_CACHE_FIRST_BLOCK)), "step %d, compared %g", i, whole.compared);
        struct case_difference difference = case_compare(c, &many, &one);
        CHECK(difference.worst <= 0.05, "step %d: stages differ by %.3g of the tolerance", i, difference.worst);
        run_leave_all(run, scope, NULL, 0);
    }
    for (int i = 0; i < STAGES; i++) asked += caches[i].blocks, left_out += caches[i].blocks_skipped;
    CHECK(asked == whole.blocks && asked == STEPS * d->num_blocks, "%lld blocks", (long long)asked);
    CHECK(left_out == whole.blocks_skipped && left_out > 0, "%lld blocks were skipped", (long long)left_out);
    for (int i = 0; i < STAGES; i++) step_cache_close(&caches[i]);
    step_cache_close(&whole);
    free(room);
}

/* Steps without a change: what is reused is what the blocks would have made. A patch's first step
 * computes, whatever others did. */
static void check_patches(const struct case_io *c, const struct denoiser *d, struct run *run, const struct denoiser_inputs *given,
                          enum step_cache_kind kind) {
    static const struct {
        int patch;
        bool skips;
    } calls[] = {{0, false}, {0, true}, {1, false}, {2, false}, {1, true}, {2, true}};
    float *room = malloc(2 * tensor_bytes(&given->latents) + 2 * sizeof *room);
    size_t outer = run_enter(run);
    struct denoiser_inputs in = inputs_at(given, 500.0f, room);
    struct step_cache cache = opened(kind, LARGE, d, 2);
    struct tensor exact = denoiser_forward(d, run, &in);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        bool skip = false;
        size_t scope = run_enter(run);
        struct denoiser_state state = d->class->embed(d, run, &in, DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_TEXT);
        state = step_cache_run(&cache, d, run, (struct span){0, d->num_blocks}, scope, calls[i].patch, false, state, &skip);
        struct tensor out = run_leave(run, scope, d->class->finish(d, run, state));
        CHECK(skip == calls[i].skips, "call %zu, patch %d", i, calls[i].patch);
        CHECK(isnan(cache.compared) == !calls[i].skips, "call %zu compared %g", i, cache.compared);
        struct case_difference difference = case_compare(c, &out, &exact);
        CHECK(difference.worst <= 0.05, "call %zu: %.3g of the tolerance", i, difference.worst);
        run_leave_all(run, scope, NULL, 0);
    }
    step_cache_close(&cache);
    run_leave_all(run, outer, NULL, 0);
    free(room);
}

/* A picture of another size has nothing to be compared with. */
static void check_size(const struct denoiser *d, struct run *run, const struct denoiser_inputs *given) {
    float *room = malloc(2 * tensor_bytes(&given->latents) + 2 * sizeof *room);
    struct step_cache cache = opened(STEP_CACHE_FIRST_BLOCK, LARGE, d, 0);
    struct denoiser_inputs in = inputs_at(given, 500.0f, room);
    for (int i = 0; i < 4; i++) {
        size_t scope = run_enter(run);
        if (i == 2) in.latents.shape[1] -= d->patch_size;
        cached_forward(&cache, d, run, &in, false);
        CHECK(!run_failed(run), "%s", run->error.message);
        CHECK(isnan(cache.compared) == (i % 2 == 0), "call %d compared %g", i, cache.compared);
        run_leave_all(run, scope, NULL, 0);
    }
    step_cache_close(&cache);
    free(room);
}

/* What the second of two steps compares with `threshold`; *skip: what it decides. */
static double second_step(const struct denoiser *d, struct run *run, const struct denoiser_inputs *given, enum step_cache_kind kind,
                          double threshold, bool *skip) {
    float *room = malloc(2 * tensor_bytes(&given->latents) + 2 * sizeof *room);
    struct step_cache cache = opened(kind, threshold, d, 0);
    for (int i = 0; i < 2; i++) {
        size_t scope = run_enter(run);
        struct denoiser_inputs in = inputs_at(given, i == 0 ? 900.0f : 899.0f, room);
        cached_forward(&cache, d, run, &in, false);
        CHECK(!run_failed(run), "%s", run->error.message);
        run_leave_all(run, scope, NULL, 0);
    }
    double compared = cache.compared;
    *skip = cache.blocks_skipped > 0;
    step_cache_close(&cache);
    free(room);
    return compared;
}

/* A change of exactly the threshold computes, one just below it does not. */
static void check_threshold(const struct denoiser *d, struct run *run, const struct denoiser_inputs *given, enum step_cache_kind kind) {
    bool skips[3];
    double change = second_step(d, run, given, kind, LARGE, &skips[0]);
    CHECK(change > 0.0 && second_step(d, run, given, kind, change, &skips[1]) == change, "%g is compared", change);
    CHECK(second_step(d, run, given, kind, nextafter(change, LARGE), &skips[2]) == change, "another change than %g is compared", change);
    CHECK(skips[0] && !skips[1] && skips[2], "%s of %g: skipped %d, %d, %d", step_cache_kind_name((int)kind), change, skips[0], skips[1],
          skips[2]);
}

static void look(const struct case_io *c, struct component_test *t, const struct denoiser_inputs *in) {
    const struct denoiser *d = t->component.denoiser;
    check_stages(c, d, &t->run, in, STEP_CACHE_FIRST_BLOCK, 0.1);
    check_stages(c, d, &t->run, in, STEP_CACHE_TEA, d->class->change_polynomial != NULL ? 0.3 : 0.1);
    check_patches(c, d, &t->run, in, STEP_CACHE_FIRST_BLOCK);
    check_patches(c, d, &t->run, in, STEP_CACHE_TEA);
    check_size(d, &t->run, in);
    check_threshold(d, &t->run, in, STEP_CACHE_FIRST_BLOCK);
    check_threshold(d, &t->run, in, STEP_CACHE_TEA);
}

/* The thresholds that are documented, where none is given: Flux has a polynomial. */
static void test_defaults(const char *model, double first_block, double tea) {
    const double wanted[STEP_CACHE_KINDS] = {first_block, tea};
    struct component_test t;
    if (component_test_open(&t, model, DTYPE_F32)) {
        for (int kind = 0; kind < STEP_CACHE_KINDS; kind++) {
            struct step_cache cache = opened((enum step_cache_kind)kind, 0.0, t.component.denoiser, 0);
            CHECK(cache.threshold == wanted[kind], "%s, %s: %g instead of %g", model, step_cache_kind_name(kind), cache.threshold,
                  wanted[kind]);
            step_cache_close(&cache);
        }
    }
    component_test_close(&t);
}

static void test_refused(void) {
    static const double wrong[] = {-0.1, NAN, INFINITY};
    struct component_test dit, unet;
    struct step_cache cache;
    tessera_error error = {0};
    if (component_test_open(&dit, "tests/cases/pipefusion/model", DTYPE_F32)) {
        const struct denoiser *d = dit.component.denoiser;
        for (int i = 0; i < 3; i++) {
            CHECK(step_cache_open(&cache, STEP_CACHE_TEA, wrong[i], d, 0, no_groups, &error) == TESSERA_ERROR_ARGUMENT, "%g", wrong[i]);
            CHECK(strstr(error.message, "threshold") != NULL, "%s", error.message);
            step_cache_close(&cache);
        }
    }
    if (component_test_open(&unet, "tests/cases/unet_sd15/model", DTYPE_F32)) {
        tessera_status status = step_cache_open(&cache, STEP_CACHE_FIRST_BLOCK, 0.1, unet.component.denoiser, 0, no_groups, &error);
        CHECK(status == TESSERA_ERROR_UNSUPPORTED && strstr(error.message, "UNet2DConditionModel") != NULL, "%s", error.message);
        step_cache_close(&cache);
    }
    component_test_close(&dit);
    component_test_close(&unet);
}

int main(void) {
    with_denoiser_case(CASES "fbcache_sd3", DTYPE_F32, look);
    with_denoiser_case(CASES "fbcache_flux", DTYPE_F32, look);
    with_denoiser_case(CASES "fbcache_pixart", DTYPE_F32, look);
    with_denoiser_case(CASES "fbcache_hunyuandit", DTYPE_F32, look);
    test_defaults("tests/cases/pipefusion/model", 0.08, 0.1);
    test_defaults("tests/cases/pipeline_flux/model/transformer", 0.08, 0.25);
    test_refused();
    return CHECK_REPORT();
}
