/* Connections to a server that strangers reach: how many, from where, and until when.
 *
 * Every connection has a deadline for what it does now (send a request's head, send the whole of a
 * request, take the whole of a reply), as a point in time: a client that sends a byte now and then
 * gains nothing by it. One thread looks at the deadlines and shuts down the sockets that are past
 * theirs; the HTTP library then sees the end of the connection and closes it.
 *
 * Connections that have not shown a token yet are newcomers. Where there are too many of them the
 * oldest newcomer goes for a new one, so that idle connections, however many, keep nobody out. */
#ifndef TESSERA_SPLIT_LINKS_H
#define TESSERA_SPLIT_LINKS_H

#include <pthread.h>

#include "split/rates.h"

struct link_limits {
    int newcomers;         /* connections that have shown no token yet */
    int per_peer;          /* connections of one address, and of one token; 0: no limit */
    struct rate new_links; /* of one address */
};

struct link {
    struct link *before, *after;
    int socket;
    struct rate_address address;
    int token;       /* -1: none was shown */
    double deadline; /* 0: none */
    bool shut;
};

struct link_counts {
    uint64_t opened, refused, displaced, late;
    int now, newcomers;
};

struct links {
    pthread_mutex_t guard; /* of all below */
    struct link_limits limits;
    struct link *first, *last; /* the oldest first */
    struct rates rates;
    struct link_counts counts;
};

void links_open(struct links *links, struct link_limits limits);
/* When no connection is left. */
void links_close(struct links *links);

/* May this address open one more? */
bool links_admit(struct links *links, const struct sockaddr *address, double now);
/* A new connection, a newcomer; NULL where memory is out. links_remove frees it, before its socket
 * is closed. */
struct link *links_add(struct links *links, int socket, const struct sockaddr *address, double deadline);
void links_remove(struct links *links, struct link *link);
/* 0: none. */
void links_set_deadline(struct links *links, struct link *link, double deadline);
/* The connection has shown a token; false where that token has too many already. */
bool links_show_token(struct links *links, struct link *link, int token);
/* Shuts down what is past its deadline. */
void links_expire(struct links *links, double now);
struct link_counts links_counts(struct links *links);

#endif
