/* Tensors on their way from one stage of a pipeline to another: several together, as one message.
 *
 *     sender     parcel_send(line, kind, ...)       copies, starts sending, returns
 *     receiver   parcel_expect(line, kind)          lets the next one arrive while the caller computes
 *                parcel_receive(line, kind, ...)    waits for it
 *
 * Parcels of one kind (a whole picture, its part 2) are all of the same shapes. Before the first of a kind goes a message with the shapes,
 * of sizeof(struct parcel_shapes); after that both sides know how many bytes come, and a parcel is one message: a head of 64 bytes, then
 * the tensors one after another. Both sides go through the same kinds in the same order. */
#ifndef TESSERA_PARALLEL_PARCEL_H
#define TESSERA_PARALLEL_PARCEL_H

#include "backend/backend.h"
#include "comm/comm.h"

enum { PARCEL_MAX_TENSORS = 24, PARCEL_HEAD_BYTES = 64 };

struct parcel {
    bool skipped; /* the sender left its blocks out (a step cache) */
    int count;
    struct tensor tensors[PARCEL_MAX_TENSORS]; /* empty ones stay empty; received ones lie in the host's memory */
    struct backend *backend;                   /* of those that do not lie in the host's memory, where some are sent; or NULL */
};

struct parcel_line;

/* One direction between this member of a group and `peer`; `kinds` kinds of parcels, counted under `label` (which stays). NULL if memory is
 * out. */
struct parcel_line *parcel_line_open(struct comm *comm, int peer, int kinds, const char *label);
/* Waits for what is under way; NULL is fine. After a failure of communication it returns at once. */
void parcel_line_close(struct parcel_line *line);

/* The tensors may change at once: they are copied. */
tessera_status parcel_send(struct parcel_line *line, int kind, const struct parcel *parcel, tessera_error *error);
/* Does nothing where the shapes of this kind are not known yet, or where a parcel is expected already. */
tessera_status parcel_expect(struct parcel_line *line, int kind, tessera_error *error);
/* The tensors lie in the line's memory until the parcel after the next one is expected. */
tessera_status parcel_receive(struct parcel_line *line, int kind, struct parcel *out, tessera_error *error);

#endif
