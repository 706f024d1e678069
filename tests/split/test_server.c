/* The server that strangers reach: real sockets on loopback, with TLS where it says so. Honest requests by libcurl, the others by hand. */
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
enum { LARGEST = 1 << 20, HEAD = 16 };

static char folder[] = "/tmp/tessera-server-XXXXXX";
static struct tokens tokens;
static struct identity *identity;
static char pin[16 + IDENTITY_PIN_CHARS];

/* ---- the routes ---- */

/* What the computing thread waits for, and has done. */
static atomic_int gate_open = 1, computed;

static void answer_health(void *user, const uint8_t *body, size_t size, struct server_reply *reply) {
    (void)user, (void)body, (void)size;
    server_reply_text(reply, 200, "ok\n");
}

/* Bodies begin with 16 letters a. */
static void check_echo(void *user, const uint8_t *head, size_t bytes, size_t whole, struct server_reply *reply) {
    (void)user;
    if (whole < HEAD) return server_reply_text(reply, 400, "field length: too short\n");
    for (size_t i = 0; i < bytes; i++)
        if (head[i] != 'a') return server_reply_text(reply, 400, "field head: not the letter a\n");
}

static void compute_echo(void *user, const uint8_t *body, size_t size, struct server_reply *reply) {
    (void)user;
    while (!gate_open) usleep(1000);
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

static struct server *start(struct server_limits limits, bool tls) {
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
static struct got ask_with(CURL *curl, struct server *server, bool tls, const char *path, const char *token, size_t size, char letter) {
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

static struct got ask(struct server *server, bool tls, const char *path, const char *token, size_t size, char letter) {
    CURL *curl = curl_easy_init();
    struct got got = ask_with(curl, server, tls, path, token, size, letter);
    curl_easy_cleanup(curl);
    return got;
}

/* The server answers an honest client. */
static void check_alive(struct server *server, bool tls, const char *when) {
    struct got got = ask(server, tls, "/echo", TOKEN, 5000, 'a');
    CHECK(got.status == 200 && got.size == 5000, "%s: status %ld, %s", when, got.status, curl_easy_strerror(got.code));
}

/* ---- a client by hand ---- */

static int dial(struct server *server) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)server_port(server)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) return close(fd), -1;
    return fd;
}

/* Until the other side closes, at most 30 s; what came, as text. -1: it did not close. */
static long read_to_end(int fd, char *out, size_t size) {
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
static int status_of(struct server *server, const char *bytes, size_t size) {
    char text[4096] = "";
    int fd = dial(server), status = 0;
    if (send(fd, bytes, size, MSG_NOSIGNAL) < 0) perror("send");
    shutdown(fd, SHUT_WR);
    CHECK(read_to_end(fd, text, sizeof text) >= 0, "the connection stays open");
    close(fd);
    sscanf(text, "HTTP/1.1 %d", &status);
    return status;
}

/* ---- tests ---- */

static void test_honest(void) {
    struct server *server = start(server_default_limits(), true);
    CURL *curl = curl_easy_init();
    for (int i = 0; i < 3; i++) {
        struct got got = ask_with(curl, server, true, "/echo", TOKEN, LARGEST, 'a');
        CHECK(got.status == 200 && got.size == LARGEST && got.text[0] == 'a', "status %ld, %zu bytes: %s", got.status, got.size,
              curl_easy_strerror(got.code));
    }
    struct server_counts counts = server_counts(server);
    CHECK(counts.links.opened == 1, "keep-alive: %llu connections for 3 requests", (unsigned long long)counts.links.opened);
    CHECK(counts.bytes_received == 3 * LARGEST && counts.bytes_sent == 3 * LARGEST && counts.by_class[2] == 3, "bytes are counted");
    curl_easy_cleanup(curl);
    CHECK(ask(server, true, "/health", NULL, 0, 0).status == 200, "health needs no token");
    struct got got = ask(server, true, "/echo", NULL, 100, 'a');
    CHECK(got.status == 401, "no token: %ld", got.status);
    got = ask(server, true, "/echo", "fedcba9876543210fedcba9876543210", 100, 'a');
    CHECK(got.status == 401, "another token: %ld", got.status);
    got = ask(server, true, "/nothing", TOKEN, 0, 0);
    CHECK(got.status == 404, "no such path: %ld", got.status);
    got = ask(server, true, "/echo", TOKEN, 0, 0);
    CHECK(got.status == 405, "another method: %ld", got.status);
    got = ask(server, true, "/echo", TOKEN, LARGEST + 1, 'a');
    CHECK(got.status == 413, "a long body: %ld", got.status);
    got = ask(server, true, "/echo", TOKEN, 100000, 'b');
    CHECK(got.status == 400 && strstr(got.text, "field head") != NULL, "a wrong head: %ld %s", got.status, got.text);
    got = ask(server, true, "/echo", TOKEN, 5, 'a');
    CHECK(got.status == 400 && strstr(got.text, "field length") != NULL, "a short body: %ld %s", got.status, got.text);
    got = ask(server, false, "/echo", TOKEN, 100, 'a');
    CHECK(got.code != CURLE_OK && got.status == 0, "plain HTTP: %ld", got.status);
    check_alive(server, true, "after all that");
    CHECK(server_counts(server).memory == 0, "%zu bytes of bodies are kept", server_counts(server).memory);
    server_stop(server, 5);
}

static void test_wrong_pin(void) {
    struct server *server = start(server_default_limits(), true);
    char right = pin[12];
    pin[12] = right == 'A' ? 'B' : 'A';
    struct got got = ask(server, true, "/echo", TOKEN, 100, 'a');
    pin[12] = right;
    CHECK(got.code == CURLE_SSL_PINNEDPUBKEYNOTMATCH, "%s", curl_easy_strerror(got.code));
    CHECK(server_counts(server).requests == 0, "the request was sent");
    server_stop(server, 5);
}

#define HEADERS "Host: x\r\nAuthorization: Bearer " TOKEN "\r\n"

/* Bytes that are no request, or not such a one: an error or the end of the connection, and the server goes on. */
static void test_garbage(void) {
    struct server_limits limits = server_default_limits();
    limits.head_seconds = limits.body_seconds = 1; /* for halves: libmicrohttpd may overlook that the other side is closed */
    struct server *server = start(limits, false);
    static const struct {
        const char *bytes;
        int status; /* 0: any from 400 on, or none */
    } cases[] = {
        {"POST /echo HTTP/1.1\r\n" HEADERS "Content-Length: 18446744073709551615\r\n\r\naaaa", 0},
        {"POST /echo HTTP/1.1\r\n" HEADERS "Content-Length: 999999999999999999\r\n\r\naaaa", 413},
        {"POST /echo HTTP/1.1\r\n" HEADERS "Content-Length: -1\r\n\r\naaaa", 0},
        {"POST /echo HTTP/1.1\r\n" HEADERS "Content-Length: 0x10\r\n\r\naaaaaaaaaaaaaaaa", 0},
        {"POST /echo HTTP/1.1\r\n" HEADERS "Transfer-Encoding: chunked\r\n\r\n5\r\naaaaa\r\n0\r\n\r\n", 411},
        {"POST /echo HTTP/1.1\r\n" HEADERS "\r\n", 411},
        {"GET /echo HTTP/1.1\r\n" HEADERS "Content-Length: 5\r\n\r\naaaaa", 405},
        {"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\naaaaa", 413},
        {"POST /echo HTTP/1.1\r\n" HEADERS "Content-Length: 100\r\n\r\nhalf of it", 0},
        {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 0},
        {"GET\r\n\r\n", 0},
        {"\r\n\r\n\r\n", 0},
        {"GET /health HTTP/1.1\r\n\r\n", 0}, /* no Host */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int status = status_of(server, cases[i].bytes, strlen(cases[i].bytes));
        CHECK(cases[i].status == 0 ? status == 0 || status >= 400 : status == cases[i].status, "case %zu: status %d", i, status);
    }
    char noise[20000];
    srand(7);
    for (int round = 0; round < 50; round++) {
        for (size_t i = 0; i < sizeof noise; i++) noise[i] = (char)rand();
        if (round % 2 == 0) memcpy(noise, "POST /echo HTTP/1.1\r\n", 21);
        int status = status_of(server, noise, (size_t)rand() % sizeof noise);
        CHECK(status == 0 || status >= 400, "noise %d: status %d", round, status);
    }
    check_alive(server, false, "after garbage");
    CHECK(server_counts(server).memory == 0, "%zu bytes of bodies are kept", server_counts(server).memory);
    server_stop(server, 5);
}

/* Clients that send a byte now and then are closed at the deadline, however often they send: amid the head, and amid the body. */
static void test_slow(void) {
    struct server_limits limits = server_default_limits();
    limits.head_seconds = 1;
    limits.body_seconds = 1;
    struct server *server = start(limits, false);
    static const char *const begins[] = {"POST /echo HTTP/1.1\r\nHost: x\r\nX: ",
                                         "POST /echo HTTP/1.1\r\n" HEADERS "Content-Length: 10000\r\n\r\n"};
    for (int i = 0; i < 2; i++) {
        int fd = dial(server);
        double start_seconds = clock_seconds();
        bool closed = false;
        send(fd, begins[i], strlen(begins[i]), MSG_NOSIGNAL);
        while (!closed && clock_seconds() < start_seconds + 30) {
            char byte;
            send(fd, "a", 1, MSG_NOSIGNAL);
            usleep(50000);
            closed = recv(fd, &byte, 1, MSG_DONTWAIT) == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
        }
        CHECK(closed, "a slow client %d stays", i);
        close(fd);
    }
    CHECK(server_counts(server).links.late == 2, "%llu connections were late", (unsigned long long)server_counts(server).links.late);
    check_alive(server, false, "after slow clients");
    server_stop(server, 5);
}

/* 1,000 connections that say nothing, first with the limit of an address, then without: the honest client gets its answer. */
static void test_many(bool per_address) {
    enum { MANY = 1000 };
    static int fds[MANY];
    struct server_limits limits = server_default_limits();
    if (!per_address) limits.links.per_peer = 0, limits.links.new_links.per_second = 0;
    struct server *server = start(limits, true);
    for (int i = 0; i < MANY; i++) fds[i] = dial(server);
    if (per_address) /* refused until some of them have gone */
        for (int i = 0; i < MANY; i++) close(fds[i]);
    double until = clock_seconds() + 60;
    long status = 0;
    while (status != 200 && clock_seconds() < until) {
        status = ask(server, true, "/echo", TOKEN, 5000, 'a').status;
        if (status != 200) usleep(100000);
        if (!per_address) break; /* at the first attempt */
    }
    CHECK(status == 200, "status %ld", status);
    struct link_counts counts = server_counts(server).links;
    if (per_address)
        CHECK(counts.refused > MANY / 2, "%llu refused", (unsigned long long)counts.refused);
    else
        CHECK(counts.displaced >= MANY - 300 && counts.newcomers <= 257, "%llu displaced, %d newcomers",
              (unsigned long long)counts.displaced, counts.newcomers);
    for (int i = 0; i < MANY && !per_address; i++) close(fds[i]);
    server_stop(server, 5);
}

static void test_rate(void) {
    struct server_limits limits = server_default_limits();
    limits.requests = (struct rate){0.001, 3};
    struct server *server = start(limits, true);
    for (int i = 0; i < 5; i++) {
        struct got got = ask(server, true, "/echo", TOKEN, 100, 'a');
        CHECK(got.status == (i < 3 ? 200 : 429), "request %d: %ld", i, got.status);
        CHECK(i < 3 || (got.retry_after > 0 && got.retry_after <= 1001), "Retry-After %ld", got.retry_after);
    }
    CHECK(ask(server, true, "/health", NULL, 0, 0).status == 200, "health");
    server_stop(server, 5);
}

/* One token from three addresses, where two connections are allowed; a connection that ends makes room. */
static void test_connections_of_a_token(void) {
    static const char *const from[] = {"host!127.0.0.2", "host!127.0.0.3", "host!127.0.0.4"};
    struct server_limits limits = server_default_limits();
    limits.links.per_peer = 2;
    struct server *server = start(limits, false);
    CURL *curls[3];
    for (int i = 0; i < 3; i++) {
        curls[i] = curl_easy_init();
        interface = from[i];
        struct got got = ask_with(curls[i], server, false, "/echo", TOKEN, 100, 'a');
        CHECK(got.status == (i < 2 ? 200 : 429), "connection %d: %ld", i, got.status);
    }
    curl_easy_cleanup(curls[0]);
    double until = clock_seconds() + 30;
    while (server_counts(server).links.now > 1 && clock_seconds() < until) usleep(1000);
    struct got got = ask_with(curls[2], server, false, "/echo", TOKEN, 100, 'a');
    CHECK(got.status == 200, "when another has ended: %ld", got.status);
    curl_easy_cleanup(curls[1]);
    curl_easy_cleanup(curls[2]);
    interface = NULL;
    server_stop(server, 5);
}

/* ---- the queue ---- */

struct asked {
    pthread_t thread;
    struct server *server;
    struct got got;
};

static void *run_ask(void *user) {
    struct asked *a = user;
    a->got = ask(a->server, true, "/echo", TOKEN, 70000, 'a');
    return NULL;
}

static void wait_until_queued(struct server *server, int count) {
    double until = clock_seconds() + 30;
    while (server_counts(server).queued != count && clock_seconds() < until) usleep(1000);
    CHECK(server_counts(server).queued == count, "%d are queued, not %d", server_counts(server).queued, count);
}

static void test_full_queue(void) {
    struct server_limits limits = server_default_limits();
    limits.queue = 2;
    struct server *server = start(limits, true);
    struct asked asked[2];
    gate_open = 0;
    for (int i = 0; i < 2; i++) {
        asked[i].server = server;
        pthread_create(&asked[i].thread, NULL, run_ask, &asked[i]);
        wait_until_queued(server, i + 1);
    }
    struct got got = ask(server, true, "/echo", TOKEN, 100, 'a');
    CHECK(got.status == 429 && got.retry_after > 0, "a third: %ld, Retry-After %ld", got.status, got.retry_after);
    gate_open = 1;
    for (int i = 0; i < 2; i++) {
        pthread_join(asked[i].thread, NULL);
        CHECK(asked[i].got.status == 200 && asked[i].got.size == 70000, "request %d: %ld", i, asked[i].got.status);
    }
    check_alive(server, true, "after a full queue");
    server_stop(server, 5);
}

/* Three requests are on their way when the queue has one place left: the first to be whole gets it. */
static void test_race_for_queue(void) {
    struct server_limits limits = server_default_limits();
    static const char begin[] = "POST /echo HTTP/1.1\r\n" HEADERS "Connection: close\r\nContent-Length: 20\r\n\r\naaaaaaaaaaaaaaaa";
    int fds[3], answered[2] = {0}; /* 200, 429 */
    limits.queue = 1;
    struct server *server = start(limits, false);
    gate_open = 0;
    for (int i = 0; i < 3; i++) {
        fds[i] = dial(server);
        CHECK(send(fds[i], begin, sizeof begin - 1, MSG_NOSIGNAL) > 0, "send");
    }
    double until = clock_seconds() + 30;
    while ((server_counts(server).active != 3 || server_counts(server).bytes_received < 48) && clock_seconds() < until) usleep(1000);
    for (int i = 0; i < 3; i++) CHECK(send(fds[i], "aaaa", 4, MSG_NOSIGNAL) == 4, "send");
    while (server_counts(server).too_many < 2 && clock_seconds() < until) usleep(1000);
    gate_open = 1;
    for (int i = 0; i < 3; i++) {
        char text[4096] = "";
        int status = 0;
        read_to_end(fds[i], text, sizeof text);
        sscanf(text, "HTTP/1.1 %d", &status);
        answered[0] += status == 200;
        answered[1] += status == 429;
        close(fds[i]);
    }
    CHECK(answered[0] == 1 && answered[1] == 2, "%d were computed, %d refused", answered[0], answered[1]);
    server_stop(server, 5);
}

static void test_memory(void) {
    struct server_limits limits = server_default_limits();
    limits.memory = 100000;
    struct server *server = start(limits, true);
    struct asked asked = {.server = server};
    gate_open = 0;
    pthread_create(&asked.thread, NULL, run_ask, &asked);
    wait_until_queued(server, 1);
    CHECK(ask(server, true, "/echo", TOKEN, 40000, 'a').status == 429, "more than 100,000 bytes");
    gate_open = 1;
    pthread_join(asked.thread, NULL);
    CHECK(asked.got.status == 200, "%ld", asked.got.status);
    check_alive(server, true, "after that");
    server_stop(server, 5);
}

static void *run_stop(void *user) {
    server_stop(user, 20);
    return NULL;
}

/* The request that is computed gets its answer, the one that waits a 503, a new one no connection. */
static void test_stop(void) {
    struct server *server = start(server_default_limits(), true);
    struct asked asked[2];
    pthread_t stopping;
    int port = server_port(server), before = computed;
    gate_open = 0;
    for (int i = 0; i < 2; i++) {
        asked[i].server = server;
        pthread_create(&asked[i].thread, NULL, run_ask, &asked[i]);
        wait_until_queued(server, i + 1);
    }
    usleep(100000); /* the first is being computed */
    pthread_create(&stopping, NULL, run_stop, server);
    usleep(100000);
    gate_open = 1;
    pthread_join(asked[0].thread, NULL);
    pthread_join(asked[1].thread, NULL);
    pthread_join(stopping, NULL);
    CHECK(asked[0].got.status == 200 && asked[0].got.size == 70000, "the first: %ld", asked[0].got.status);
    CHECK(asked[1].got.status == 503 && asked[1].got.retry_after > 0, "the second: %ld", asked[1].got.status);
    CHECK(computed == before + 1, "%d were computed", computed - before);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) != 0, "the port is still open");
    close(fd);
}

/* A client that leaves while its request is computed. */
static void test_leaving(void) {
    struct server *server = start(server_default_limits(), false);
    static const char request[] = "POST /echo HTTP/1.1\r\n" HEADERS "Content-Length: 16\r\n\r\naaaaaaaaaaaaaaaa";
    gate_open = 0;
    int fd = dial(server);
    send(fd, request, sizeof request - 1, MSG_NOSIGNAL);
    wait_until_queued(server, 1);
    struct linger at_once = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(fd);
    gate_open = 1;
    check_alive(server, false, "after a client has left");
    server_stop(server, 5);
}

/* ---- what is refused at the start ---- */

static void test_options(void) {
    struct server *server = NULL;
    tessera_error error = {0};
    struct server_options options = {
        .host = "0.0.0.0", .tokens = &tokens, .limits = server_default_limits(), .routes = routes, .num_routes = 2};
    CHECK(server_start(&options, &server, &error) == TESSERA_ERROR_ARGUMENT && server == NULL, "plain HTTP for everybody");
    options.key = identity_key(identity), options.certificate = identity_certificate(identity), options.tokens = NULL;
    CHECK(server_start(&options, &server, &error) == TESSERA_ERROR_ARGUMENT, "no tokens for everybody");
    options.tokens = &tokens, options.key = "no key", options.host = "127.0.0.1";
    CHECK(server_start(&options, &server, &error) == TESSERA_ERROR_UNSUPPORTED, "no key: %s", error.message);
    options.key = identity_key(identity), options.host = "256.0.0.1";
    CHECK(server_start(&options, &server, &error) == TESSERA_ERROR_ARGUMENT, "no address: %s", error.message);
    struct server *first = start(server_default_limits(), true);
    options.host = "127.0.0.1", options.port = server_port(first);
    CHECK(server_start(&options, &server, &error) == TESSERA_ERROR_IO, "a port that is taken: %s", error.message);
    server_stop(first, 0);
}

static const char *write_tokens(const char *text, mode_t mode) {
    static char path[128];
    snprintf(path, sizeof path, "%s/tokens", folder);
    FILE *stream = fopen(path, "w");
    fputs(text, stream);
    fclose(stream);
    chmod(path, mode);
    return path;
}

static void test_tokens(void) {
    struct tokens read;
    tessera_error error = {0};
    char *first = NULL;
    CHECK(tokens_read(write_tokens("# ours\n\n  " TOKEN " \r\nanother-token-of-a-friend\n", 0600), &read, &error) == TESSERA_OK &&
              read.count == 2,
          "%s", error.message);
    CHECK(tokens_find(&read, "Bearer " TOKEN) == 0 && tokens_find(&read, "bearer another-token-of-a-friend") == 1, "both are found");
    CHECK(tokens_find(&read, NULL) == -1 && tokens_find(&read, TOKEN) == -1 && tokens_find(&read, "Bearer ") == -1, "no token");
    CHECK(tokens_find(&read, "Bearer " TOKEN "0") == -1, "a longer one");
    CHECK(tokens_read_first(write_tokens(TOKEN "\n", 0600), &first, &error) == TESSERA_OK && strcmp(first, TOKEN) == 0, "%s",
          error.message);
    free(first);
    CHECK(tokens_read(write_tokens(TOKEN "\n", 0644), &read, &error) == TESSERA_ERROR_IO && strstr(error.message, "chmod") != NULL, "%s",
          error.message);
    CHECK(tokens_read(write_tokens("short\n", 0600), &read, &error) == TESSERA_ERROR_FORMAT && strstr(error.message, "line 1") != NULL,
          "%s", error.message);
    CHECK(tokens_read(write_tokens("two words that are long\n", 0600), &read, &error) == TESSERA_ERROR_FORMAT, "%s", error.message);
    CHECK(tokens_read(write_tokens("# nothing\n", 0600), &read, &error) == TESSERA_ERROR_FORMAT, "%s", error.message);
}

static void test_buckets(void) {
    struct rate rate = {2, 3};
    struct bucket bucket = {0};
    double wait = 0;
    for (int i = 0; i < 3; i++) CHECK(bucket_take(&bucket, rate, 100, NULL), "ticket %d", i);
    CHECK(!bucket_take(&bucket, rate, 100, &wait) && wait == 0.5, "wait %g", wait);
    CHECK(bucket_take(&bucket, rate, 100.5, NULL) && !bucket_take(&bucket, rate, 100.5, NULL), "one after half a second");
    struct rates *rates = calloc(1, sizeof *rates);
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct rate_address victim = rate_address_of((struct sockaddr *)&address);
    for (int i = 0; i < 3; i++) CHECK(rates_take(rates, &victim, rate, 100, NULL), "ticket %d", i);
    CHECK(!rates_take(rates, &victim, rate, 100, NULL), "no ticket");
    for (uint32_t i = 1; i < 1000; i++) {
        address.sin_addr.s_addr = htonl(i);
        struct rate_address other = rate_address_of((struct sockaddr *)&address);
        CHECK(rates_take(rates, &other, rate, 100, NULL), "address %u", i);
    }
    CHECK(!rates_take(rates, &victim, rate, 100, NULL), "no ticket beside others");
    free(rates);
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr.s6_addr = {0x20, 1, 0xd, 0xb8, 1, 2, 3, 4, 5}}, neighbour = six;
    neighbour.sin6_addr.s6_addr[15] = 1;
    struct rate_address a = rate_address_of((struct sockaddr *)&six), b = rate_address_of((struct sockaddr *)&neighbour);
    CHECK(rate_address_same(&a, &b), "one customer's addresses");
}

static void make_identity(void) {
    char path[128];
    tessera_error error = {0};
    snprintf(path, sizeof path, "%s/id.pem", folder);
    CHECK(identity_make(path, NULL, 0, &error) == TESSERA_OK && identity_open(path, &identity, &error) == TESSERA_OK, "%s", error.message);
    CHECK(tokens_read(write_tokens(TOKEN "\n", 0600), &tokens, &error) == TESSERA_OK, "%s", error.message);
    if (identity == NULL) exit(1);
    char bare[IDENTITY_PIN_CHARS];
    identity_pin(identity_public(identity), bare);
    snprintf(pin, sizeof pin, "sha256//%s", bare);
}

int main(void) {
    curl_global_init(CURL_GLOBAL_DEFAULT);
    if (mkdtemp(folder) == NULL) return 1;
    make_identity();
    test_buckets();
    test_tokens();
    test_options();
    test_honest();
    test_wrong_pin();
    test_garbage();
    test_slow();
    test_rate();
    test_connections_of_a_token();
    test_full_queue();
    test_race_for_queue();
    test_memory();
    test_leaving();
    test_stop();
    test_many(true);
    test_many(false);
    identity_free(identity);
    curl_global_cleanup();
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return CHECK_REPORT() | system(command);
}
