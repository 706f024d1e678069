/* A group's insides, shared by the files that work on groups: comm.c, agreement.c, collectives.c. */
#ifndef TESSERA_COMM_COMM_STATE_H
#define TESSERA_COMM_COMM_STATE_H

#include "comm/collectives.h"
#include "comm/engine.h"
#include "comm/jobs.h"

/* A collective operation: its requests, and what it does once they have ended. */
struct comm_operation {
    int count;
    void (*second_half)(struct comm *comm, struct comm_operation *operation); /* NULL: none */
    uint8_t *data;
    size_t length; /* elements of an all_reduce, bytes of a broadcast */
    enum comm_type type;
    int root;
    uint8_t *scratch;
    size_t scratch_bytes;
    struct comm_request *requests[]; /* 2 per member are enough */
};

struct comm {
    struct engine *engine; /* shared by all groups of the process; each holds it */
    int context, rank, size;
    struct jobs *jobs; /* its own, or shared with other groups (jobs.h) */
    int group;         /* among the jobs' groups */
    int *members;      /* [size] the members' numbers among the jobs'; NULL: the same as here */
    struct comm_operation *operation; /* of collectives.c, which runs one at a time; NULL before the first */
    int world[];   /* [size] the members' world ranks */
};

/* A group of so many members without context and members; NULL when memory is out. (comm.c) */
struct comm *group_new(struct engine *engine, int size);
/* Gives a group that has its members and its context jobs of its own; false when memory is out. */
bool group_open_jobs(struct comm *comm);

#endif
