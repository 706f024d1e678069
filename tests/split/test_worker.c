/* Workers as processes, over TLS on loopback, and the client's side of them: pictures to the bit,
 * and everything that may go wrong between honest sides. Dishonest workers are in test_remote.c. */
#include <arpa/inet.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "worker_case.h"

/* ---- pictures ---- */

/* The state before each block, and behind the last one: its hash is the one that the worker signed.
 * Other blocks are refused. */
static void test_states(struct worker_case *w) {
    struct denoiser_state state = entering_state(w);
    struct remote_input input = input_of(w, &state);
    struct remote_call *hashes = NULL, *call = NULL;
    tessera_error error = {0};
    static const uint8_t unsigned_reply[IDENTITY_SIGNATURE_BYTES];
    uint8_t hash[CANONICAL_HASH_BYTES];
    CHECK(remote_hashes(w->remote, &input, NULL, &hashes, &error) == TESSERA_OK, "%s", error.message);
    const struct remote_result *signed_ones = wait_for_call(w, hashes);
    CHECK(signed_ones->outcome == REMOTE_DONE, "%s", signed_ones->error.message);
    for (int block = w->range.first; block <= w->range.end + 1 && signed_ones->outcome == REMOTE_DONE; block++) {
        bool inside = block > w->range.first && block <= w->range.end;
        input.block = (uint32_t)block;
        CHECK(remote_state(w->remote, &input, NULL, &call, &error) == TESSERA_OK, "%s", error.message);
        const struct remote_result *result = wait_for_call(w, call);
        CHECK(result->outcome == (inside ? REMOTE_DONE : REMOTE_REFUSED), "block %d: %s", block, result->error.message);
        CHECK(inside || strstr(result->error.message, "field block") != NULL, "block %d: %s", block, result->error.message);
        if (inside && result->outcome == REMOTE_DONE) {
            split_state_hash(&result->before, hash);
            CHECK(memcmp(hash, signed_ones->hashes[block - w->range.first - 1], sizeof hash) == 0, "the state before block %d", block);
            /* signed, it would be a second answer to the request, and convict an honest worker */
            CHECK(memcmp(result->reply.signature, unsigned_reply, sizeof unsigned_reply) == 0, "the state before block %d is signed", block);
        }
        remote_call_end(call);
    }
    remote_call_end(hashes);
    arena_release(w->s.t.run.arena, 0);
}

/* Two passes of a model through a worker: the second one's constants travel by digest. */
static void test_picture(const char *name, enum dtype dtype, struct split_range range) {
    struct worker_case w;
    const char *const options[] = {"--dtype", dtype == DTYPE_F32 ? "f32" : "bf16", "--threads", "2", NULL};
    if (!worker_case_open(&w, name, dtype, range, options)) return;
    uint64_t sent[2];
    for (int i = 0; i < 2; i++) sent[i] = check_picture(&w, true);
    test_states(&w);
    unsigned constants = denoiser_state_constants(w.s.t.component.denoiser);
    bool has_constants = (constants & 1u << STATE_TEXT) != 0 || w.s.inputs.in.text_mask.data != NULL;
    if (has_constants && w.s.t.component.denoiser->form.cond_width > 0)
        CHECK(sent[1] <= sent[0], "%s: %llu bytes, then %llu", name, (unsigned long long)sent[0], (unsigned long long)sent[1]);
    if ((constants & 1u << STATE_TEXT) != 0) CHECK(sent[1] < sent[0], "%s: the text was sent twice", name);
    /* the worker forgets what it had: it asks, and gets all */
    CHECK(worker_case_restart(&w, options), "restart");
    check_picture(&w, true);
    worker_case_close(&w);
}

/* ---- wrong tokens, pins, parts ---- */

static void expect(struct worker_case *w, const char *what, struct remote_options options, const char *specification, uint8_t flip_digest,
                   enum remote_outcome outcome, const char *words) {
    struct remote *remote = NULL;
    tessera_error error = {0};
    CHECK(remote_open(w->remotes, &options, &remote, &error) == TESSERA_OK, "%s: %s", what, error.message);
    struct remote *kept = w->remote;
    w->remote = remote;
    struct remote_result result = run_once(w, specification, flip_digest);
    CHECK(result.outcome == outcome && strstr(result.error.message, words) != NULL, "%s: outcome %d: %s", what, (int)result.outcome,
          result.error.message);
    w->remote = kept;
    remote_close(remote);
}

static void test_refusals(struct worker_case *w) {
    const struct remote_options good = worker_case_options(w);
    const char *specification = w->description.specification;
    struct remote_options options = good;
    expect(w, "honest", good, specification, 0, REMOTE_DONE, "");
    options.token = "fedcba9876543210fedcba9876543210";
    expect(w, "wrong token", options, specification, 0, REMOTE_REFUSED, "401");
    options.token = NULL;
    expect(w, "no token", options, specification, 0, REMOTE_REFUSED, "401");
    options = good;
    options.pin = "sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    expect(w, "wrong pin", options, specification, 0, REMOTE_LOST, "another key");
    char url[128];
    snprintf(url, sizeof url, "http%s", w->process.url + strlen("https"));
    options = good;
    options.url = url;
    options.insecure = true;
    expect(w, "plain HTTP", options, specification, 0, REMOTE_LOST, "");
    expect(w, "another part", good, specification, 1, REMOTE_REFUSED, "part digest");
    expect(w, "another specification", good, "tessera-split-1 fast f32", 0, REMOTE_WRONG, "was agreed");
    expect(w, "honest again", good, specification, 0, REMOTE_DONE, "");
}

static void test_options(struct worker_case *w) {
    struct remote_options options = worker_case_options(w);
    struct remote *remote = NULL;
    tessera_error error = {0};
    options.pin = "sha256//abc";
    CHECK(remote_open(w->remotes, &options, &remote, &error) == TESSERA_ERROR_ARGUMENT && strstr(error.message, "pin") != NULL, "%s",
          error.message);
    options = worker_case_options(w);
    const char *const urls[] = {"http://127.0.0.1:1", "ftp://127.0.0.1", "https://127.0.0.1:1/path",
                                "no url:at/all:", "file:///etc/passwd"};
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        options.url = urls[i];
        CHECK(remote_open(w->remotes, &options, &remote, &error) == TESSERA_ERROR_ARGUMENT && remote == NULL, "%s was taken", urls[i]);
    }
    const char *const others[] = {"http://192.0.2.1:1", "http://127.example:1", "http://localhost.example:1"};
    options.insecure = true;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        options.url = others[i];
        CHECK(remote_open(w->remotes, &options, &remote, &error) == TESSERA_ERROR_ARGUMENT, "plain HTTP to another machine: %s", others[i]);
    }
}

/* ---- requests by hand ---- */

static double metric(struct worker_case *w, const char *name) {
    char line[128];
    struct got got = http(w, "/metrics", NULL, 0, WORKER_TOKEN);
    snprintf(line, sizeof line, "\ntessera_worker_%s ", name);
    const char *at = got.data != NULL ? strstr((char *)got.data, line) : NULL;
    CHECK(got.status == 200 && at != NULL, "no %s", name);
    double value = at != NULL ? strtod(at + strlen(line), NULL) : -1;
    free(got.data);
    return value;
}

/* The same bytes get the same reply and nothing is computed; other bytes under the same id are
 * refused. */
static void test_replay(struct worker_case *w, uint8_t *body, size_t size) {
    struct got first = http(w, "/v1/run", body, size, WORKER_TOKEN);
    double computed = metric(w, "runs_total"), again = metric(w, "retries_total");
    struct got second = http(w, "/v1/run", body, size, WORKER_TOKEN);
    CHECK(first.status == 200 && second.status == 200 && first.size == second.size && memcmp(first.data, second.data, first.size) == 0,
          "a retry: status %ld, then %ld", first.status, second.status);
    CHECK(metric(w, "runs_total") == computed && metric(w, "retries_total") == again + 1, "a retry was computed");
    body[100] ^= 1; /* another prediction */
    struct got other = http(w, "/v1/run", body, size, WORKER_TOKEN);
    CHECK(other.status == 409 && strstr((char *)other.data, "field id") != NULL, "another request under the same id: %ld", other.status);
    body[100] ^= 1;
    struct got hashes = http(w, "/v1/hashes", body, size, WORKER_TOKEN);
    CHECK(hashes.status == 409, "another path under the same id: %ld", hashes.status);
    free(first.data);
    free(second.data);
    free(other.data);
    free(hashes.data);
}

/* A byte of the heads that differs: refused, and named; but for id, nonce (its constants are
 * unknown, or the job of the state is another), step and row, which are the client's. */
static void test_every_byte(struct worker_case *w, uint8_t *body, size_t size) {
    size_t heads = WIRE_REQUEST_BYTES + STATE_HEAD_BYTES + 4 * STATE_RECORD_BYTES;
    for (size_t i = 0; i < heads; i += i < WIRE_REQUEST_BYTES ? 3 : 1) {
        body[i] ^= 0x81;
        struct got got = http(w, "/v1/run", body, size, WORKER_TOKEN);
        body[i] ^= 0x81;
        bool free_to_choose = (i >= 16 && i < 64) || (i >= 96 && i < 104);
        bool named = got.data != NULL && strstr((char *)got.data, "field ") != NULL;
        CHECK(free_to_choose || (got.status >= 400 && got.status < 500 && named), "byte %zu: status %ld", i, got.status);
        CHECK(got.status != 500 && got.status != 0, "byte %zu: status %ld", i, got.status);
        free(got.data);
    }
}

static void test_lengths(struct worker_case *w, const uint8_t *body, size_t size) {
    static const size_t cuts[] = {1, 4, 127, 128, 129, 191, 192, 300, 1000};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        struct got got = http(w, "/v1/run", body, cuts[i], WORKER_TOKEN);
        CHECK(got.status == 400, "%zu bytes: status %ld", cuts[i], got.status);
        free(got.data);
    }
    uint8_t *longer = calloc(1, size + 64);
    memcpy(longer, body, size);
    struct got got = http(w, "/v1/run", longer, size + 64, WORKER_TOKEN);
    CHECK(got.status == 400, "64 bytes too many: status %ld", got.status);
    free(got.data);
    free(longer);
}

/* Huge numbers in the state's head: no memory is allocated for them. */
static void test_huge(struct worker_case *w, uint8_t *body, size_t size) {
    static const size_t fields[] = {8,
                                    WIRE_REQUEST_BYTES + 16,
                                    WIRE_REQUEST_BYTES + 24,
                                    WIRE_REQUEST_BYTES + 32,
                                    WIRE_REQUEST_BYTES + STATE_HEAD_BYTES + 16,
                                    WIRE_REQUEST_BYTES + STATE_HEAD_BYTES + 24,
                                    WIRE_REQUEST_BYTES + STATE_HEAD_BYTES + 56};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        for (int bit = 20; bit < 64; bit += 11) {
            body[fields[i] + (size_t)bit / 8] ^= (uint8_t)(1 << bit % 8);
            struct got got = http(w, "/v1/run", body, size, WORKER_TOKEN);
            body[fields[i] + (size_t)bit / 8] ^= (uint8_t)(1 << bit % 8);
            CHECK(got.status == 400, "offset %zu, bit %d: status %ld", fields[i], bit, got.status);
            free(got.data);
        }
}

static long peak_kilobytes(const struct worker_case *w) {
    char path[64], line[256];
    long peak = -1;
    snprintf(path, sizeof path, "/proc/%d/status", (int)w->process.pid);
    FILE *stream = fopen(path, "r");
    while (stream != NULL && fgets(line, sizeof line, stream) != NULL) sscanf(line, "VmHWM: %ld", &peak);
    if (stream != NULL) fclose(stream);
    return peak;
}

#ifdef TESSERA_SANITIZED
enum { KEEPS_FREED = true }; /* the sanitizers do, so that the peak says nothing */
#else
enum { KEEPS_FREED = false };
#endif

/* 48 MB behind a head that says so, where the model expects less: refused before memory is taken. */
static void test_memory(struct worker_case *w, const uint8_t *body, size_t size) {
    enum { LONG = 48 << 20 };
    uint8_t *longer = calloc(1, LONG);
    const uint64_t state_bytes = LONG - WIRE_REQUEST_BYTES;
    memcpy(longer, body, size);
    memcpy(longer + 8, &state_bytes, sizeof state_bytes);
    long before = peak_kilobytes(w);
    struct got got = http(w, "/v1/run", longer, LONG, WORKER_TOKEN);
    CHECK(got.status == 400 && strstr((char *)got.data, "field length") != NULL, "status %ld", got.status);
    CHECK(KEEPS_FREED || peak_kilobytes(w) < before + (LONG >> 11), "the worker took %ld kB", peak_kilobytes(w) - before);
    free(got.data);
    free(longer);
}

static void test_not_finite(struct worker_case *w, uint8_t *body, size_t size, const struct tensor *picture) {
    float *at = NULL, nan = NAN, kept;
    for (size_t i = WIRE_REQUEST_BYTES; i + tensor_bytes(picture) <= size && at == NULL; i += 64)
        if (memcmp(body + i, picture->data, tensor_bytes(picture)) == 0) at = (float *)(void *)(body + i);
    CHECK(at != NULL, "the picture lies in the request");
    if (at == NULL) return;
    kept = at[5];
    memcpy(&at[5], &nan, sizeof nan);
    body[16] ^= 1; /* a new id */
    struct got got = http(w, "/v1/run", body, size, WORKER_TOKEN);
    CHECK(got.status == 400 && strstr((char *)got.data, "field picture") != NULL, "a NaN: status %ld", got.status);
    free(got.data);
    at[5] = kept;
    body[16] ^= 1;
}

/* The digests that are asked for, one a line. */
static void test_unknown_constants(struct worker_case *w, const struct denoiser_state *state) {
    size_t size;
    w->job[31] ^= 1; /* a job of which nothing has come */
    uint8_t *body = request_body(w, state, ~0u, &size);
    w->job[31] ^= 1;
    struct got got = http(w, "/v1/run", body, size, WORKER_TOKEN);
    uint8_t digest[STATE_DIGEST_BYTES];
    char hex[2 * STATE_DIGEST_BYTES + 2] = "";
    if (wire_constant_digest(body + WIRE_REQUEST_BYTES, size - WIRE_REQUEST_BYTES, STATE_TEXT, digest)) {
        identity_hex(digest, sizeof digest, hex);
        strcat(hex, "\n");
        CHECK(got.status == WIRE_UNKNOWN_CONSTANTS && strstr((char *)got.data, hex) != NULL, "status %ld: %s", got.status,
              (char *)got.data);
    } else {
        CHECK(false, "the text does not come by digest");
    }
    free(got.data);
    free(body);
}

static void test_by_hand(struct worker_case *w) {
    struct denoiser_state entering = entering_state(w), sent = split_request_state(w->s.t.component.denoiser, &w->range, &entering);
    size_t size;
    test_unknown_constants(w, &sent);
    uint8_t *body = request_body(w, &sent, 0, &size);
    test_lengths(w, body, size);
    test_huge(w, body, size);
    test_memory(w, body, size);
    test_not_finite(w, body, size, &sent.picture);
    test_replay(w, body, size);
    test_every_byte(w, body, size);
    struct got got = http(w, "/health", NULL, 0, NULL);
    CHECK(got.status == 200, "health: %ld", got.status);
    free(got.data);
    got = http(w, "/v1/part", NULL, 0, NULL);
    CHECK(got.status == 401, "the description needs a token: %ld", got.status);
    free(got.data);
    CHECK(metric(w, "body_bytes") == 0 && metric(w, "refused_total") > 100 && metric(w, "unauthorized_total") >= 1, "metrics");
    free(body);
    arena_release(w->s.t.run.arena, 0);
    check_picture(w, true);
}

/* ---- hashes ---- */

static void test_hashes(struct worker_case *w) {
    const struct denoiser *d = w->s.t.component.denoiser;
    struct denoiser_state state = entering_state(w);
    struct remote_input input = input_of(w, &state);
    struct remote_call *call = NULL;
    tessera_error error = {0};
    CHECK(remote_hashes(w->remote, &input, NULL, &call, &error) == TESSERA_OK, "%s", error.message);
    const struct remote_result *result = wait_for_call(w, call);
    CHECK(result->outcome == REMOTE_DONE, "%s", result->error.message);
    for (int i = w->range.first; i < w->range.end && result->outcome == REMOTE_DONE; i++) {
        uint8_t hash[CANONICAL_HASH_BYTES];
        state = denoiser_block(d, &w->s.t.run, i, state);
        split_state_hash(&state, hash);
        CHECK(memcmp(hash, result->hashes[i - w->range.first], sizeof hash) == 0, "the hash after block %d", i);
    }
    remote_call_end(call);
    arena_release(w->s.t.run.arena, 0);
}

/* ---- crowds ---- */

/* A connection from another address of this machine. */
static int dial(const struct worker_case *w, const char *from) {
    struct sockaddr_in address = {.sin_family = AF_INET}, to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    inet_pton(AF_INET, from, &address.sin_addr);
    to.sin_port = htons((uint16_t)atoi(strrchr(w->process.url, ':') + 1));
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0) return close(fd), -1;
    connect(fd, (struct sockaddr *)&to, sizeof to);
    return fd;
}

/* 1,000 connections from ten addresses, some of which send a byte of a handshake now and then: the
 * picture comes nevertheless, over the connection that was there and over a new one. */
static void test_crowd(struct worker_case *w) {
    enum { CROWD = 1000 };
    static int crowd[CROWD];
    char from[32];
    for (int i = 0; i < CROWD; i++) {
        snprintf(from, sizeof from, "127.0.1.%d", 1 + i % 10);
        crowd[i] = dial(w, from);
    }
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < CROWD; i += 2)
            if (crowd[i] >= 0) send(crowd[i], "\x16\x03\x01" + round, 1, MSG_NOSIGNAL);
        check_picture(w, true);
        if (round == 1) worker_case_connect(w);
    }
    double gone = 0, until = clock_seconds() + 20; /* those that wait to be accepted do not count yet */
    while (gone <= CROWD / 2 && clock_seconds() < until) gone = metric(w, "connections_refused_total") + metric(w, "connections_displaced_total");
    CHECK(gone > CROWD / 2, "%g were refused or displaced", gone);
    for (int i = 0; i < CROWD; i++) close(crowd[i]);
}

/* ---- the end ---- */

/* SIGTERM while a request is computed: it is answered, and the worker ends well. SIGKILL: the call
 * is lost, and says so. */
static void test_stop(struct worker_case *w, int signal_number) {
    struct denoiser_state state = entering_state(w);
    struct remote_input input = input_of(w, &state);
    enum { CALLS = 4 };
    struct remote_call *calls[CALLS];
    tessera_error error = {0};
    for (int i = 0; i < CALLS; i++) CHECK(remote_run(w->remote, &input, NULL, &calls[i], &error) == TESSERA_OK, "%s", error.message);
    CHECK(wait_for_call(w, NULL) != NULL, "none was answered");
    int status = worker_process_stop(&w->process, signal_number);
    CHECK(status == (signal_number == SIGKILL ? 128 + SIGKILL : 0), "exit status %d", status);
    for (int i = 0; i < CALLS; i++) {
        const struct remote_result *result = wait_for_call(w, calls[i]);
        bool good = result->outcome == REMOTE_DONE || result->outcome == REMOTE_LOST || result->outcome == REMOTE_BUSY;
        CHECK(good && (result->outcome == REMOTE_DONE || result->error.message[0] != 0), "call %d: outcome %d: %s", i, (int)result->outcome,
              result->error.message);
    }
    for (int i = 0; i < CALLS; i++) remote_call_end(calls[i]);
    arena_release(w->s.t.run.arena, 0);
}

static void test_one_worker(void) {
    static const char *const options[] = {"--dtype", "f32", "--threads", "1", "--rate", "0", NULL};
    struct worker_case w;
    if (!worker_case_open(&w, "pixart_sigma", DTYPE_F32, (struct split_range){1, 2, false}, options)) return;
    test_options(&w);
    test_refusals(&w);
    test_by_hand(&w);
    test_hashes(&w);
    test_states(&w);
    test_crowd(&w);
    test_stop(&w, SIGTERM);
    CHECK(worker_process_start(w.part, worker_folder, options, &w.process), "a second start");
    worker_case_connect(&w);
    test_stop(&w, SIGKILL);
    worker_case_close(&w);
}

int main(void) {
    if (!worker_folder_make()) return 1;
    test_one_worker();
    test_picture("sd3", DTYPE_F32, (struct split_range){1, 4, true});
    test_picture("sd3", DTYPE_BF16, (struct split_range){0, 1, false});
    test_picture("flux_dev", DTYPE_F32, (struct split_range){1, 3, false});
    test_picture("pixart_sigma", DTYPE_BF16, (struct split_range){1, 4, true});
    test_picture("hunyuandit", DTYPE_F32, (struct split_range){1, 3, false});
    test_picture("unet_sd15", DTYPE_F32, (struct split_range){2, 6, false});
    worker_folder_remove();
    return CHECK_REPORT();
}
