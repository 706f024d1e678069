/* The engine's insides, shared by engine.c (the computing threads' side), progress.c (the
 * communication thread's) and engine_failure.c (both). */
#ifndef TESSERA_COMM_ENGINE_STATE_H
#define TESSERA_COMM_ENGINE_STATE_H

#include <pthread.h>
#include "comm/engine.h"

enum { ENGINE_CHUNK_BYTES = 256 << 10 }; /* of a message, given to MPI at once */

struct comm_request {
    struct comm_request *next; /* in the posted queue, the unposted list or the pool */
    bool is_send, complete;
    int peer, tag, label;
    struct jobs *jobs; /* whose job it belongs to, and which of their groups and members it concerns */
    int group, member;
    struct comm_request *job_next, *job_before; /* in the jobs' list of those that no wait has given back */
    uint8_t *data;
    size_t bytes;
    struct comm_explanation explanation; /* of another length than `bytes` */
    /* of the communication thread */
    double ready_at;            /* an injected delay ends then */
    size_t posted;              /* bytes given to MPI */
    bool all_posted, has_begun; /* has_begun: its first chunk has come */
    int in_flight;              /* chunks */
};

enum engine_phase { ENGINE_STARTING, ENGINE_RUNNING, ENGINE_FINISHING, ENGINE_FINISHED, ENGINE_FAILED };

struct engine {
    /* fixed once the engine is open */
    struct comm_options options;
    int rank, size;
    char (*hosts)[ENGINE_HOST_LENGTH]; /* [size] */
    bool has_thread;
    pthread_t thread;

    pthread_mutex_t lock;      /* guards all below */
    pthread_cond_t wake, done; /* to the communication thread; from it */
    int users;
    enum engine_phase phase;
    tessera_error error; /* why it failed; in phases before, what engine_abort was given */
    bool abort_wanted;
    uint64_t rounds; /* of the communication thread: it is alive while they grow */
    int waiters;
    struct comm_request *posted, **posted_end; /* for the thread to take */
    struct comm_request *pool;
    struct request_block *blocks;
    uint64_t contexts[ENGINE_CONTEXTS / 64];
    struct jobs *jobs; /* of all groups (jobs.h) */
    int unsettled;     /* jobs that have failed or ended, and are not settled */
    bool *finished;    /* [size] ranks that have said FINISH */
    struct early_outcome *early;
    int label, num_labels;
    struct comm_stats_row stats[COMM_STATS_LABELS];
};

/* One wait of at most a second for the communication thread. `stalled` counts those in a row in
 * which it made no round; after too many the engine gives up, and `what` says in what. The caller
 * holds the lock. */
void engine_wait_for_thread(struct engine *engine, int *stalled, const char *what);

/* The failure that the engine is in, OK if none. The caller holds the lock. */
tessera_status engine_failure(const struct engine *engine, tessera_error *error);

/* Asks the thread to fail; the caller holds the lock. The first cause stays. */
void engine_want_abort(struct engine *engine, tessera_status status, const char *message);

/* Why nothing more can be sent: the world has failed, it is over, or the job under way has failed.
 * The caller holds the lock. */
tessera_status engine_any_failure(const struct jobs *jobs, tessera_error *error);

/* The tag of a group's messages in a job. */
static inline int engine_tag(int context, int64_t job) {
    return context | (int)(job & 15) << 10; /* of the 15 bits that MPI grants contexts take 10 */
}

/* The communication thread: starts MPI, works until the end or a failure. */
void *progress_main(void *engine);

/* Waits at most `seconds`; the condition uses the monotonic clock. */
void engine_sleep(struct engine *engine, pthread_cond_t *condition, double seconds);

#endif
