/* A group's insides, shared by comm.c and collectives.c. */
#ifndef TESSERA_COMM_COMM_STATE_H
#define TESSERA_COMM_COMM_STATE_H

#include "comm/collectives.h"
#include "comm/engine.h"

struct comm {
    struct engine *engine; /* shared by all groups of the process; each holds it */
    int context, rank, size;
    struct comm_operation *operations; /* the pool of collectives.c */
    int world[];                       /* [size] the members' world ranks */
};

/* Frees the pool. */
void operations_free(struct comm_operation *operations);

#endif
