/* Messages from one stage of a pipeline to another, one after the other. Both sides know their
 * lengths.
 *
 *     sender     parcel_room(line, bytes)           memory for the next one, which the sender fills
 *                parcel_send(line)                  starts sending it, returns
 *     receiver   parcel_expect(line, bytes)         starts receiving the next one while the caller computes
 *                parcel_receive(line, bytes, ...)   waits for it
 *
 * Nothing is copied: the sender writes into the memory that is sent, and the receiver reads where
 * the message arrived. */
#ifndef TESSERA_PARALLEL_PARCEL_H
#define TESSERA_PARALLEL_PARCEL_H

#include "comm/comm.h"

struct parcel_line;

/* Opens one direction between this member of a group and `peer`. Its bytes count under `label`,
 * which must outlive the line. NULL if memory is out. If the peer is this member itself, the line
 * has both ends: what is sent waits in memory until it is received, and does not count. */
struct parcel_line *parcel_line_open(struct comm *comm, int peer, const char *label);
/* Sets what explains a message of another length (comm.h). */
void parcel_line_explain(struct parcel_line *line, struct comm_explanation explanation);
/* Waits for messages under way; NULL is allowed. After a failure of communication it returns at
 * once. */
void parcel_line_close(struct parcel_line *line);

/* Memory of the line for the next message, aligned to 64 bytes, not zeroed. Send the one before
 * first. NULL and a MEMORY error if memory is out. */
void *parcel_room(struct parcel_line *line, size_t bytes, tessera_error *error);
/* Starts sending it. A message that cannot be sent fails its job. */
void parcel_send(struct parcel_line *line);
/* Keeps the message until parcel_send_held, which sends the oldest one that is kept, if there is
 * one. */
void parcel_hold(struct parcel_line *line);
void parcel_send_held(struct parcel_line *line);
/* Does nothing if a message is already expected. */
tessera_status parcel_expect(struct parcel_line *line, size_t bytes, tessera_error *error);
/* *out: the message, aligned to 64 bytes. It stays in the line's memory until you expect the message after the next
 * one. */
tessera_status parcel_receive(struct parcel_line *line, size_t bytes, const void **out, tessera_error *error);

#endif
