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
#include <string.h>

#include "parallel/exchange.h"

/* `count` rows of x from `first` on, packed, into `rows`, which has as many. */
static void pack_rows(struct run *run, struct tensor rows, struct tensor x, int64_t first, int64_t count) {
    int64_t width = x.shape[2] * x.shape[3];
    struct tensor out = tensor_reshape(rows, SHAPE(x.shape[0], count, width)), in = tensor_reshape(x, SHAPE(x.shape[0], x.shape[1], width));
    if (count > 0) run->backend->ops->copy_rows(run->backend, &out, 0, &in, first, count);
}

/* Rows first .. first + count of x, packed, on their way to `to`. */
static struct tensor send_rows(struct run *run, struct tensor x, int64_t first, int64_t count, int to, struct comm_request **request) {
    struct tensor rows = run_tensor(run, x.dtype, SHAPE(x.shape[0], count, x.shape[2], x.shape[3]));
    if (run_failed(run)) return rows;
    pack_rows(run, rows, x, first, count);
    *request = comm_send_start(run->parallel->rows, to, rows.data, tensor_bytes(&rows));
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
    struct displaced_data data;
    bool has[2] = {comm_rank(d->group) > 0, comm_rank(d->group) < comm_size(d->group) - 1};
    int64_t in[2] = {has[0] ? above : 0, has[1] ? below : 0}, out[2] = {has[0] ? below : 0, has[1] ? above : 0};
    size_t row = tensor_bytes(&x) / (size_t)x.shape[1];
    const struct displaced_sizes sizes = {.in = {(size_t)in[0] * row, (size_t)in[1] * row},
                                          .out = {(size_t)out[0] * row, (size_t)out[1] * row}};
    comm_label(d->group, "halo");
    if (displaced_receive(d, &sizes, &data, &run->error) != TESSERA_OK) return halo;
    struct tensor rows[2], *halves[2] = {&halo.above, &halo.below};
    for (int i = 0; i < 2; i++) {
        rows[i] = tensor_of(data.out[i], x.dtype, SHAPE(x.shape[0], out[i], x.shape[2], x.shape[3]));
        if (in[i] > 0) *halves[i] = tensor_of(data.in[i], x.dtype, SHAPE(x.shape[0], in[i], x.shape[2], x.shape[3]));
    }
    pack_rows(run, rows[0], x, 0, out[0]);
    pack_rows(run, rows[1], x, x.shape[1] - out[1], out[1]);
    displaced_send(d);
    displaced_wait_all(d, &run->error);
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

/* mean_j B_j of group g over all members' blocks [weight, groups x (mean, square)], weighted by rows, which the published code has equal;
 * `old`, where it is not NULL, in place of member `self`'s block. Blocks may lie anywhere in memory. */
static struct moments average(char *const *blocks, int members, int64_t g, int self, const double *old) {
    struct moments sum = {0, 0};
    double total = 0;
    for (int i = 0; i < members; i++) {
        const char *block = old != NULL && i == self ? (const char *)old : blocks[i];
        double weight, m[2];
        memcpy(&weight, block, sizeof weight);
        memcpy(m, block + (1 + 2 * g) * (int64_t)sizeof *m, sizeof m);
        sum.mean += weight * m[0];
        sum.square += weight * m[1];
        total += weight;
    }
    return (struct moments){sum.mean / total, sum.square / total};
}

/* This rank's block goes out, the others' are at data->all; *old, in the mode that asks for it, becomes this rank's of the step before. */
static tessera_status exchange_moments(struct run *run, const double *block, int64_t numbers, double *old, struct displaced_data *data) {
    struct displaced *d = run->parallel->displaced;
    int members = comm_size(d->group), me = comm_rank(d->group);
    size_t bytes[members];
    for (int i = 0; i < members; i++) bytes[i] = (size_t)numbers * sizeof *block;
    comm_label(d->group, "group norm");
    TRY(displaced_receive(d, &(struct displaced_sizes){.all = bytes}, data, &run->error));
    memcpy(old, d->synchronous ? (const char *)block : data->all[me], bytes[me]);
    memcpy(data->all[me], block, bytes[me]);
    displaced_send(d);
    return displaced_wait_all(d, &run->error);
}

/* DistriFusion's statistics after warm-up (section 4.2, "corrected asynchronous group norm"), or with the others' taken as they were: where
 * the variance comes out negative, this rank's own. */
static void displace_stats(struct run *run, struct tensor *stats, double weight) {
    struct displaced *d = run->parallel->displaced;
    int members = comm_size(d->group), me = comm_rank(d->group);
    int64_t groups = tensor_count(stats) / 2, each = 1 + 2 * groups;
    bool corrects = d->mode == SYNC_CORRECTED_ASYNC_GN;
    size_t scope = run_enter(run);
    struct tensor mine = run_tensor(run, DTYPE_F64, SHAPE(each)), before = run_tensor(run, DTYPE_F64, SHAPE(each));
    struct displaced_data data;
    if (run_failed(run)) return;
    float *values = stats->data;
    double *block = mine.data, *old = before.data;
    block[0] = weight;
    for (int64_t g = 0; g < groups; g++) {
        struct moments m = moments_of(values + 2 * g);
        block[1 + 2 * g] = m.mean;
        block[2 + 2 * g] = m.square;
    }
    if (exchange_moments(run, block, each, old, &data) != TESSERA_OK) return;
    for (int64_t g = 0; g < groups; g++) {
        struct moments m = average(data.all, members, g, me, corrects ? old : NULL);
        if (corrects) {
            m.mean += block[1 + 2 * g] - old[1 + 2 * g];
            m.square += block[2 + 2 * g] - old[2 + 2 * g];
        }
        double variance = m.square - m.mean * m.mean;
        if (variance >= 0) values[2 * g + 1] = (float)variance;
        values[2 * g] = (float)m.mean;
    }
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
