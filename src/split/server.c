/* See server.h: the daemon of libmicrohttpd, and a request's way through it.
 *
 *     first call (head)  --> gates, memory for the body's first bytes
 *     calls with bytes   --> first bytes, check, memory for the body, body
 *     last call          --> answer, or suspended until the computing thread (server_queue.c) has one, then called once more
 *
 * libmicrohttpd takes a reply before the body or behind it, not amid: of a request that is refused
 * amid its body the rest is read and dropped. */
#include "split/server_parts.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"

enum { ALIGNMENT = 64, RETRY_SECONDS = 1 };

struct server_limits server_default_limits(void) {
    return (struct server_limits){.connections = 1024,
                                  .links = {.newcomers = 256, .per_peer = 64, .new_links = {20, 100}},
                                  .requests = {50, 200},
                                  .queue = 8,
                                  .memory = (size_t)1 << 30,
                                  .head_seconds = 10,
                                  .body_seconds = 60,
                                  .idle_seconds = 120};
}

/* ---- replies ---- */

static void drop_body(struct server *server, struct server_request *r) {
    free(r->body);
    r->body = NULL;
    pthread_mutex_lock(&server->guard);
    server->counts.memory -= r->reserved;
    server->shares[r->token].memory -= r->reserved;
    pthread_mutex_unlock(&server->guard);
    r->reserved = 0;
}

static void add_headers(struct MHD_Response *response, const struct server_reply *reply, bool close) {
    char seconds[16];
    MHD_add_response_header(response, "Content-Type", reply->type != NULL ? reply->type : "text/plain; charset=utf-8");
    MHD_add_response_header(response, "Cache-Control", "no-store");
    if (reply->status == 401) MHD_add_response_header(response, "WWW-Authenticate", "Bearer");
    if (close) MHD_add_response_header(response, "Connection", "close");
    if (reply->retry_after == 0) return;
    snprintf(seconds, sizeof seconds, "%d", reply->retry_after);
    MHD_add_response_header(response, "Retry-After", seconds);
}

static void count_reply(struct server *server, const struct server_reply *reply) {
    pthread_mutex_lock(&server->guard);
    server->counts.by_class[reply->status / 100 % 6]++;
    server->counts.unauthorized += reply->status == 401;
    server->counts.too_many += reply->status == 429;
    server->counts.bytes_sent += reply->size;
    pthread_mutex_unlock(&server->guard);
}

/* Gives the request's reply to the library. */
static enum MHD_Result send_reply(struct server *server, struct server_request *r, struct MHD_Connection *connection) {
    drop_body(server, r);
    count_reply(server, &r->reply);
    struct MHD_Response *response = r->reply.size > 0 ? MHD_create_response_from_buffer(r->reply.size, r->reply.data, MHD_RESPMEM_MUST_FREE)
                                                      : MHD_create_response_from_buffer(0, (void *)(uintptr_t) "", MHD_RESPMEM_PERSISTENT);
    if (response == NULL) return MHD_NO;
    r->reply.data = NULL; /* the response's */
    add_headers(response, &r->reply, server_stopping(server));
    links_set_deadline(&server->links, r->link, clock_seconds() + server->options.limits.body_seconds);
    enum MHD_Result result = MHD_queue_response(connection, (unsigned)r->reply.status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result refuse(struct server *server, struct server_request *r, struct MHD_Connection *connection, int status,
                              int retry_after, const char *text) {
    server_reply_text(&r->reply, status, "%s\n", text);
    r->reply.retry_after = retry_after;
    return send_reply(server, r, connection);
}

/* ---- the head ---- */

static const char *header(struct MHD_Connection *connection, const char *name) {
    return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

static int whole_seconds(double seconds) {
    return seconds < 1 ? 1 : seconds > 3600 ? 3600 : (int)seconds + 1;
}

/* Digits alone, below 2^62; false for any other text. */
static bool read_length(const char *text, size_t *out) {
    size_t digits = strspn(text, "0123456789"), value = 0;
    if (digits == 0 || digits > 18 || text[digits] != 0) return false;
    for (size_t i = 0; i < digits; i++) value = value * 10 + (size_t)(text[i] - '0');
    *out = value;
    return true;
}

static const struct server_route *find_route(const struct server *server, const char *method, const char *path, bool *other_method) {
    *other_method = false;
    for (int i = 0; i < server->options.num_routes; i++) {
        const struct server_route *route = &server->options.routes[i];
        if (strcmp(route->path, path) != 0) continue;
        if (strcmp(route->method, method) == 0) return route;
        *other_method = true;
    }
    return NULL;
}

/* The token and its rate; a reply's status where it fails. Routes that are open ask for none. */
static int admit(struct server *server, struct server_request *r, struct MHD_Connection *connection, double *wait) {
    if (r->route != NULL && r->route->open) return 0;
    pthread_mutex_lock(&server->guard);
    int token = server->options.tokens != NULL ? tokens_find(&server->tokens, header(connection, "Authorization")) : 0;
    pthread_mutex_unlock(&server->guard);
    if (token < 0) return 401;
    r->token = token;
    if (!links_show_token(&server->links, r->link, token)) return 429;
    return bucket_take(&server->token_buckets[token], server->options.limits.requests, clock_seconds(), wait) ? 0 : 429;
}

void server_replace_tokens(struct server *server, const struct tokens *read, int *revoked, int *added) {
    pthread_mutex_lock(&server->guard);
    tokens_replace(&server->tokens, read, revoked, added);
    pthread_mutex_unlock(&server->guard);
}

/* How long the body is, from the headers; a reply's status where it cannot be taken. */
static int measure(struct server_request *r, struct MHD_Connection *connection) {
    const char *length = header(connection, "Content-Length");
    bool post = r->route->largest > 0;
    if (header(connection, "Transfer-Encoding") != NULL) return 411;
    if (length == NULL) return post ? 411 : 0;
    if (!read_length(length, &r->whole)) return 400;
    return r->whole <= r->route->largest ? 0 : 413;
}

static const char *words_of(int status) {
    switch (status) {
    case 400:
        return "Content-Length is no number";
    case 401:
        return "a bearer token is missing, or is not one of this worker's";
    case 404:
        return "there is nothing here";
    case 405:
        return "not with this method";
    case 411:
        return "a request needs a Content-Length";
    case 413:
        return "the body is longer than this worker takes";
    case 503:
        return "this worker stops";
    default:
        return "too many requests";
    }
}

/* All gates that need the head alone; 0: it may pass. */
static int gates(struct server *server, struct server_request *r, struct MHD_Connection *connection, const char *method, const char *path,
                 double *wait) {
    bool other_method;
    int status;
    r->route = find_route(server, method, path, &other_method);
    if ((status = admit(server, r, connection, wait)) != 0) return status;
    if (r->route == NULL) return other_method ? 405 : 404;
    if ((status = measure(r, connection)) != 0) return status;
    if (server_stopping(server)) return 503;
    return r->route->compute != NULL && server_queue_is_full(server, r->token) ? 429 : 0;
}

static enum MHD_Result begin(struct server *server, struct MHD_Connection *connection, const char *method, const char *path,
                             void **context) {
    struct server_request *r = calloc(1, sizeof *r);
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    double wait = RETRY_SECONDS;
    if (r == NULL || info == NULL || info->socket_context == NULL) {
        free(r);
        return MHD_NO;
    }
    *context = r;
    r->link = info->socket_context;
    r->connection = connection;
    links_set_deadline(&server->links, r->link, clock_seconds() + server->options.limits.body_seconds);
    server_request_begins(server);
    int status = gates(server, r, connection, method, path, &wait);
    if (status == 0) return MHD_YES;
    return refuse(server, r, connection, status, status == 429 || status == 503 ? whole_seconds(wait) : 0, words_of(status));
}

/* ---- the body ---- */

/* Memory for the whole body, if so much is left; a quarter of all is not for a token that has the
 * rest. */
static bool reserve(struct server *server, struct server_request *r) {
    size_t bytes = (r->whole + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT, all = server->options.limits.memory;
    pthread_mutex_lock(&server->guard);
    size_t *own = &server->shares[r->token].memory;
    bool fits = bytes <= all - server->counts.memory && (*own == 0 || *own + bytes <= all - all / 4);
    if (fits) {
        r->reserved = bytes;
        server->counts.memory += bytes;
        *own += bytes;
    }
    pthread_mutex_unlock(&server->guard);
    if (fits) r->body = aligned_alloc(ALIGNMENT, bytes);
    if (r->body != NULL) return true;
    server_reply_text(&r->reply, 429, "no memory for a request of %zu bytes now\n", r->whole);
    r->reply.retry_after = RETRY_SECONDS;
    return false;
}

/* The body's first bytes are there: may the rest come? */
static void accept_head(struct server *server, struct server_request *r) {
    if (r->route->check != NULL) r->route->check(server->options.user, r->head, r->got, r->whole, &r->reply);
    r->checked = true;
    if (r->reply.status == 0 && reserve(server, r)) memcpy(r->body, r->head, r->got);
}

static size_t head_of(const struct server_request *r) {
    size_t most = r->route->head_bytes < sizeof r->head ? r->route->head_bytes : sizeof r->head;
    return r->whole < most ? r->whole : most;
}

static void take(struct server *server, struct server_request *r, const char *data, size_t size) {
    size_t first = head_of(r);
    pthread_mutex_lock(&server->guard);
    server->counts.bytes_received += size;
    pthread_mutex_unlock(&server->guard);
    if (!r->checked) {
        size_t part = first - r->got < size ? first - r->got : size;
        memcpy(r->head + r->got, data, part);
        r->got += part;
        data += part;
        size -= part;
        if (r->got == first) accept_head(server, r);
    }
    if (r->body == NULL || size > r->whole - r->got) return; /* refused: dropped */
    memcpy(r->body + r->got, data, size);
    r->got += size;
}

/* The request is whole: an answer, or a place in the queue. */
static enum MHD_Result end(struct server *server, struct server_request *r, struct MHD_Connection *connection) {
    if (r->reply.status != 0) return send_reply(server, r, connection);
    if (!r->checked) accept_head(server, r); /* an empty body */
    if (r->reply.status == 0 && r->got != r->whole) return MHD_NO;
    if (r->reply.status == 0 && r->route->answer != NULL) r->route->answer(server->options.user, r->body, r->whole, &r->reply);
    if (r->reply.status != 0) return send_reply(server, r, connection);
    if (r->route->compute == NULL) return refuse(server, r, connection, 500, 0, "no answer");
    links_set_deadline(&server->links, r->link, 0);
    if (server_queue_push(server, r)) return MHD_YES; /* suspended */
    return refuse(server, r, connection, server_stopping(server) ? 503 : 429, RETRY_SECONDS, "the queue is full");
}

static enum MHD_Result on_request(void *user, struct MHD_Connection *connection, const char *path, const char *method, const char *version,
                                  const char *data, size_t *size, void **context) {
    struct server *server = user;
    (void)version;
    if (*context == NULL) return begin(server, connection, method, path, context);
    struct server_request *r = *context;
    if (*size == 0) return end(server, r, connection);
    take(server, r, data, *size);
    *size = 0;
    return MHD_YES;
}

static void on_completed(void *user, struct MHD_Connection *connection, void **context, enum MHD_RequestTerminationCode why) {
    struct server *server = user;
    struct server_request *r = *context;
    (void)connection, (void)why;
    if (r == NULL) return;
    const struct server_limits *limits = &server->options.limits;
    links_set_deadline(&server->links, r->link, clock_seconds() + (r->link->token >= 0 ? limits->idle_seconds : limits->head_seconds));
    drop_body(server, r);
    free(r->reply.data);
    free(r);
    *context = NULL;
    server_request_ends(server);
}

/* ---- connections ---- */

static enum MHD_Result on_accept(void *user, const struct sockaddr *address, socklen_t length) {
    struct server *server = user;
    (void)length;
    return !server_stopping(server) && links_admit(&server->links, address, clock_seconds()) ? MHD_YES : MHD_NO;
}

static void on_connection(void *user, struct MHD_Connection *connection, void **context, enum MHD_ConnectionNotificationCode what) {
    struct server *server = user;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *socket = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        const union MHD_ConnectionInfo *address = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
        *context = socket != NULL && address != NULL ? links_add(&server->links, socket->connect_fd, address->client_addr,
                                                                 clock_seconds() + server->options.limits.head_seconds)
                                                     : NULL;
    } else if (*context != NULL) {
        links_remove(&server->links, *context);
        *context = NULL;
    }
}

/* ---- beginning ---- */

static bool is_loopback(const struct sockaddr *address) {
    if (address->sa_family == AF_INET) return ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr) >> 24 == 127;
    return address->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
}

static tessera_status bind_to(struct server *server, const struct addrinfo *address, tessera_error *error) {
    const struct server_options *o = &server->options;
    const int one = 1;
    bool open = o->key == NULL || o->tokens == NULL;
    if (open && !is_loopback(address->ai_addr))
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "%s: without TLS or without tokens only this machine's own programs may connect: "
                         "use 127.0.0.1, or a certificate and a token file",
                         o->host);
    server->listener = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (server->listener < 0) return error_set_errno(error, "%s: no socket", o->host);
    setsockopt(server->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(server->listener, address->ai_addr, address->ai_addrlen) != 0 || listen(server->listener, 512) != 0)
        return error_set_errno(error, "%s: cannot listen on port %d", o->host, o->port);
    struct sockaddr_storage bound;
    socklen_t length = sizeof bound;
    if (getsockname(server->listener, (struct sockaddr *)&bound, &length) != 0) return error_set_errno(error, "%s: no port", o->host);
    server->port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)(void *)&bound)->sin6_port
                                                     : ((struct sockaddr_in *)(void *)&bound)->sin_port);
    return TESSERA_OK;
}

static tessera_status open_listener(struct server *server, tessera_error *error) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found = NULL;
    char port[16];
    snprintf(port, sizeof port, "%d", server->options.port);
    int code = getaddrinfo(server->options.host, port, &hints, &found);
    if (code != 0) return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: no such address: %s", server->options.host, gai_strerror(code));
    tessera_status status = bind_to(server, found, error);
    freeaddrinfo(found);
    return status;
}

/* As many files as the connections need, or fewer connections. */
static void fit_connections(struct server *server) {
    enum { OTHERS = 64 };
    struct rlimit files;
    int *connections = &server->options.limits.connections;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0) return;
    rlim_t wanted = (rlim_t)*connections + OTHERS;
    if (files.rlim_cur < wanted) {
        files.rlim_cur = files.rlim_max < wanted ? files.rlim_max : wanted;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    if (files.rlim_cur < wanted) *connections = files.rlim_cur > 2 * OTHERS ? (int)(files.rlim_cur - OTHERS) : OTHERS;
    if (server->options.limits.links.newcomers > *connections / 2) server->options.limits.links.newcomers = *connections / 2;
}

static tessera_status start_daemon(struct server *server, tessera_error *error) {
    const struct server_options *o = &server->options;
    struct MHD_OptionItem tls[] = {{MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)o->key},
                                   {MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)o->certificate},
                                   {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t) "NORMAL:-VERS-ALL:+VERS-TLS1.3"},
                                   {MHD_OPTION_END, 0, NULL}};
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | (o->key != NULL ? (unsigned)MHD_USE_TLS : 0u);
    server->daemon =
        MHD_start_daemon(flags, 0, on_accept, server, on_request, server, MHD_OPTION_LISTEN_SOCKET, server->listener,
                         MHD_OPTION_CONNECTION_LIMIT, (unsigned)o->limits.connections, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)32768,
                         MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_NOTIFY_COMPLETED, on_completed, server, MHD_OPTION_NOTIFY_CONNECTION,
                         on_connection, server, MHD_OPTION_ARRAY, o->key != NULL ? tls : tls + 3, MHD_OPTION_END);
    if (server->daemon != NULL) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s:%d: the HTTP server does not start%s", o->host, server->port,
                     o->key != NULL ? ": TLS may refuse the key or the certificate" : "");
}

tessera_status server_start(const struct server_options *options, struct server **out, tessera_error *error) {
    struct server *server = calloc(1, sizeof *server);
    *out = NULL;
    if (server == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a server");
    server->options = *options;
    if (options->tokens != NULL) server->tokens = *options->tokens;
    server->listener = -1;
    fit_connections(server);
    links_open(&server->links, server->options.limits.links);
    server_queue_open(server);
    *out = server; /* before a request can come */
    tessera_status status = open_listener(server, error);
    if (status == TESSERA_OK) status = server_queue_start(server, error);
    if (status == TESSERA_OK) status = start_daemon(server, error);
    if (status == TESSERA_OK) return TESSERA_OK;
    *out = NULL;
    server_stop(server, 0);
    return status;
}

int server_port(const struct server *server) {
    return server->port;
}

struct server_counts server_counts(struct server *server) {
    pthread_mutex_lock(&server->guard);
    struct server_counts counts = server->counts;
    pthread_mutex_unlock(&server->guard);
    counts.links = links_counts(&server->links);
    return counts;
}

void server_stop(struct server *server, double seconds) {
    if (server == NULL) return;
    server_queue_drain(server, seconds);
    if (server->daemon != NULL)
        MHD_stop_daemon(server->daemon); /* and closes the listener */
    else if (server->listener >= 0)
        close(server->listener);
    server_queue_close(server);
    links_close(&server->links);
    free(server);
}
