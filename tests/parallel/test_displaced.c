/* The exchanges of displaced patches over made-up layers: in every mode, with every number of
 * layers to a message, each layer is given what its peers had in the step that the mode says, byte
 * for byte; messages and bytes are counted.
 *
 *     mpirun -n N test_displaced
 *
 * A layer's numbers follow from step, layer and rank, so each rank knows what it must be given. One
 * step skips all but its first layers, as a step cache does; the next one must then find what was
 * sent last. */
#include <string.h>

#include "comm/ranks.h"
#include "comm/stats.h"
#include "parallel/displaced.h"

enum { LAYERS = 24, STEPS = 7, WARMUP_STEPS = 1, SKIPPING_STEP = 4, SKIPPED_FROM = 2, MOST_BYTES = 4096, MOST_MEMBERS = 16 };

struct fixture {
    struct comm *world;
    int members, me;
    struct displaced displaced;
    int sent_at[LAYERS];  /* the step whose numbers the others have */
    int wrote_at[LAYERS]; /* the step whose numbers this rank's own block holds */
};

/* ---- layers ---- */

/* Every third layer sends rows to its neighbours, every sixth in one direction only; the others
 * blocks to all, uneven, some empty. */
static bool is_halo(int layer) {
    return layer % 3 == 1;
}

static size_t block_bytes(int layer, int member) {
    return layer == 5 && member == 0 ? 0 : (size_t)(16 + 40 * (layer % 4) + 8 * member);
}

/* Rows that a member sends up (0) or down (1). */
static size_t row_bytes(const struct fixture *f, int layer, int member, int direction) {
    bool has = direction == 0 ? member > 0 : member < f->members - 1;
    return !has || (direction == 0 && layer % 6 == 4) ? 0 : (size_t)(24 + 8 * (layer % 5));
}

static uint32_t seed_of(int step, int layer, int member, int kind) {
    return (uint32_t)(((step * LAYERS + layer) * MOST_MEMBERS + member) * 3 + kind + 1);
}

static size_t wrong(const char *data, size_t bytes, uint32_t seed) {
    return wrong_bytes((const uint8_t *)data, bytes, seed);
}

static struct displaced_sizes sizes_of(const struct fixture *f, int layer, size_t all[MOST_MEMBERS]) {
    struct displaced_sizes sizes = {0};
    for (int i = 0; i < f->members && !is_halo(layer); i++) all[i] = block_bytes(layer, i);
    if (!is_halo(layer)) sizes.all = all;
    if (!is_halo(layer)) return sizes;
    for (int i = 0; i < 2; i++) {
        int neighbour = f->me - 1 + 2 * i;
        sizes.out[i] = row_bytes(f, layer, f->me, i);
        sizes.in[i] = neighbour >= 0 && neighbour < f->members ? row_bytes(f, layer, neighbour, 1 - i) : 0;
    }
    return sizes;
}

/* The others' data against the step of which they should be. */
static size_t wrong_of_others(const struct fixture *f, int layer, const struct displaced_sizes *sizes, const struct displaced_data *data,
                              int step) {
    size_t sum = 0;
    for (int i = 0; i < f->members && sizes->all != NULL; i++)
        if (i != f->me) sum += wrong(data->all[i], sizes->all[i], seed_of(step, layer, i, 0));
    for (int i = 0; i < 2; i++) sum += wrong(data->in[i], sizes->in[i], seed_of(step, layer, f->me - 1 + 2 * i, 2 - i));
    return sum;
}

static void write_mine(const struct fixture *f, int layer, const struct displaced_sizes *sizes, const struct displaced_data *data,
                       int step) {
    if (sizes->all != NULL) fill_bytes((uint8_t *)data->all[f->me], sizes->all[f->me], seed_of(step, layer, f->me, 0));
    for (int i = 0; i < 2; i++) fill_bytes((uint8_t *)data->out[i], sizes->out[i], seed_of(step, layer, f->me, 1 + i));
}

static void run_layer(struct fixture *f, int step, int layer) {
    struct displaced *d = &f->displaced;
    struct displaced_data data;
    tessera_error error = {0};
    size_t all[MOST_MEMBERS];
    struct displaced_sizes sizes = sizes_of(f, layer, all);
    bool fresh = step <= WARMUP_STEPS || d->mode == SYNC_FULL_SYNC;
    CHECK_OK(displaced_receive(d, &sizes, &data, &error), error);
    if (!fresh) {
        size_t off = wrong_of_others(f, layer, &sizes, &data, f->sent_at[layer]);
        CHECK(off == 0, "mode %d, step %d, layer %d: %d bytes of the others are not of step %d", d->mode, step, layer, (int)off,
              f->sent_at[layer]);
        if (sizes.all != NULL) off = wrong(data.all[f->me], sizes.all[f->me], seed_of(f->wrote_at[layer], layer, f->me, 0));
        CHECK(off == 0, "mode %d, step %d, layer %d: %d of its own bytes", d->mode, step, layer, (int)off);
    }
    write_mine(f, layer, &sizes, &data, step);
    displaced_send(d);
    if (sizes.all != NULL && f->members > 1) CHECK_OK(displaced_wait(d, (f->me + 1) % f->members, &error), error);
    CHECK_OK(displaced_wait_all(d, &error), error);
    size_t off = wrong_of_others(f, layer, &sizes, &data, fresh ? step : f->sent_at[layer]);
    CHECK(off == 0, "mode %d, step %d, layer %d: %d bytes after sending", d->mode, step, layer, (int)off);
    if (sizes.all != NULL) off = wrong(data.all[f->me], sizes.all[f->me], seed_of(step, layer, f->me, 0));
    CHECK(off == 0, "mode %d, step %d, layer %d: its own block after sending", d->mode, step, layer);
    f->wrote_at[layer] = step;
    if (step <= WARMUP_STEPS || d->mode != SYNC_NO_SYNC) f->sent_at[layer] = step;
}

/* ---- counting ---- */

/* What this rank sends in one displaced step: a message to each member for whom `layers` layers in
 * a row have anything. */
static struct comm_stats_row expected(const struct fixture *f, int layers) {
    struct comm_stats_row row = {0};
    for (int to = 0; to < f->members; to++)
        for (int first = 0; first < LAYERS && to != f->me; first += layers) {
            uint64_t bytes = 0;
            for (int l = first; l < LAYERS && l < first + layers; l++) {
                if (!is_halo(l)) bytes += block_bytes(l, f->me);
                if (is_halo(l) && to == f->me - 1) bytes += row_bytes(f, l, f->me, 0);
                if (is_halo(l) && to == f->me + 1) bytes += row_bytes(f, l, f->me, 1);
            }
            row.bytes_sent += bytes;
            row.messages_sent += bytes > 0;
        }
    return row;
}

static void check_counts(const struct fixture *f, struct comm_stats_row before, bool sends) {
    struct comm_stats_row now = comm_stats_read(f->world, "displaced"), want = {0};
    int c = f->displaced.comm_checkpoint;
    if (c <= 0) c = (LAYERS + DISPLACED_MESSAGES - 1) / DISPLACED_MESSAGES;
    if (sends) want = expected(f, c);
    CHECK(now.messages_sent - before.messages_sent == want.messages_sent, "%d layers to a message: %d messages, %d are right", c,
          (int)(now.messages_sent - before.messages_sent), (int)want.messages_sent);
    CHECK(now.bytes_sent - before.bytes_sent == want.bytes_sent, "%d layers to a message: %d bytes, %d are right", c,
          (int)(now.bytes_sent - before.bytes_sent), (int)want.bytes_sent);
    if (sends && c > 2) /* every such group has a layer for all */
        CHECK(want.messages_sent == (uint64_t)((f->members - 1) * ((LAYERS + c - 1) / c)), "messages per member are ceil(layers / %d)", c);
}

/* ---- runs ---- */

static void run_picture(struct fixture *f, bool skips) {
    struct displaced *d = &f->displaced;
    bool sends = d->mode != SYNC_FULL_SYNC && d->mode != SYNC_NO_SYNC;
    for (int step = 0; step < STEPS; step++) {
        bool skipping = skips && step == SKIPPING_STEP;
        displaced_step(d, step);
        struct comm_stats_row before = comm_stats_read(f->world, "displaced");
        for (int layer = 0; layer < (skipping ? SKIPPED_FROM : LAYERS); layer++) run_layer(f, step, layer);
        if (!skipping) check_counts(f, before, sends && step > WARMUP_STEPS && step != STEPS - 1);
    }
}

int main(void) {
    tessera_error error = {0};
    struct fixture f = {0};
    if (comm_world_open(NULL, &f.world, &error) != TESSERA_OK) return 1;
    f.members = comm_size(f.world);
    f.me = comm_rank(f.world);
    const int layers[] = {0, 1, 2, 3, 4, 7, LAYERS - 1, LAYERS, 60};
    for (int mode = 0; mode < SYNC_MODES && f.members > 1; mode++)
        for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
            f.displaced = (struct displaced){
                .group = f.world, .mode = (enum sync_mode)mode, .warmup_steps = WARMUP_STEPS, .steps = STEPS, .comm_checkpoint = layers[i]};
            for (int picture = 0; picture < 3; picture++) {
                run_picture(&f, picture == 1);
                CHECK_OK(displaced_reset(&f.displaced, &error), error);
            }
            displaced_close(&f.displaced);
        }
    CHECK(sync_mode_name(SYNC_MODES) == NULL && strcmp(sync_mode_name(SYNC_NO_SYNC), "no_sync") == 0, "names");
    return ranks_report(f.world);
}
