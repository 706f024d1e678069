/* Signs of life between communication threads, on tag 0 of the engine's MPI communicator.
 *
 *     BEAT     to every rank, every heartbeat_seconds
 *     ABORT    the text of a failure; who hears one tells it to all, once, so that it reaches everyone whom anyone can reach
 *     FINISH   this rank has nothing more to do; BEATs go on
 *     LAST     FINISH has come from all: the last message before MPI ends
 *     OUTCOME  how a job ended on a rank (jobs.h), for job_state.c
 *
 * A rank of whom nothing has come for silence_seconds has failed: killed, stopped, or its network
 * is gone. Computing, however long, does not stop the beats. Every rank watches every other, so a
 * cut between any two is seen; a beat costs about a microsecond. If this process itself was
 * suspended, its peers' beats are waiting unread: their silence is then counted from its return. */
#ifndef TESSERA_COMM_LIVENESS_H
#define TESSERA_COMM_LIVENESS_H

#include <mpi.h>
#include "comm/jobs.h"

enum liveness_kind { LIVENESS_BEAT, LIVENESS_ABORT, LIVENESS_FINISH, LIVENESS_LAST, LIVENESS_KINDS, LIVENESS_OUTCOME = LIVENESS_KINDS };

struct liveness_note { /* as sent; ranks run the same program on the same kind of machine */
    int32_t kind, status;
    char text[sizeof((tessera_error *)0)->message]; /* ABORT only; other kinds are sent without */
};

struct liveness {
    MPI_Comm comm;
    struct engine *engine;
    union {
        struct liveness_note note;
        struct job_outcome outcome; /* the kind is the first field of both */
    } incoming;
    struct liveness_note outgoing[LIVENESS_KINDS];
    MPI_Request receive, *sends; /* sends [LIVENESS_KINDS][size] */
    double *heard;               /* [size] when a rank gave its last sign */
    bool *said;                  /* [LIVENESS_KINDS][size] who has sent a note of that kind, this rank included */
    double next_beat, last_judged;
    bool failed;
    tessera_error failure;
};

/* False when memory is out. */
bool liveness_open(struct liveness *liveness, MPI_Comm comm, struct engine *engine, double now);
/* Ends what is under way; after a failure call only `liveness_forget`. */
void liveness_close(struct liveness *liveness);
void liveness_forget(struct liveness *liveness);

/* Beats, listens and judges; sets `failed`. True if a note came. */
bool liveness_poll(struct liveness *liveness, double now);

/* Sends a note of this kind to every rank, once. */
void liveness_tell(struct liveness *liveness, enum liveness_kind kind, const tessera_error *error);
/* Whether all others have sent this kind. */
bool liveness_all_said(const struct liveness *liveness, enum liveness_kind kind);
/* Whether all notes of this kind have left. */
bool liveness_told(struct liveness *liveness, enum liveness_kind kind);

#endif
