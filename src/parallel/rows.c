/* Rows of a picture over ranks, exactly: what convolutions need of the neighbours, and which
 * statistics group norms merge.
 *
 *     member i - 1   . . . . .           above: the last rows of member i - 1
 *                    a a a a a   <---
 *     member i       . . . . .
 *                    . . . . .
 *                    b b b b b   <---    below: the first rows of member i + 1
 *     member i + 1   . . . . .
 *
 * Sent per rank: at most `above` rows down and `below` rows up; for statistics (n - 1) times 3
 * numbers per group. */
#include "parallel/rows.h"

#include <assert.h>

#include "backend/memory.h"
#include "parallel/group_statistics.h"
#include "parallel/strategy.h"

static bool applies(const struct strategy_choice *choice) {
    return choice->degrees[MESH_RING] * choice->degrees[MESH_ULYSSES] > 1;
}

void rows_pack(struct run *run, struct tensor rows, struct tensor x, int64_t first, int64_t count) {
    int64_t width = x.shape[2] * x.shape[3];
    struct tensor out = tensor_reshape(rows, SHAPE(x.shape[0], count, width)), in = tensor_reshape(x, SHAPE(x.shape[0], x.shape[1], width));
    if (count > 0) backend_copy_rows(run->backend, &out, 0, &in, first, count);
}

/* Memory for some rows of x's width. */
static struct tensor new_rows(struct run *run, struct tensor x, int64_t count) {
    return run_tensor(run, x.dtype, SHAPE(x.shape[0], count, x.shape[2], x.shape[3]));
}

/* Rows first .. first + count of x, packed, on their way to `to`. */
static void send_rows(struct run *run, struct transfer *t, struct tensor x, int64_t first, int64_t count, int to) {
    struct tensor rows = new_rows(run, x, count);
    if (run_failed(run)) return;
    rows_pack(run, rows, x, first, count);
    transfer_send(run, t, to, token_span_all(rows));
}

static struct tensor receive_rows(struct run *run, struct transfer *t, struct tensor x, int64_t count, int from) {
    struct tensor rows = new_rows(run, x, count);
    if (!run_failed(run)) transfer_receive(run, t, from, token_span_all(rows));
    return rows;
}

static struct halo halo(struct run *run, const struct strategy_link *link, struct tensor x, int64_t above, int64_t below) {
    struct halo halo = {.transfer.group = link->group};
    int me = comm_rank(link->group), last = comm_size(link->group) - 1;
    assert(x.ndim == 4 && x.shape[1] >= above && x.shape[1] >= below);
    comm_label(link->group, "halo");
    if (me > 0 && above > 0) halo.above = receive_rows(run, &halo.transfer, x, above, me - 1);
    if (me < last && below > 0) halo.below = receive_rows(run, &halo.transfer, x, below, me + 1);
    if (me < last && above > 0) send_rows(run, &halo.transfer, x, x.shape[1] - above, above, me + 1);
    if (me > 0 && below > 0) send_rows(run, &halo.transfer, x, 0, below, me - 1);
    return halo;
}

static void group_stats(struct run *run, const struct strategy_link *link, struct tensor *stats, double weight, double elements) {
    (void)elements;
    group_statistics_merge(run, link->group, stats, weight);
}

/* Neighbouring rows are apart along the innermost axis that there is. */
static enum mesh_axis axis_of(const struct plan_pass *p) {
    return p->degrees[MESH_ULYSSES] > 1 ? MESH_ULYSSES : MESH_RING;
}

static void meeting_bytes(struct plan_pass *p, const struct meeting *meeting) {
    if (meeting->kind == MEETING_HALO)
        plan_pass_add(p, axis_of(p), meeting->count * plan_pass_halo_rows(p, meeting) * plan_pass_row(p, meeting), 1);
    if (meeting->kind == MEETING_NORM)
        plan_pass_add(p, axis_of(p), meeting->count * (p->members - 1) * (1 + 2 * p->batch * plan_pass_units(p, meeting)),
                      (int)sizeof(float));
}

/* The prediction's positions, to all that share them. */
static void end_bytes(struct plan_pass *p, int64_t latents) {
    (void)latents;
    if (plan_pass_is_last_stage(p)) plan_pass_add_gather(p, axis_of(p));
}

static void meeting_wait(const struct plan_estimate *e, const struct meeting *meeting, double attention, struct plan_cost *cost) {
    (void)attention;
    if (meeting->kind == MEETING_HALO || meeting->kind == MEETING_NORM)
        plan_wait_add(&cost->wait, meeting->count, plan_wait_of_rows(e, meeting));
}

static void end_wait(const struct plan_estimate *e, struct plan_cost *cost) {
    plan_wait_add(&cost->wait, 1, plan_wait_of_prediction(e));
}

const struct strategy rows_strategy = {.name = "rows",
                                       .group = MESH_CUT,
                                       .applies = applies,
                                       .halo = halo,
                                       .group_stats = group_stats,
                                       .meeting_bytes = meeting_bytes,
                                       .end_bytes = end_bytes,
                                       .meeting_wait = meeting_wait,
                                       .end_wait = end_wait};
