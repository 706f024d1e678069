/* The communication thread: starts MPI, moves chunks, watches the others, ends MPI.
 *
 *     posted queue -> unposted list -> slots (one MPI request each) -> complete
 *
 * A message keeps at most CHUNK_WINDOW chunks with MPI; all but its last are sent so that they end
 * when the receiver takes them (MPI_Issend), since what MPI sends at once it copies, and it would
 * copy a whole message. Order between two ranks in one context is MPI's own (same source, tag and
 * communicator), as long as chunks are given to MPI in the order of their messages: so a message
 * waits in the unposted list until no earlier one of the same direction, peer and context is there.
 * After a failure this thread tells the others, stops calling MPI, and only then lets the waits
 * return: so MPI no longer writes into buffers that their owners are about to free. */
#include "comm/progress.h"

#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>
#include "base/clock.h"
#include "comm/jobs.h"

enum { CHUNK_BYTES = ENGINE_CHUNK_BYTES, CHUNK_WINDOW = 16, EAGER_POLLS = 8, EAGER_POLLS_WAITED = 64 };

/* Naps double from the first to the longest, seconds. Polls go on at `often` at least where a
 * thread waits, which leaves its core idle, or where messages move while it computes; but whoever
 * computes on that core loses what they take, so that after a long time in which nothing happened
 * they may be NAP_SHARE of that time apart: a message is never taken later than by that share of
 * what it took. */
#define NAP_FIRST 5e-6
#define NAP_OFTEN_WAITED 50e-6
#define NAP_OFTEN_BUSY 1e-3
#define NAP_SHARE 0.01
#define NAP_LONGEST 5e-3

#define GOODBYE_SECONDS 0.5 /* how long a failing rank tries to tell the others */

static void fail(struct progress *p, tessera_status status, const char *what, int peer) {
    if (p->failed) return;
    p->failed = true;
    const struct engine *engine = p->engine;
    error_set(&p->failure, status, "rank %d on %s: %s (rank %d on %s)", engine->rank, engine->hosts[engine->rank], what, peer,
              engine->hosts[peer]);
}

static void fail_mpi(struct progress *p, int code, int peer) {
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    fail(p, TESSERA_ERROR_IO, text, peer);
}

/* The next number of splitmix64 (Steele et al. 2014). */
static double random_unit(uint64_t *state) {
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static bool grow_slots(struct progress *p) {
    int capacity = p->capacity == 0 ? 64 : 2 * p->capacity;
    size_t n = (size_t)capacity;
    void *handles = realloc(p->handles, n * sizeof *p->handles);
    if (handles != NULL) p->handles = handles;
    void *slots = realloc(p->slots, n * sizeof *p->slots);
    if (slots != NULL) p->slots = slots;
    void *indices = realloc(p->indices, n * sizeof *p->indices);
    if (indices != NULL) p->indices = indices;
    void *statuses = realloc(p->statuses, n * sizeof *p->statuses);
    if (statuses != NULL) p->statuses = statuses;
    if (handles == NULL || slots == NULL || indices == NULL || statuses == NULL) return false;
    p->capacity = capacity;
    return true;
}

/* Ends a request's job, or all where it is in none. The caller holds the lock. */
static void fail_job(struct progress *p, const struct comm_request *r, tessera_status status, const char *what) {
    if (!jobs_fail_here(r->jobs, status, what)) fail(p, status, what, r->peer);
}

/* Gives the next chunk of a request to MPI; false if it could not. */
static bool post_chunk(struct progress *p, struct comm_request *r) {
    if (p->count == p->capacity && !grow_slots(p)) {
        pthread_mutex_lock(&p->engine->lock);
        fail_job(p, r, TESSERA_ERROR_MEMORY, "no memory for a message");
        pthread_mutex_unlock(&p->engine->lock);
        return false;
    }
    size_t bytes = r->bytes - r->posted < CHUNK_BYTES ? r->bytes - r->posted : CHUNK_BYTES;
    MPI_Request *handle = &p->handles[p->count];
    bool is_last = r->posted + bytes == r->bytes;
    int (*start)(const void *, int, MPI_Datatype, int, int, MPI_Comm, MPI_Request *) = is_last ? MPI_Isend : MPI_Issend;
    int code = r->is_send ? start(r->data + r->posted, (int)bytes, MPI_BYTE, r->peer, r->tag, p->comm, handle)
                          : MPI_Irecv(r->data + r->posted, (int)bytes, MPI_BYTE, r->peer, r->tag, p->comm, handle);
    if (code != MPI_SUCCESS) {
        fail_mpi(p, code, r->peer);
        return false;
    }
    p->slots[p->count++] = (struct slot){.request = r, .offset = r->posted, .bytes = bytes, .number = p->chunks++};
    r->posted += bytes;
    r->in_flight++;
    r->all_posted = is_last;
    if (r->is_send)
        r->jobs->sent[r->group * r->jobs->size + r->member]++;
    else
        r->jobs->receiving++;
    return true;
}

/* Whether an earlier message of the same direction, peer and context still has chunks to post. */
static bool must_queue(const struct progress *p, const struct comm_request *r) {
    for (const struct comm_request *other = p->unposted; other != r; other = other->next)
        if (other->is_send == r->is_send && other->peer == r->peer && other->tag == r->tag) return true;
    return false;
}

/* Posts what may be posted; true if anything was. */
static bool post_chunks(struct progress *p, double now) {
    bool any = false;
    struct comm_request **link = &p->unposted;
    while (*link != NULL && !p->failed) {
        struct comm_request *r = *link;
        if (r->ready_at <= now && !must_queue(p, r)) {
            while (!r->all_posted && r->in_flight < CHUNK_WINDOW && post_chunk(p, r)) any = true;
        }
        if (r->all_posted)
            *link = r->next;
        else
            link = &r->next;
    }
    p->unposted_end = link;
    while (*p->unposted_end != NULL) p->unposted_end = &(*p->unposted_end)->next;
    return any;
}

/* Ends the job of a message of another length, of which this chunk is `bytes` long, or longer. The
 * caller holds the lock. */
static void refuse_length(struct progress *p, const struct slot *slot, size_t bytes, const char *what) {
    const struct comm_request *r = slot->request;
    const struct comm_explanation *e = &r->explanation;
    tessera_error error = {0};
    bool tells = e->explain != NULL && !r->jobs->failed && (slot->offset == 0 || r->has_begun);
    if (tells && e->explain(e->user, r->data, slot->offset + bytes, &error) != TESSERA_OK)
        fail_job(p, r, error.status, error.message);
    else
        fail_job(p, r, TESSERA_ERROR_INTERNAL, what);
}

/* One chunk has ended; true if its message is complete. The caller holds the lock. */
static bool end_chunk(struct progress *p, const struct slot *slot, const MPI_Status *status) {
    struct comm_request *r = slot->request;
    int received = 0, cancelled = 0;
    if (!r->is_send) {
        if (slot->cancelled) MPI_Test_cancelled(status, &cancelled);
        if (!cancelled) MPI_Get_count(status, MPI_BYTE, &received);
        if (!cancelled) r->jobs->received[r->group * r->jobs->size + r->member]++;
        if (!cancelled && (size_t)received != slot->bytes)
            refuse_length(p, slot, (size_t)received, "a message has another length than the one that was awaited: were all ranks given the same?");
        r->has_begun |= slot->offset == 0 && !cancelled;
        r->jobs->receiving--;
    }
    r->in_flight--;
    return r->all_posted && r->in_flight == 0;
}

/* What MPI says of one chunk: a message that was too long for its buffer ends its job, anything
 * else all. */
static void check_chunk(struct progress *p, const struct slot *slot, int code) {
    int class = MPI_SUCCESS;
    if (code != MPI_SUCCESS) MPI_Error_class(code, &class);
    if (class == MPI_ERR_TRUNCATE)
        refuse_length(p, slot, slot->bytes, "a message is longer than the one that was awaited: were all ranks given the same?");
    else if (class != MPI_SUCCESS)
        fail_mpi(p, code, slot->request->peer);
}

static int descending(const void *a, const void *b) {
    return *(const int *)b - *(const int *)a;
}

/* Asks MPI for finished chunks; true if there were any. */
static bool test_slots(struct progress *p) {
    int ended = 0;
    if (p->count == 0) return false;
    int code = MPI_Testsome(p->count, p->handles, &ended, p->indices, p->statuses);
    if (code != MPI_SUCCESS && code != MPI_ERR_IN_STATUS) fail_mpi(p, code, p->slots[0].request->peer);
    if (ended == MPI_UNDEFINED || ended <= 0 || p->failed) return false;
    bool any_complete = false;
    pthread_mutex_lock(&p->engine->lock);
    for (int i = 0; i < ended; i++) {
        const struct slot *slot = &p->slots[p->indices[i]];
        if (code == MPI_ERR_IN_STATUS) check_chunk(p, slot, p->statuses[i].MPI_ERROR);
        bool complete = end_chunk(p, slot, &p->statuses[i]) && !p->failed;
        if (complete) jobs_complete(slot->request);
        any_complete |= complete;
    }
    if (any_complete) pthread_cond_broadcast(&p->engine->done);
    pthread_mutex_unlock(&p->engine->lock);
    qsort(p->indices, (size_t)ended, sizeof *p->indices, descending); /* so that the last slot always is one that stays */
    for (int i = 0; i < ended; i++) {
        p->count--;
        p->handles[p->indices[i]] = p->handles[p->count];
        p->slots[p->indices[i]] = p->slots[p->count];
    }
    return true;
}

/* Takes over what was posted, and what was decided: true if there was a message. */
static bool take_posted(struct progress *p, double now) {
    struct engine *engine = p->engine;
    pthread_mutex_lock(&engine->lock);
    struct comm_request *first = engine->posted;
    *p->unposted_end = first;
    engine->posted = NULL;
    engine->posted_end = &engine->posted;
    engine->rounds++;
    p->waited = engine->waiters > 0 || engine->unsettled > 0;
    p->settles = engine->unsettled > 0;
    if (engine->abort_wanted && !p->failed) {
        p->failed = true;
        p->failure = engine->error;
    }
    pthread_mutex_unlock(&engine->lock);
    for (struct comm_request *r = first; r != NULL; r = r->next) {
        p->unposted_end = &r->next;
        if (r->is_send && engine->options.delay_ms > 0) r->ready_at = now + 1e-3 * engine->options.delay_ms * random_unit(&p->random);
    }
    return first != NULL;
}

static double longest_nap(const struct progress *p, double now, bool waited) {
    if (p->count == 0 && p->unposted == NULL && !p->settles) return NAP_LONGEST;
    double often = waited ? NAP_OFTEN_WAITED : NAP_OFTEN_BUSY, share = NAP_SHARE * (now - p->idle_since);
    return fmin(fmax(often, share), NAP_LONGEST);
}

/* Sleeps a little, longer with every idle round; a post or a wait ends it. */
static void nap(struct progress *p, double now) {
    struct engine *engine = p->engine;
    int doublings = p->idle_rounds++ - (p->waited ? EAGER_POLLS_WAITED : EAGER_POLLS);
    if (doublings < 0) {
        sched_yield();
        return;
    }
    double seconds = NAP_FIRST * (double)(1 << (doublings < 12 ? doublings : 12));
    pthread_mutex_lock(&engine->lock);
    seconds = fmin(seconds, longest_nap(p, now, engine->waiters > 0 || engine->unsettled > 0));
    if (engine->posted == NULL && !engine->abort_wanted && (p->settles || engine->unsettled == 0)) engine_sleep(engine, &engine->wake, seconds);
    if (engine->posted != NULL) p->idle_rounds = 0;
    pthread_mutex_unlock(&engine->lock);
}

/* One round; false after a failure. */
static bool work(struct progress *p) {
    double now = clock_seconds();
    bool any = take_posted(p, now);
    if (p->failed) return false;
    any |= post_chunks(p, now);
    any |= test_slots(p);
    any |= outcomes_poll(p);
    any |= liveness_poll(&p->liveness, now);
    if (p->liveness.failed && !p->failed) {
        p->failed = true;
        p->failure = p->liveness.failure;
    }
    if (any) {
        p->idle_rounds = 0;
        p->idle_since = now;
    } else {
        nap(p, now);
    }
    return !p->failed;
}

static enum engine_phase phase_of(struct engine *engine) {
    pthread_mutex_lock(&engine->lock);
    enum engine_phase phase = engine->phase;
    pthread_mutex_unlock(&engine->lock);
    return phase;
}

static void set_phase(struct progress *p, enum engine_phase phase) {
    struct engine *engine = p->engine;
    pthread_mutex_lock(&engine->lock);
    if (phase == ENGINE_FAILED) engine->error = p->failure;
    if (engine->phase != ENGINE_FAILED) engine->phase = phase; /* failed already: it was given up */
    pthread_cond_broadcast(&engine->done);
    pthread_mutex_unlock(&engine->lock);
}

/* Tells the failure to all who can be reached, until all have said it too: whoever has is sure to
 * know it. */
static void say_goodbye(struct progress *p) {
    double until = clock_seconds() + GOODBYE_SECONDS;
    liveness_tell(&p->liveness, LIVENESS_ABORT, &p->failure);
    p->liveness.failed = true;
    while (clock_seconds() < until) {
        liveness_poll(&p->liveness, clock_seconds());
        if (liveness_told(&p->liveness, LIVENESS_ABORT) && liveness_all_said(&p->liveness, LIVENESS_ABORT)) break;
        usleep(200);
    }
}

/* Both halves of the orderly end (liveness.h), then MPI's. False if a rank fails meanwhile. */
static bool end_orderly(struct progress *p) {
    for (int kind = LIVENESS_FINISH; kind <= LIVENESS_LAST; kind++) {
        liveness_tell(&p->liveness, kind, NULL);
        while (!liveness_all_said(&p->liveness, kind))
            if (!work(p)) return false;
    }
    liveness_close(&p->liveness);
    MPI_Comm_free(&p->comm);
    MPI_Finalize();
    return true;
}

static bool start_failed(struct progress *p, const char *what) {
    p->failed = true;
    error_set(&p->failure, TESSERA_ERROR_IO, "MPI: %s", what);
    return false;
}

static bool start_mpi(struct progress *p) {
    struct engine *engine = p->engine;
    int already = 0, level = 0;
    MPI_Initialized(&already);
    if (already) return start_failed(p, "already in use by this process, which can open one world only");
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level) != MPI_SUCCESS) return start_failed(p, "does not start");
    if (level < MPI_THREAD_SERIALIZED) return start_failed(p, "no support for threads (MPI_THREAD_SERIALIZED)");
    MPI_Comm_dup(MPI_COMM_WORLD, &p->comm);
    MPI_Comm_set_errhandler(p->comm, MPI_ERRORS_RETURN);
    MPI_Comm_rank(p->comm, &engine->rank);
    MPI_Comm_size(p->comm, &engine->size);
    engine->hosts = calloc((size_t)engine->size, sizeof *engine->hosts);
    engine->finished = calloc((size_t)engine->size, sizeof *engine->finished);
    if (engine->hosts == NULL || engine->finished == NULL) return start_failed(p, "no memory");
    char host[ENGINE_HOST_LENGTH] = "";
    if (gethostname(host, sizeof host - 1) != 0) strcpy(host, "?");
    MPI_Allgather(host, sizeof host, MPI_BYTE, engine->hosts, sizeof host, MPI_BYTE, p->comm);
    p->random = (uint64_t)time(NULL) << 20 ^ (uint64_t)engine->rank << 50;
    if (!liveness_open(&p->liveness, p->comm, engine, clock_seconds())) return start_failed(p, "no memory");
    return true;
}

void *progress_main(void *engine) {
    struct progress p = {.engine = engine, .unposted_end = &p.unposted};
    p.drain_buffer = malloc(CHUNK_BYTES);
    prctl(PR_SET_TIMERSLACK, 1000); /* naps as short as asked for, not 50 us longer */
    if (p.drain_buffer == NULL) {
        start_failed(&p, "no memory");
    } else if (start_mpi(&p)) {
        set_phase(&p, ENGINE_RUNNING);
        while (phase_of(engine) != ENGINE_FINISHING && work(&p)) {
        }
        if (p.failed || !end_orderly(&p)) {
            say_goodbye(&p);
            liveness_forget(&p.liveness);
        }
    }
    free(p.drain_buffer);
    free(p.handles);
    free(p.slots);
    free(p.indices);
    free(p.statuses);
    set_phase(&p, p.failed ? ENGINE_FAILED : ENGINE_FINISHED);
    return NULL;
}
