/* See kept.h. */
#include "split/kept.h"

#include <stdlib.h>
#include <string.h>

/* ---- replies ---- */

void kept_replies_open(struct kept_replies *kept, size_t most_bytes) {
    memset(kept, 0, sizeof *kept);
    pthread_mutex_init(&kept->guard, NULL);
    kept->most_bytes = most_bytes;
}

void kept_replies_close(struct kept_replies *kept) {
    for (int i = 0; i < KEPT_MOST_REPLIES; i++) free(kept->places[i].data);
    pthread_mutex_destroy(&kept->guard);
}

static void hash_request(const char *path, const uint8_t *request, size_t size, uint8_t out[CANONICAL_HASH_BYTES]) {
    struct canonical c;
    canonical_begin(&c, path);
    canonical_bytes(&c, request, size);
    canonical_end(&c, out);
}

static struct kept_reply *find(struct kept_replies *kept, const struct wire_request *head) {
    for (int i = 0; i < KEPT_MOST_REPLIES; i++)
        if (kept->places[i].data != NULL && memcmp(kept->places[i].id, head->id, WIRE_ID_BYTES) == 0) return &kept->places[i];
    return NULL;
}

static bool knows(struct kept_replies *kept, const struct wire_request *head) {
    pthread_mutex_lock(&kept->guard);
    bool known = find(kept, head) != NULL;
    pthread_mutex_unlock(&kept->guard);
    return known;
}

enum kept_found kept_reply_find(struct kept_replies *kept, const char *path, const uint8_t *request, size_t size, void **data,
                                size_t *bytes) {
    struct wire_request head;
    uint8_t hash[CANONICAL_HASH_BYTES];
    enum kept_found found = KEPT_UNKNOWN;
    if (wire_request_read(request, size, size, &head, NULL) != TESSERA_OK || !knows(kept, &head)) return KEPT_UNKNOWN;
    hash_request(path, request, size, hash);
    pthread_mutex_lock(&kept->guard);
    struct kept_reply *reply = find(kept, &head);
    if (reply != NULL && memcmp(reply->request, hash, sizeof hash) != 0) {
        found = KEPT_ANOTHER;
    } else if (reply != NULL && (*data = malloc(reply->size)) != NULL) {
        memcpy(*data, reply->data, *bytes = reply->size);
        reply->used = ++kept->clock;
        kept->given++;
        found = KEPT_FOUND;
    }
    pthread_mutex_unlock(&kept->guard);
    return found;
}

static void drop_reply(struct kept_replies *kept, struct kept_reply *reply) {
    free(reply->data);
    kept->bytes -= reply->size;
    *reply = (struct kept_reply){0};
}

/* An empty place; the oldest replies go until `bytes` more fit. */
static struct kept_reply *make_room(struct kept_replies *kept, size_t bytes) {
    for (;;) {
        struct kept_reply *oldest = NULL, *empty = NULL;
        for (int i = 0; i < KEPT_MOST_REPLIES; i++) {
            struct kept_reply *r = &kept->places[i];
            if (r->data == NULL)
                empty = r;
            else if (oldest == NULL || r->used < oldest->used)
                oldest = r;
        }
        if (empty != NULL && kept->bytes + bytes <= kept->most_bytes) return empty;
        drop_reply(kept, oldest);
    }
}

void kept_reply_add(struct kept_replies *kept, const char *path, const uint8_t *request, size_t size, const void *data, size_t bytes) {
    struct wire_request head;
    void *copy = NULL;
    if (bytes > kept->most_bytes || wire_request_read(request, size, size, &head, NULL) != TESSERA_OK || (copy = malloc(bytes)) == NULL)
        return;
    memcpy(copy, data, bytes);
    uint8_t hash[CANONICAL_HASH_BYTES];
    hash_request(path, request, size, hash);
    pthread_mutex_lock(&kept->guard);
    struct kept_reply *same = find(kept, &head);
    if (same != NULL) drop_reply(kept, same);
    struct kept_reply *place = make_room(kept, bytes);
    *place = (struct kept_reply){.data = copy, .size = bytes, .used = ++kept->clock};
    memcpy(place->id, head.id, sizeof place->id);
    memcpy(place->request, hash, sizeof hash);
    kept->bytes += bytes;
    pthread_mutex_unlock(&kept->guard);
}

/* ---- constants of jobs ---- */

void kept_jobs_open(struct kept_jobs *kept, struct split_part *part, size_t most_bytes) {
    *kept = (struct kept_jobs){.part = part, .most_bytes = most_bytes};
}

static void drop_job(struct kept_job *job) {
    state_store_close(&job->store);
    *job = (struct kept_job){.used = 0};
}

void kept_jobs_close(struct kept_jobs *kept) {
    for (int i = 0; i < KEPT_MOST_JOBS; i++)
        if (kept->jobs[i].used > 0) drop_job(&kept->jobs[i]);
}

/* The job that was used longest ago, or an empty place. */
static struct kept_job *oldest_job(struct kept_jobs *kept) {
    struct kept_job *oldest = &kept->jobs[0];
    for (int i = 1; i < KEPT_MOST_JOBS; i++)
        if (kept->jobs[i].used < oldest->used) oldest = &kept->jobs[i];
    return oldest;
}

struct state_store *kept_job_store(struct kept_jobs *kept, const uint8_t nonce[SPLIT_NONCE_BYTES]) {
    struct kept_job *job = NULL;
    for (int i = 0; i < KEPT_MOST_JOBS && job == NULL; i++)
        if (kept->jobs[i].used > 0 && memcmp(kept->jobs[i].nonce, nonce, SPLIT_NONCE_BYTES) == 0) job = &kept->jobs[i];
    if (job == NULL) {
        job = oldest_job(kept);
        if (job->used > 0) drop_job(job);
        job->store = split_part_store(kept->part);
        memcpy(job->nonce, nonce, SPLIT_NONCE_BYTES);
    }
    job->used = ++kept->clock;
    return &job->store;
}

static size_t job_bytes(const struct kept_job *job) {
    size_t bytes = 0;
    for (int i = 0; job->used > 0 && i < job->store.count; i++) bytes += job->store.constants[i].bytes;
    return bytes;
}

size_t kept_jobs_trim(struct kept_jobs *kept) {
    for (;;) {
        struct kept_job *oldest = NULL;
        size_t bytes = 0;
        for (int i = 0; i < KEPT_MOST_JOBS; i++) {
            struct kept_job *job = &kept->jobs[i];
            bytes += job_bytes(job);
            if (job_bytes(job) > 0 && job->used < kept->clock && (oldest == NULL || job->used < oldest->used)) oldest = job;
        }
        if (bytes <= kept->most_bytes || oldest == NULL) return bytes;
        drop_job(oldest);
    }
}
