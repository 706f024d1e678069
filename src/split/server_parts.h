/* What server.c (connections, requests) and server_queue.c (threads) share. Private to the two. */
#ifndef TESSERA_SPLIT_SERVER_PARTS_H
#define TESSERA_SPLIT_SERVER_PARTS_H

#include <microhttpd.h>

#include "split/server.h"

/* From the end of its head until its reply is taken. The server's thread owns it, and the computing
 * thread from server_queue_push until the connection is resumed. */
struct server_request {
    struct server_request *next; /* in the queue */
    const struct server_route *route;
    struct MHD_Connection *connection;
    struct link *link;
    int token; /* its number; 0 where tokens do not count */
    size_t whole, got;
    bool checked;
    uint8_t *body; /* NULL until `head` has passed the check */
    size_t reserved;
    struct server_reply reply;
    uint8_t head[SERVER_HEAD_BYTES];
};

/* What one token has of the server. */
struct server_share {
    int queued;
    size_t memory; /* of bodies */
    double used;   /* seconds of computing that it had; a token that comes back begins where the others are */
};

struct server {
    struct server_options options; /* .tokens: NULL or &tokens */
    struct tokens tokens;
    struct MHD_Daemon *daemon;
    int listener, port;
    struct links links;
    struct bucket token_buckets[TOKENS_MOST]; /* of the server's thread */
    pthread_t computer, watchman;
    bool has_computer, has_watchman;
    pthread_mutex_t guard; /* of all below */
    pthread_cond_t wake;   /* the queue has grown, a request has ended, or the server stops */
    struct server_request *first, *last;
    struct server_share shares[TOKENS_MOST];
    double used_so_far; /* of the token whose request was begun last */
    struct server_counts counts;
    bool stopping, ending; /* ending: the threads, too */
};

void server_queue_open(struct server *server);
tessera_status server_queue_start(struct server *server, tessera_error *error);
bool server_stopping(struct server *server);
/* May the token's requests not wait now? A token has its share of the queue, whatever others have. */
bool server_queue_is_full(struct server *server, int token);
/* Suspends the request's connection and queues it; false where the queue is full or the server stops. */
bool server_queue_push(struct server *server, struct server_request *request);
/* A request's head was read; its reply was taken, or its connection is gone. */
void server_request_begins(struct server *server);
void server_request_ends(struct server *server);
/* Stops: no new requests; waits for those under way, at most so long behind the one that is computed. */
void server_queue_drain(struct server *server, double seconds);
/* Ends the threads. */
void server_queue_close(struct server *server);

#endif
