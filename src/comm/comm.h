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
 * A process that mpirun or srun started is one rank of the world; one that was started alone is rank 0 of 1, runs the same code and
 * never touches MPI. A group is a list of world ranks with a context number, which is the tag of its messages over one MPI
 * communicator; so groups are cheap, and groups without a common member may share a context. Messages from one rank to another in one
 * group arrive in the order in which they were sent. All messages are carried by the one communication thread of engine.h, so they
 * move while the caller computes.
 *
 * Work that may fail on one rank alone is a job of a group: between comm_job_begin and comm_job_end a rank that fails says so with
 * comm_job_fail (or at the end), the others' waits return its failure, and all of them end the job with one outcome. Then nothing of it is
 * under way any more, and the group goes on to its next job. See jobs.h.
 *
 * Only a process that is really gone ends the world: once a rank has died, gone silent or called comm_abort, every wait on every rank
 * returns an error that names the rank and the cause. After it nothing more can be sent; the program says the error and ends.
 *
 * Environment, for debugging: TESSERA_COMM_DELAY_MS=N holds every message back for a random 0 to N milliseconds, which must change no
 * bit of any result. TESSERA_START_SECONDS=N overrides start_seconds. */
#ifndef TESSERA_COMM_COMM_H
#define TESSERA_COMM_COMM_H

#include "base/error.h"

struct comm;
struct comm_request; /* a message under way; from a pool, given back by comm_wait */

struct comm_options {         /* 0: the default */
    double heartbeat_seconds; /* a sign of life to every rank this often (1) */
    double silence_seconds;   /* a rank that is silent for so long has failed (6) */
    double start_seconds;     /* how long comm_world_open waits for the other ranks (10, times the load of each processor if above 1) */
    double finish_seconds;    /* how long comm_finish waits for MPI itself (10) */
    int delay_ms;             /* as TESSERA_COMM_DELAY_MS, which overrides it */
};

/* Open MPI's settings with which messages over TCP are fastest; ends with a name that is NULL. A program sets those that the user has not set,
 * in its environment, before comm_world_open; the library never does, because an environment belongs to the program and its threads.
 *
 *     flags         no "put": it sends a megabyte in one piece, behind which the answers wait that the other side needs before it may send
 *                   its own, so that a link carries one way at a time (52 in place of 112 MB/s each way, docs/links.md)
 *     eager_limit   a chunk goes at once, without asking the receiver first, which crosses the link twice more */
const tessera_setting *comm_settings(void);

/* Opens the group of all ranks; `options` may be NULL. Once per process where a launcher started it (MPI's rule). Errors: MPI is in use
 * already, or does not start; another rank died or was stopped before it came here; the launcher started several tasks but gives them no way
 * to find each other. */
tessera_status comm_world_open(const struct comm_options *options, struct comm **out, tessera_error *error);

/* This process's rank as the launcher's environment tells it, before any world is open; 0 without a launcher. */
int comm_launched_rank(void);
/* Whether a launcher started this process. */
bool comm_is_launched(void);
/* At the start of a process, before it has threads: holds SIGCONT back where a launcher started it, for comm_end_launch to see whether it came. */
void comm_begin_launch(void);
/* At the end of a process that failed: `mpirun --enable-recovery` ends with 0 whatever its ranks return, even after MPI_Abort; only a signal makes
 * it fail (Open MPI 4.1), so it gets SIGTERM. Does nothing under any other launcher. Rank 0, which says what is wrong, sends it at once; the others
 * send it one after another if rank 0 is gone; nobody does where the launcher is at its end already. */
void comm_end_launch(void);

/* The orderly end, on every rank, with any group: waits until all ranks have come here, then ends MPI. Groups remain to be freed. After
 * a failure it returns that failure at once. */
tessera_status comm_finish(struct comm *comm, tessera_error *error);

/* Frees a group (NULL is fine); the last one ends the communication thread, and MPI if nothing has failed. After a failure print it first:
 * the last one then waits 0.3 s, so that all ranks have printed theirs before the launcher sees one end and kills the rest. */
void comm_free(struct comm *comm);

int comm_rank(const struct comm *comm); /* mine in this group; NULL is a group of this process alone */
int comm_size(const struct comm *comm);
const char *comm_host(const struct comm *comm, int rank); /* of member `rank`; lives as long as the world */
int comm_local_size(const struct comm *comm);             /* members on this rank's host, itself among them */

/* Splits a group, on all its members: those with the same colour make a group, ordered by key, then by rank. A negative colour takes
 * part in no group: *out is NULL. */
tessera_status comm_split(struct comm *comm, int colour, int key, struct comm **out, tessera_error *error);

/* A job, on all members of a group in the same order. Jobs nest: the inner ones of the same group belong to the outermost. NULL is a
 * group of this process alone. The beginning fails only where the world has; the end is due all the same. */
tessera_status comm_job_begin(struct comm *comm, tessera_error *error);
/* Says that this rank fails; its own requests, too, then end with an error. Returns when MPI touches none of their buffers any more. The
 * first failure counts. Outside a job it is comm_abort. */
void comm_job_fail(struct comm *comm, const tessera_error *error);
/* Ends the job with this rank's status (and `error`, if it is a failure), waits for all members, and returns what all of them return: OK
 * where nobody failed, else the failure of the lowest rank that had one (cancellations last). What it prints is that rank's, "rank 2 on
 * host a: <message>", or this rank's own of the same status. The job's requests are all given back: wait for none of them later. */
tessera_status comm_job_end(struct comm *comm, tessera_status status, tessera_error *error);
/* The number of the group's job under way, which is the same on all its members; 0 where there is no group. */
uint64_t comm_job_number(struct comm *comm);
/* From now on a group's messages belong to the jobs of `with`, whose members include the group's. On all members, in the same order. */
tessera_status comm_job_share(struct comm *comm, struct comm *with, tessera_error *error);

/* Tells all ranks that this one fails and why ("rank 2 on host a: <message>"); their waits, and this rank's, return it. Returns when they
 * know it, at most a second later. */
void comm_abort(struct comm *comm, const tessera_error *error);

/* The failure of the group's job under way, or of the whole world, if there is one. `error` may be NULL. */
tessera_status comm_status(struct comm *comm, tessera_error *error);
/* Whether the world has failed, for good. */
bool comm_world_failed(const struct comm *comm);

/* Fails on all members alike if `text` is not the same on all; the error names the ranks and both values. `what`: "options". */
tessera_status comm_check_same(struct comm *comm, const char *what, const char *text, tessera_error *error);

/* Starts a message of any length (0 too) to or from another member. The buffer must stay as it is until comm_wait. The receiver asks for
 * exactly the length that is sent. NULL only when memory is out: the job has then failed, and
 * the wait gives the error. */
struct comm_request *comm_send_start(struct comm *comm, int to, const void *data, size_t bytes);
struct comm_request *comm_receive_start(struct comm *comm, int from, void *data, size_t bytes);

/* Says what is wrong with a message of another length than the one that was awaited, by the first bytes that came of it: the error that its
 * job then ends with. OK: they do not tell. The communication thread calls it, once at most and before the request ends; it may neither wait
 * nor call the group. */
struct comm_explanation {
    tessera_status (*explain)(const void *user, const void *data, size_t bytes, tessera_error *error);
    const void *user;
};
/* comm_receive_start with an explanation. */
struct comm_request *comm_receive_explained(struct comm *comm, int from, void *data, size_t bytes, struct comm_explanation explanation);

/* Waits until the message is sent (its buffer may change) or received, and gives the request back. Every request is waited for once. */
tessera_status comm_wait(struct comm *comm, struct comm_request *request, tessera_error *error);
/* True if comm_wait would not block. */
bool comm_test(struct comm *comm, const struct comm_request *request);

#endif
