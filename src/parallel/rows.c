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
#include <stdlib.h>
#include <string.h>

#include "parallel/rows.h"
#include "backend/memory.h"
#include "parallel/strategy.h"

static bool takes_part(const struct strategy_choice *choice) {
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
    transfer_send(run, t, to, token_rows_all(rows));
}

static struct tensor receive_rows(struct run *run, struct transfer *t, struct tensor x, int64_t count, int from) {
    struct tensor rows = new_rows(run, x, count);
    if (!run_failed(run)) transfer_receive(run, t, from, token_rows_all(rows));
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

/* (mean, variance) of `seen` take in another part's of `more`. */
static void merge(double *mean, double *variance, double seen, const float *part, double more) {
    double share = more / (seen + more), distance = part[0] - *mean;
    *variance = *variance * (1.0 - share) + part[1] * share + distance * distance * share * (1.0 - share);
    *mean += distance * share;
}

/* Every member's numbers [weight, (mean, variance) of each group] in all[members][1 + 2 groups]: float32. */
static tessera_status gather_stats(struct comm *group, float *all, int64_t each, const float *stats, double weight, tessera_error *error) {
    int members = comm_size(group);
    size_t *bytes = calloc((size_t)members, sizeof *bytes);
    float *mine = all + comm_rank(group) * each;
    if (bytes == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for statistics");
    for (int i = 0; i < members; i++) bytes[i] = (size_t)each * sizeof(float);
    mine[0] = (float)weight;
    memcpy(mine + 1, stats, (size_t)(each - 1) * sizeof *stats);
    comm_label(group, "group norm");
    tessera_status status = comm_all_gather(group, mine, all, bytes, error);
    free(bytes);
    return status;
}

void rows_merge_stats(struct run *run, struct comm *group, struct tensor *stats, double weight) {
    int members = comm_size(group);
    int64_t groups = tensor_count(stats) / 2, each = 2 * groups + 1;
    float *values = run_map(run, stats, MAP_READ | MAP_WRITE), *all = calloc((size_t)(members * each), sizeof *all);
    if (all == NULL) error_set(&run->error, TESSERA_ERROR_MEMORY, "out of memory for statistics");
    if (!run_failed(run)) gather_stats(group, all, each, values, weight, &run->error);
    for (int64_t g = 0; g < groups && !run_failed(run); g++) {
        double mean = 0, variance = 0, seen = 0;
        for (int i = 0; i < members; i++) {
            const float *part = all + i * each;
            if (part[0] > 0) merge(&mean, &variance, seen, part + 1 + 2 * g, part[0]);
            seen += part[0];
        }
        values[2 * g] = (float)mean;
        values[2 * g + 1] = (float)variance;
    }
    free(all);
    run_unmap(run, stats, values, MAP_READ | MAP_WRITE);
}

/* ---- the same, row by row ---- */

/* All members' rows, one member after the other, [B, its rows, numbers]; the caller frees. counts [members]: of rows. */
static float *gather_rows(struct run *run, const float *mine, int64_t batch, int64_t rows, int64_t numbers, int64_t *counts) {
    struct comm *group = parallel_cuts_rows(run->parallel) ? run->parallel->rows : NULL;
    int members = group != NULL ? comm_size(group) : 1;
    size_t bytes[members];
    int64_t total = 0;
    for (int i = 0; i < members; i++) bytes[i] = sizeof rows;
    counts[0] = rows;
    if (group != NULL) comm_label(group, "group norm");
    if (group != NULL && comm_all_gather(group, &rows, counts, bytes, &run->error) != TESSERA_OK) return NULL;
    for (int i = 0; i < members; i++) {
        bytes[i] = (size_t)(counts[i] * batch * numbers) * sizeof(float);
        total += counts[i];
    }
    float *all = malloc((size_t)(total * batch * numbers) * sizeof *all);
    if (all == NULL) error_set(&run->error, TESSERA_ERROR_MEMORY, "out of memory for statistics");
    if (all != NULL && group == NULL) memcpy(all, mine, bytes[0]);
    if (all != NULL && group != NULL) run_checked(run, comm_all_gather(group, mine, all, bytes, &run->error), (struct tensor){0});
    return all;
}

/* One group: `rows` have (mean, variance) `numbers` apart. seen, mean and spread (the sum of variances) take them in. */
static void merge_rows(double *seen, double *mean, double *spread, const float *rows, int64_t count, int64_t numbers) {
    for (int64_t i = 0; i < count; i++, rows += numbers) {
        double distance = rows[0] - *mean, share = *seen / (*seen + 1.0);
        *seen += 1.0;
        *mean += distance / *seen;
        *spread += rows[1] + distance * distance * share;
    }
}

void exchange_row_stats(struct run *run, struct tensor stats, struct tensor rows) {
    int members = parallel_cuts_rows(run->parallel) ? comm_size(run->parallel->rows) : 1;
    int64_t counts[members], batch = rows.shape[0], numbers = 2 * rows.shape[2];
    float *mine = run_map(run, &rows, MAP_READ), *out = run_map(run, &stats, MAP_WRITE);
    float *all = run_failed(run) ? NULL : gather_rows(run, mine, batch, rows.shape[1], numbers, counts);
    for (int64_t i = 0; i < batch * rows.shape[2] && !run_failed(run); i++) {
        double seen = 0, mean = 0, spread = 0;
        const float *part = all;
        for (int m = 0; m < members; part += counts[m++] * batch * numbers)
            merge_rows(&seen, &mean, &spread, part + i / rows.shape[2] * counts[m] * numbers + i % rows.shape[2] * 2, counts[m], numbers);
        out[2 * i] = (float)mean;
        out[2 * i + 1] = (float)(spread / seen);
    }
    free(all);
    run_unmap(run, &rows, mine, MAP_READ);
    run_unmap(run, &stats, out, MAP_WRITE);
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
        plan_pass_add(p, axis_of(p), meeting->count * (p->parts - 1) * (1 + 2 * p->batch * plan_pass_share(p, meeting)),
                      (int)sizeof(float));
}

/* The prediction's positions, to all that share them. */
static void part_bytes(struct plan_pass *p, int64_t latents) {
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
                                       .group = MESH_ROWS,
                                       .takes_part = takes_part,
                                       .halo = halo,
                                       .group_stats = group_stats,
                                       .meeting_bytes = meeting_bytes,
                                       .part_bytes = part_bytes,
                                       .meeting_wait = meeting_wait,
                                       .end_wait = end_wait};
