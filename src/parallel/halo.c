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

/* Rows first .. first + count of x, packed, on their way to `to`. */
static struct tensor send_rows(struct run *run, struct tensor x, int64_t first, int64_t count, int to, struct comm_request **request) {
    struct tensor rows = run_tensor(run, x.dtype, SHAPE(x.shape[0], count, x.shape[2], x.shape[3]));
    if (run_failed(run)) return rows;
    int64_t width = x.shape[2] * x.shape[3];
    struct tensor out = tensor_reshape(rows, SHAPE(x.shape[0], count, width)), in = tensor_reshape(x, SHAPE(x.shape[0], x.shape[1], width));
    run->backend->ops->copy_rows(run->backend, &out, 0, &in, first, count);
    *request = comm_send_start(run->parallel->rows, to, rows.data, tensor_bytes(&rows));
    return rows;
}

static struct tensor receive_rows(struct run *run, struct tensor x, int64_t count, int from, struct comm_request **request) {
    struct tensor rows = run_tensor(run, x.dtype, SHAPE(x.shape[0], count, x.shape[2], x.shape[3]));
    if (!run_failed(run)) *request = comm_receive_start(run->parallel->rows, from, rows.data, tensor_bytes(&rows));
    return rows;
}

struct halo exchange_halo_start(struct run *run, struct tensor x, int64_t above, int64_t below) {
    struct halo halo = {0};
    if (run_failed(run) || !parallel_cuts_rows(run->parallel)) return halo;
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

void exchange_group_stats(struct run *run, struct tensor *stats, double weight) {
    if (run_failed(run) || !parallel_cuts_rows(run->parallel)) return;
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
