/* Dishonest and broken workers, as a client meets them: whatever comes back, the call ends in time
 * with an outcome that says what it was.
 *
 *     client --TLS, same key--> this process, which changes a reply --TLS--> an honest worker
 *     client --plain HTTP-----> this process, which writes bytes that are no reply */
#include <arpa/inet.h>
#include <pthread.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "split/server.h"
#include "worker_case.h"

/* ---- a liar with the worker's own key ---- */

struct liar {
    struct worker_case *w;
    struct identity *identity;
    void (*lie)(struct liar *liar, struct server_reply *reply);
    uint8_t *old; /* the first reply that it saw */
    size_t old_size;
};

static void relay(void *user, const uint8_t *body, size_t size, struct server_reply *reply) {
    struct liar *liar = user;
    struct got got = http(liar->w, "/v1/run", body, size, WORKER_TOKEN);
    *reply = (struct server_reply){.status = (int)got.status, .data = got.data, .size = got.size};
    if (got.status != 200) return;
    if (liar->old == NULL) liar->old = memcpy(malloc(got.size), got.data, liar->old_size = got.size);
    liar->lie(liar, reply);
}

/* Signs what is in the reply's head, as a liar can that has the key. */
static void sign_again(struct liar *liar, struct server_reply *reply, const struct wire_reply *head) {
    struct wire_reply changed = *head;
    tessera_error error = {0};
    CHECK(receipt_sign(&changed.signed_fields, liar->identity, changed.signature, &error) == TESSERA_OK, "%s", error.message);
    wire_reply_write(&changed, reply->data);
}

static struct wire_reply head_of(const struct server_reply *reply) {
    struct wire_reply head;
    tessera_error error = {0};
    CHECK(wire_reply_read(reply->data, reply->size, &head, &error) == TESSERA_OK, "%s", error.message);
    return head;
}

static uint8_t *last_of(const struct server_reply *reply, size_t from_end) {
    return (uint8_t *)reply->data + reply->size - from_end;
}

static void tell_truth(struct liar *liar, struct server_reply *reply) {
    (void)liar, (void)reply;
}

/* One bit of the state, signature as it was. */
static void change_a_bit(struct liar *liar, struct server_reply *reply) {
    (void)liar;
    *last_of(reply, 64) ^= 1;
}

static void change_signature(struct liar *liar, struct server_reply *reply) {
    (void)liar;
    ((uint8_t *)reply->data)[300] ^= 1;
}

/* A hash that is not that of the state, signed well: nobody could be convicted by it. */
static void sign_another_hash(struct liar *liar, struct server_reply *reply) {
    struct wire_reply head = head_of(reply);
    head.signed_fields.output_hash[0] ^= 1;
    sign_again(liar, reply, &head);
}

static void sign_another_input(struct liar *liar, struct server_reply *reply) {
    struct wire_reply head = head_of(reply);
    head.signed_fields.input_hash[0] ^= 1;
    sign_again(liar, reply, &head);
}

static void sign_another_step(struct liar *liar, struct server_reply *reply) {
    struct wire_reply head = head_of(reply);
    head.signed_fields.step++;
    sign_again(liar, reply, &head);
}

static void sign_another_job(struct liar *liar, struct server_reply *reply) {
    struct wire_reply head = head_of(reply);
    head.signed_fields.job[4] ^= 1;
    sign_again(liar, reply, &head);
}

static void give_old_reply(struct liar *liar, struct server_reply *reply) {
    free(reply->data);
    reply->data = memcpy(malloc(liar->old_size), liar->old, reply->size = liar->old_size);
}

static void give_half(struct liar *liar, struct server_reply *reply) {
    (void)liar;
    reply->size /= 2;
}

static void give_nan(struct liar *liar, struct server_reply *reply) {
    const float nan = NAN;
    (void)liar;
    memcpy(last_of(reply, 64), &nan, sizeof nan);
}

static void claim_huge_state(struct liar *liar, struct server_reply *reply) {
    (void)liar;
    ((uint8_t *)reply->data)[14] = 0x40;
}

static void claim_huge_rows(struct liar *liar, struct server_reply *reply) {
    (void)liar;
    ((uint8_t *)reply->data)[WIRE_REPLY_BYTES + 20] = 0x40;
}

static void claim_hashes(struct liar *liar, struct server_reply *reply) {
    (void)liar;
    ((uint8_t *)reply->data)[107] = 0x7f;
}

static void give_too_much(struct liar *liar, struct server_reply *reply) {
    (void)liar;
    reply->data = realloc(reply->data, reply->size + 4096);
    memset((uint8_t *)reply->data + reply->size, 0, 4096);
    reply->size += 4096;
}

static void give_nothing(struct liar *liar, struct server_reply *reply) {
    (void)liar;
    reply->size = 0;
    free(reply->data);
    reply->data = NULL;
}

static void be_busy(struct liar *liar, struct server_reply *reply) {
    (void)liar;
    free(reply->data);
    server_reply_text(reply, 429, "later\n");
    reply->retry_after = 7;
}

static void ask_for_ever(struct liar *liar, struct server_reply *reply) {
    (void)liar;
    free(reply->data);
    server_reply_text(reply, WIRE_UNKNOWN_CONSTANTS, "00\n");
}

static void be_late(struct liar *liar, struct server_reply *reply) {
    (void)liar, (void)reply;
    usleep(1500000);
}

static const struct {
    const char *name, *words;
    void (*lie)(struct liar *, struct server_reply *);
    enum remote_outcome outcome;
} lies[] = {
    {"truth", "", tell_truth, REMOTE_DONE},
    {"a bit", "output", change_a_bit, REMOTE_WRONG},
    {"signature", "signature", change_signature, REMOTE_WRONG},
    {"another hash", "output", sign_another_hash, REMOTE_WRONG},
    {"another input", "input", sign_another_input, REMOTE_WRONG},
    {"another step", "another step", sign_another_step, REMOTE_WRONG},
    {"another job", "another job", sign_another_job, REMOTE_WRONG},
    {"an old reply", "another request", give_old_reply, REMOTE_WRONG},
    {"half", "bytes of the state", give_half, REMOTE_WRONG},
    {"a NaN", "field text", give_nan, REMOTE_WRONG},
    {"a huge state", "bytes of the state", claim_huge_state, REMOTE_WRONG},
    {"huge rows", "field rows", claim_huge_rows, REMOTE_WRONG},
    {"huge hashes", "field hashes", claim_hashes, REMOTE_WRONG},
    {"too much", "as long", give_too_much, REMOTE_WRONG},
    {"nothing", "as long", give_nothing, REMOTE_WRONG},
    {"busy", "429", be_busy, REMOTE_BUSY},
    {"asks for ever", "424", ask_for_ever, REMOTE_REFUSED},
    {"late", "", be_late, REMOTE_LOST},
};

static void check_lie(struct worker_case *w, struct server *server, size_t i) {
    struct remote_options options = worker_case_options(w);
    struct remote *honest = w->remote;
    tessera_error error = {0};
    char url[64];
    snprintf(url, sizeof url, "https://127.0.0.1:%d", server_port(server));
    options.url = url;
    if (lies[i].outcome == REMOTE_LOST) options.whole_seconds = 0.5;
    CHECK(remote_open(w->remotes, &options, &w->remote, &error) == TESSERA_OK, "%s", error.message);
    double start = clock_seconds();
    struct remote_result result = run_once(w, w->description.specification, 0);
    CHECK(result.outcome == lies[i].outcome && strstr(result.error.message, lies[i].words) != NULL, "%s: outcome %d: %s", lies[i].name,
          (int)result.outcome, result.error.message);
    CHECK(result.outcome != REMOTE_BUSY || result.retry_seconds == 7, "Retry-After: %g", result.retry_seconds);
    CHECK(clock_seconds() - start < 30, "%s: the call took %g s", lies[i].name, clock_seconds() - start);
    remote_close(w->remote);
    w->remote = honest;
}

static void test_lies(struct worker_case *w) {
    struct liar liar = {.w = w};
    struct tokens tokens;
    tessera_error error = {0};
    char path[256];
    snprintf(path, sizeof path, "%s/worker.pem", worker_folder);
    CHECK(identity_open(path, &liar.identity, &error) == TESSERA_OK, "%s", error.message);
    snprintf(path, sizeof path, "%s/tokens", worker_folder);
    CHECK(tokens_read(path, &tokens, &error) == TESSERA_OK, "%s", error.message);
    const struct server_route route = {.method = "POST", .path = "/v1/run", .largest = 1 << 28, .compute = relay};
    struct server_options options = {.host = "127.0.0.1",
                                     .key = identity_key(liar.identity),
                                     .certificate = identity_certificate(liar.identity),
                                     .tokens = &tokens,
                                     .limits = server_default_limits(),
                                     .routes = &route,
                                     .num_routes = 1,
                                     .user = &liar};
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct server *server = NULL;
        liar.lie = lies[i].lie;
        CHECK(server_start(&options, &server, &error) == TESSERA_OK, "%s", error.message);
        if (server == NULL) break;
        check_lie(w, server, i);
        server_stop(server, 1);
    }
    free(liar.old);
    identity_free(liar.identity);
}

/* ---- bytes that are no reply ---- */

struct canned {
    const char *bytes;
    bool stays; /* keeps the connection open behind them */
    int listener, port;
    pthread_t thread;
};

static void *serve_canned(void *user) {
    struct canned *c = user;
    char drop[65536];
    int fd = accept(c->listener, NULL, NULL);
    struct timeval tenth = {0, 100000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tenth, sizeof tenth);
    while (recv(fd, drop, sizeof drop, 0) > 0) /* until the request is there */
        ;
    if (send(fd, c->bytes, strlen(c->bytes), MSG_NOSIGNAL) < 0) perror("send");
    struct timeval long_time = {30, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &long_time, sizeof long_time);
    if (c->stays)
        while (recv(fd, drop, sizeof drop, 0) > 0)
            ;
    close(fd);
    return NULL;
}

static void start_canned(struct canned *c) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    c->listener = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind(c->listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(c->listener, 4) == 0 &&
              getsockname(c->listener, (struct sockaddr *)&address, &length) == 0 && pthread_create(&c->thread, NULL, serve_canned, c) == 0,
          "no server");
    c->port = ntohs(address.sin_port);
}

static const struct {
    const char *name, *bytes, *words;
    bool stays;
    enum remote_outcome outcome;
} replies[] = {
    {"silence", "", "", true, REMOTE_LOST},
    {"the end", "", "", false, REMOTE_LOST},
    {"garbage", "\x01\x02\x03garbage\r\n\r\n", "", false, REMOTE_LOST},
    {"half a head", "HTTP/1.1 200 OK\r\nContent-Le", "", false, REMOTE_LOST},
    {"half a body", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nTDRP", "", false, REMOTE_LOST},
    {"a body that stops", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nTDRP", "not a byte", true, REMOTE_LOST},
    {"a huge length", "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\nTDRP", "as long", true, REMOTE_WRONG},
    {"a length beyond all bounds", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nTDRP", "as long", false,
     REMOTE_WRONG},
    {"no length", "HTTP/1.1 200 OK\r\n\r\nTDRP", "as long", true, REMOTE_WRONG},
    {"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nTDRP\r\n0\r\n\r\n", "as long", true, REMOTE_WRONG},
    {"a redirect", "HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "302", true, REMOTE_REFUSED},
    {"an error", "HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\nwhy\n", "500: why", true, REMOTE_LOST},
    {"a short reply", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nTDRP", "field length", true, REMOTE_WRONG},
};

static void check_canned(struct worker_case *w, size_t i) {
    struct remote_options options = worker_case_options(w);
    struct canned canned = {.bytes = replies[i].bytes, .stays = replies[i].stays};
    tessera_error error = {0};
    char url[64];
    start_canned(&canned);
    snprintf(url, sizeof url, "http://127.0.0.1:%d", canned.port);
    options.url = url;
    options.insecure = true;
    options.stall_seconds = 0.5;
    options.whole_seconds = replies[i].stays && replies[i].bytes[0] == 0 ? 1 : 60;
    CHECK(remote_open(w->remotes, &options, &w->remote, &error) == TESSERA_OK, "%s", error.message);
    struct remote_result result = run_once(w, w->description.specification, 0);
    CHECK(result.outcome == replies[i].outcome && strstr(result.error.message, replies[i].words) != NULL && result.error.message[0] != 0,
          "%s: outcome %d: %s", replies[i].name, (int)result.outcome, result.error.message);
    remote_close(w->remote);
    remotes_close(w->remotes); /* and its connections */
    CHECK(remotes_open(&w->remotes, &error) == TESSERA_OK, "%s", error.message);
    w->remote = NULL;
    pthread_join(canned.thread, NULL);
    close(canned.listener);
}

int main(void) {
    static const char *const options[] = {"--dtype", "f32", "--threads", "1", NULL};
    struct worker_case w;
    if (!worker_folder_make() || !worker_case_open(&w, "sd3", DTYPE_F32, (struct split_range){1, 3, false}, options)) return 1;
    test_lies(&w);
    check_picture(&w, true);
    remote_close(w.remote);
    for (size_t i = 0; i < sizeof replies / sizeof *replies; i++) check_canned(&w, i);
    worker_case_connect(&w);
    check_picture(&w, true);
    worker_case_close(&w);
    worker_folder_remove();
    return CHECK_REPORT();
}
