/* Process groups, and messages between their members.
 *
 *     struct comm *world = NULL;
 *     TRY(comm_world_open(NULL, &world, error));
 *     struct comm_request *out = comm_send_start(world, next, mine, bytes);
 *     struct comm_request *in = comm_receive_start(world, previous, theirs, bytes);
 *     ... compute ...
 *     TRY(comm_wait(world, in, error));
 *     TRY(comm_wait(world, out, error));
 *
 * A process that mpirun or srun started is one rank of the world. A process that was started alone
 * is rank 0 of 1, runs the same code and never calls MPI. A group is a list of world ranks with a
 * context number. The context is the tag of its messages over the one MPI communicator; so groups
 * are cheap, and groups without a common member may have the same context. Messages from one rank
 * to another in one group arrive in the order in which they were sent. The communication thread of
 * engine.h carries all messages, so they move while the caller computes.
 *
 * Work that may fail on one rank alone is a job of a group. Between comm_job_begin and comm_job_end
 * a rank that fails calls comm_job_fail (or passes its failure to comm_job_end). The others' waits
 * then return that failure, and all members end the job with one outcome. After that none of its
 * messages is under way, and the group begins its next job. See jobs.h.
 *
 * Only a lost process ends the world: once a rank has died, gone silent or called comm_abort, every
 * wait on every rank returns an error that names the rank and the cause. After that nothing can be
 * sent; the program prints the error and ends.
 *
 * Environment variables for debugging: TESSERA_COMM_DELAY_MS=N holds every message back for a
 * random time of 0 to N milliseconds, which must change no bit of any result.
 * TESSERA_START_SECONDS=N overrides start_seconds. */
#ifndef TESSERA_COMM_COMM_H
#define TESSERA_COMM_COMM_H

#include "base/error.h"

struct comm;
struct comm_request; /* a message under way; it comes from a pool, to which comm_wait returns it */

struct comm_options {         /* 0: the default */
    double heartbeat_seconds; /* between two signs of life to every rank (1) */
    double silence_seconds;   /* after which a silent rank counts as failed (6) */
    double start_seconds;     /* that comm_world_open waits for the other ranks (10; times the load of a processor if that is above 1) */
    double finish_seconds;    /* that comm_finish waits for MPI itself (10) */
    int delay_ms;             /* the same as TESSERA_COMM_DELAY_MS, which overrides it */
};

/* Open MPI's settings with which messages over TCP are fastest; the list ends with a name that is
 * NULL. A program sets those that the user has not set, in its environment, before comm_world_open.
 * The library never does, because an environment belongs to the program and its threads.
 *
 *     flags         no "put". It sends a megabyte in one piece, and the replies that the other side
 *                   needs before it may send wait behind it. Then a link carries one way at a time
 *                   (52 MB/s each way instead of 112, docs/links.md)
 *     eager_limit   a chunk goes at once, without a request to the receiver, which would cross the
 *                   link twice more */
const tessera_setting *comm_settings(void);

/* Opens the group of all ranks; `options` may be NULL. A process that a launcher started can do
 * this once (MPI's rule). Errors: MPI is already in use or does not start; another rank died or was
 * stopped before it came here; the launcher started several tasks but gives them no way to find
 * each other. */
tessera_status comm_world_open(const struct comm_options *options, struct comm **out, tessera_error *error);

/* This process's rank according to the launcher's environment, before any world is open; 0 without
 * a launcher. */
int comm_launched_rank(void);
/* Whether a launcher started this process. */
bool comm_is_launched(void);
/* Call this at the start of a process, before it has threads. If a launcher started the process, it
 * blocks SIGCONT, so that comm_end_launch can see whether one came. */
void comm_begin_launch(void);
/* Call this at the end of a process that failed. `mpirun --enable-recovery` ends with 0 whatever
 * its ranks return, even after MPI_Abort; only a signal makes it fail (Open MPI 4.1). So this sends
 * it SIGTERM; under any other launcher it does nothing. Rank 0, which prints the error, sends the
 * signal at once. The others send it one after another if rank 0 is gone. Nobody sends it if the
 * launcher is already ending. */
void comm_end_launch(void);

/* Ends the work, on every rank, with any group: waits until all ranks have come here, then ends
 * MPI. You still have to free the groups. After a failure it returns that failure at once. */
tessera_status comm_finish(struct comm *comm, tessera_error *error);

/* Frees a group; NULL is allowed. Freeing the last group ends the communication thread, and MPI if
 * nothing has failed. Print a failure before this: freeing the last group then waits 0.3 s, so that
 * all ranks print theirs before the launcher sees one end and kills the rest. */
void comm_free(struct comm *comm);

int comm_rank(const struct comm *comm); /* this process's rank in the group; NULL is a group of this process alone */
int comm_size(const struct comm *comm);
const char *comm_host(const struct comm *comm, int rank); /* of member `rank`; lives as long as the world */
int comm_local_size(const struct comm *comm);             /* members on this rank's host, itself among them */

/* Splits a group, on all its members. Members with the same colour form a new group, ordered by
 * key, then by rank. A member with a negative colour is in no new group: its *out is NULL. */
tessera_status comm_split(struct comm *comm, int colour, int key, struct comm **out, tessera_error *error);

/* Begins a job; all members of a group begin and end their jobs in the same order. Jobs nest: an
 * inner job of the same group belongs to the outermost. NULL is a group of this process alone. It
 * fails only if the world has failed; call comm_job_end even then. */
tessera_status comm_job_begin(struct comm *comm, tessera_error *error);
/* Tells the others that this rank fails. Its own requests end with an error, too. Returns when MPI
 * no longer uses any of their buffers. Only the first failure counts. Outside a job this is
 * comm_abort. */
void comm_job_fail(struct comm *comm, const tessera_error *error);
/* Ends the job with this rank's status (and `error`, if it is a failure), waits for all members,
 * and returns the same status on all of them: OK if nobody failed, else the failure of the lowest
 * rank that had one (cancellations last). The message is that rank's, "rank 2 on host a:
 * <message>", or this rank's own of the same status. The job's requests all end with it: do not
 * wait for any of them later. */
tessera_status comm_job_end(struct comm *comm, tessera_status status, tessera_error *error);
/* The number of the group's present job, the same on all its members; 0 without a group. */
uint64_t comm_job_number(struct comm *comm);
/* From now on a group's messages belong to the jobs of `with`, whose members include the group's.
 * All members call it in the same order. */
tessera_status comm_job_share(struct comm *comm, struct comm *with, tessera_error *error);

/* Tells all ranks that this one fails and why ("rank 2 on host a: <message>"). Their waits, and
 * this rank's, return that error. Returns when they know it, at most a second later. */
void comm_abort(struct comm *comm, const tessera_error *error);

/* The failure of the group's present job, or of the whole world, if there is one. `error` may be
 * NULL. */
tessera_status comm_status(struct comm *comm, tessera_error *error);
/* Whether the world has failed and ended. */
bool comm_world_failed(const struct comm *comm);

/* Fails on all members alike if `text` is not the same on all of them. The error names the ranks
 * and both values, and calls the text `what` ("options"). */
tessera_status comm_check_same(struct comm *comm, const char *what, const char *text, tessera_error *error);

/* Starts a message of any length, also 0, to or from another member. The buffer must not change
 * until comm_wait. The receiver must pass the length that the sender passes. Returns NULL only if
 * memory is out: then the job has failed, and the wait returns the error. */
struct comm_request *comm_send_start(struct comm *comm, int to, const void *data, size_t bytes);
struct comm_request *comm_receive_start(struct comm *comm, int from, void *data, size_t bytes);

/* Explains a message that has another length than the receiver passed, from the first bytes of it.
 * `explain` writes the error with which the job then ends; OK means that the bytes do not tell. The
 * communication thread calls it at most once, before the request ends. It may neither wait nor call
 * the group. */
struct comm_explanation {
    tessera_status (*explain)(const void *user, const void *data, size_t bytes, tessera_error *error);
    const void *user;
};
/* comm_receive_start with an explanation. */
struct comm_request *comm_receive_explained(struct comm *comm, int from, void *data, size_t bytes, struct comm_explanation explanation);

/* Waits until the message is sent (then its buffer may change) or received, and frees the request.
 * Wait for every request once. */
tessera_status comm_wait(struct comm *comm, struct comm_request *request, tessera_error *error);
/* True if comm_wait would not block. */
bool comm_test(struct comm *comm, const struct comm_request *request);

#endif
