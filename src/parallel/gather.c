/* Positions from all ranks to all, where a denoiser's prediction becomes a whole picture again; and
 * rows of the picture itself to the one rank that writes it.
 *
 *     gather        sent per rank: (n - 1) of its own rows
 *     gather_rows   its own rows, by all but the root, and (n - 1) counts of 8 bytes
 */
#include <assert.h>

#include "parallel/strategy.h"
#include "backend/memory.h"

/* What each rank sends comes to where it belongs. */
struct tensor exchange_gather(struct run *run, struct tensor x, const struct cut *cut) {
    if (run_failed(run) || cut == NULL || cut->members == 1) return run_failed(run) ? (struct tensor){0} : x;
    assert(x.ndim == 3 && x.shape[1] == cut_count(cut, cut->me));
    int64_t origin = cut_first(cut, 0), total = cut_first(cut, cut->members) - origin;
    struct tensor out = run_tensor(run, x.dtype, SHAPE(x.shape[0], total, x.shape[2]));
    if (run_failed(run)) return out;
    comm_label(run->parallel->cut_group, "gather");
    struct transfer t = {.group = run->parallel->cut_group};
    for (int step = 1; step < cut->members; step++) { /* each starts with another partner */
        int to = (cut->me + step) % cut->members, from = (cut->me - step + cut->members) % cut->members;
        transfer_receive(run, &t, from, (struct token_span){out, cut_first(cut, from) - origin, cut_count(cut, from)});
        transfer_send(run, &t, to, (struct token_span){x, 0, x.shape[1]});
    }
    if (!run_failed(run)) backend_copy_rows(run->backend, &out, cut_first(cut, cut->me) - origin, &x, 0, x.shape[1]);
    transfer_wait(run, &t);
    return run_failed(run) ? (struct tensor){0} : out;
}

/* Each rank's count, on all. */
static tessera_status gather_counts(struct run *run, int64_t mine, int64_t *counts) {
    struct comm *group = run->parallel->cut_group;
    size_t bytes[comm_size(group)];
    for (int i = 0; i < comm_size(group); i++) bytes[i] = sizeof mine;
    comm_label(group, "gather");
    return comm_all_gather(group, &mine, counts, bytes, &run->error);
}

int64_t exchange_total(struct run *run, int64_t count) {
    if (run_failed(run) || !parallel_cuts_positions(run->parallel)) return count;
    int members = comm_size(run->parallel->cut_group);
    int64_t counts[members], total = 0;
    if (gather_counts(run, count, counts) != TESSERA_OK) return 0;
    for (int i = 0; i < members; i++) total += counts[i];
    return total;
}

struct tensor exchange_gather_rows(struct run *run, struct tensor x, int root) {
    if (run_failed(run) || !parallel_cuts_positions(run->parallel)) return run_failed(run) ? (struct tensor){0} : x;
    struct transfer t = {.group = run->parallel->cut_group};
    int members = comm_size(t.group), me = comm_rank(t.group);
    int64_t counts[members], rows = 0, first = 0;
    if (gather_counts(run, x.shape[1], counts) != TESSERA_OK) return (struct tensor){0};
    for (int i = 0; i < members; i++) rows += counts[i];
    if (me != root) transfer_send(run, &t, root, (struct token_span){x, 0, x.shape[1]});
    struct tensor all = me == root ? run_tensor(run, x.dtype, SHAPE(x.shape[0], rows, x.shape[2], x.shape[3])) : (struct tensor){0};
    for (int i = 0; i < members && me == root; first += counts[i++]) {
        struct token_span theirs = {all, first, counts[i]};
        if (i == me)
            token_span_copy(run, theirs, (struct token_span){x, 0, x.shape[1]});
        else
            transfer_receive(run, &t, i, theirs);
    }
    transfer_wait(run, &t);
    return run_failed(run) ? (struct tensor){0} : all;
}
