/* Rows of the neighbours, and statistics of the whole picture: what convolutions and group norms need of a picture that is cut by rows.
 *
 *     member i - 1   . . . . .           above: the last rows of member i - 1
 *                    a a a a a   <---
 *     member i       . . . . .
 *                    . . . . .
 *                    b b b b b   <---    below: the first rows of member i + 1
 *     member i + 1   . . . . .
 *
 * Sent per rank: at most `above` rows down and `below` rows up; for statistics (n - 1) times 3 numbers per group. */
#include <assert.h>

#include "parallel/exchange.h"

/* `count` rows of x from `first` on, packed; empty where count is 0. */
static struct tensor packed_rows(struct run *run, struct tensor x, int64_t first, int64_t count) {
    struct tensor rows = run_tensor(run, x.dtype, SHAPE(x.shape[0], count, x.shape[2], x.shape[3]));
    if (run_failed(run) || count == 0) return rows;
    int64_t width = x.shape[2] * x.shape[3];
    struct tensor out = tensor_reshape(rows, SHAPE(x.shape[0], count, width)), in = tensor_reshape(x, SHAPE(x.shape[0], x.shape[1], width));
    run->backend->ops->copy_rows(run->backend, &out, 0, &in, first, count);
    return rows;
}

/* Rows first .. first + count of x, packed, on their way to `to`. */
static struct tensor send_rows(struct run *run, struct tensor x, int64_t first, int64_t count, int to, struct comm_request **request) {
    struct tensor rows = packed_rows(run, x, first, count);
    if (!run_failed(run)) *request = comm_send_start(run->parallel->rows, to, rows.data, tensor_bytes(&rows));
    return rows;
}

static struct tensor receive_rows(struct run *run, struct tensor x, int64_t count, int from, struct comm_request **request) {
    struct tensor rows = run_tensor(run, x.dtype, SHAPE(x.shape[0], count, x.shape[2], x.shape[3]));
    if (!run_failed(run)) *request = comm_receive_start(run->parallel->rows, from, rows.data, tensor_bytes(&rows));
    return rows;
}

/* The neighbours' rows of one step before. */
static struct halo displaced_halo(struct run *run, struct tensor x, int64_t above, int64_t below) {
    struct displaced *d = run->parallel->displaced;
    struct halo halo = {0};
    bool has[2] = {comm_rank(d->group) > 0, comm_rank(d->group) < comm_size(d->group) - 1};
    struct tensor up = packed_rows(run, x, 0, has[0] ? below : 0), down = packed_rows(run, x, x.shape[1] - above, has[1] ? above : 0);
    halo.above = packed_rows(run, x, 0, has[0] ? above : 0);
    halo.below = packed_rows(run, x, 0, has[1] ? below : 0);
    if (run_failed(run)) return halo;
    const void *out[2] = {up.data, down.data};
    void *in[2] = {halo.above.data, halo.below.data};
    const size_t out_bytes[2] = {tensor_bytes(&up), tensor_bytes(&down)},
                 in_bytes[2] = {tensor_bytes(&halo.above), tensor_bytes(&halo.below)};
    bool fresh = d->mode == SYNC_FULL_SYNC;
    comm_label(d->group, "halo");
    if (displaced_neighbours(d, out, out_bytes, in, in_bytes, fresh, d->mode != SYNC_NO_SYNC, &run->error) != TESSERA_OK) return halo;
    if (in_bytes[0] == 0) halo.above = (struct tensor){0};
    if (in_bytes[1] == 0) halo.below = (struct tensor){0};
    return halo;
}

struct halo exchange_halo_start(struct run *run, struct tensor x, int64_t above, int64_t below) {
    struct halo halo = {0};
    if (run_failed(run) || !parallel_cuts_rows(run->parallel)) return halo;
    if (run->parallel->displaced != NULL) return displaced_halo(run, x, above, below);
    int me = comm_rank(run->parallel->rows), last = comm_size(run->parallel->rows) - 1;
    assert(x.ndim == 4 && x.shape[1] >= above && x.shape[1] >= below);
    comm_label(run->parallel->rows, "halo");
    if (me > 0 && above > 0) halo.above = receive_rows(run, x, above, me - 1, &halo.requests[0]);
    if (me < last && below > 0) halo.below = receive_rows(run, x, below, me + 1, &halo.requests[1]);
    if (me < last && above > 0) halo.out[0] = send_rows(run, x, x.shape[1] - above, above, me + 1, &halo.requests[2]);
    if (me > 0 && below > 0) halo.out[1] = send_rows(run, x, 0, below, me - 1, &halo.requests[3]);
    return halo;
}

void exchange_halo_wait(struct run *run, struct halo *halo) {
    for (int i = 0; i < 4; i++) {
        tessera_error error = {0};
        if (halo->requests[i] == NULL) continue;
        if (comm_wait(run->parallel->rows, halo->requests[i], &error) != TESSERA_OK && !run_failed(run)) run->error = error;
        halo->requests[i] = NULL;
    }
}

/* (mean, variance) of `seen` take in another part's of `more`. */
static void merge(double *mean, double *variance, double seen, const float *part, double more) {
    double share = more / (seen + more), distance = part[0] - *mean;
    *variance = *variance * (1.0 - share) + part[1] * share + distance * distance * share * (1.0 - share);
    *mean += distance * share;
}

/* Statistics of the whole picture from every rank's, all fresh. */
static void merge_all(struct run *run, struct tensor *stats, double weight) {
    int members = comm_size(run->parallel->rows);
    int64_t groups = tensor_count(stats) / 2, each = 2 * groups + 1;
    size_t bytes[members], scope = run_enter(run);
    struct tensor mine = run_tensor(run, DTYPE_F32, SHAPE(each)), all = run_tensor(run, DTYPE_F32, SHAPE(members * each));
    if (run_failed(run)) return;
    for (int i = 0; i < members; i++) bytes[i] = (size_t)each * sizeof(float);
    float *numbers = mine.data;
    numbers[0] = (float)weight;
    for (int64_t i = 0; i < 2 * groups; i++) numbers[1 + i] = ((const float *)stats->data)[i];
    comm_label(run->parallel->rows, "group norm");
    if (comm_all_gather(run->parallel->rows, mine.data, all.data, bytes, &run->error) != TESSERA_OK) return;
    for (int64_t g = 0; g < groups; g++) {
        double mean = 0, variance = 0, seen = 0;
        for (int i = 0; i < members; i++) {
            const float *part = (const float *)all.data + i * each;
            if (part[0] > 0) merge(&mean, &variance, seen, part + 1 + 2 * g, part[0]);
            seen += part[0];
        }
        ((float *)stats->data)[2 * g] = (float)mean;
        ((float *)stats->data)[2 * g + 1] = (float)variance;
    }
    arena_release(run->arena, scope);
}

/* What a rank knows of one group: means of x and of x^2 over its rows, in float64. */
struct moments {
    double mean, square;
};

static struct moments moments_of(const float *stats) {
    return (struct moments){stats[0], (double)stats[1] + (double)stats[0] * stats[0]};
}

/* mean_j B_j over all members' blocks [weight, groups x (mean, square)], with block `self`'s numbers replaced by `own` where that is not NULL;
 * weighted by rows, which the published code has equal. */
static struct moments average(const double *blocks, int members, int64_t groups, int64_t g, int self, const struct moments *own) {
    struct moments sum = {0, 0};
    double total = 0;
    for (int i = 0; i < members; i++) {
        const double *block = blocks + i * (1 + 2 * groups);
        struct moments m = {block[1 + 2 * g], block[2 + 2 * g]};
        if (own != NULL && i == self) m = *own;
        sum.mean += block[0] * m.mean;
        sum.square += block[0] * m.square;
        total += block[0];
    }
    return (struct moments){sum.mean / total, sum.square / total};
}

/* DistriFusion's statistics after warm-up (section 4.2, "corrected asynchronous group norm"), or with the others' taken as they were: where the
 * variance comes out negative, this rank's own. */
static void displace_stats(struct run *run, struct tensor *stats, double weight) {
    struct displaced *d = run->parallel->displaced;
    int members = comm_size(d->group), me = comm_rank(d->group);
    int64_t groups = tensor_count(stats) / 2, each = 1 + 2 * groups;
    size_t bytes[members], scope = run_enter(run);
    struct tensor mine = run_tensor(run, DTYPE_F64, SHAPE(each));
    char *all = NULL;
    if (run_failed(run)) return;
    float *values = stats->data;
    double *block = mine.data;
    block[0] = weight;
    for (int64_t g = 0; g < groups; g++) {
        struct moments m = moments_of(values + 2 * g);
        block[1 + 2 * g] = m.mean;
        block[2 + 2 * g] = m.square;
    }
    for (int i = 0; i < members; i++) bytes[i] = (size_t)each * sizeof(double);
    comm_label(d->group, "group norm");
    if (displaced_receive(d, block, bytes, false, &all, &run->error) != TESSERA_OK) return;
    const double *blocks = (const double *)(const void *)all, *old = blocks + me * each;
    for (int64_t g = 0; g < groups; g++) {
        struct moments own = moments_of(values + 2 * g), m;
        m = average(blocks, members, groups, g, me, d->mode == SYNC_STALE_GN ? &own : NULL);
        if (d->mode == SYNC_CORRECTED_ASYNC_GN) {
            m.mean += own.mean - old[1 + 2 * g];
            m.square += own.square - old[2 + 2 * g];
        }
        double variance = m.square - m.mean * m.mean;
        if (variance >= 0) values[2 * g + 1] = (float)variance;
        values[2 * g] = (float)m.mean;
    }
    run_checked(run, displaced_send(d, block, true, &run->error), *stats);
    arena_release(run->arena, scope);
}

void exchange_group_stats(struct run *run, struct tensor *stats, double weight, double elements) {
    if (run_failed(run) || !parallel_cuts_rows(run->parallel)) return;
    const struct displaced *d = run->parallel->displaced;
    if (d != NULL && !d->synchronous && (d->mode == SYNC_SEPARATE_GN || d->mode == SYNC_NO_SYNC)) return; /* own rows alone */
    if (d != NULL && (d->mode == SYNC_CORRECTED_ASYNC_GN || d->mode == SYNC_STALE_GN))
        displace_stats(run, stats, weight);
    else
        merge_all(run, stats, weight);
    if (d == NULL || !d->published_group_norm || elements <= 1) return;
    for (int64_t i = 1; i < tensor_count(stats); i += 2) ((float *)stats->data)[i] *= (float)(elements / (elements - 1));
}
