/* See worker.h. The server's thread checks requests and gives kept replies; its computing thread
 * does the rest, one request at a time. */
#include "split/worker.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "split/kept.h"
#include "split/worker_metrics.h"

enum { NUM_ROUTES = 6 };
#define RUN_PATH "/v1/run"
#define HASHES_PATH "/v1/hashes"
#define STATE_PATH "/v1/state"
#define STOP_SECONDS 10.0 /* for replies to be taken */

struct worker {
    struct worker_options options;
    struct split_part *part;
    struct manifest manifest;
    struct identity *identity;
    struct server *server;
    struct server_route routes[NUM_ROUTES];
    struct kept_replies replies;
    struct kept_jobs jobs;
    bool has_kept;
    struct worker_metrics metrics;
};

struct worker_options worker_default_options(void) {
    return (struct worker_options){.host = "127.0.0.1",
                                   .port = 8443,
                                   .kernels = TESSERA_KERNELS_REPRODUCIBLE,
                                   .dtype = DTYPE_BF16,
                                   .limits = server_default_limits(),
                                   .shapes = {.batch = 8, .tokens = 16384, .text_tokens = 2048},
                                   .most_request_bytes = (size_t)256 << 20,
                                   .most_kept_bytes = (size_t)256 << 20};
}

/* ---- small answers ---- */

static void answer_health(void *user, const uint8_t *body, size_t size, struct server_reply *reply) {
    (void)user, (void)body, (void)size;
    server_reply_text(reply, 200, "ok\n");
}

static void answer_metrics(void *user, const uint8_t *body, size_t size, struct server_reply *reply) {
    struct worker *w = user;
    struct server_counts counts = server_counts(w->server);
    (void)body, (void)size;
    char *text = worker_metrics_text(&w->metrics, &counts);
    if (text == NULL) return server_reply_text(reply, 503, "no memory\n");
    *reply = (struct server_reply){.status = 200, .type = "text/plain; version=0.0.4", .data = text, .size = strlen(text)};
}

static void answer_part(void *user, const uint8_t *body, size_t size, struct server_reply *reply) {
    struct worker *w = user;
    const struct part_header *header = split_part_header(w->part);
    struct worker_description d = {.range = header->range,
                                   .worker = *identity_public(w->identity),
                                   .most_request_bytes = (int64_t)w->options.most_request_bytes,
                                   .most_tokens = w->options.shapes.tokens,
                                   .most_text_tokens = w->options.shapes.text_tokens,
                                   .most_batch = w->options.shapes.batch,
                                   .threads = split_part_run_of(w->part)->backend->threads};
    (void)body, (void)size;
    snprintf(d.specification, sizeof d.specification, "%s", split_part_specification(w->part));
    snprintf(d.class_name, sizeof d.class_name, "%s", header->class_name);
    snprintf(d.kernels, sizeof d.kernels, "%s", split_part_run_of(w->part)->backend->kernel_path);
    memcpy(d.digest, header->digest, sizeof d.digest);
    char *text = worker_description_text(&d);
    if (text == NULL) return server_reply_text(reply, 503, "no memory\n");
    *reply = (struct server_reply){.status = 200, .type = "application/json", .data = text, .size = strlen(text)};
}

/* ---- checks, in the server's thread ---- */

static int status_of(tessera_status status) {
    return status == TESSERA_ERROR_FORMAT || status == TESSERA_ERROR_ARGUMENT ? 400 : status == TESSERA_ERROR_MEMORY ? 503 : 500;
}

/* A request's head, that of its state, and the length that follows from both, before memory is
 * allocated for it. */
static void check_request(void *user, const uint8_t *head, size_t bytes, size_t whole, struct server_reply *reply) {
    struct worker *w = user;
    struct wire_request request;
    tessera_error error = {0};
    size_t state_bytes = 0;
    tessera_status status = wire_request_read(head, bytes, whole, &request, &error);
    if (status == TESSERA_OK && memcmp(request.part_digest, split_part_header(w->part)->digest, sizeof request.part_digest) != 0) {
        worker_metrics_count(&w->metrics, METRIC_REFUSED);
        return server_reply_text(reply, 409, "request: field part digest: this worker has another part: ask /v1/part which\n");
    }
    if (status == TESSERA_OK)
        status = split_part_request_bytes(w->part, head + WIRE_REQUEST_BYTES, bytes - WIRE_REQUEST_BYTES, split_job_number(request.job),
                                          &state_bytes, &error);
    if (status == TESSERA_OK && state_bytes != request.state_bytes)
        status =
            error_set(&error, TESSERA_ERROR_FORMAT, "state of a block: field length: the message is %llu bytes, but this model expects %zu",
                      (unsigned long long)request.state_bytes, state_bytes);
    if (status == TESSERA_OK) return;
    worker_metrics_count(&w->metrics, METRIC_REFUSED);
    server_reply_text(reply, status_of(status), "%s\n", error.message);
}

/* A reply that was given before; true where there is one, or the id is another request's. */
static bool answer_again(struct worker *w, const char *path, const uint8_t *body, size_t size, struct server_reply *reply) {
    void *data = NULL;
    size_t bytes = 0;
    switch (kept_reply_find(&w->replies, path, body, size, &data, &bytes)) {
    case KEPT_FOUND:
        worker_metrics_count(&w->metrics, METRIC_AGAIN);
        *reply = (struct server_reply){.status = 200, .type = "application/octet-stream", .data = data, .size = bytes};
        return true;
    case KEPT_ANOTHER:
        worker_metrics_count(&w->metrics, METRIC_REFUSED);
        server_reply_text(reply, 409, "request: field id: is that of another request: draw a new one\n");
        return true;
    default:
        return false;
    }
}

static void answer_run(void *user, const uint8_t *body, size_t size, struct server_reply *reply) {
    answer_again(user, RUN_PATH, body, size, reply);
}

static void answer_hashes(void *user, const uint8_t *body, size_t size, struct server_reply *reply) {
    answer_again(user, HASHES_PATH, body, size, reply);
}

static void answer_state(void *user, const uint8_t *body, size_t size, struct server_reply *reply) {
    answer_again(user, STATE_PATH, body, size, reply);
}

/* ---- computing ---- */

/* One request on its way to a reply. */
struct task {
    struct worker *worker;
    const char *path;
    bool hashes, state; /* of /v1/hashes, /v1/state */
    const uint8_t *body;
    size_t size;
    struct wire_request request;
    struct split_answer answer;
    struct server_reply *reply;
};

/* Says which constants must be sent whole: a line for each. */
static void ask_for_constants(struct task *t, unsigned missing) {
    char lines[(STATE_SKIPS + 1) * (2 * STATE_DIGEST_BYTES + 1)] = "", *end = lines;
    uint8_t digest[STATE_DIGEST_BYTES];
    for (int f = 0; f < STATE_SKIPS; f++) {
        if ((missing >> f & 1) == 0 || !wire_constant_digest(t->body + WIRE_REQUEST_BYTES, t->size - WIRE_REQUEST_BYTES, f, digest))
            continue;
        identity_hex(digest, sizeof digest, end);
        end += 2 * sizeof digest;
        *end++ = '\n';
        *end = 0;
    }
    worker_metrics_count(&t->worker->metrics, METRIC_UNKNOWN_CONSTANTS);
    server_reply_text(t->reply, WIRE_UNKNOWN_CONSTANTS, "%s", lines);
}

/* OK, and a reply already where constants are missing. */
static tessera_status compute_state(struct task *t, tessera_error *error) {
    struct worker *w = t->worker;
    struct split_request request = {.bytes = t->body + WIRE_REQUEST_BYTES,
                                    .size = t->size - WIRE_REQUEST_BYTES,
                                    .job = split_job_number(t->request.job),
                                    .store = kept_job_store(&w->jobs, t->request.job),
                                    .block_hashes = t->hashes};
    const struct split_range before = {split_part_header(w->part)->range.first, (int)t->request.block, false};
    unsigned missing = 0;
    if (t->state) request.only = &before;
    TRY(split_part_missing(w->part, request.bytes, request.size, request.job, request.store, &missing, error));
    if (missing != 0) return ask_for_constants(t, missing), TESSERA_OK;
    tessera_status status = split_part_compute(w->part, &request, &t->answer, error);
    worker_metrics_constants(&w->metrics, kept_jobs_trim(&w->jobs));
    return status;
}

static tessera_status sign(struct task *t, struct wire_reply *head, tessera_error *error) {
    const struct worker *w = t->worker;
    struct receipt_reply *s = &head->signed_fields;
    *head = (struct wire_reply){.worker = *identity_public(w->identity),
                                .signed_fields = {.step = t->request.step, .row = t->request.row},
                                .state_bytes = t->hashes ? 0 : t->answer.size,
                                .num_hashes = (uint32_t)t->answer.num_hashes};
    memcpy(head->id, t->request.id, sizeof head->id);
    snprintf(s->specification, sizeof s->specification, "%s", split_part_specification(w->part));
    memcpy(s->part_digest, t->request.part_digest, sizeof s->part_digest);
    memcpy(s->job, t->request.job, sizeof s->job);
    memcpy(s->input_hash, t->answer.input_hash, sizeof s->input_hash);
    memcpy(s->output_hash, t->answer.output_hash, sizeof s->output_hash);
    if (t->state) return TESSERA_OK;
    TRY(receipt_sign(s, w->identity, head->signature, error));
    if (!t->hashes) return TESSERA_OK;
    return receipt_sign_blocks(s, t->answer.hashes, t->answer.num_hashes, w->identity, head->blocks_signature, error);
}

static tessera_status write_reply(struct task *t, const struct wire_reply *head, tessera_error *error) {
    size_t hashes = head->num_hashes * sizeof *t->answer.hashes, bytes = WIRE_REPLY_BYTES + head->state_bytes + hashes;
    uint8_t *data = malloc(bytes);
    if (data == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a reply of %zu bytes", bytes);
    wire_reply_write(head, data);
    if (head->state_bytes > 0) memcpy(data + WIRE_REPLY_BYTES, t->answer.bytes, head->state_bytes);
    if (hashes > 0) memcpy(data + WIRE_REPLY_BYTES + head->state_bytes, t->answer.hashes, hashes);
    *t->reply = (struct server_reply){.status = 200, .type = "application/octet-stream", .data = data, .size = bytes};
    return TESSERA_OK;
}

static tessera_status compute_reply(struct task *t, tessera_error *error) {
    struct wire_reply head;
    const struct split_range *range = &split_part_header(t->worker->part)->range;
    TRY(wire_request_read(t->body, t->size, t->size, &t->request, error));
    if (t->state ? t->request.block <= (uint32_t)range->first || t->request.block > (uint32_t)range->end : t->request.block != 0)
        return error_set(error, TESSERA_ERROR_FORMAT, "request: field block: is %u: /v1/state needs %d to %d, others 0", t->request.block,
                         range->first + 1, range->end);
    TRY(compute_state(t, error));
    if (t->reply->status != 0) return TESSERA_OK;
    TRY(sign(t, &head, error));
    TRY(write_reply(t, &head, error));
    kept_reply_add(&t->worker->replies, t->path, t->body, t->size, t->reply->data, t->reply->size);
    return TESSERA_OK;
}

static void compute(struct worker *w, const char *path, const uint8_t *body, size_t size, struct server_reply *reply) {
    bool hashes = strcmp(path, HASHES_PATH) == 0, state = strcmp(path, STATE_PATH) == 0;
    struct task t = {.worker = w, .path = path, .hashes = hashes, .state = state, .body = body, .size = size, .reply = reply};
    tessera_error error = {0};
    double start = clock_seconds();
    if (answer_again(w, path, body, size, reply)) return; /* a retry that waited behind its request */
    tessera_status status = compute_reply(&t, &error);
    split_answer_free(&t.answer);
    if (status == TESSERA_OK && reply->status != 200) return;
    if (status == TESSERA_OK) return worker_metrics_computed(&w->metrics, hashes, clock_seconds() - start);
    worker_metrics_count(&w->metrics, METRIC_FAILED);
    server_reply_text(reply, status_of(status), "%s\n", error.message);
    if (reply->status == 503) reply->retry_after = 1;
}

static void compute_run(void *user, const uint8_t *body, size_t size, struct server_reply *reply) {
    compute(user, RUN_PATH, body, size, reply);
}

static void compute_hashes(void *user, const uint8_t *body, size_t size, struct server_reply *reply) {
    compute(user, HASHES_PATH, body, size, reply);
}

static void compute_before_block(void *user, const uint8_t *body, size_t size, struct server_reply *reply) {
    compute(user, STATE_PATH, body, size, reply);
}

/* ---- beginning and end ---- */

static tessera_status open_part(struct worker *w, tessera_error *error) {
    const struct worker_options *o = &w->options;
    struct split_part_options options = {.kernels = o->kernels, .dtype = o->dtype, .threads = o->threads, .limits = o->shapes};
    if (o->manifest != NULL) {
        TRY(manifest_open(o->manifest, o->manifest_pin, &w->manifest, error));
        options.manifest = &w->manifest;
    }
    TRY(split_part_open(o->part, &options, &w->part, error));
    kept_replies_open(&w->replies, o->most_kept_bytes);
    kept_jobs_open(&w->jobs, w->part, o->most_kept_bytes);
    w->has_kept = true;
    return TESSERA_OK;
}

static tessera_status open_identity(struct worker *w, tessera_error *error) {
    TRY(identity_open(w->options.identity, &w->identity, error));
    if (!w->options.insecure && identity_certificate(w->identity) == NULL)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: has no certificate, which TLS needs: make a new identity", w->options.identity);
    return TESSERA_OK;
}

static void list_routes(struct worker *w) {
    const struct server_route post = {.method = "POST",
                                      .head_bytes = WIRE_REQUEST_BYTES + SPLIT_HEAD_BYTES,
                                      .largest = w->options.most_request_bytes,
                                      .check = check_request};
    struct server_route run = post, hashes = post, state = post;
    run.path = RUN_PATH, run.answer = answer_run, run.compute = compute_run;
    hashes.path = HASHES_PATH, hashes.answer = answer_hashes, hashes.compute = compute_hashes;
    state.path = STATE_PATH, state.answer = answer_state, state.compute = compute_before_block;
    w->routes[0] = run;
    w->routes[1] = hashes;
    w->routes[2] = (struct server_route){.method = "GET", .path = "/health", .open = true, .answer = answer_health};
    w->routes[3] = (struct server_route){.method = "GET", .path = "/metrics", .answer = answer_metrics};
    w->routes[5] = state;
    w->routes[4] = (struct server_route){.method = "GET", .path = "/v1/part", .answer = answer_part};
}

static tessera_status start_server(struct worker *w, tessera_error *error) {
    const struct worker_options *o = &w->options;
    struct tokens tokens;
    list_routes(w);
    if (o->tokens != NULL) TRY(tokens_read(o->tokens, &tokens, error));
    const struct server_options options = {.host = o->host,
                                           .port = o->port,
                                           .key = o->insecure ? NULL : identity_key(w->identity),
                                           .certificate = o->insecure ? NULL : identity_certificate(w->identity),
                                           .tokens = o->tokens != NULL ? &tokens : NULL,
                                           .limits = o->limits,
                                           .routes = w->routes,
                                           .num_routes = NUM_ROUTES,
                                           .user = w};
    return server_start(&options, &w->server, error);
}

tessera_status worker_start(const struct worker_options *options, struct worker **out, tessera_error *error) {
    struct worker *w = calloc(1, sizeof *w);
    *out = NULL;
    if (w == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a worker");
    w->options = *options;
    worker_metrics_open(&w->metrics);
    tessera_status status = open_identity(w, error);
    if (status == TESSERA_OK) status = open_part(w, error);
    if (status == TESSERA_OK) status = start_server(w, error);
    if (status != TESSERA_OK) return worker_stop(w), status;
    *out = w;
    return TESSERA_OK;
}

int worker_port(const struct worker *worker) {
    return server_port(worker->server);
}

const struct part_header *worker_part(const struct worker *worker) {
    return split_part_header(worker->part);
}

const char *worker_specification(const struct worker *worker) {
    return split_part_specification(worker->part);
}

tessera_status worker_reload_tokens(struct worker *worker, int *revoked, int *added, tessera_error *error) {
    struct tokens tokens;
    *revoked = *added = 0;
    if (worker->options.tokens == NULL) return TESSERA_OK;
    TRY(tokens_read(worker->options.tokens, &tokens, error));
    server_replace_tokens(worker->server, &tokens, revoked, added);
    return TESSERA_OK;
}

void worker_pin(const struct worker *worker, char out[IDENTITY_PIN_CHARS]) {
    identity_pin(identity_public(worker->identity), out);
}

void worker_stop(struct worker *w) {
    if (w == NULL) return;
    server_stop(w->server, STOP_SECONDS);
    if (w->has_kept) {
        kept_jobs_close(&w->jobs);
        kept_replies_close(&w->replies);
    }
    split_part_close(w->part);
    manifest_free(&w->manifest);
    identity_free(w->identity);
    worker_metrics_close(&w->metrics);
    free(w);
}
