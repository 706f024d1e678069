/* Messages on their way from one stage of a pipeline to another, one after the other, whose lengths both sides know.
 *
 *     sender     parcel_room(line, bytes)           memory for the next one, to be filled in
 *                parcel_send(line)                  starts sending it, returns
 *     receiver   parcel_expect(line, bytes)         lets the next one arrive while the caller computes
 *                parcel_receive(line, bytes, ...)   waits for it
 *
 * Nothing is copied on the way: the sender writes into the memory that is sent, the receiver reads where the message arrived. */
#ifndef TESSERA_PARALLEL_PARCEL_H
#define TESSERA_PARALLEL_PARCEL_H

#include "comm/comm.h"

struct parcel_line;

/* One direction between this member of a group and `peer`, counted under `label` (which stays). NULL if memory is out. Where the peer is this
 * member itself the line has both ends: what is sent waits in memory until it is received, and none of it is counted. */
struct parcel_line *parcel_line_open(struct comm *comm, int peer, const char *label);
/* What says of a message of another length what is wrong with it (comm.h). */
void parcel_line_explain(struct parcel_line *line, struct comm_explanation explanation);
/* Waits for what is under way; NULL is fine. After a failure of communication it returns at once. */
void parcel_line_close(struct parcel_line *line);

/* Aligned to 64 bytes, not zeroed, the line's own; the one before must have been sent. NULL and a MEMORY error if memory is out. */
void *parcel_room(struct parcel_line *line, size_t bytes, tessera_error *error);
/* A message that cannot be sent fails its job. */
void parcel_send(struct parcel_line *line);
/* The message waits until parcel_send_held, which sends the oldest that waits; it does nothing where none does. */
void parcel_hold(struct parcel_line *line);
void parcel_send_held(struct parcel_line *line);
/* Does nothing where a message is expected already. */
tessera_status parcel_expect(struct parcel_line *line, size_t bytes, tessera_error *error);
/* *out: the message, aligned to 64 bytes, in the line's memory until the message after the next one is expected. */
tessera_status parcel_receive(struct parcel_line *line, size_t bytes, const void **out, tessera_error *error);

#endif
