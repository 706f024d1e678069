/* An HTTPS server that can be exposed to the internet: HTTP/1.1 with keep-alive over TLS 1.3, by
 * libmicrohttpd and GnuTLS.
 *
 *     one thread (epoll)   handshakes, heads, bodies, replies: all connections
 *     one thread           computes: takes requests of `queued` routes one after another from a bounded queue, which tokens share fairly
 *     one thread           ends connections that are past a deadline (links.h)
 *
 * A request goes through these gates in this order; each answers before the next one costs anything:
 *
 *     connections of an address, and how fast it opens them    closed at once
 *     deadlines for the head, the body and the reply           closed
 *     bearer token                                             401
 *     rate of the token                                        429 with Retry-After
 *     path, method, Content-Length                             404, 405, 411, 413
 *     a full queue, no memory left for bodies, or the          429 with Retry-After
 *     token's shares of them are used up
 *     the route's check of the body's first bytes              its own status; only then memory for the body is taken
 *
 * Plain HTTP is served on loopback only. */
#ifndef TESSERA_SPLIT_SERVER_H
#define TESSERA_SPLIT_SERVER_H

#include "split/links.h"
#include "split/tokens.h"

struct server_reply {
    int status;       /* of HTTP; 0: none yet */
    const char *type; /* Content-Type, static; NULL: text/plain */
    void *data;       /* of malloc; becomes the server's */
    size_t size;
    int retry_after; /* seconds; 0: not said */
};
/* A reply of one line of text, formatted. Where memory is out the reply has no body. */
void server_reply_text(struct server_reply *reply, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));

struct server_route {
    const char *method, *path;
    bool open;         /* needs no token */
    size_t head_bytes; /* of the body that `check` wants to see first; at most SERVER_HEAD_BYTES */
    size_t largest;    /* bytes of a body; 0: none is taken */
    /* Sees the body's first bytes, at most head_bytes, and its whole length. A reply's status other
     * than 0 refuses the request. May be NULL. */
    void (*check)(void *user, const uint8_t *head, size_t bytes, size_t whole, struct server_reply *reply);
    /* Answers without computing, in the server's thread, or leaves the status at 0: then the
     * request waits for `compute`. `body` is aligned to
     * 64. May be NULL. */
    void (*answer)(void *user, const uint8_t *body, size_t size, struct server_reply *reply);
    /* In the computing thread, one request at a time. NULL: the route is not queued. */
    void (*compute)(void *user, const uint8_t *body, size_t size, struct server_reply *reply);
};
enum { SERVER_HEAD_BYTES = 4096 };

struct server_limits {
    int connections;
    struct link_limits links;
    struct rate requests; /* of one token */
    int queue;            /* requests that wait for the computing thread */
    size_t memory;        /* bytes of bodies that are on their way, wait, or are computed */
    double head_seconds;  /* from a connection's beginning to the end of a request's head */
    double body_seconds;  /* from there to the end of the body; and of the reply */
    double idle_seconds;  /* between a reply and the end of the next head, for those that have shown a token */
};
struct server_limits server_default_limits(void);

struct server_options {
    const char *host;              /* a name or an address */
    int port;                      /* 0: any free one */
    const char *key, *certificate; /* PEM; both NULL: plain HTTP, on loopback only */
    const struct tokens *tokens;   /* copied; NULL: every request is allowed; on loopback only */
    struct server_limits limits;
    const struct server_route *routes;
    int num_routes;
    void *user; /* of the routes' functions */
};

struct server_counts {
    struct link_counts links;
    uint64_t requests, by_class[6]; /* replies by the first digit of their status */
    uint64_t unauthorized, too_many, bytes_received, bytes_sent;
    int queued, active;
    size_t memory;
    double computing_seconds;
};

struct server;

/* Options, and what they point to, outlive the server. ARGUMENT: a host that is not there, or not
 * loopback where it must be; IO: the port is taken; UNSUPPORTED: TLS refuses key or certificate. */
tessera_status server_start(const struct server_options *options, struct server **out, tessera_error *error);
/* Other tokens from now on, from any thread: those of `read` (of tokens_read) that were there keep
 * their rates. Requests that have passed stay. */
void server_replace_tokens(struct server *server, const struct tokens *read, int *revoked, int *added);
int server_port(const struct server *server);
/* What the server has done; from any thread. */
struct server_counts server_counts(struct server *server);
/* Takes no connections any more, lets the request that is computed end, answers those that wait
 * with 503, and gives replies `seconds` to be taken. NULL is allowed. */
void server_stop(struct server *server, double seconds);

#endif
