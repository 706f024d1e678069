/* Sums where weights are cut (Shoeybi et al. 2019, section 3): a layer's outputs are cut over
 * ranks, the next layer's inputs alike, and what each rank gets from its share of the inputs is
 * added.
 *
 *     sent per rank: 2 (n - 1) / n of x
 *
 * Where what follows needs all of a layer's outputs and no sum is due, their shares are laid side
 * by side instead:
 *
 *     sent per rank: (n - 1) of its own share, half as much
 */
#include <assert.h>

#include "parallel/strategy.h"
#include "backend/memory.h"

/* How elements of a type are added. */
static tessera_status sum_type(enum dtype dtype, enum comm_type *out, tessera_error *error) {
    switch (dtype) {
    case DTYPE_F32:
        *out = COMM_F32;
        return TESSERA_OK;
    case DTYPE_BF16:
        *out = COMM_BF16;
        return TESSERA_OK;
    default:
        return error_set(error, TESSERA_ERROR_INTERNAL, "ranks cannot add elements of type %s", dtype_name(dtype));
    }
}

struct tensor exchange_sum(struct run *run, struct tensor x) {
    if (run_failed(run)) return (struct tensor){0};
    if (x.data == NULL || run->parallel == NULL || comm_size(run->parallel->tensor) == 1) return x;
    comm_label(run->parallel->tensor, "tensor");
    enum comm_type type = COMM_F32;
    tessera_status status = sum_type(x.dtype, &type, &run->error);
    void *host = run_map(run, &x, MAP_READ | MAP_WRITE);
    if (!run_failed(run)) status = comm_all_reduce(run->parallel->tensor, host, (size_t)tensor_count(&x), type, &run->error);
    run_unmap(run, &x, host, MAP_READ | MAP_WRITE);
    return run_checked(run, status, x);
}

const struct tensor *exchange_once(const struct run *run, const struct tensor *x) {
    return run->parallel == NULL || comm_rank(run->parallel->tensor) == 0 ? x : NULL;
}

struct tensor exchange_join(struct run *run, struct tensor x, int64_t channels) {
    if (run_failed(run) || run->parallel == NULL || comm_size(run->parallel->tensor) == 1) return run_failed(run) ? (struct tensor){0} : x;
    int members = comm_size(run->parallel->tensor), last = x.ndim - 1;
    assert(x.shape[last] == cut_evenly(channels, members, comm_rank(run->parallel->tensor)).count);
    int64_t positions = tensor_count(&x) / x.shape[last];
    struct tensor shape = x;
    shape.shape[last] = channels;
    struct tensor out = run_tensor(run, x.dtype, shape.ndim, shape.shape);
    size_t scope = run_enter(run);
    struct tensor slices[members];
    struct transfer t = {.group = run->parallel->tensor};
    comm_label(t.group, "tensor");
    slices[comm_rank(t.group)] = x;
    for (int step = 1; step < members; step++) { /* each starts with another partner */
        int to = (comm_rank(t.group) + step) % members, from = (comm_rank(t.group) - step + members) % members;
        slices[from] = run_tensor(run, x.dtype, SHAPE(positions * cut_evenly(channels, members, from).count));
        if (!run_failed(run)) transfer_receive(run, &t, from, token_span_all(slices[from]));
        transfer_send(run, &t, to, token_span_all(x));
    }
    transfer_wait(run, &t);
    for (int i = 0; i < members && !run_failed(run); i++) {
        struct span share = cut_evenly(channels, members, i);
        struct tensor to = tensor_reshape(out, SHAPE(positions, channels, 1)),
                      slice = tensor_reshape(slices[i], SHAPE(positions, share.count, 1));
        backend_copy_rows(run->backend, &to, share.first, &slice, 0, share.count);
    }
    arena_release(run->arena, scope);
    return run_failed(run) ? (struct tensor){0} : out;
}

/* ---- for plans ---- */

static bool applies(const struct strategy_choice *choice) {
    return choice->degrees[MESH_TENSOR] > 1;
}

/* Sums: what is not this rank's slice goes to whose it is, then its slice's sum to all. Joins: its
 * share of the channels to all. */
static void meeting_bytes(struct plan_pass *p, const struct meeting *meeting) {
    int t = p->degrees[MESH_TENSOR];
    if (meeting->kind == MEETING_SUM) {
        int64_t elements = plan_pass_rows(p, meeting) * meeting->units * meeting->width;
        int64_t slice = cut_evenly(elements, t, p->at[MESH_TENSOR]).count;
        plan_pass_add(p, MESH_TENSOR, meeting->count * (elements - slice + (t - 1) * slice), p->m->element_bytes);
    }
    if (meeting->kind == MEETING_JOIN) {
        int64_t mine = cut_evenly(meeting->units, t, p->at[MESH_TENSOR]).count * meeting->width;
        plan_pass_add(p, MESH_TENSOR, meeting->count * (t - 1) * plan_pass_rows(p, meeting) * mine, p->m->element_bytes);
    }
}

/* A sum is a reduction, then a gathering. */
static void meeting_wait(const struct plan_estimate *e, const struct meeting *meeting, double attention, struct plan_cost *cost) {
    (void)attention;
    if (meeting->kind != MEETING_SUM && meeting->kind != MEETING_JOIN) return;
    struct plan_group group = plan_axis_group(e->mesh, MESH_TENSOR);
    double t = group.degree, times = meeting->kind == MEETING_SUM ? 2.0 : 1.0;
    plan_wait_add(&cost->wait, times * meeting->count, plan_wait_to_all(e, group, (t - 1) / t * plan_estimate_bytes(e, meeting)));
}

const struct strategy tensor_strategy = {
    .name = "tensor", .group = MESH_TENSOR, .applies = applies, .meeting_bytes = meeting_bytes, .meeting_wait = meeting_wait};
