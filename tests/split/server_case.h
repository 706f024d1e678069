/* What the tests of the server share: a server with an echo, a client by libcurl, and one by hand. */
#ifndef TESSERA_TESTS_SERVER_CASE_H
#define TESSERA_TESTS_SERVER_CASE_H

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "check.h"
#include "split/identity.h"
#include "split/server.h"

#define TOKEN "0123456789abcdef0123456789abcdef"
#define OTHER "another-token-of-a-friend"
enum { LARGEST = 1 << 20, HEAD = 16 };

static char folder[] = "/tmp/tessera-server-XXXXXX";
static struct tokens tokens;
static struct identity *identity;
static char pin[16 + IDENTITY_PIN_CHARS];

/* ---- the routes ---- */

/* What the computing thread waits for, and has done. */
static atomic_int gate_open = 1, computed;
static size_t sizes[64]; /* of the bodies, in the order in which they were computed */

static inline void answer_health(void *user, const uint8_t *body, size_t size, struct server_reply *reply) {
    (void)user, (void)body, (void)size;
    server_reply_text(reply, 200, "ok\n");
}

/* Bodies begin with 16 letters a. */
static inline void check_echo(void *user, const uint8_t *head, size_t bytes, size_t whole, struct server_reply *reply) {
    (void)user;
    if (whole < HEAD) return server_reply_text(reply, 400, "field length: too short\n");
    for (size_t i = 0; i < bytes; i++)
        if (head[i] != 'a') return server_reply_text(reply, 400, "field head: not the letter a\n");
}

static inline void compute_echo(void *user, const uint8_t *body, size_t size, struct server_reply *reply) {
    (void)user;
    while (!gate_open) usleep(1000);
    sizes[computed % 64] = size;
    computed++;
    reply->status = 200;
    reply->type = "application/octet-stream";
    reply->data = malloc(size);
    reply->size = size;
    memcpy(reply->data, body, size);
}

static const struct server_route routes[] = {
    {.method = "GET", .path = "/health", .open = true, .answer = answer_health},
    {.method = "POST", .path = "/echo", .head_bytes = HEAD, .largest = LARGEST, .check = check_echo, .compute = compute_echo},
};

static inline struct server *start(struct server_limits limits, bool tls) {
    struct server_options options = {.host = "127.0.0.1",
                                     .key = tls ? identity_key(identity) : NULL,
                                     .certificate = tls ? identity_certificate(identity) : NULL,
                                     .tokens = &tokens,
                                     .limits = limits,
                                     .routes = routes,
                                     .num_routes = 2};
    struct server *server = NULL;
    tessera_error error = {0};
    CHECK(server_start(&options, &server, &error) == TESSERA_OK, "%s", error.message);
    if (server == NULL) exit(1);
    return server;
}

/* ---- a client by libcurl ---- */

struct got {
    CURLcode code;
    long status, retry_after;
    size_t size;
    char text[256];
};

static size_t take(char *data, size_t size, size_t count, void *user) {
    struct got *got = user;
    size_t room = sizeof got->text - 1 - (got->size < sizeof got->text - 1 ? got->size : sizeof got->text - 1);
    size_t n = size * count < room ? size * count : room;
    memcpy(got->text + got->size, data, n);
    got->size += size * count;
    return size * count;
}

static const char *interface; /* the client's own address, or NULL */

/* A request to the server, with TLS where `tls`; size 0: GET. */
static inline struct got ask_with(CURL *curl, struct server *server, bool tls, const char *path, const char *token, size_t size,
                                  char letter) {
    struct got got = {0};
    char url[128], header[600];
    char *body = malloc(size + 1);
    memset(body, letter, size + 1);
    snprintf(url, sizeof url, "%s://127.0.0.1:%d%s", tls ? "https" : "http", server_port(server), path);
    snprintf(header, sizeof header, "Authorization: Bearer %s", token != NULL ? token : "");
    struct curl_slist *headers = token != NULL ? curl_slist_append(NULL, header) : NULL;
    curl_easy_reset(curl);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_INTERFACE, interface);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 0L);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L);
    curl_easy_setopt(curl, CURLOPT_PINNEDPUBLICKEY, pin);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &got);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, 60L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    if (size > 0) curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)size);
    if (size > 0) curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
    got.code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &got.status);
    curl_off_t wait = 0;
    curl_easy_getinfo(curl, CURLINFO_RETRY_AFTER, &wait);
    got.retry_after = (long)wait;
    curl_slist_free_all(headers);
    free(body);
    return got;
}

static inline struct got ask(struct server *server, bool tls, const char *path, const char *token, size_t size, char letter) {
    CURL *curl = curl_easy_init();
    struct got got = ask_with(curl, server, tls, path, token, size, letter);
    curl_easy_cleanup(curl);
    return got;
}

/* The server answers an honest client. */
static inline void check_alive(struct server *server, bool tls, const char *when) {
    struct got got = ask(server, tls, "/echo", TOKEN, 5000, 'a');
    CHECK(got.status == 200 && got.size == 5000, "%s: status %ld, %s", when, got.status, curl_easy_strerror(got.code));
}

/* ---- a client by hand ---- */

static inline int dial(struct server *server) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)server_port(server)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) return close(fd), -1;
    return fd;
}

/* Until the other side closes, at most 30 s; what came, as text. -1: it did not close. */
static inline long read_to_end(int fd, char *out, size_t size) {
    size_t got = 0;
    char drop[4096];
    double until = clock_seconds() + 30;
    while (clock_seconds() < until) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (poll(&wait, 1, 100) == 0) continue;
        bool keep = got + 1 < size;
        ssize_t n = recv(fd, keep ? out + got : drop, keep ? size - 1 - got : sizeof drop, 0);
        if (n <= 0) return out[got] = 0, (long)got;
        if (keep) got += (size_t)n;
    }
    return out[got] = 0, -1;
}

/* What the server replies to these bytes, in plain HTTP. */
static inline int status_of(struct server *server, const char *bytes, size_t size) {
    char text[4096] = "";
    int fd = dial(server), status = 0;
    if (send(fd, bytes, size, MSG_NOSIGNAL) < 0) perror("send");
    shutdown(fd, SHUT_WR);
    CHECK(read_to_end(fd, text, sizeof text) >= 0, "the connection stays open");
    close(fd);
    sscanf(text, "HTTP/1.1 %d", &status);
    return status;
}

#define HEADERS "Host: x\r\nAuthorization: Bearer " TOKEN "\r\n"

static inline const char *write_tokens(const char *text) {
    static char path[128];
    snprintf(path, sizeof path, "%s/tokens", folder);
    FILE *stream = fopen(path, "w");
    fputs(text, stream);
    fclose(stream);
    chmod(path, 0600);
    return path;
}

static inline void wait_until_queued(struct server *server, int count) {
    double until = clock_seconds() + 30;
    while (server_counts(server).queued != count && clock_seconds() < until) usleep(1000);
    CHECK(server_counts(server).queued == count, "%d are queued, not %d", server_counts(server).queued, count);
}

static inline void make_identity(void) {
    char path[128];
    tessera_error error = {0};
    snprintf(path, sizeof path, "%s/id.pem", folder);
    CHECK(identity_make(path, NULL, 0, &error) == TESSERA_OK && identity_open(path, &identity, &error) == TESSERA_OK, "%s", error.message);
    CHECK(tokens_read(write_tokens(TOKEN "\n" OTHER "\n"), &tokens, &error) == TESSERA_OK, "%s", error.message);
    if (identity == NULL) exit(1);
    char bare[IDENTITY_PIN_CHARS];
    identity_pin(identity_public(identity), bare);
    snprintf(pin, sizeof pin, "sha256//%s", bare);
}

static inline void begin(void) {
    curl_global_init(CURL_GLOBAL_DEFAULT);
    if (mkdtemp(folder) == NULL) exit(1);
    make_identity();
}

static inline int end(void) {
    char command[64];
    identity_free(identity);
    curl_global_cleanup();
    snprintf(command, sizeof command, "rm -r %s", folder);
    return CHECK_REPORT() | system(command);
}

#endif
