/* What both threads do to a job's state: its requests, this rank's own failure, other ranks'
 * outcomes. It calls neither MPI nor any other file of this room, so all of them may use it. */
#include "comm/jobs.h"

#include <stdlib.h>
#include <string.h>

/* ---- requests ---- */

bool jobs_take(struct jobs *jobs, struct comm_request *request) {
    request->job_next = jobs->live;
    request->job_before = NULL;
    if (jobs->live != NULL) jobs->live->job_before = request;
    jobs->live = request;
    request->complete = jobs->failed;
    if (!jobs->failed) jobs->under_way++;
    return !jobs->failed;
}

void jobs_give_back(struct jobs *jobs, struct comm_request *request) {
    if (request->job_before != NULL)
        request->job_before->job_next = request->job_next;
    else
        jobs->live = request->job_next;
    if (request->job_next != NULL) request->job_next->job_before = request->job_before;
    request->next = jobs->engine->pool;
    jobs->engine->pool = request;
}

void jobs_complete(struct comm_request *request) {
    request->complete = true;
    request->jobs->under_way--;
}

/* ---- this rank's failure ---- */

void jobs_count_unsettled(struct jobs *jobs) {
    if (!jobs->failed && !jobs->ended) jobs->engine->unsettled++;
}

bool jobs_fail_here(struct jobs *jobs, tessera_status status, const char *message) {
    if (jobs->depth == 0) return false;
    if (jobs->failed) return true;
    jobs_count_unsettled(jobs);
    jobs->failed = true;
    error_set(&jobs->cause, status != TESSERA_OK ? status : TESSERA_ERROR_INTERNAL, "%s", message);
    jobs->failure = jobs->cause;
    pthread_cond_signal(&jobs->engine->wake);
    return true;
}

/* ---- the others' outcomes ---- */

static int member_of(const struct jobs *jobs, int world_rank) {
    for (int i = 0; i < jobs->size; i++)
        if (jobs->world[i] == world_rank) return i;
    return -1;
}

/* A failure of another rank ends what this one waits for. */
void jobs_note(struct jobs *jobs, int member, const struct job_outcome *outcome) {
    bool late = outcome->job < jobs->job || (outcome->job == jobs->job && jobs->depth == 0);
    if (late || outcome->job > jobs->job + 1) return;
    struct job_outcome *kept = jobs_outcome(jobs, outcome->job, member);
    if (kept != outcome) *kept = *outcome;
    *jobs_heard(jobs, outcome->job, member) = true;
    if (outcome->job != jobs->job || outcome->status == TESSERA_OK || jobs->failed) return;
    int rank = jobs->world[member];
    if (!jobs->ended) jobs->engine->unsettled++;
    jobs->failed = true;
    error_set(&jobs->failure, (tessera_status)outcome->status, "rank %d on %s: %.900s", rank, jobs->engine->hosts[rank], outcome->text);
}

void jobs_hear(struct engine *engine, int from, const struct job_outcome *outcome) {
    pthread_mutex_lock(&engine->lock);
    struct jobs *jobs = engine->jobs;
    while (jobs != NULL && (jobs->context != outcome->jobs || member_of(jobs, from) < 0)) jobs = jobs->next;
    if (jobs != NULL) {
        jobs_note(jobs, member_of(jobs, from), outcome);
    } else {
        struct early_outcome *early = malloc(sizeof *early);
        if (early != NULL) {
            *early = (struct early_outcome){.next = engine->early, .from = from, .outcome = *outcome};
            engine->early = early;
        }
    }
    pthread_mutex_unlock(&engine->lock);
}

/* That a member has gone in good order counts as its outcome. */
static void note_finish(struct jobs *jobs, int member) {
    if (jobs->depth == 0 || member == jobs->rank || *jobs_heard(jobs, jobs->job, member)) return;
    struct job_outcome outcome = {.job = jobs->job, .chunks = {-1}, .status = TESSERA_ERROR_IO};
    strcpy(outcome.text, "has left the world, and takes no part in this job");
    jobs_note(jobs, member, &outcome);
}

void jobs_note_finished(struct jobs *jobs) {
    for (int i = 0; i < jobs->size; i++)
        if (jobs->engine->finished[jobs->world[i]]) note_finish(jobs, i);
}

void jobs_hear_finish(struct engine *engine, int from) {
    pthread_mutex_lock(&engine->lock);
    engine->finished[from] = true;
    for (struct jobs *jobs = engine->jobs; jobs != NULL; jobs = jobs->next) {
        int member = member_of(jobs, from);
        if (member >= 0) note_finish(jobs, member);
    }
    pthread_mutex_unlock(&engine->lock);
}
