/* Attention over ranks, one layer at a time, against what one rank makes of all tokens, and what
 * its messages leave behind.
 *
 *     Ulysses          bit for bit one rank's: with and without a text, before or behind the picture, cut or whole on each rank, asking or not
 *     PCPP             on two ranks bit for bit displaced patches, step after step; on more ranks not
 *     a failure        of one rank's own between posting and waiting: its messages still come to their end before their memory goes
 *
 *     mpirun -n N test_attention */
#include <string.h>
#include <unistd.h>

#include "comm/mesh.h"
#include "comm/ranks.h"
#include "nn/run.h"
#include "parallel/exchange.h"
#include "parallel/strategy.h"

enum { ROWS = 9, COLUMNS = 5, HEADS = 8, WIDTH = 16, LAYERS = 2, STEPS = 4, MOST_TEXT = 11 };

static struct backend *backend;

/* ---- tensors ---- */

/* Numbers that depend on the seed alone. */
static struct tensor made(struct run *run, enum dtype dtype, int64_t batch, int64_t tokens, uint32_t seed) {
    struct tensor t = run_tensor(run, DTYPE_F32, SHAPE(batch, tokens, HEADS, WIDTH)), out = run_tensor(run, dtype, t.ndim, t.shape);
    uint32_t state = seed * 2654435761u + 12345;
    for (int64_t i = 0; i < tensor_count(&t); i++) {
        state = state * 1664525u + 1013904223u;
        ((float *)t.data)[i] = (float)(state >> 8) / (float)(1 << 23) - 1.0f;
    }
    dtype_convert(out.data, dtype, t.data, DTYPE_F32, (size_t)tensor_count(&t));
    return out;
}

/* Tokens `span` of each of the batch. */
static struct tensor some(struct run *run, struct tensor all, struct span span) {
    struct tensor out = run_tensor(run, all.dtype, SHAPE(all.shape[0], span.count, HEADS, WIDTH));
    if (span.count > 0) token_span_copy(run, (struct token_span){out, 0, span.count}, (struct token_span){all, span.first, span.count});
    return out;
}

static struct run run_of(struct parallel *parallel, enum dtype dtype) {
    tessera_error error = {0};
    struct run run = {.backend = backend, .arena = arena_new((size_t)1 << 28, &error), .dtype = dtype, .parallel = parallel};
    CHECK(run.arena != NULL, "%s", error.message);
    return run;
}

/* ---- a layer ---- */

struct layer {
    enum dtype dtype;
    int64_t batch, text;
    bool text_first, text_asks;
    uint32_t seed;
};

/* The layer's result for this rank's tokens, or all of them where the run is alone: [picture, text]. */
static void attend(struct run *run, const struct layer *layer, struct tensor out[2]) {
    const struct cut *cut = exchange_cut_tokens(run, ROWS, COLUMNS);
    struct span spans[2] = {cut_mine(cut, ROWS * COLUMNS), exchange_text_span(run, layer->text)};
    int place[2] = {layer->text_first ? 1 : 0, layer->text_first ? 0 : 1}; /* of picture and text among the streams */
    struct attention_streams in = {.scale = 0.25f};
    struct token_span rows[2];
    for (int s = 0; s < 2 && (s == 0 || layer->text > 0); s++) {
        struct tensor *const parts[] = {in.q, in.k, in.v};
        for (int part = 0; part < 3; part++) {
            struct tensor all =
                made(run, layer->dtype, layer->batch, s == 0 ? ROWS * COLUMNS : layer->text, layer->seed + (uint32_t)(s * 3 + part));
            if (part > 0 || s == 0 || layer->text_asks) parts[part][place[s]] = some(run, all, spans[s]);
        }
    }
    struct text_span text = {.first = layer->text_first ? 0 : spans[0].count,
                             .count = layer->text > 0 ? spans[1].count : 0,
                             .total = layer->text,
                             .in_queries = layer->text_asks};
    exchange_attention(run, &in, cut, layer->text > 0 ? text : (struct text_span){0}, rows);
    CHECK(!run_failed(run), "%s", run->error.message);
    for (int s = 0; s < 2; s++) out[s] = rows[place[s]].count > 0 ? token_span_tensor(run, rows[place[s]]) : (struct tensor){0};
}

static bool same(struct tensor a, struct tensor b) {
    if (a.data == NULL || b.data == NULL) return a.data == b.data;
    return tensor_bytes(&a) == tensor_bytes(&b) && memcmp(a.data, b.data, tensor_bytes(&a)) == 0;
}

/* ---- Ulysses ---- */

static void check_ulysses(struct parallel *parallel, const struct layer *layer) {
    struct run alone = run_of(NULL, layer->dtype), run = run_of(parallel, layer->dtype);
    struct tensor whole[2], got[2];
    attend(&alone, layer, whole);
    attend(&run, layer, got);
    struct span mine = cut_mine(exchange_cut_tokens(&run, ROWS, COLUMNS), ROWS * COLUMNS);
    CHECK(same(got[0], some(&alone, whole[0], mine)), "%s, %d of text%s, batch %d: other bits than one rank's", dtype_name(layer->dtype),
          (int)layer->text, layer->text_first ? " first" : "", (int)layer->batch);
    if (whole[1].data != NULL)
        CHECK(same(got[1], some(&alone, whole[1], exchange_text_span(&run, layer->text))), "%s, %d tokens of text%s: its own bits differ",
              dtype_name(layer->dtype), (int)layer->text, layer->text_first ? " first" : "");
    arena_free(alone.arena);
    arena_free(run.arena);
}

static void test_ulysses(struct comm *world) {
    struct strategy_choice choice = {.degrees = {1, 1, 1, 1, 1, comm_size(world), 1}, .patches = 1};
    struct mesh *mesh = NULL;
    struct parallel parallel;
    tessera_error error = {0};
    CHECK_OK(mesh_open(world, choice.degrees, &mesh, &error), error);
    CHECK_OK(parallel_compose(&choice, mesh->group, &parallel, &error), error);
    for (int i = 0; i < 48; i++) {
        struct layer layer = {.dtype = i & 1 ? DTYPE_BF16 : DTYPE_F32, .batch = 1 + (i >> 1 & 1), .seed = (uint32_t)(100 * i)};
        layer.text = (const int64_t[]){0, 1, MOST_TEXT}[i / 16]; /* one token is whole on each rank */
        layer.text_asks = layer.text > 0 && (i >> 2 & 1);
        layer.text_first = layer.text_asks && (i >> 3 & 1);
        check_ulysses(&parallel, &layer);
    }
    parallel_free(&parallel);
    mesh_free(mesh);
}

/* ---- neighbours ---- */

/* What a strategy of the patch axis makes of a picture's layers and steps, one behind the other. */
static void run_patches(struct comm *world, const char *strategy, enum sync_mode mode, struct run *run, struct tensor outs[STEPS * LAYERS]) {
    struct strategy_choice choice = {
        .degrees = {1, 1, 1, comm_size(world), 1, 1, 1}, .patches = 1, .patch_strategy = strategy_of_patches(strategy), .sync_mode = mode};
    struct mesh *mesh = NULL;
    struct parallel parallel;
    tessera_error error = {0};
    CHECK_OK(mesh_open(world, choice.degrees, &mesh, &error), error);
    CHECK_OK(parallel_compose(&choice, mesh->group, &parallel, &error), error);
    *run = run_of(&parallel, DTYPE_F32);
    for (int i = 0; i < STEPS * LAYERS; i++) {
        struct tensor both[2];
        struct layer layer = {.dtype = DTYPE_F32, .batch = 2, .text = MOST_TEXT, .text_asks = true, .seed = (uint32_t)(1000 + 10 * i)};
        struct strategy_moment moment = {.steps = STEPS, .step = i / LAYERS, .patch = -1, .predictions = 2};
        if (i % LAYERS == 0) parallel_begin(&parallel, &moment);
        attend(run, &layer, both);
        outs[i] = both[0];
    }
    CHECK_OK(parallel_reset(&parallel, &error), error);
    run->parallel = NULL;
    parallel_free(&parallel);
    mesh_free(mesh);
}

/* Neighbours alone, or all ranks where every step is synchronous. */
static void test_neighbours(struct comm *world, enum sync_mode mode) {
    struct tensor all[STEPS * LAYERS], near[STEPS * LAYERS];
    struct run run_all, run_near;
    int differ = 0, rank = comm_rank(world), n = comm_size(world);
    run_patches(world, "patch", mode, &run_all, all);
    run_patches(world, "pcpp", mode, &run_near, near);
    for (int i = 0; i < STEPS * LAYERS; i++) differ += !same(all[i], near[i]);
    bool sees_all = n == 2 || (n == 3 && rank == 1) || mode == SYNC_FULL_SYNC;
    CHECK(sees_all == (differ == 0), "rank %d of %d, %s: %d of %d layers differ", rank, n, sync_mode_name(mode), differ, STEPS * LAYERS);
    arena_free(run_all.arena);
    arena_free(run_near.arena);
}

/* ---- a failure ---- */

/* Rank 0 fails while the others' rows are on their way: when the wait returns they are there, and
 * none comes later into memory that may be somebody else's by then. After the failure nothing more
 * is started. */
static void test_failure(struct comm *world) {
    enum { TOKENS = 4000, BATCH = 2 };
    int rank = comm_rank(world), n = comm_size(world);
    struct run run = run_of(NULL, DTYPE_F32);
    struct transfer t = {.group = world};
    struct tensor x = made(&run, DTYPE_F32, BATCH, TOKENS, (uint32_t)(rank + 1)), came = made(&run, DTYPE_F32, BATCH, TOKENS * n, 77);
    if (rank == 0) {
        for (int from = 1; from < n; from++) transfer_receive(&run, &t, from, (struct token_span){came, from * TOKENS, TOKENS});
        error_set(&run.error, TESSERA_ERROR_MEMORY, "a failure of its own");
        transfer_receive(&run, &t, 1, (struct token_span){came, 0, TOKENS});
    } else {
        usleep(50000);
        transfer_send(&run, &t, 0, (struct token_span){x, 0, TOKENS});
    }
    CHECK(t.count == (rank == 0 ? BATCH * (n - 1) : BATCH), "%d messages", t.count);
    transfer_wait(&run, &t);
    CHECK(t.count == 0 && t.messages == NULL, "messages are left");
    CHECK((run.error.status == TESSERA_ERROR_MEMORY) == (rank == 0), "rank %d: %s", rank, run.error.message);
    for (int from = 1; from < n && rank == 0; from++) {
        struct run other = run_of(NULL, DTYPE_F32);
        struct tensor want = made(&other, DTYPE_F32, BATCH, TOKENS, (uint32_t)(from + 1));
        CHECK(same(some(&other, came, (struct span){from * TOKENS, TOKENS}), want), "rank %d's rows had not come", from);
        arena_free(other.arena);
    }
    arena_free(run.arena);
}

int main(void) {
    struct comm *world = NULL;
    tessera_error error = {0};
    if (comm_world_open(NULL, &world, &error) != TESSERA_OK || (backend = cpu_backend_open(1, CPU_KERNELS_BEST, &error)) == NULL) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    if (comm_size(world) > 1) {
        test_ulysses(world);
        test_neighbours(world, SYNC_CORRECTED_ASYNC_GN);
        test_neighbours(world, SYNC_FULL_SYNC);
        test_failure(world);
    }
    backend_free(backend);
    return ranks_report(world);
}
