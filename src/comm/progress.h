/* The communication thread's own state, shared by progress.c (messages) and outcomes.c (the ends of
 * jobs). */
#ifndef TESSERA_COMM_PROGRESS_H
#define TESSERA_COMM_PROGRESS_H

#include <mpi.h>
#include "comm/liveness.h"

struct slot { /* a chunk that MPI has */
    struct comm_request *request;
    size_t offset, bytes; /* in the message */
    uint64_t number;      /* in the order in which MPI got them */
    bool cancelled;
};

struct progress {
    struct engine *engine;
    MPI_Comm comm;
    struct liveness liveness;
    struct comm_request *unposted, **unposted_end;
    int count, capacity; /* of the slots; all four arrays are [capacity] */
    MPI_Request *handles;
    struct slot *slots;
    int *indices;
    MPI_Status *statuses;
    uint64_t chunks; /* that MPI got so far */
    /* messages that nobody asked for any more (outcomes.c): into one buffer, of one chunk */
    struct jobs *drained; /* whose message is awaited, or NULL */
    MPI_Request drain;
    char *drain_buffer;
    int idle_rounds;
    double idle_since;    /* seconds of the clock */
    bool waited, settles; /* a thread is waiting; a job is being ended */
    uint64_t random;      /* of the injected delay */
    bool failed;
    tessera_error failure;
};

#endif
