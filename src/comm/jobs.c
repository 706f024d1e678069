/* The computing threads' side of jobs.h. */
#include "comm/jobs.h"

#include <stdlib.h>
#include <string.h>
#include "comm/comm_state.h"

static void jobs_free(struct jobs *jobs) {
    if (jobs == NULL) return;
    free(jobs->world);
    free(jobs->sent);
    free(jobs->heard);
    free(jobs->outcomes);
    free(jobs->outgoing);
    free(jobs->sends);
    free(jobs);
}

static bool allocate(struct jobs *jobs) {
    size_t size = (size_t)jobs->size;
    jobs->world = malloc(size * sizeof *jobs->world);
    jobs->sent = calloc(3 * JOBS_GROUPS * size, sizeof *jobs->sent);
    jobs->heard = calloc(2 * size, sizeof *jobs->heard);
    jobs->outcomes = calloc(2 * size, sizeof *jobs->outcomes);
    jobs->outgoing = calloc(size, sizeof *jobs->outgoing);
    jobs->sends = malloc(size * sizeof *jobs->sends);
    if (jobs->world == NULL || jobs->sent == NULL || jobs->heard == NULL || jobs->outcomes == NULL || jobs->outgoing == NULL ||
        jobs->sends == NULL)
        return false;
    jobs->received = jobs->sent + JOBS_GROUPS * size;
    jobs->left = jobs->received + JOBS_GROUPS * size;
    for (size_t i = 0; i < size; i++) jobs->sends[i] = MPI_REQUEST_NULL;
    return true;
}

/* Outcomes that came before this rank had made the group. The caller holds the lock. */
static void take_early(struct jobs *jobs) {
    struct early_outcome **at = &jobs->engine->early;
    while (*at != NULL) {
        struct early_outcome *early = *at;
        int member = 0;
        while (member < jobs->size && jobs->world[member] != early->from) member++;
        if (early->outcome.jobs != jobs->context || member == jobs->size) {
            at = &early->next;
            continue;
        }
        jobs_note(jobs, member, &early->outcome);
        *at = early->next;
        free(early);
    }
}

struct jobs *jobs_new(struct engine *engine, int context, int rank, int size, const int *world) {
    struct jobs *jobs = calloc(1, sizeof *jobs);
    if (jobs == NULL) return NULL;
    *jobs = (struct jobs){.engine = engine, .context = context, .rank = rank, .size = size};
    if (!allocate(jobs)) {
        jobs_free(jobs);
        return NULL;
    }
    memcpy(jobs->world, world, (size_t)size * sizeof *world);
    pthread_mutex_lock(&engine->lock);
    jobs->next = engine->jobs;
    engine->jobs = jobs;
    take_early(jobs);
    pthread_mutex_unlock(&engine->lock);
    return jobs;
}

int jobs_add_group(struct jobs *jobs, int context) {
    pthread_mutex_lock(&jobs->engine->lock);
    int group = jobs->num_groups < JOBS_GROUPS ? jobs->num_groups++ : -1;
    if (group >= 0) {
        jobs->contexts[group] = context;
        jobs->users++;
    }
    pthread_mutex_unlock(&jobs->engine->lock);
    return group;
}

void jobs_release(struct jobs *jobs) {
    struct engine *engine = jobs->engine;
    pthread_mutex_lock(&engine->lock);
    bool last = --jobs->users == 0;
    struct jobs **at = &engine->jobs;
    while (last && *at != jobs) at = &(*at)->next;
    if (last) *at = jobs->next;
    if (last && (jobs->failed || jobs->ended) && !jobs->settled) engine->unsettled--;
    pthread_mutex_unlock(&engine->lock);
    if (last) jobs_free(jobs);
}

/* ---- a job ---- */

uint64_t jobs_number(struct jobs *jobs) {
    pthread_mutex_lock(&jobs->engine->lock);
    int64_t number = jobs->job;
    pthread_mutex_unlock(&jobs->engine->lock);
    return (uint64_t)number;
}

tessera_status jobs_begin(struct jobs *jobs, tessera_error *error) {
    struct engine *engine = jobs->engine;
    pthread_mutex_lock(&engine->lock);
    tessera_status status = jobs->depth == 0 && jobs->size > 1 ? engine_any_failure(jobs, error) : TESSERA_OK;
    if (jobs->depth++ == 0 && jobs->size > 1) {
        jobs->job++;
        jobs->settled = jobs->told = jobs->cancelled = jobs->counted = false;
        jobs->cause = (tessera_error){0};
        /* what came for the job before: the next job's outcomes go there */
        memset(jobs_heard(jobs, jobs->job + 1, 0), 0, (size_t)jobs->size * sizeof *jobs->heard);
        for (int i = 0; i < jobs->size; i++)
            if (*jobs_heard(jobs, jobs->job, i)) jobs_note(jobs, i, jobs_outcome(jobs, jobs->job, i));
        jobs_note_finished(jobs);
    }
    pthread_mutex_unlock(&engine->lock);
    return status;
}

void jobs_fail(struct jobs *jobs, const tessera_error *error) {
    struct engine *engine = jobs->engine;
    int stalled = 0;
    if (jobs->size == 1) return;
    pthread_mutex_lock(&engine->lock);
    bool in_job = jobs_fail_here(jobs, error->status, error->message);
    while (in_job && jobs->under_way > 0 && engine->phase == ENGINE_RUNNING) engine_wait_for_thread(engine, &stalled, "a job that failed");
    pthread_mutex_unlock(&engine->lock);
    if (!in_job) engine_abort(engine, error);
}

/* Of all ranks' outcomes the one that counts: *member; OK where none failed. The lock is held. */
static tessera_status choose(const struct jobs *jobs, int *member) {
    const struct job_outcome *outcomes = jobs_outcome(jobs, jobs->job, 0);
    tessera_status chosen = TESSERA_OK;
    for (int i = 0; i < jobs->size; i++) {
        tessera_status status = i == jobs->rank ? jobs->cause.status : (tessera_status)outcomes[i].status;
        bool better = chosen == TESSERA_OK || (chosen == TESSERA_ERROR_CANCELLED && status != TESSERA_ERROR_CANCELLED);
        if (status == TESSERA_OK || !better) continue;
        chosen = status;
        *member = i;
    }
    return chosen;
}

/* A failure that this rank had too stays in its own words: `mine`, unless it only learned of it. */
static void tell_chosen(const struct jobs *jobs, int member, tessera_status status, tessera_status mine, tessera_error *error) {
    const struct engine *engine = jobs->engine;
    if (error == NULL) return;
    bool learned = jobs->cause.status == TESSERA_OK && strcmp(error->message, jobs->failure.message) == 0;
    if (mine == status && !learned) return;
    int rank = jobs->world[member];
    const char *text = jobs_outcome(jobs, jobs->job, member)->text;
    error_set(error, status, "rank %d on %s: %.900s", rank, engine->hosts[rank], text);
}

/* The next job finds nothing of this one. The lock is held. */
static void clear(struct jobs *jobs) {
    while (jobs->live != NULL) jobs_give_back(jobs, jobs->live);
    jobs->failed = jobs->ended = false;
}

tessera_status jobs_end(struct jobs *jobs, tessera_status status, tessera_error *error) {
    struct engine *engine = jobs->engine;
    const char *message = error != NULL ? error->message : "";
    int stalled = 0, member = 0;
    pthread_mutex_lock(&engine->lock);
    bool outermost = --jobs->depth == 0 && jobs->size > 1;
    jobs->depth += outermost; /* until it is settled */
    if (status != TESSERA_OK && jobs->size > 1) jobs_fail_here(jobs, status, message);
    if (outermost) {
        jobs_count_unsettled(jobs);
        jobs->ended = true;
        pthread_cond_signal(&engine->wake);
        while (!jobs->settled && engine->phase == ENGINE_RUNNING) engine_wait_for_thread(engine, &stalled, "a job's end");
        if (jobs->settled) {
            tessera_status mine = status;
            status = choose(jobs, &member);
            if (status != TESSERA_OK) tell_chosen(jobs, member, status, mine, error);
            clear(jobs);
        } else if (status == TESSERA_OK) {
            status = engine_any_failure(jobs, error);
        }
        jobs->depth = 0;
    }
    pthread_mutex_unlock(&engine->lock);
    return status;
}
