/* A group's insides, shared by the files that work on groups: comm.c, agreement.c, operations.c,
 * collectives.c. */
#ifndef TESSERA_COMM_COMM_STATE_H
#define TESSERA_COMM_COMM_STATE_H

#include "comm/engine.h"
#include "comm/jobs.h"

struct comm {
    struct engine *engine; /* shared by all groups of the process; each holds it */
    int context, rank, size;
    struct jobs *jobs; /* its own, or shared with other groups (jobs.h) */
    int group;         /* among the jobs' groups */
    int *members;      /* [size] the members' numbers among the jobs'; NULL: the same as here */
    struct comm_operation *operations, *all_operations; /* the pool of operations.h; those in use, too */
    int world[];                       /* [size] the members' world ranks */
};

/* A group of so many members without context and members; NULL when memory is out. (comm.c) */
struct comm *group_new(struct engine *engine, int size);
/* Gives a group that has its members and its context jobs of its own; false when memory is out. */
bool group_open_jobs(struct comm *comm);

#endif
