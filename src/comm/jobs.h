/* Jobs: work that a set of ranks does together and that ends alike on all of them, whatever happens
 * to it on one.
 *
 *     computing thread                              communication thread
 *     jobs_begin    the number goes up
 *     engine_post   messages carry the number
 *     jobs_fail --> [ failed ]  ------------------> drops what MPI has not, cancels receives, tells the outcome
 *                   waits return the failure  <---- an outcome that is a failure comes from another rank
 *     jobs_end  --> [ ended ]   ------------------> tells the outcome, hears everybody's, receives what nobody asked for any more
 *               <-- [ settled ]
 *
 * An outcome goes from each rank to each other one, once per job, on the channel of the signs of
 * life: at the job's end, or as soon as the job has failed somewhere. So no step sends anything for
 * it. It says how this rank ended the job and how many chunks it gave to MPI for the receiver, per
 * group. The receiver drains those that it never asked for; then nothing of the job is left in MPI,
 * and the next job's messages meet the next job's receives. The tag holds the job's number besides,
 * so a late message is never taken for another job's. With all outcomes every rank chooses the same
 * one: the lowest rank's failure, a cancellation only where nothing else failed.
 *
 * The groups of a mesh share one struct jobs (comm_job_share); a group of its own has one of its
 * own. All fields are guarded by the engine's lock, except those that say otherwise. */
#ifndef TESSERA_COMM_JOBS_H
#define TESSERA_COMM_JOBS_H

#include <mpi.h>
#include "comm/engine_state.h"

enum { JOBS_GROUPS = 16 };

/* An outcome as it is sent; ranks run the same program on the same kind of machine. */
struct job_outcome {
    int32_t kind; /* LIVENESS_OUTCOME */
    int32_t jobs; /* the context of the group whose jobs these are */
    int64_t job;
    int64_t chunks[JOBS_GROUPS]; /* that MPI got for the receiver, per group; -1 in the first: unknown */
    int32_t status, unused;
    char text[sizeof((tessera_error *)0)->message]; /* failures only; others are sent without */
};

/* An outcome of a group that this rank has not made yet. */
struct early_outcome {
    struct early_outcome *next;
    int from;
    struct job_outcome outcome;
};

struct jobs {
    struct jobs *next; /* in the engine's list */
    struct engine *engine;
    int users, context, rank, size;
    int *world; /* [size] the members' world ranks */
    int num_groups, contexts[JOBS_GROUPS];
    int64_t job;                      /* the number of the one under way, or of the last */
    int depth;                        /* of jobs_begin; 0: none is under way */
    bool failed, ended, settled;
    tessera_error failure; /* what waits return */
    tessera_error cause;   /* what this rank tells: its own failure, if it came first */
    struct comm_request *live;
    int under_way; /* requests that are not complete */
    /* of the communication thread */
    bool told, cancelled, counted;
    int receiving;                           /* chunks that MPI waits for */
    int64_t *sent, *received, *left;         /* [JOBS_GROUPS][size] chunks of this job; left: to be drained */
    bool *heard;                             /* [2][size] by the number's parity: a rank is one job ahead at most */
    struct job_outcome *outcomes, *outgoing; /* [2][size]; [size] */
    MPI_Request *sends;                      /* [size] of the outgoing */
};

/* ---- the computing threads' side ---- */

/* For a group of these members with this context; NULL when memory is out. Freed by the last
 * jobs_release. */
struct jobs *jobs_new(struct engine *engine, int context, int rank, int size, const int *world);
/* One more group: its index, or -1 where there is no more room. */
int jobs_add_group(struct jobs *jobs, int context);
void jobs_release(struct jobs *jobs);

tessera_status jobs_begin(struct jobs *jobs, tessera_error *error);
void jobs_fail(struct jobs *jobs, const tessera_error *error);
tessera_status jobs_end(struct jobs *jobs, tessera_status status, tessera_error *error);

/* Of the job under way, or of the last. */
uint64_t jobs_number(struct jobs *jobs);

/* ---- both sides (job_state.c) ---- */

/* Room for a member's outcome of this job, and whether it has come. */
static inline struct job_outcome *jobs_outcome(const struct jobs *jobs, int64_t job, int member) {
    return &jobs->outcomes[(size_t)(job & 1) * (size_t)jobs->size + (size_t)member];
}

static inline bool *jobs_heard(const struct jobs *jobs, int64_t job, int member) {
    return &jobs->heard[(size_t)(job & 1) * (size_t)jobs->size + (size_t)member];
}

/* These with the engine's lock held. Takes a new request in; false: the job has failed, and the
 * request is complete. */
bool jobs_take(struct jobs *jobs, struct comm_request *request);
/* The request's owner is done with it. */
void jobs_give_back(struct jobs *jobs, struct comm_request *request);
void jobs_complete(struct comm_request *request);
/* This rank's own failure, the first time; false where no job is under way. */
bool jobs_fail_here(struct jobs *jobs, tessera_status status, const char *message);
/* The job is about to fail or end: one more that the communication thread has to settle. */
void jobs_count_unsettled(struct jobs *jobs);
/* Takes note of an outcome of this number from a member. */
void jobs_note(struct jobs *jobs, int member, const struct job_outcome *outcome);
/* At a job's beginning: members who have ended their world already. */
void jobs_note_finished(struct jobs *jobs);

/* These take the lock. An outcome has come from a rank. */
void jobs_hear(struct engine *engine, int from, const struct job_outcome *outcome);
/* A rank has ended its world: it takes part in no job of which it has not said so. */
void jobs_hear_finish(struct engine *engine, int from);

/* ---- the communication thread's side (outcomes.c) ---- */

struct progress;

/* Moves all jobs that have failed or ended on; true if anything happened. */
bool outcomes_poll(struct progress *progress);

#endif
