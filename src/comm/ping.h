/* Latency and bandwidth between all pairs of a group, by messages that go back and forth. */
#ifndef TESSERA_COMM_PING_H
#define TESSERA_COMM_PING_H

#include "comm/comm.h"

struct ping_link {
    double latency, bandwidth; /* seconds that an empty message takes one way; bytes a second of a large one */
};

/* On all members: links[n * n], the same on all; [a * n + b] is between a and b, a member's own is zeros. Small groups measure pair after
 * pair, so that none disturbs another; of larger ones half the members at a time. */
tessera_status ping_all(struct comm *comm, struct ping_link *links, tessera_error *error);

#endif
