/* What remote.c (requests and replies) and remote_transport.c (libcurl) share. Private to the two. */
#ifndef TESSERA_SPLIT_REMOTE_PARTS_H
#define TESSERA_SPLIT_REMOTE_PARTS_H

#include <curl/curl.h>

#include "split/remote.h"

enum { REMOTE_TEXT_BYTES = 512, REMOTE_KNOWN_CONSTANTS = 128 };

struct remote {
    struct remotes *remotes;
    char *url, *name, *pin, *authorization; /* name: host and port, for messages */
    bool plain, loopback;
    double connect_seconds, stall_seconds, whole_seconds;
    /* Which constants it has: hashes of job and digests, the oldest overwritten first. */
    uint8_t known[REMOTE_KNOWN_CONSTANTS][CANONICAL_HASH_BYTES];
    unsigned num_known;
};

enum call_kind { CALL_DESCRIBE, CALL_RUN, CALL_HASHES, CALL_STATE };

struct remote_call {
    struct remote *remote;
    void *user;
    enum call_kind kind;
    struct remote_input input;
    struct wire_request request;
    uint8_t *body; /* owned */
    size_t body_size;
    bool whole;    /* the constants travel whole */
    bool asked;    /* the worker has asked for them */
    struct remote_result result;
    bool finished;
    struct remote_call *before, *after; /* in one of the lists of struct remotes */
    /* the transport's */
    CURL *easy;
    struct curl_slist *headers;
    char curl_error[CURL_ERROR_SIZE];
    long status;
    uint8_t *data; /* of the reply, aligned to 64; owned */
    size_t size, room, most;
    char text[REMOTE_TEXT_BYTES]; /* the beginning of a reply that is no success */
    size_t text_size;
    double start, moved; /* moved: when bytes last did */
    curl_off_t seen;
    bool stalled, too_long;
};

struct call_list {
    struct remote_call *first, *last;
};
struct remotes {
    CURLM *multi;
    struct call_list under_way, finished;
};

void call_list_add(struct call_list *list, struct remote_call *call);
void call_list_remove(struct call_list *list, struct remote_call *call);

/* Reads URL, pin and token into the worker. */
tessera_status transport_address(struct remote *remote, const struct remote_options *options, tessera_error *error);
/* Sends the call's body to `path` (NULL body: GET), anew. */
tessera_status transport_start(struct remote_call *call, const char *path, tessera_error *error);
/* Takes the call from the connections; its reply stays. */
void transport_stop(struct remote_call *call);
/* The transfer has ended: DONE where there is a reply with a status, else LOST and why. */
enum remote_outcome transport_outcome(struct remote_call *call, CURLcode code, tessera_error *error);

#endif
