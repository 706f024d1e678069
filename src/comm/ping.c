/* See ping.h. Pairs are those of a tournament: in round r of n - 1 (n even; an odd group has a bye)
 * members i and j meet where i + j = r modulo n - 1, and the last meets the one that is left.
 *
 *     latency     what an exchange of empty messages takes between two computations: what wakes the threads of communication on both
 *                 sides, which sleep meanwhile, is part of it
 *     bandwidth   bytes / (half of the fastest way of a large message - that of an empty one)
 */
#include "comm/ping.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/order.h"
#include "comm/collectives.h"

#define COMPUTING 200e-6        /* seconds before each message, as between two layers */
#define COMPUTING_TOGETHER 2e-3 /* the same where all compute: what waits for a processor waits until others' turns on it are over */
enum { EMPTY_ROUNDS = 14, EXTREMES = 2, LARGE_ROUNDS = 3, TOGETHER_ROUNDS = 40, LARGE_BYTES = 1 << 20, ONE_BY_ONE = 16 };
/* The fastest that is believed of a link: faster ones cannot be told from it. */
#define FASTEST 1e11

/* One way there and back, of which this member begins or answers. */
static tessera_status there_and_back(struct comm *comm, int peer, bool begins, char *buffer, size_t bytes, tessera_error *error) {
    for (int leg = 0; leg < 2; leg++) {
        bool sends = begins == (leg == 0);
        struct comm_request *request = sends ? comm_send_start(comm, peer, buffer, bytes) : comm_receive_start(comm, peer, buffer, bytes);
        TRY(comm_wait(comm, request, error));
    }
    return TESSERA_OK;
}

/* Half of the fastest of some. */
static tessera_status fastest(struct comm *comm, int peer, bool begins, char *buffer, size_t bytes, int rounds, double *seconds,
                              tessera_error *error) {
    for (int i = 0; i < rounds; i++) {
        double start = clock_seconds();
        TRY(there_and_back(comm, peer, begins, buffer, bytes, error));
        double half = (clock_seconds() - start) / 2;
        if (i == 0 || half < *seconds) *seconds = half;
    }
    return TESSERA_OK;
}

/* Of this thread's own time. */
static void compute(double seconds) {
    double until = clock_thread_seconds() + seconds;
    while (clock_thread_seconds() < until) {
    }
}

/* An empty message to one member and one from another. */
static tessera_status exchange(struct comm *comm, int to, int from, tessera_error *error) {
    struct comm_request *receive = comm_receive_start(comm, from, NULL, 0), *send = comm_send_start(comm, to, NULL, 0);
    tessera_status status = comm_wait(comm, receive, error);
    TRY(comm_wait(comm, send, status == TESSERA_OK ? error : NULL));
    return status;
}

/* Both compute for a while, then exchange an empty message: the mean of what they wait for it,
 * without the extremes. Who comes d late to an exchange waits d less and is d early at the next
 * one, so that an even number of them has no d in its mean. */
static tessera_status usual(struct comm *comm, int peer, double *seconds, tessera_error *error) {
    double all[EMPTY_ROUNDS];
    for (int i = 0; i < EMPTY_ROUNDS; i++) {
        compute(COMPUTING);
        double start = clock_seconds();
        TRY(exchange(comm, peer, peer, error));
        all[i] = clock_seconds() - start;
    }
    qsort(all, EMPTY_ROUNDS, sizeof *all, order_doubles);
    *seconds = 0;
    for (int i = EXTREMES; i < EMPTY_ROUNDS - EXTREMES; i++) *seconds += all[i] / (EMPTY_ROUNDS - 2 * EXTREMES);
    return TESSERA_OK;
}

/* Both members measure; the lower one's numbers count. */
static tessera_status measure(struct comm *comm, int peer, char *buffer, struct ping_link *link, tessera_error *error) {
    bool begins = comm_rank(comm) < peer;
    double empty = 0, large = 0;
    TRY(usual(comm, peer, &link->latency, error));
    TRY(fastest(comm, peer, begins, buffer, 0, EMPTY_ROUNDS, &empty, error));
    TRY(fastest(comm, peer, begins, buffer, LARGE_BYTES, LARGE_ROUNDS, &large, error));
    double sending = large > empty ? large - empty : 0;
    if (link->latency < empty) link->latency = empty;
    link->bandwidth = sending > LARGE_BYTES / FASTEST ? LARGE_BYTES / sending : FASTEST;
    return TESSERA_OK;
}

/* Whom `me` meets in a round among n (even); n itself is a bye. */
static int opponent(int me, int round, int n) {
    int last = n - 1;
    if (me == last) return (round % 2 == 0 ? round : round + last) / 2; /* 2 i = round modulo n - 1, which is odd */
    int other = (round - me + last) % last;
    return other == me ? last : other;
}

static tessera_status play(struct comm *comm, char *buffer, struct ping_link *mine, tessera_error *error) {
    int members = comm_size(comm), me = comm_rank(comm), n = members + members % 2;
    for (int round = 0; round < n - 1; round++) {
        int peer = opponent(me, round, n), low = peer < me ? peer : me;
        for (int turn = 0; turn < (members <= ONE_BY_ONE ? n : 1); turn++) { /* pairs take turns by their lower member */
            if (peer < members && (members > ONE_BY_ONE || turn == low)) TRY(measure(comm, peer, buffer, &mine[peer], error));
            if (members <= ONE_BY_ONE) TRY(comm_barrier(comm, error));
        }
    }
    return TESSERA_OK;
}

tessera_status ping_all(struct comm *comm, struct ping_link *links, tessera_error *error) {
    int n = comm_size(comm), me = comm_rank(comm);
    memset(links, 0, (size_t)n * (size_t)n * sizeof *links);
    if (n == 1) return TESSERA_OK;
    char *buffer = calloc(1, LARGE_BYTES);
    size_t *bytes = calloc((size_t)n, sizeof *bytes);
    tessera_status status = buffer == NULL || bytes == NULL ? error_set(error, TESSERA_ERROR_MEMORY, "out of memory") : TESSERA_OK;
    if (status == TESSERA_OK) status = play(comm, buffer, links + (size_t)me * (size_t)n, error);
    for (int i = 0; i < n && status == TESSERA_OK; i++) bytes[i] = (size_t)n * sizeof *links;
    if (status == TESSERA_OK) status = comm_all_gather(comm, links + (size_t)me * (size_t)n, links, bytes, error);
    for (int a = 0; a < n && status == TESSERA_OK; a++)
        for (int b = 0; b < a; b++) links[a * n + b] = links[b * n + a];
    free(bytes);
    free(buffer);
    return status;
}

tessera_status ping_together(struct comm *comm, int next, int previous, double crowding, double *latency, tessera_error *error) {
    bool alone = next == comm_rank(comm);
    *latency = 0;
    TRY(comm_barrier(comm, error));
    double start = clock_seconds();
    for (int i = 0; i < TOGETHER_ROUNDS && !alone; i++) {
        compute(COMPUTING_TOGETHER);
        TRY(exchange(comm, next, previous, error));
    }
    double round = (clock_seconds() - start) / TOGETHER_ROUNDS - crowding * COMPUTING_TOGETHER;
    if (!alone && round > 0) *latency = round;
    return comm_barrier(comm, error);
}
