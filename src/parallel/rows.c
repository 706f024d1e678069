/* Rows of a picture over ranks, exactly: what convolutions and group norms need of the others.
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

#include "parallel/rows.h"
#include "parallel/strategy.h"

static bool takes_part(const struct strategy_choice *choice) {
    return choice->degrees[MESH_RING] * choice->degrees[MESH_ULYSSES] > 1;
}

void rows_pack(struct run *run, struct tensor rows, struct tensor x, int64_t first, int64_t count) {
    int64_t width = x.shape[2] * x.shape[3];
    struct tensor out = tensor_reshape(rows, SHAPE(x.shape[0], count, width)), in = tensor_reshape(x, SHAPE(x.shape[0], x.shape[1], width));
    if (count > 0) run->backend->ops->copy_rows(run->backend, &out, 0, &in, first, count);
}

/* Rows first .. first + count of x, packed, on their way to `to`. */
static struct tensor send_rows(struct run *run, struct comm *group, struct tensor x, int64_t first, int64_t count, int to,
                               struct comm_request **request) {
    struct tensor rows = run_tensor(run, x.dtype, SHAPE(x.shape[0], count, x.shape[2], x.shape[3]));
    if (run_failed(run)) return rows;
    rows_pack(run, rows, x, first, count);
    *request = comm_send_start(group, to, rows.data, tensor_bytes(&rows));
    return rows;
}

static struct tensor receive_rows(struct run *run, struct comm *group, struct tensor x, int64_t count, int from,
                                  struct comm_request **request) {
    struct tensor rows = run_tensor(run, x.dtype, SHAPE(x.shape[0], count, x.shape[2], x.shape[3]));
    if (!run_failed(run)) *request = comm_receive_start(group, from, rows.data, tensor_bytes(&rows));
    return rows;
}

static struct halo halo(struct run *run, const struct strategy_link *link, struct tensor x, int64_t above, int64_t below) {
    struct comm *group = link->group;
    struct halo halo = {0};
    int me = comm_rank(group), last = comm_size(group) - 1;
    assert(x.ndim == 4 && x.shape[1] >= above && x.shape[1] >= below);
    comm_label(group, "halo");
    if (me > 0 && above > 0) halo.above = receive_rows(run, group, x, above, me - 1, &halo.requests[0]);
    if (me < last && below > 0) halo.below = receive_rows(run, group, x, below, me + 1, &halo.requests[1]);
    if (me < last && above > 0) halo.out[0] = send_rows(run, group, x, x.shape[1] - above, above, me + 1, &halo.requests[2]);
    if (me > 0 && below > 0) halo.out[1] = send_rows(run, group, x, 0, below, me - 1, &halo.requests[3]);
    return halo;
}

/* (mean, variance) of `seen` take in another part's of `more`. */
static void merge(double *mean, double *variance, double seen, const float *part, double more) {
    double share = more / (seen + more), distance = part[0] - *mean;
    *variance = *variance * (1.0 - share) + part[1] * share + distance * distance * share * (1.0 - share);
    *mean += distance * share;
}

void rows_merge_stats(struct run *run, struct comm *group, struct tensor *stats, double weight) {
    int members = comm_size(group);
    int64_t groups = tensor_count(stats) / 2, each = 2 * groups + 1;
    size_t bytes[members], scope = run_enter(run);
    struct tensor mine = run_tensor(run, DTYPE_F32, SHAPE(each)), all = run_tensor(run, DTYPE_F32, SHAPE(members * each));
    if (run_failed(run)) return;
    for (int i = 0; i < members; i++) bytes[i] = (size_t)each * sizeof(float);
    float *numbers = mine.data;
    numbers[0] = (float)weight;
    for (int64_t i = 0; i < 2 * groups; i++) numbers[1 + i] = ((const float *)stats->data)[i];
    comm_label(group, "group norm");
    if (comm_all_gather(group, mine.data, all.data, bytes, &run->error) != TESSERA_OK) return;
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

static void group_stats(struct run *run, const struct strategy_link *link, struct tensor *stats, double weight, double elements) {
    (void)elements;
    rows_merge_stats(run, link->group, stats, weight);
}

/* Neighbouring rows are apart along the innermost axis that there is. */
static enum mesh_axis axis_of(const struct plan_pass *p) {
    return p->degrees[MESH_ULYSSES] > 1 ? MESH_ULYSSES : MESH_RING;
}

static void meeting_bytes(struct plan_pass *p, const struct meeting *meeting) {
    if (meeting->kind == MEETING_HALO)
        plan_pass_add(p, axis_of(p), meeting->count * plan_pass_halo_rows(p, meeting) * plan_pass_row(p, meeting), 1);
    if (meeting->kind == MEETING_NORM)
        plan_pass_add(p, axis_of(p), meeting->count * (p->parts - 1) * (1 + 2 * p->batch * plan_pass_share(p, meeting)), (int)sizeof(float));
}

/* The prediction's positions, to all that share them. */
static void part_bytes(struct plan_pass *p, int64_t latents) {
    (void)latents;
    if (plan_pass_is_last_stage(p)) plan_pass_add_gather(p, axis_of(p));
}

const struct strategy rows_strategy = {.name = "rows",
                                       .group = MESH_ROWS,
                                       .takes_part = takes_part,
                                       .halo = halo,
                                       .group_stats = group_stats,
                                       .meeting_bytes = meeting_bytes,
                                       .part_bytes = part_bytes};
