/* Displaced patches over whole models, on any number of ranks:
 *
 *     bits       a loop gives the same bits however many layers share a message
 *     messages   in a displaced step: ceil(layers / comm_checkpoint) to each member, none in the last step
 *     bytes      transformers: 2 B tokens width layers (n - 1) numbers, of the text's tokens, too, where it is split; U-Nets: the
 *                halos, keys and values of the exact strategy (conformance/formula_unet.c), and (n - 1) times 1 + 2 B G float64 numbers a
 *                group norm
 *     stillness  at one input and timestep, L + 1 displaced passes over L layers end at the exact prediction
 *
 *     mpirun -n N test_patches */
#include "conformance/formula.h"
#include "nn/layers.h"
#include "patch_loop.h"

enum { STEPS = 6, WARMUP_STEPS = 1 };

/* widths: 32, 64, 48 and 64; layers: 6, 6, 4 and 4 */
static const struct patch_model models[] = {
    {"sd3", "tests/cases/pipefusion/model", "tests/cases/displaced/displaced_sd3_p2_w1", "tests/cases/displaced/displaced_sd3_p2_w1", 4, 2,
     6 * 32},
    {"flux", "tests/cases/pipefusion/model_flux", "tests/cases/displaced/displaced_flux_p2_w1",
     "tests/cases/displaced/displaced_flux_p2_w1", 0, 2, 6 * 64},
    {"pixart", "tests/cases/pixart_sigma/model", "tests/cases/displaced/displaced_pixart_p2_w1",
     "tests/cases/displaced/displaced_pixart_p2_w1", 4, 2, 4 * 48},
    {"hunyuandit", "tests/cases/hunyuandit/model", "tests/cases/displaced/displaced_hunyuandit_p2_w1",
     "tests/cases/displaced/displaced_hunyuandit_p2_w1", 4, 2, 4 * 64},
    {"sdxl", "tests/cases/distrifusion/model", "tests/cases/distrifusion/distrifusion_single",
     "tests/cases/distrifusion/distrifusion_single", 5, 4, 0},
    {"sd21", "tests/cases/unet_sd21/model", "tests/cases/unet_sd21", "tests/cases/distrifusion/distrifusion_single", 5, 4, 0},
};

static struct displaced options(enum sync_mode mode, int checkpoint) {
    return (struct displaced){.mode = mode, .warmup_steps = WARMUP_STEPS, .steps = STEPS, .comm_checkpoint = checkpoint};
}

/* ---- bits ---- */

static void check_bits(struct patch_loop *l, enum sync_mode mode, int64_t rows, int64_t columns) {
    const int checkpoints[] = {1, 2, 5, 0, 1000};
    struct displaced d = options(mode, DISPLACED_CHECKPOINT);
    struct tensor want = patch_loop_run(l, &d, rows, columns);
    displaced_close(&d);
    for (size_t i = 0; i < sizeof checkpoints / sizeof *checkpoints; i++) {
        d = options(mode, checkpoints[i]);
        struct tensor got = patch_loop_run(l, &d, rows, columns);
        bool same = got.data != NULL && want.data != NULL && memcmp(got.data, want.data, tensor_bytes(&want)) == 0;
        CHECK(same, "%s, %s: other bits with %d layers to a message", l->model->name, sync_mode_name(mode), checkpoints[i]);
        displaced_close(&d);
        free(got.data);
    }
    free(want.data);
}

/* ---- messages and bytes ---- */

/* What the second displaced pass, or the last one of a picture, sends under a label (NULL: all);
 * the number of its layers. */
static struct comm_stats_row count_pass(struct patch_loop *l, struct displaced *d, struct tensor x, bool last, const char *label,
                                        int *layers) {
    struct parallel parallel = patch_parallel(l, d);
    struct run *run = &l->t.run;
    struct comm_stats_row row = {0};
    tessera_error error = {0};
    run->parallel = &parallel;
    for (int step = 0; step <= WARMUP_STEPS + 2 + last; step++) {
        size_t scope = run_enter(run);
        displaced_step(d, last && step == WARMUP_STEPS + 3 ? STEPS - 1 : step);
        struct comm_stats_row before = comm_stats_read(l->world->comm, label);
        patch_predict(l, x, 0);
        row = comm_stats_read(l->world->comm, label);
        row.bytes_sent -= before.bytes_sent;
        row.messages_sent -= before.messages_sent;
        arena_release(run->arena, scope);
    }
    CHECK(!run_failed(run), "%s: %s", l->model->name, run->error.message);
    *layers = d->num_places;
    CHECK_OK(displaced_reset(d, &error), error);
    parallel_free(&parallel);
    run->parallel = NULL;
    displaced_close(d);
    return row;
}

static void check_messages(struct patch_loop *l, struct tensor x) {
    const int checkpoints[] = {4, 10, DISPLACED_CHECKPOINT, 1000};
    int layers = 0, others = l->world->size - 1;
    for (size_t i = 0; i < sizeof checkpoints / sizeof *checkpoints; i++) {
        struct displaced d = options(SYNC_CORRECTED_ASYNC_GN, checkpoints[i]);
        uint64_t messages = count_pass(l, &d, x, false, "displaced", &layers).messages_sent;
        int each = (layers + checkpoints[i] - 1) / checkpoints[i];
        CHECK(messages == (uint64_t)(others * each), "%s: %d messages for %d layers, %d together: %d are right", l->model->name,
              (int)messages, layers, checkpoints[i], others * each);
    }
    struct displaced d = options(SYNC_CORRECTED_ASYNC_GN, 0);
    CHECK(count_pass(l, &d, x, true, "displaced", &layers).messages_sent == 0, "%s: the last step sends something", l->model->name);
}

static void check_transformer_bytes(struct patch_loop *l, struct tensor x) {
    int layers, n = l->world->size, me = comm_rank(l->world->comm);
    int64_t batch = l->model->guidance > 0 ? 2 : 1, tokens = x.shape[1] / l->model->unit / n * (x.shape[2] / l->model->unit);
    int64_t text = l->t.component.denoiser->text_stream ? l->inputs.in.text.shape[1] : 0;
    for (int split = 0; split <= 1; split++) {
        int64_t words = !split ? 0 : text * (me + 1) / n - text * me / n;
        uint64_t want = (uint64_t)(2 * batch * (tokens + words) * l->model->attention * (n - 1)) * sizeof(float);
        struct displaced d = options(SYNC_CORRECTED_ASYNC_GN, 0);
        l->split_text = split;
        uint64_t got = count_pass(l, &d, x, false, "displaced", &layers).bytes_sent;
        CHECK(got == want, "%s: %d bytes sent in a step, %d are right", l->model->name, (int)got, (int)want);
    }
    l->split_text = false;
}

/* All that is sent in one pass, with other group norms. */
static void check_unet_bytes(struct patch_loop *l, struct tensor x) {
    int layers;
    uint64_t exact = 0;
    const struct formula f = {.mesh = l->world->mesh,
                              .config = l->t.component.config,
                              .denoiser = l->t.component.denoiser,
                              .weights = l->t.component.weights,
                              .dtype = DTYPE_F32,
                              .batch = 2,
                              .rows = x.shape[1],
                              .columns = x.shape[2],
                              .text_tokens = l->inputs.in.text.shape[1]};
    CHECK(formula_bytes(&f, &exact), "%s has no formula", l->model->name);
    struct displaced d = options(SYNC_SYNC_GN, 0);
    uint64_t all = count_pass(l, &d, x, false, NULL, &layers).bytes_sent;
    CHECK(all == exact, "%s, sync_gn: %d bytes sent in a step, %d are right", l->model->name, (int)all, (int)exact);
    d = options(SYNC_SYNC_GN, 0);
    uint64_t norms = count_pass(l, &d, x, false, "group norm", &layers).bytes_sent;
    d = options(SYNC_CORRECTED_ASYNC_GN, 0);
    uint64_t corrected = count_pass(l, &d, x, false, NULL, &layers).bytes_sent;
    CHECK(norms > 0 && corrected == exact + norms, "%s, corrected: %d bytes, %d are right", l->model->name, (int)corrected,
          (int)(exact + norms));
    d = options(SYNC_SEPARATE_GN, 0);
    uint64_t separate = count_pass(l, &d, x, false, NULL, &layers).bytes_sent;
    CHECK(separate == exact - norms, "%s, separate_gn: %d bytes, %d are right", l->model->name, (int)separate, (int)(exact - norms));
}

/* ---- stillness ---- */

/* Displaced passes at one input, from what a pass at another input has left behind. */
static void check_stillness(struct patch_loop *l, struct tensor x) {
    struct run *run = &l->t.run;
    size_t scope = run_enter(run);
    struct tensor want = patch_predict(l, x, 0), got = {0}, other = run_tensor(run, DTYPE_F32, x.ndim, x.shape);
    struct displaced d = {.mode = SYNC_STALE_GN};
    struct parallel parallel = patch_parallel(l, &d);
    tessera_error error = {0};
    if (run_failed(run)) return;
    double worst = 0, first = 0;
    for (int64_t i = 0; i < tensor_count(&x); i++) ((float *)other.data)[i] = 0.5f - ((float *)x.data)[i];
    run->parallel = &parallel;
    displaced_step(&d, 0);
    patch_predict(l, other, 0);
    int passes = d.num_places + 1;
    for (int pass = 1; pass <= passes && !run_failed(run); pass++) {
        displaced_step(&d, pass);
        got = patch_predict(l, x, 0);
        worst = 0;
        for (int64_t i = 0; i < tensor_count(&want) && got.data != NULL; i++)
            worst = fmax(worst, fabs((double)((float *)got.data)[i] - ((float *)want.data)[i]));
        if (pass == 1) first = worst;
    }
    CHECK(!run_failed(run), "%s: %s", l->model->name, run->error.message);
    CHECK(worst < 1e-4 && first > 10 * worst, "%s: %g off after %d passes, %g after the first", l->model->name, worst, passes, first);
    CHECK_OK(displaced_reset(&d, &error), error);
    displaced_close(&d);
    parallel_free(&parallel);
    run->parallel = NULL;
    arena_release(run->arena, scope);
}

static void run_model(const struct patch_world *world, const struct patch_model *model) {
    struct patch_loop l;
    if (!patch_loop_open(&l, world, model, STEPS)) return;
    int64_t even = 2 * model->unit * world->size, uneven = model->unit * (world->size + 1), columns = 4 * model->unit;
    for (int mode = 0; mode < SYNC_MODES; mode++)
        if (model->attention == 0 || mode == SYNC_CORRECTED_ASYNC_GN) check_bits(&l, (enum sync_mode)mode, uneven, columns);
    struct tensor x = patch_noise(&l, even, columns);
    check_messages(&l, x);
    if (model->attention > 0)
        check_transformer_bytes(&l, x);
    else
        check_unet_bytes(&l, x);
    check_stillness(&l, x);
    free(x.data);
    patch_loop_close(&l);
}

int main(void) {
    struct patch_world world = {0};
    patch_world_open(&world);
    for (size_t i = 0; i < sizeof models / sizeof *models && world.size > 1; i++) run_model(&world, &models[i]);
    return patch_world_close(&world);
}
