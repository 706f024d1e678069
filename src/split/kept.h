/* What a worker keeps between requests, all of it bounded: replies, for retries, and constants of jobs.
 *
 * A reply is found by its request's id and given again where the request is the same, byte for
 * byte. Where there is no room the one that was used longest ago goes; a retry that comes later is
 * computed again, with the same result. */
#ifndef TESSERA_SPLIT_KEPT_H
#define TESSERA_SPLIT_KEPT_H

#include <pthread.h>

#include "split/wire.h"

/* ---- replies ---- */

enum { KEPT_MOST_REPLIES = 1024 };

struct kept_reply {
    uint8_t id[WIRE_ID_BYTES], request[CANONICAL_HASH_BYTES]; /* request: hash of the path and of all its bytes */
    void *data;                                               /* owned; NULL: an empty place */
    size_t size;
    uint64_t used;
};
/* For several threads. */
struct kept_replies {
    pthread_mutex_t guard;
    size_t most_bytes, bytes;
    uint64_t clock, given;
    struct kept_reply places[KEPT_MOST_REPLIES];
};
enum kept_found { KEPT_UNKNOWN, KEPT_FOUND, KEPT_ANOTHER /* the id is of a request with other bytes */ };

void kept_replies_open(struct kept_replies *kept, size_t most_bytes);
void kept_replies_close(struct kept_replies *kept);
/* The reply to a request, a copy of malloc in *data; KEPT_UNKNOWN, too, where there is no memory
 * for it. */
enum kept_found kept_reply_find(struct kept_replies *kept, const char *path, const uint8_t *request, size_t size, void **data,
                                size_t *bytes);
/* Keeps a copy, if there is room for it. */
void kept_reply_add(struct kept_replies *kept, const char *path, const uint8_t *request, size_t size, const void *data, size_t bytes);

/* ---- constants of jobs ---- */

enum { KEPT_MOST_JOBS = 64 };

/* For one thread, the one that computes. */
struct kept_jobs {
    struct split_part *part;
    size_t most_bytes;
    uint64_t clock;
    struct kept_job {
        uint8_t nonce[SPLIT_NONCE_BYTES];
        struct state_store store;
        uint64_t used; /* 0: an empty place */
    } jobs[KEPT_MOST_JOBS];
};
void kept_jobs_open(struct kept_jobs *kept, struct split_part *part, size_t most_bytes);
void kept_jobs_close(struct kept_jobs *kept); /* before the part's end */
/* The job's constants; a new job takes the place of the one that was used longest ago. */
struct state_store *kept_job_store(struct kept_jobs *kept, const uint8_t nonce[SPLIT_NONCE_BYTES]);
/* Lets jobs go until the constants fit, but for the one that was used last. Returns the bytes that
 * are kept. */
size_t kept_jobs_trim(struct kept_jobs *kept);

#endif
