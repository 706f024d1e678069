/* How the communication thread ends a job that is over or has failed. All of it runs with the
 * engine's lock held: the calls of MPI here do not block. */
#include "comm/jobs.h"

#include <stdlib.h>
#include <string.h>
#include "comm/liveness.h"
#include "comm/progress.h"

/* Drops a job's messages from a list of those that MPI has not seen, or not all of; the list's end.
 */
static struct comm_request **drop(struct comm_request **link, const struct jobs *jobs) {
    while (*link != NULL) {
        struct comm_request *r = *link;
        if (r->jobs != jobs) {
            link = &r->next;
            continue;
        }
        *link = r->next;
        r->all_posted = true;
        if (r->in_flight == 0) jobs_complete(r);
    }
    return link;
}

/* The last one first, so that a message which arrives meanwhile meets the receive that was meant
 * for it. */
static void cancel_receives(struct progress *p, const struct jobs *jobs) {
    for (;;) {
        int last = -1;
        for (int i = 0; i < p->count; i++) {
            const struct slot *slot = &p->slots[i];
            bool ours = slot->request->jobs == jobs && !slot->request->is_send && !slot->cancelled;
            if (ours && (last < 0 || slot->number > p->slots[last].number)) last = i;
        }
        if (last < 0) return;
        p->slots[last].cancelled = true;
        MPI_Cancel(&p->handles[last]);
    }
}

static void tell(struct progress *p, struct jobs *jobs) {
    size_t bytes = jobs->cause.status != TESSERA_OK ? sizeof *jobs->outgoing : offsetof(struct job_outcome, text);
    for (int i = 0; i < jobs->size; i++) {
        struct job_outcome *o = &jobs->outgoing[i];
        if (i == jobs->rank) continue;
        *o = (struct job_outcome){.kind = LIVENESS_OUTCOME, .jobs = jobs->context, .job = jobs->job, .status = (int32_t)jobs->cause.status};
        for (int g = 0; g < jobs->num_groups; g++) o->chunks[g] = jobs->sent[g * jobs->size + i];
        memcpy(o->text, jobs->cause.message, sizeof o->text);
        MPI_Isend(o, (int)bytes, MPI_BYTE, jobs->world[i], 0, p->comm, &jobs->sends[i]);
    }
    jobs->told = true;
}

static bool all_heard(const struct jobs *jobs) {
    for (int i = 0; i < jobs->size; i++)
        if (i != jobs->rank && !*jobs_heard(jobs, jobs->job, i)) return false;
    return true;
}

/* What others sent and this rank did not take. */
static void count_left(struct jobs *jobs) {
    for (int i = 0; i < jobs->size; i++) {
        const struct job_outcome *outcome = jobs_outcome(jobs, jobs->job, i);
        for (int g = 0; i != jobs->rank && outcome->chunks[0] >= 0 && g < jobs->num_groups; g++)
            jobs->left[g * jobs->size + i] = outcome->chunks[g] - jobs->received[g * jobs->size + i];
    }
    jobs->counted = true;
}

/* Receives what is left into one buffer, one chunk at a time; true where nothing is left. */
static bool drain(struct progress *p, struct jobs *jobs) {
    for (;;) {
        int ended = 1;
        if (p->drained != NULL && p->drained != jobs) return false;
        if (p->drained == jobs) MPI_Test(&p->drain, &ended, MPI_STATUS_IGNORE);
        if (!ended) return false;
        p->drained = NULL;
        int i = 0, all = jobs->num_groups * jobs->size;
        while (i < all && jobs->left[i] <= 0) i++;
        if (i == all) return true;
        jobs->left[i]--;
        p->drained = jobs;
        MPI_Irecv(p->drain_buffer, ENGINE_CHUNK_BYTES, MPI_BYTE, jobs->world[i % jobs->size],
                  engine_tag(jobs->contexts[i / jobs->size], jobs->job), p->comm, &p->drain);
    }
}

/* Moves one job on. */
static void settle(struct progress *p, struct jobs *jobs) {
    bool over = all_heard(jobs);
    int told = 1;
    if (jobs->failed) {
        p->unposted_end = drop(&p->unposted, jobs);
        p->engine->posted_end = drop(&p->engine->posted, jobs);
    }
    if (!jobs->told) tell(p, jobs);
    if ((jobs->failed || over) && !jobs->cancelled) {
        cancel_receives(p, jobs);
        jobs->cancelled = true;
    }
    if (!over || jobs->receiving > 0) return;
    if (!jobs->counted) count_left(jobs);
    if (!drain(p, jobs) || jobs->under_way > 0 || !jobs->ended) return;
    MPI_Testall(jobs->size, jobs->sends, &told, MPI_STATUSES_IGNORE);
    if (!told) return;
    memset(jobs->sent, 0, 3 * JOBS_GROUPS * (size_t)jobs->size * sizeof *jobs->sent);
    jobs->settled = true;
    p->engine->unsettled--;
}

bool outcomes_poll(struct progress *p) {
    struct engine *engine = p->engine;
    bool any = false;
    pthread_mutex_lock(&engine->lock);
    for (struct jobs *jobs = engine->unsettled > 0 ? engine->jobs : NULL; jobs != NULL; jobs = jobs->next) {
        if (!(jobs->failed || jobs->ended) || jobs->settled) continue;
        int under_way = jobs->under_way;
        settle(p, jobs);
        any |= jobs->settled || jobs->under_way != under_way;
    }
    if (any) pthread_cond_broadcast(&engine->done);
    pthread_mutex_unlock(&engine->lock);
    return any;
}
