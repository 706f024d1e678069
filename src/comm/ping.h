/* Latency and bandwidth between all pairs of a group, by messages that go back and forth. */
#ifndef TESSERA_COMM_PING_H
#define TESSERA_COMM_PING_H

#include "comm/comm.h"

struct ping_link {
    double latency, bandwidth; /* seconds that an empty message takes one way; bytes a second of a large one */
};

/* On all members: links[n * n], the same on all; [a * n + b] is between a and b, a member's own is
 * zeros. Small groups measure pair after pair, so that none disturbs another; of larger ones half
 * the members at a time. */
tessera_status ping_all(struct comm *comm, struct ping_link *links, tessera_error *error);

/* On all members, where a machine has `crowding` times as many of them as processors: what an
 * exchange of empty messages takes beside the computing that comes before it, to `next` and from
 * `previous` (whose next this member is), while all compute and exchange. 0 for a member whose next
 * it is itself. */
tessera_status ping_together(struct comm *comm, int next, int previous, double crowding, double *latency, tessera_error *error);

#endif
