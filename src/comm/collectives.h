/* Collective operations, on all members of a group, in the same order on each.
 *
 * n members, `bytes` or `counts` have an entry per member, blocks lie one after another in rank
 * order:
 *
 *     all_gather    mine [bytes[rank]]            -> all [sum of bytes]          sent per rank: (n-1) bytes[rank]
 *     all_to_all    out  [sum of out_bytes]       -> in  [sum of in_bytes]       sent per rank: all but its own block
 *     all_reduce    data [count], in place, sums                                 sent per rank: 2 (n-1)/n of the data
 *     broadcast     data [bytes] from the root, by a binomial tree               sent together: (n-1) bytes
 *
 * all_reduce is a reduce-scatter by direct exchange (rank i receives everybody's slice i and adds
 * in rank order), then an all-gather of the sums (Thakur et al. 2005, section 4): every slice is
 * summed by one rank in one order, so all ranks hold the same bits, whatever arrived first. Empty
 * blocks send no message. A gather is an all_to_all whose members have a block for the root only.
 */
#ifndef TESSERA_COMM_COLLECTIVES_H
#define TESSERA_COMM_COLLECTIVES_H

#include "comm/comm.h"

enum comm_type { COMM_F32, COMM_BF16, COMM_F64 }; /* bfloat16 is summed in float32 and rounded once, to nearest even */

/* `mine` may lie at its place in `all`. */
tessera_status comm_all_gather(struct comm *comm, const void *mine, void *all, const size_t *bytes, tessera_error *error);
tessera_status comm_all_to_all(struct comm *comm, const void *out, const size_t *out_bytes, void *in, const size_t *in_bytes,
                               tessera_error *error);
tessera_status comm_all_reduce(struct comm *comm, void *data, size_t count, enum comm_type type, tessera_error *error);
tessera_status comm_broadcast(struct comm *comm, int root, void *data, size_t bytes, tessera_error *error);

/* Returns when all members have come here: a dissemination barrier, ceil(log2 n) empty messages per
 * member. */
tessera_status comm_barrier(struct comm *comm, tessera_error *error);

#endif
