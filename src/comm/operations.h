/* Collective operations under way: a group's pool of them. collectives.c says what they do. */
#ifndef TESSERA_COMM_OPERATIONS_H
#define TESSERA_COMM_OPERATIONS_H

#include "comm/collectives.h"

struct comm_operation {
    struct comm_operation *next, *next_of_all; /* in the pool; in the list of all */
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

/* Frees all of a group's. */
void operations_free(struct comm *comm);
/* Takes back those that nobody has waited for, at a job's end: their requests are gone. */
void operations_reclaim(struct comm *comm);

#endif
