/* A group's insides, shared by comm.c and collectives.c. */
#ifndef TESSERA_COMM_COMM_STATE_H
#define TESSERA_COMM_COMM_STATE_H

#include "comm/collectives.h"
#include "comm/engine.h"
#include "comm/jobs.h"

struct comm {
    struct engine *engine; /* shared by all groups of the process; each holds it */
    int context, rank, size;
    struct jobs *jobs; /* its own, or shared with other groups (jobs.h) */
    int group;         /* among the jobs' groups */
    int *members;      /* [size] the members' numbers among the jobs'; NULL: the same as here */
    struct comm_operation *operations, *all_operations; /* the pool of collectives.c; those in use, too */
    int world[];                       /* [size] the members' world ranks */
};

/* Frees them all. */
void operations_free(struct comm *comm);
/* Takes back those that nobody has waited for, at a job's end: their requests are gone. */
void operations_reclaim(struct comm *comm);

#endif
