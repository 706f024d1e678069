/* The threads of a server beside the library's: the one that computes and the one that watches
 * deadlines. See server.h. */
#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "split/server_parts.h"

#define WATCH_SECONDS 0.2

static void wait_for(struct server *server, double seconds) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    long long nanoseconds = until.tv_nsec + (long long)(seconds * 1e9);
    until.tv_sec += (time_t)(nanoseconds / 1000000000);
    until.tv_nsec = (long)(nanoseconds % 1000000000);
    pthread_cond_timedwait(&server->wake, &server->guard, &until);
}

void server_queue_open(struct server *server) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&server->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&server->guard, NULL);
}

/* ---- the computing thread ---- */

/* The oldest request of the token that has had the least time. */
static struct server_request *pop(struct server *server) {
    struct server_request *best = NULL, *before = NULL, *before_best = NULL;
    for (struct server_request *r = server->first; r != NULL; before = r, r = r->next)
        if (best == NULL || server->shares[r->token].used < server->shares[best->token].used) best = r, before_best = before;
    if (best == NULL) return NULL;
    *(before_best != NULL ? &before_best->next : &server->first) = best->next;
    if (server->last == best) server->last = before_best;
    server->used_so_far = server->shares[best->token].used;
    return best;
}

static void compute(struct server *server, struct server_request *r, bool stopping) {
    double start = clock_seconds();
    if (stopping) {
        server_reply_text(&r->reply, 503, "this worker stops\n");
        r->reply.retry_after = 1;
    } else {
        r->route->compute(server->options.user, r->body, r->whole, &r->reply);
        if (r->reply.status == 0) server_reply_text(&r->reply, 500, "no answer\n");
    }
    struct MHD_Connection *connection = r->connection;
    pthread_mutex_lock(&server->guard);
    double seconds = clock_seconds() - start;
    server->counts.queued--;
    server->counts.computing_seconds += seconds;
    server->shares[r->token].queued--;
    server->shares[r->token].used += seconds;
    pthread_mutex_unlock(&server->guard);
    MHD_resume_connection(connection); /* from here on the request is the server's thread's */
}

static void *run_computer(void *user) {
    struct server *server = user;
    pthread_mutex_lock(&server->guard);
    for (;;) {
        struct server_request *r = pop(server);
        bool stopping = server->stopping;
        if (r == NULL && server->ending) break;
        if (r == NULL) {
            pthread_cond_wait(&server->wake, &server->guard);
            continue;
        }
        pthread_mutex_unlock(&server->guard);
        compute(server, r, stopping);
        pthread_mutex_lock(&server->guard);
    }
    pthread_mutex_unlock(&server->guard);
    return NULL;
}

/* ---- the watchman ---- */

static void *run_watchman(void *user) {
    struct server *server = user;
    pthread_mutex_lock(&server->guard);
    while (!server->ending) {
        wait_for(server, WATCH_SECONDS);
        pthread_mutex_unlock(&server->guard);
        links_expire(&server->links, clock_seconds());
        pthread_mutex_lock(&server->guard);
    }
    pthread_mutex_unlock(&server->guard);
    return NULL;
}

tessera_status server_queue_start(struct server *server, tessera_error *error) {
    server->has_computer = pthread_create(&server->computer, NULL, run_computer, server) == 0;
    server->has_watchman = pthread_create(&server->watchman, NULL, run_watchman, server) == 0;
    if (server->has_computer && server->has_watchman) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_MEMORY, "the system allows this process no more threads (ulimit -u)");
}

/* ---- requests ---- */

bool server_stopping(struct server *server) {
    pthread_mutex_lock(&server->guard);
    bool stopping = server->stopping;
    pthread_mutex_unlock(&server->guard);
    return stopping;
}

/* Where the queue is full, a token may still have as many requests in it as if all that wait had
 * the same. */
static bool is_full(const struct server *server, int token) {
    int limit = server->options.limits.queue, tokens = 0;
    if (server->counts.queued < limit) return false;
    for (int i = 0; i < TOKENS_MOST; i++) tokens += i == token || server->shares[i].queued > 0;
    int share = limit / tokens > 0 ? limit / tokens : 1;
    return server->shares[token].queued >= share;
}

bool server_queue_is_full(struct server *server, int token) {
    pthread_mutex_lock(&server->guard);
    bool full = is_full(server, token);
    pthread_mutex_unlock(&server->guard);
    return full;
}

bool server_queue_push(struct server *server, struct server_request *r) {
    pthread_mutex_lock(&server->guard);
    bool taken = !is_full(server, r->token) && !server->stopping;
    struct server_share *share = &server->shares[r->token];
    if (taken) {
        MHD_suspend_connection(r->connection); /* before the other thread can resume it */
        r->next = NULL;
        *(server->last != NULL ? &server->last->next : &server->first) = r;
        server->last = r;
        server->counts.queued++;
        if (share->queued++ == 0 && share->used < server->used_so_far) share->used = server->used_so_far;
        pthread_cond_broadcast(&server->wake);
    }
    pthread_mutex_unlock(&server->guard);
    return taken;
}

void server_request_begins(struct server *server) {
    pthread_mutex_lock(&server->guard);
    server->counts.requests++;
    server->counts.active++;
    pthread_mutex_unlock(&server->guard);
}

void server_request_ends(struct server *server) {
    pthread_mutex_lock(&server->guard);
    server->counts.active--;
    pthread_cond_broadcast(&server->wake);
    pthread_mutex_unlock(&server->guard);
}

/* ---- the end ---- */

void server_queue_drain(struct server *server, double seconds) {
    pthread_mutex_lock(&server->guard);
    server->stopping = true;
    pthread_cond_broadcast(&server->wake);
    while (server->counts.queued > 0) wait_for(server, WATCH_SECONDS); /* the one that is computed takes its time */
    double until = clock_seconds() + seconds;
    while (server->counts.active > 0 && clock_seconds() < until) wait_for(server, WATCH_SECONDS);
    pthread_mutex_unlock(&server->guard);
}

void server_queue_close(struct server *server) {
    pthread_mutex_lock(&server->guard);
    server->ending = true;
    pthread_cond_broadcast(&server->wake);
    pthread_mutex_unlock(&server->guard);
    if (server->has_computer) pthread_join(server->computer, NULL);
    if (server->has_watchman) pthread_join(server->watchman, NULL);
    pthread_cond_destroy(&server->wake);
    pthread_mutex_destroy(&server->guard);
}
