/* A stage's states over MPI: they come as they were sent, with constants once and by digest after
 * that, in as many bytes as models/state.h says; and a stage whose model expects something else, of
 * the same length or not, ends the job on all ranks, with an error that names the field.
 *
 *     mpirun -n 2 test_relay */
#include "pipelines/relay.h"

#include <string.h>

#include "comm/ranks.h"
#include "comm/stats.h"

enum { BLOCKS = 2, ROWS = 4, COLUMNS = 6, TEXT = 5, WIDTH = 8, UNITS = 6, KINDS = 1 };

static void describe(const struct denoiser *denoiser, int index, struct denoiser_block_info *info) {
    *info = (struct denoiser_block_info){.carries = DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_TEXT | DENOISER_CARRIES_COND,
                                         .pushes = index == 0};
    info->pops = index == 1;
}

static const struct denoiser_class class = {.name = "relayed", .describe = describe};

struct stage {
    struct denoiser denoiser;
    struct stages stages;
    struct run run;
    struct relay relay;
    struct denoiser_inputs in;
};

/* `rows` x `columns` tokens, text that is only read where `reads`. */
static void open_stage(struct comm *world, struct stage *s, int64_t rows, int64_t columns, bool reads) {
    static float mask[2 * TEXT];
    tessera_error error = {0};
    s->denoiser = (struct denoiser){
        .class = &class, .form = {WIDTH, WIDTH, 0, 3, true}, .num_blocks = BLOCKS, .patch_size = 1, .text_stream = !reads};
    s->run = (struct run){
        .backend = cpu_backend_open(1, CPU_KERNELS_BEST, &error), .arena = arena_new((size_t)1 << 24, &error), .dtype = DTYPE_BF16};
    s->in = (struct denoiser_inputs){.latents = tensor_of(NULL, DTYPE_F32, SHAPE(1, rows, columns, 4)),
                                     .text = tensor_of(NULL, DTYPE_F32, SHAPE(1, TEXT, 4)),
                                     .text_mask = tensor_of(mask, DTYPE_F32, SHAPE(1, TEXT))};
    CHECK_OK(stages_open(&s->denoiser, 2, comm_rank(world), (const int[]){1, 1}, NULL, &s->stages, &error), error);
    CHECK_OK(relay_open(&s->relay, 1, world, &s->denoiser, &s->stages, &s->run, KINDS, &error), error);
}

static void close_stage(struct stage *s) {
    relay_close(&s->relay, 1);
    stages_free(&s->stages);
    arena_free(s->run.arena);
    backend_free(s->run.backend);
}

/* A state of numbers that depend on the unit; its constants do not. */
static struct denoiser_state made(struct stage *s, int unit) {
    static const struct denoiser_map map = {0, 0};
    const unsigned all = DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_TEXT | DENOISER_CARRIES_COND;
    struct denoiser_state state = denoiser_state_expected(&s->denoiser, &s->run, &s->in, 1, all, &map, 1);
    struct tensor *const fields[] = {&state.picture, &state.text, &state.text_mask, &state.cond, &state.skips[0]};
    unsigned constants = denoiser_state_constants(&s->denoiser);
    for (int f = 0; f < 5; f++) {
        *fields[f] = run_tensor(&s->run, fields[f]->dtype, fields[f]->ndim, fields[f]->shape);
        bool constant = f < STATE_SKIPS && (constants >> f & 1);
        fill_bytes(fields[f]->data, tensor_bytes(fields[f]), (uint32_t)(10 * f + (constant ? 0 : 1 + unit)));
        for (size_t i = 0; i < tensor_bytes(fields[f]); i++) ((uint8_t *)fields[f]->data)[i] &= 0x3F; /* finite, as states must be */
    }
    return state;
}

static bool same(struct tensor a, struct tensor b) {
    return tensor_bytes(&a) == tensor_bytes(&b) && memcmp(a.data, b.data, tensor_bytes(&a)) == 0;
}

/* One unit through both stages; the status of this rank. */
static tessera_status pass(struct stage *s, int unit, tessera_error *error) {
    struct relay_unit u = {.inputs = &s->in, .text = true};
    struct denoiser_state want = made(s, unit), got = {0};
    bool skipped = false;
    if (s->relay.stage == 0) return relay_send(&s->relay, &u, &want, false, error);
    TRY(relay_take(&s->relay, &u, unit + 1 < UNITS ? &u : NULL, &got, &skipped, error));
    CHECK(same(got.picture, want.picture) && same(got.cond, want.cond) && same(got.text, want.text) && same(got.text_mask, want.text_mask),
          "unit %d: another state", unit);
    CHECK(got.num_skips == 1 && same(got.skips[0], want.skips[0]) && !skipped, "unit %d: another skip", unit);
    return TESSERA_OK;
}

static size_t aligned(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

static void test_units(struct comm *world, bool reads) {
    struct stage s = {0};
    tessera_error error = {0};
    open_stage(world, &s, ROWS, COLUMNS, reads);
    uint64_t before = comm_stats_read(world, "stages").bytes_sent + comm_stats_read(world, "skips").bytes_sent;
    CHECK_OK(comm_job_begin(world, &error), error);
    tessera_status status = TESSERA_OK;
    for (int i = 0; i < UNITS && status == TESSERA_OK; i++) status = pass(&s, i, &error);
    CHECK(s.relay.store.count == (comm_rank(world) == 1 ? 1 + reads : 0), "%d constants", s.relay.store.count);
    relay_close(&s.relay, 1); /* its messages are the job's */
    CHECK_OK(comm_job_end(world, status, &error), error);
    size_t picture = 64 + aligned(ROWS * COLUMNS * WIDTH * 2), cond = 64 + aligned(3 * 4), text = 64 + aligned(TEXT * WIDTH * 2),
           mask = 64 + aligned(TEXT * 4), digest = 64 + 64, once = mask - digest + (reads ? text - digest : 0);
    uint64_t unit = 2 * 64 + 2 * picture + cond + digest + (reads ? digest : text);
    uint64_t sent = comm_stats_read(world, "stages").bytes_sent + comm_stats_read(world, "skips").bytes_sent - before;
    CHECK(comm_rank(world) == 1 || sent == UNITS * unit + once, "%llu bytes, %llu are right", (unsigned long long)sent,
          (unsigned long long)(UNITS * unit + once));
    close_stage(&s);
}

/* The second stage's model is of a picture of rows x columns: after `units` that fit, all ranks
 * learn which field does not. */
static void test_mismatch(struct comm *world, int64_t rows, int64_t columns, int units, const char *field) {
    struct stage s = {0};
    tessera_error error = {0};
    bool other = comm_rank(world) == 1;
    tessera_status status = TESSERA_OK;
    open_stage(world, &s, ROWS, COLUMNS, true);
    CHECK_OK(comm_job_begin(world, &error), error);
    for (int i = 0; i < units && status == TESSERA_OK; i++) status = pass(&s, i, &error);
    if (other == (units == 0)) s.in.latents = tensor_of(NULL, DTYPE_F32, SHAPE(1, rows, columns, 4));
    if (status == TESSERA_OK) status = pass(&s, units, &error);
    if (status != TESSERA_OK) comm_job_fail(world, &error);
    relay_close(&s.relay, 1);
    status = comm_job_end(world, status, &error);
    CHECK(status == TESSERA_ERROR_FORMAT && strstr(error.message, field) != NULL, "rank %d: %s", comm_rank(world), error.message);
    close_stage(&s);
}

int main(void) {
    struct comm *world = NULL;
    tessera_error error = {0};
    if (comm_world_open(NULL, &world, &error) != TESSERA_OK) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    if (comm_size(world) == 2) {
        test_units(world, false);
        test_units(world, true);
        test_mismatch(world, COLUMNS, ROWS, 0, "field rows: the value is 4, but this model expects 6");        /* as long */
        test_mismatch(world, ROWS, COLUMNS + 1, 0, "field columns: the value is 6, but this model expects 7"); /* longer */
        test_mismatch(world, ROWS - 1, COLUMNS, 0, "field rows: the value is 4, but this model expects 3");    /* shorter */
        test_mismatch(world, 200, 300, 0, "field rows: the value is 4, but this model expects 200");           /* several chunks */
        test_mismatch(world, ROWS, COLUMNS - 1, 2, "field columns: the value is 5, but this model expects 6"); /* expected early */
        test_units(world, true); /* the world runs the next job */
    }
    return ranks_report(world);
}
