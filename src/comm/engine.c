/* The computing threads' side of the engine: opening and ending it, posting messages and waiting
 * for them, counting.
 *
 * Requests live in a pool that grows in blocks and is never returned before the end, so a step that
 * sends what the step before sent allocates nothing. A process without a launcher has no thread:
 * its world is one rank, to whom no message can be posted. */
#include "comm/engine_state.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"
#include "comm/jobs.h"

enum {
    POOL_BLOCK = 64,
    FAREWELL_MICROSECONDS = 300000 /* after a failure, before this process may end: the launcher then kills the others, who have to print */
};

struct request_block {
    struct request_block *next;
    struct comm_request requests[POOL_BLOCK];
};

/* Whether a launcher that speaks MPI's start-up protocols (Open MPI's own, PMI, PMIx) started this
 * process. */
static tessera_status find_launcher(bool *found, tessera_error *error) {
    *found = getenv("OMPI_COMM_WORLD_SIZE") != NULL || getenv("PMI_SIZE") != NULL || getenv("PMIX_RANK") != NULL;
    const char *tasks = getenv("SLURM_STEP_NUM_TASKS");
    if (!*found && tasks != NULL && atoi(tasks) > 1)
        return error_set(
            error, TESSERA_ERROR_ARGUMENT,
            "srun started %s tasks, but with no way to find each other: use srun --mpi=pmix (srun --mpi=list shows what there is)", tasks);
    return TESSERA_OK;
}

const tessera_setting *comm_settings(void) {
    static const tessera_setting settings[] = {{"OMPI_MCA_btl_tcp_flags", "send,inplace"},
                                               {"OMPI_MCA_btl_tcp_eager_limit", "262400"},
                                               {"OMPI_MCA_btl_tcp_rndv_eager_limit", "262400"},
                                               {"OMPI_MCA_btl_tcp_max_send_size", "262400"},
                                               {NULL, NULL}};
    static_assert(ENGINE_CHUNK_BYTES + 256 == 262400, "a chunk and Open MPI's header");
    return settings;
}

/* A machine with more work than processors starts ranks as much later. */
static double default_start_seconds(void) {
    double load = 0, processors = (double)sysconf(_SC_NPROCESSORS_ONLN);
    getloadavg(&load, 1);
    return 10 * fmax(1, load / processors);
}

static struct comm_options fill_options(const struct comm_options *given) {
    struct comm_options options = given != NULL ? *given : (struct comm_options){0};
    if (options.heartbeat_seconds <= 0) options.heartbeat_seconds = 1;
    if (options.silence_seconds <= 0) options.silence_seconds = 6;
    if (options.finish_seconds <= 0) options.finish_seconds = 10;
    const char *delay = getenv("TESSERA_COMM_DELAY_MS"), *start = getenv("TESSERA_START_SECONDS");
    if (start != NULL) options.start_seconds = atof(start);
    if (!(options.start_seconds > 0)) options.start_seconds = default_start_seconds();
    if (delay != NULL) options.delay_ms = atoi(delay);
    if (options.delay_ms < 0) options.delay_ms = 0;
    return options;
}

static void open_locks(struct engine *engine) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&engine->lock, NULL);
    pthread_cond_init(&engine->wake, &attributes);
    pthread_cond_init(&engine->done, &attributes);
    pthread_condattr_destroy(&attributes);
}

static void engine_free(struct engine *engine) {
    while (engine->blocks != NULL) {
        struct request_block *block = engine->blocks;
        engine->blocks = block->next;
        free(block);
    }
    pthread_cond_destroy(&engine->done);
    pthread_cond_destroy(&engine->wake);
    pthread_mutex_destroy(&engine->lock);
    while (engine->early != NULL) {
        struct early_outcome *early = engine->early;
        engine->early = early->next;
        free(early);
    }
    free(engine->finished);
    free(engine->hosts);
    free(engine);
}

void engine_hold(struct engine *engine) {
    pthread_mutex_lock(&engine->lock);
    engine->users++;
    pthread_mutex_unlock(&engine->lock);
}

tessera_status engine_finish(struct engine *engine, tessera_error *error) {
    pthread_mutex_lock(&engine->lock);
    if (engine->phase == ENGINE_RUNNING) engine->phase = engine->has_thread ? ENGINE_FINISHING : ENGINE_FINISHED;
    pthread_cond_signal(&engine->wake);
    int stalled = 0;
    while (engine->phase == ENGINE_FINISHING) engine_wait_for_thread(engine, &stalled, "its end");
    tessera_status status = engine_failure(engine, error);
    pthread_mutex_unlock(&engine->lock);
    return status;
}

void engine_release(struct engine *engine) {
    pthread_mutex_lock(&engine->lock);
    bool last = --engine->users == 0;
    pthread_mutex_unlock(&engine->lock);
    if (!last) return;
    if (engine_finish(engine, NULL) != TESSERA_OK && engine->size > 1) usleep(FAREWELL_MICROSECONDS);
    if (engine->users != 0) return; /* given up: no thread to join, and memory that it may still use */
    if (engine->has_thread) pthread_join(engine->thread, NULL);
    engine_free(engine);
}

/* Starts the thread and waits until MPI stands, which it never does where another rank is gone. */
static tessera_status start_thread(struct engine *engine, tessera_error *error) {
    int stalled = 0, code = pthread_create(&engine->thread, NULL, progress_main, engine);
    if (code != 0) return error_set(error, TESSERA_ERROR_MEMORY, "no thread for communication: %s", strerror(code));
    pthread_mutex_lock(&engine->lock);
    engine->has_thread = true;
    while (engine->phase == ENGINE_STARTING) engine_wait_for_thread(engine, &stalled, "its start");
    tessera_status status = engine_failure(engine, error);
    pthread_mutex_unlock(&engine->lock);
    return status;
}

static tessera_status start_alone(struct engine *engine, tessera_error *error) {
    engine->size = 1;
    engine->phase = ENGINE_RUNNING;
    engine->hosts = calloc(1, sizeof *engine->hosts);
    if (engine->hosts == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for communication");
    if (gethostname(engine->hosts[0], ENGINE_HOST_LENGTH - 1) != 0) engine->hosts[0][0] = 0;
    return TESSERA_OK;
}

tessera_status engine_open(const struct comm_options *options, struct engine **out, tessera_error *error) {
    bool launched = false;
    TRY(find_launcher(&launched, error));
    struct engine *engine = calloc(1, sizeof *engine);
    if (engine == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for communication");
    engine->options = fill_options(options);
    engine->users = 1;
    engine->posted_end = &engine->posted;
    engine->contexts[0] = 1 | 1 << ENGINE_CONTEXT_WORLD; /* 0: heartbeats and notices */
    engine->num_labels = 1;
    strcpy(engine->stats[0].label, "other");
    open_locks(engine);
    tessera_status status = launched ? start_thread(engine, error) : start_alone(engine, error);
    if (status == TESSERA_OK)
        *out = engine;
    else
        engine_release(engine);
    return status;
}

int engine_rank(const struct engine *engine) {
    return engine->rank;
}

int engine_size(const struct engine *engine) {
    return engine->size;
}

const char *engine_host(const struct engine *engine, int rank) {
    return engine->hosts[rank];
}

void engine_contexts(struct engine *engine, uint64_t used[ENGINE_CONTEXTS / 64]) {
    pthread_mutex_lock(&engine->lock);
    memcpy(used, engine->contexts, sizeof engine->contexts);
    pthread_mutex_unlock(&engine->lock);
}

void engine_context_set(struct engine *engine, int context, bool used) {
    pthread_mutex_lock(&engine->lock);
    uint64_t bit = (uint64_t)1 << (context % 64), *word = &engine->contexts[context / 64];
    *word = used ? *word | bit : *word & ~bit;
    pthread_mutex_unlock(&engine->lock);
}

/* A request from the pool; NULL when memory is out. The caller holds the lock. */
static struct comm_request *pool_take(struct engine *engine) {
    if (engine->pool == NULL) {
        struct request_block *block = malloc(sizeof *block);
        if (block == NULL) return NULL;
        block->next = engine->blocks;
        engine->blocks = block;
        for (int i = 0; i < POOL_BLOCK; i++) {
            block->requests[i].next = engine->pool;
            engine->pool = &block->requests[i];
        }
    }
    struct comm_request *request = engine->pool;
    engine->pool = request->next;
    return request;
}

static void count(struct engine *engine, const struct comm_request *request) {
    struct comm_stats_row *row = &engine->stats[request->label];
    if (request->is_send) {
        row->bytes_sent += request->bytes;
        row->messages_sent++;
    } else {
        row->bytes_received += request->bytes;
    }
}

struct comm_request *engine_post(struct jobs *jobs, int group, bool is_send, int member, void *data, size_t bytes,
                                 struct comm_explanation explanation) {
    struct engine *engine = jobs->engine;
    pthread_mutex_lock(&engine->lock);
    struct comm_request *request = pool_take(engine);
    if (request == NULL) {
        if (!jobs_fail_here(jobs, TESSERA_ERROR_MEMORY, "no memory for a message"))
            engine_want_abort(engine, TESSERA_ERROR_MEMORY, "no memory for a message");
    } else {
        *request = (struct comm_request){.is_send = is_send,
                                         .peer = jobs->world[member],
                                         .tag = engine_tag(jobs->contexts[group], jobs->job),
                                         .label = engine->label,
                                         .jobs = jobs,
                                         .group = group,
                                         .member = member,
                                         .data = data,
                                         .bytes = bytes,
                                         .explanation = explanation};
        assert(request->peer != engine->rank);
        count(engine, request);
        bool goes = jobs_take(jobs, request);
        if (goes && engine->phase != ENGINE_RUNNING) jobs_complete(request), goes = false; /* the wait gives the failure */
        if (goes) {
            *engine->posted_end = request;
            engine->posted_end = &request->next;
            pthread_cond_signal(&engine->wake);
        }
    }
    pthread_mutex_unlock(&engine->lock);
    return request;
}

/* A rank that has left the world answers no more. What it sent before may still be on its way, for
 * as long as a silent rank is given. Within a job its leaving ends the job at once (outcomes.c). */
static void check_peer(struct engine *engine, int peer, double *left_at) {
    char text[64];
    if (!engine->finished[peer]) return;
    if (*left_at == 0) *left_at = clock_seconds();
    if (clock_seconds() - *left_at <= engine->options.silence_seconds) return;
    snprintf(text, sizeof text, "rank %d has left the world, and answers no more", peer);
    engine_want_abort(engine, TESSERA_ERROR_IO, text);
}

tessera_status engine_wait(struct jobs *jobs, struct comm_request *request, tessera_error *error) {
    struct engine *engine = jobs->engine;
    int stalled = 0;
    pthread_mutex_lock(&engine->lock);
    if (request != NULL && !request->complete) {
        double start = clock_seconds(), left_at = 0;
        engine->waiters++;
        pthread_cond_signal(&engine->wake);
        while (!request->complete && engine->phase != ENGINE_FAILED) {
            engine_wait_for_thread(engine, &stalled, "a message");
            check_peer(engine, request->peer, &left_at);
        }
        engine->waiters--;
        engine->stats[request->label].seconds_waited += clock_seconds() - start;
    }
    while (request == NULL && engine->abort_wanted && engine->phase < ENGINE_FINISHED)
        engine_wait_for_thread(engine, &stalled, "an abort");
    tessera_status status = engine_any_failure(jobs, error);
    if (request != NULL && request->complete) jobs_give_back(jobs, request);
    pthread_mutex_unlock(&engine->lock);
    return status;
}

bool engine_test(struct engine *engine, const struct comm_request *request) {
    pthread_mutex_lock(&engine->lock);
    bool ready = request == NULL || request->complete || engine->phase == ENGINE_FAILED;
    pthread_mutex_unlock(&engine->lock);
    return ready;
}

tessera_status engine_status(struct jobs *jobs, tessera_error *error) {
    pthread_mutex_lock(&jobs->engine->lock);
    tessera_status status = engine_any_failure(jobs, error);
    pthread_mutex_unlock(&jobs->engine->lock);
    return status;
}

bool engine_failed(struct engine *engine) {
    pthread_mutex_lock(&engine->lock);
    bool failed = engine->phase == ENGINE_FAILED;
    pthread_mutex_unlock(&engine->lock);
    return failed;
}

const char *engine_label(struct engine *engine, const char *label) {
    pthread_mutex_lock(&engine->lock);
    const char *before = engine->stats[engine->label].label;
    int found = 0;
    while (found < engine->num_labels && strncmp(engine->stats[found].label, label, COMM_STATS_LABEL_LENGTH - 1) != 0) found++;
    if (found == COMM_STATS_LABELS) found = 0;
    if (found == engine->num_labels) {
        strncpy(engine->stats[found].label, label, COMM_STATS_LABEL_LENGTH - 1);
        engine->num_labels++;
    }
    engine->label = found;
    pthread_mutex_unlock(&engine->lock);
    return before;
}

int engine_stats(struct engine *engine, struct comm_stats_row rows[COMM_STATS_LABELS]) {
    pthread_mutex_lock(&engine->lock);
    int rows_used = engine->num_labels;
    memcpy(rows, engine->stats, (size_t)rows_used * sizeof *rows);
    pthread_mutex_unlock(&engine->lock);
    return rows_used;
}

void engine_stats_reset(struct engine *engine) {
    pthread_mutex_lock(&engine->lock);
    for (int i = 0; i < engine->num_labels; i++) {
        struct comm_stats_row *row = &engine->stats[i];
        row->bytes_sent = row->bytes_received = row->messages_sent = 0;
        row->seconds_waited = 0;
    }
    pthread_mutex_unlock(&engine->lock);
}
