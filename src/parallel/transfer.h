/* Rows of tensors between members of a group, from where they lie to where they are read: no buffer in between, as many transfers at once
 * as a layer has. Rows of a batch of B are B messages. */
#ifndef TESSERA_PARALLEL_TRANSFER_H
#define TESSERA_PARALLEL_TRANSFER_H

#include "comm/comm.h"
#include "parallel/exchange.h"

struct transfer {
    struct run *run;
    struct comm *group;
    struct comm_request **requests;
    int count, capacity;
};

struct transfer transfer_open(struct run *run, struct comm *group);
/* Rows of one member go into as many of another's, both of the same batch and width. They stay as they are until transfer_wait. Does nothing
 * for no rows, or after a failure. */
void transfer_send(struct transfer *transfer, int to, struct token_rows rows);
void transfer_receive(struct transfer *transfer, int from, struct token_rows rows);
/* Waits for all that was started, after a failure too, so that no message comes into memory that is not its own any more. */
void transfer_wait(struct transfer *transfer);

#endif
