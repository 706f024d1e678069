/* Tokens between members of a group, from where they lie to where they are read: no buffer
 * in between, as many transfers at once as a layer has. A span of a batch of B is B messages. Where
 * a backend's memory is not the host's they go through host memory. */
#ifndef TESSERA_PARALLEL_TRANSFER_H
#define TESSERA_PARALLEL_TRANSFER_H

#include "comm/comm.h"
#include "tensor/tensor.h"

struct run;
struct transfer_message;

/* Tokens first .. first + count of each picture of x [B, S, ...]; count 0: none, whatever x is. */
struct token_span {
    struct tensor x;
    int64_t first, count;
};

struct transfer {
    struct comm *group;
    struct transfer_message *messages; /* under way */
    int count, capacity;
};

/* Tokens of one member go into as many of another's, both of the same batch and width. They stay
 * as they are until transfer_wait. Does nothing for no tokens, or after a failure. The first of a
 * transfer says `group`. */
void transfer_send(struct run *run, struct transfer *transfer, int to, struct token_span span);
void transfer_receive(struct run *run, struct transfer *transfer, int from, struct token_span span);
/* Waits for all that was started, after a failure too, so that no message comes into memory that is
 * not its own any more. */
void transfer_wait(struct run *run, struct transfer *transfer);

/* All of x as one token: one message. */
struct token_span token_span_all(struct tensor x);

#endif
