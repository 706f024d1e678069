/* Workers as the client knows them: what they have, whether a known answer comes out right, and who is used. See client_parts.h. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"
#include "base/clock.h"
#include "split/client_parts.h"
#include "split/tokens.h"

/* The known-answer test: patches on a side of the picture, and tokens of the text (CLIP's), beside those that the model adds to it. */
enum { TEST_SIDE = 8, TEST_TEXT = 77, ALIGNMENT = 64 };
#define RETRY_SECONDS 0.5

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for the workers");
}

/* ---- who is used ---- */

void client_say(const struct client *c, const char *format, ...) {
    char text[600];
    va_list arguments;
    if (c->notice == NULL) return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    c->notice(c->notice_user, text);
}

bool client_worker_usable(const struct client_worker *w) {
    return w->dropped == NULL && !w->gone;
}

void client_drop(struct client *c, int worker, const char *format, ...) {
    struct client_worker *w = &c->workers[worker];
    char text[400];
    va_list arguments;
    if (w->dropped != NULL) return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    w->dropped = strdup(text);
    w->gone = true; /* also where memory is out */
    client_say(c, "worker %s (%s), part %d, is dropped: %s", w->url, w->operator_name, w->part + 1, text);
}

tessera_status client_check_part(const struct client *c, int part, tessera_error *error) {
    const struct client_part *p = &c->parts[part];
    char all[420] = "";
    for (int i = p->first_worker; i < p->first_worker + p->count; i++) {
        const struct client_worker *w = &c->workers[i];
        size_t used = strlen(all);
        if (client_worker_usable(w)) return TESSERA_OK;
        const char *why = w->dropped != NULL ? w->dropped : w->last_error;
        snprintf(all + used, sizeof all - used, "%s%s: %.110s", used > 0 ? "; " : "", w->url, why);
    }
    return error_set(error, TESSERA_ERROR_IO, "workers: no worker of part %d is left: %s", part + 1, all);
}

static void set_aside(struct client *c, struct client_worker *w, const char *why) {
    snprintf(w->last_error, sizeof w->last_error, "%.255s", why);
    w->failures++;
    w->retry_at = clock_seconds() + RETRY_SECONDS * (1 << w->failures_in_row);
    if (++w->failures_in_row < CLIENT_MOST_FAILURES) return;
    w->gone = true;
    client_say(c, "worker %s (%s), part %d, does not answer and is left out: %s", w->url, w->operator_name, w->part + 1, why);
}

/* It has too much to do: later, but not for ever. */
static void wait_for(struct client *c, struct client_worker *w, const struct remote_result *r) {
    double now = clock_seconds();
    if (w->busy_since == 0) w->busy_since = now;
    w->retry_at = now + fmin(fmax(r->retry_seconds, 0.05), 5);
    if (now - w->busy_since < c->timeout) return;
    w->busy_since = 0;
    set_aside(c, w, r->error.message);
}

bool client_take_result(struct client *c, int worker, struct remote_call *call) {
    struct client_worker *w = &c->workers[worker];
    const struct remote_result *r = remote_call_result(call);
    w->bytes_sent += r->bytes_sent;
    w->bytes_received += r->bytes_received;
    if (r->outcome == REMOTE_BUSY) {
        wait_for(c, w, r);
        return false;
    }
    w->busy_since = 0;
    if (r->outcome == REMOTE_LOST) set_aside(c, w, r->error.message);
    if (r->outcome == REMOTE_REFUSED) client_drop(c, worker, "it refuses: %s", r->error.message);
    if (r->outcome == REMOTE_WRONG) client_drop(c, worker, "its reply is not what it must be: %s", r->error.message);
    if (r->outcome != REMOTE_DONE) return false;
    w->failures_in_row = 0;
    w->requests++;
    w->seconds += r->seconds;
    w->usual = w->usual > 0 ? 0.7 * w->usual + 0.3 * r->seconds : r->seconds;
    return true;
}

/* ---- opening ---- */

static tessera_status open_worker(struct client *c, struct client_worker *w, const struct workers_replica *replica, int part,
                                  tessera_error *error) {
    struct remote_options options = remote_default_options();
    w->part = part;
    w->url = strdup(replica->url);
    w->operator_name = strdup(replica->operator_name);
    if (w->url == NULL || w->operator_name == NULL) return out_of_memory(error);
    if (replica->token_file != NULL) TRY(tokens_read_first(replica->token_file, &w->token, error));
    options.url = replica->url;
    options.pin = replica->pin;
    options.token = w->token;
    options.whole_seconds = c->timeout;
    options.connect_seconds = fmin(options.connect_seconds, c->timeout);
    options.stall_seconds = fmin(options.stall_seconds, c->timeout);
    return remote_open(c->remotes, &options, &w->remote, error);
}

tessera_status client_open_workers(struct client *c, const struct workers_file *file, tessera_error *error) {
    int total = 0;
    TRY(workers_file_check(file, error));
    TRY(workers_file_manifest(file, &c->manifest, &c->has_manifest, error));
    for (int p = 0; p < file->count; p++) total += file->parts[p].count;
    c->parts = calloc((size_t)file->count, sizeof *c->parts);
    c->workers = calloc((size_t)total, sizeof *c->workers);
    if (c->parts == NULL || c->workers == NULL) return out_of_memory(error);
    c->num_parts = file->count;
    for (int p = 0; p < file->count; p++) {
        c->parts[p] = (struct client_part){.first_worker = c->num_workers, .count = file->parts[p].count};
        if (c->has_manifest) c->parts[p].range = c->manifest.parts[p].range;
        for (int i = 0; i < file->parts[p].count; i++)
            TRY(open_worker(c, &c->workers[c->num_workers++], &file->parts[p].replicas[i], p, error));
    }
    return TESSERA_OK;
}

void client_close_workers(struct client *c) {
    for (int i = 0; i < c->num_workers; i++) {
        struct client_worker *w = &c->workers[i];
        remote_close(w->remote);
        free(w->url);
        free(w->operator_name);
        free(w->token);
        free(w->dropped);
        free(w->receipt);
    }
    for (int p = 0; p < c->num_parts; p++) split_part_close(c->parts[p].own);
    free(c->workers);
    free(c->parts);
    manifest_free(&c->manifest);
}

/* ---- descriptions ---- */

static bool same_range(const struct split_range *a, const struct split_range *b) {
    return a->first == b->first && a->end == b->end && a->finish == b->finish;
}

/* Takes what a worker says of itself; where parts have no range yet, the first one's word, which the digest later proves. */
static void take_description(struct client *c, int worker, const struct worker_description *d, bool ranges) {
    struct client_worker *w = &c->workers[worker];
    struct client_part *part = &c->parts[w->part];
    w->description = *d;
    w->described = true;
    if (ranges && part->range.end == 0) part->range = d->range;
    if (!same_range(&part->range, &d->range))
        client_drop(c, worker, "it has the blocks %d to %d, but part %d is %d to %d", d->range.first, d->range.end - 1, w->part + 1,
                    part->range.first, part->range.end - 1);
}

tessera_status client_describe_workers(struct client *c, bool ranges, tessera_error *error) {
    struct remote_call **calls = calloc((size_t)c->num_workers, sizeof(struct remote_call *)), *call;
    tessera_status status = calls != NULL ? TESSERA_OK : out_of_memory(error);
    int left = 0;
    for (int i = 0; i < c->num_workers && status == TESSERA_OK; i++) {
        if (c->workers[i].described || c->workers[i].dropped != NULL) continue;
        status = remote_describe(c->workers[i].remote, &c->workers[i], &calls[i], error);
        left += status == TESSERA_OK;
    }
    while (left > 0 && status == TESSERA_OK) {
        status = remotes_wait(c->remotes, 1, error);
        while (status == TESSERA_OK && (call = remotes_next(c->remotes)) != NULL) {
            int worker = (int)((struct client_worker *)remote_call_user(call) - c->workers);
            left--;
            if (client_take_result(c, worker, call))
                take_description(c, worker, &remote_call_result(call)->description, ranges);
            else
                c->workers[worker].gone = true; /* in this job */
        }
    }
    for (int i = 0; calls != NULL && i < c->num_workers; i++) remote_call_end(calls[i]);
    free(calls);
    for (int i = 0; i < c->num_workers; i++) c->workers[i].usual = 0; /* that was no request */
    for (int p = 0; p < c->num_parts && status == TESSERA_OK; p++) status = client_check_part(c, p, error);
    return status;
}

/* ---- this machine's parts ---- */

/* Is the worker's arithmetic what the job needs? */
static void check_specification(struct client *c, int worker) {
    const struct client_worker *w = &c->workers[worker];
    const char *dtype = c->job.run->dtype == DTYPE_F32 ? "f32" : "bf16", *own = strrchr(w->description.specification, ' ');
    bool reproducible = strstr(w->description.specification, " reproducible ") != NULL;
    bool needs_bits = c->verification.kind == VERIFY_EXACT || c->verification.kind == VERIFY_CHALLENGE;
    if (own == NULL || strcmp(own + 1, dtype) != 0)
        client_drop(c, worker, "it computes \"%s\", but this client computes in %s: --dtype says in what", w->description.specification,
                    dtype);
    else if (!reproducible && (needs_bits || c->job.run->backend->reproducible))
        client_drop(c, worker, "it computes \"%s\", which gives other bits on other machines: %s", w->description.specification,
                    needs_bits ? "only --verify replicas can check that" : "--kernels reproducible needs reproducible workers");
}

static tessera_status other_model(int index, tessera_status status, const tessera_error *why, tessera_error *error) {
    return error_set(error, status, "workers: part %d is none of this model: %s", index + 1, why->message);
}

tessera_status client_open_part(const struct client *c, int index, bool reproducible, struct split_part **out, tessera_error *error) {
    const struct split_part_options options = {.kernels = reproducible ? TESSERA_KERNELS_REPRODUCIBLE : TESSERA_KERNELS_BEST,
                                               .dtype = c->job.run->dtype,
                                               .threads = c->job.run->backend->threads,
                                               .streamed = true,
                                               .limits = {.batch = 1 << 10, .tokens = 1 << 24, .text_tokens = 1 << 20}};
    tessera_error why = {0};
    tessera_status status = split_part_open_model(c->job.folder, &c->parts[index].range, &options, out, &why);
    return status == TESSERA_OK ? TESSERA_OK : other_model(index, status, &why, error);
}

/* Which answers to compare bit by bit: those of this arithmetic. */
static void name_bits(struct client *c, struct client_part *part) {
    bool needed = c->job.run->backend->reproducible || c->verification.kind == VERIFY_EXACT || c->verification.kind == VERIFY_CHALLENGE;
    for (int i = part->first_worker; i < part->first_worker + part->count && !needed; i++)
        needed = c->workers[i].described && strstr(c->workers[i].description.specification, " reproducible ") != NULL;
    part->is_reproducible = needed;
    snprintf(part->specification, sizeof part->specification, SPLIT_SPECIFICATION " %s %s", needed ? "reproducible" : "fast",
             c->job.run->dtype == DTYPE_F32 ? "f32" : "bf16");
}

static tessera_status open_own_part(struct client *c, int index, tessera_error *error) {
    struct client_part *part = &c->parts[index];
    TRY(client_open_part(c, index, part->is_reproducible, &part->own, error));
    memcpy(part->digest, split_part_header(part->own)->digest, sizeof part->digest);
    if (!c->has_manifest || memcmp(part->digest, c->manifest.parts[index].digest, sizeof part->digest) == 0) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT,
                     "workers: part %d of the manifest (model %.100s) holds other weights than %s: take the manifest of this model",
                     index + 1, c->manifest.model, c->job.folder);
}

/* Of a part whose weights are not here its owner's word is known: the manifest. */
static tessera_status know_part(struct client *c, int index, const struct part_header *header, tessera_error *error) {
    struct client_part *part = &c->parts[index];
    int first = part->range.first, last = part->range.end - 1;
    if (!c->has_manifest)
        return error_set(
            error, TESSERA_ERROR_ARGUMENT,
            "workers: %s has no weights of part %d, blocks %d to %d, with which to compare what workers have: name the manifest of the "
            "model's owner in the list of workers (\"manifest\", \"manifest_pin\")",
            c->job.folder, index + 1, first, last);
    if (strcmp(c->manifest.class_name, header->class_name) != 0 || strcmp(c->manifest.configuration, header->configuration) != 0)
        return error_set(error, TESSERA_ERROR_FORMAT, "workers: the manifest is of model %.100s, whose configuration is not that of %s",
                         c->manifest.model, c->job.folder);
    if (c->verification.kind == VERIFY_REPLICAS)
        return error_set(
            error, TESSERA_ERROR_ARGUMENT,
            "verify replicas: needs the weights of blocks %d to %d, to measure how far apart honest answers may lie, and %s has none: "
            "take exact=N or challenge=K, with reproducible workers",
            first, last, c->job.folder);
    memcpy(part->digest, c->manifest.parts[index].digest, sizeof part->digest);
    client_say(c,
               "part %d, blocks %d to %d: the weights are not here: its workers are known by the manifest%s, and compared with one another",
               index + 1, first, last, c->parts[index].count > 1 ? "" : " alone");
    return TESSERA_OK;
}

static tessera_status open_part(struct client *c, int index, tessera_error *error) {
    struct part_header header;
    bool is_here = false;
    name_bits(c, &c->parts[index]);
    tessera_error why = {0};
    tessera_status status = part_file_is_in_model(c->job.folder, &c->parts[index].range, &header, &is_here, &why);
    if (status != TESSERA_OK) other_model(index, status, &why, error);
    if (status == TESSERA_OK && !is_here) status = know_part(c, index, &header, error);
    part_header_free(&header);
    return status == TESSERA_OK && is_here ? open_own_part(c, index, error) : status;
}

static tessera_status open_parts(struct client *c, tessera_error *error) {
    if (c->folder != NULL && strcmp(c->folder, c->job.folder) == 0) return TESSERA_OK;
    for (int p = 0; p < c->num_parts; p++) {
        split_part_close(c->parts[p].own);
        c->parts[p].own = NULL;
        TRY(open_part(c, p, error));
    }
    for (int i = 0; i < c->num_workers; i++) c->workers[i].tested = false;
    free(c->folder);
    c->folder = strdup(c->job.folder);
    return c->folder != NULL ? TESSERA_OK : out_of_memory(error);
}

static void check_digests(struct client *c) {
    for (int i = 0; i < c->num_workers; i++) {
        const struct client_worker *w = &c->workers[i];
        if (!w->described || !client_worker_usable(w)) continue;
        if (memcmp(w->description.digest, c->parts[w->part].digest, CANONICAL_HASH_BYTES) != 0)
            client_drop(c, i, "its part has another digest than the same blocks of this model: it has other weights");
        else
            check_specification(c, i);
    }
}

/* ---- the known-answer test ---- */

static void fill(struct tensor *t, bool is_mask, uint64_t *seed) {
    int64_t count = tensor_count(t);
    for (int64_t i = 0; i < count; i++) {
        *seed = *seed * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX */
        float value = is_mask ? 1.0f : (float)((double)(*seed >> 40) * 0x1p-23 - 1);
        if (t->dtype == DTYPE_F32)
            ((float *)t->data)[i] = value;
        else
            ((uint16_t *)t->data)[i] = bf16_round(value);
    }
}

/* A small state of random numbers that enters a part, of the kind of the job's. Its memory is one allocation, *memory. */
static tessera_status make_test_state(struct client *c, int part, const struct denoiser_state *like, struct denoiser_state *out,
                                      void **memory, tessera_error *error) {
    struct split_shape shape = split_shape_of(like);
    uint64_t seed;
    shape.batch = 1;
    if (shape.rows > TEST_SIDE) shape.rows = TEST_SIDE;
    if (shape.columns > TEST_SIDE) shape.columns = TEST_SIDE;
    int64_t text = TEST_TEXT + c->job.denoiser->form.text_added;
    if (shape.text_tokens > text) shape.text_tokens = text;
    *out = split_state_form(c->job.denoiser, c->job.run, &c->parts[part].range, c->parts[part].range.first, &shape);
    TRY(run_status(c->job.run, error));
    TRY(identity_random(&seed, sizeof seed, error));
    struct tensor *fields[4 + DENOISER_MAX_SKIPS] = {&out->picture, &out->text, &out->cond, &out->text_mask};
    for (int i = 0; i < out->num_skips; i++) fields[4 + i] = &out->skips[i];
    size_t bytes = ALIGNMENT;
    for (int i = 0; i < 4 + out->num_skips; i++) bytes += fields[i]->ndim > 0 ? tensor_bytes(fields[i]) + ALIGNMENT : 0;
    char *to = *memory = aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    if (to == NULL) return out_of_memory(error);
    for (int i = 0; i < 4 + out->num_skips; i++) {
        if (fields[i]->ndim == 0) continue;
        fields[i]->data = to;
        fill(fields[i], i == 3, &seed);
        to += (tensor_bytes(fields[i]) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    return TESSERA_OK;
}

struct test {
    struct client *c;
    int worker;
    const struct split_answer *known;
    struct denoiser_state state;
    struct remote_constants constants;
    struct remote_call *call;
};

/* Compares an answer with the known one. */
static tessera_status judge_test(struct test *t, tessera_error *error) {
    struct client *c = t->c;
    const struct client_part *part = &c->parts[c->workers[t->worker].part];
    const struct remote_result *r = remote_call_result(t->call);
    bool same_kernels = strcmp(r->reply.signed_fields.specification, part->specification) == 0;
    c->workers[t->worker].tested = true;
    if (part->own == NULL) return TESSERA_OK; /* compare_tests */
    if (same_kernels && strstr(r->reply.signed_fields.specification, " reproducible ") != NULL) {
        if (memcmp(r->reply.signed_fields.output_hash, t->known->output_hash, CANONICAL_HASH_BYTES) != 0)
            client_drop(c, t->worker, "a request whose answer is known got another answer");
        return TESSERA_OK;
    }
    double distance = 0;
    tessera_status status = client_answer_distance(c, c->workers[t->worker].part, &t->state, t->known, &r->answer, &distance, error);
    if (status == TESSERA_OK && !(distance <= part->test_tolerance))
        client_drop(c, t->worker, "a request whose answer is known got another answer (relative distance %.3g)", distance);
    return status;
}

/* Where nobody here knows the answer: that of most workers is right. Others than reproducible ones have no bits to compare. */
static tessera_status compare_tests(struct client *c, int index, struct test *tests, tessera_error *error) {
    const struct client_part *part = &c->parts[index];
    const uint8_t *hashes[WORKERS_MOST_REPLICAS];
    int workers[WORKERS_MOST_REPLICAS], count = 0, best = -1, most = 0;
    for (int i = 0; i < part->count; i++) {
        if (tests[i].call == NULL || !client_worker_usable(&c->workers[part->first_worker + i])) continue;
        const struct receipt_reply *reply = &remote_call_result(tests[i].call)->reply.signed_fields;
        if (strcmp(reply->specification, part->specification) != 0 || strstr(reply->specification, " reproducible ") == NULL) continue;
        hashes[count] = reply->output_hash;
        workers[count++] = part->first_worker + i;
    }
    for (int i = 0; i < count; i++) {
        int same = 0;
        for (int k = 0; k < count; k++) same += memcmp(hashes[i], hashes[k], CANONICAL_HASH_BYTES) == 0;
        if (same > most) best = i, most = same;
    }
    if (2 * most <= count && count > 0)
        return error_set(
            error, TESSERA_ERROR_IO,
            "workers: %s and others of part %d answer the same test differently, and without the weights of its blocks nobody here can "
            "tell who is right: name more workers",
            c->workers[workers[0]].url, index + 1);
    for (int i = 0; i < count; i++)
        if (memcmp(hashes[i], hashes[best], CANONICAL_HASH_BYTES) != 0)
            client_drop(c, workers[i], "a test got another answer from it than from most workers of the part");
    return TESSERA_OK;
}

/* Has one of a part's workers other kernels than this machine's part, so that answers differ by rounding? */
static bool has_other_kernels(const struct client *c, const struct client_part *part) {
    for (int i = part->first_worker; i < part->first_worker + part->count; i++)
        if (c->workers[i].described && strcmp(c->workers[i].description.specification, part->specification) != 0) return true;
    return !part->is_reproducible;
}

/* Tests those workers of a part that were not. */
static tessera_status test_part(struct client *c, int index, struct test *tests, const struct denoiser_state *like, tessera_error *error) {
    const struct client_part *part = &c->parts[index];
    struct denoiser_state state;
    struct split_answer known = {0};
    void *memory = NULL;
    uint8_t nonce[SPLIT_NONCE_BYTES];
    struct remote_call *call;
    int left = 0;
    for (int i = 0; i < part->count; i++)
        left += client_worker_usable(&c->workers[part->first_worker + i]) && !c->workers[part->first_worker + i].tested;
    if (left == 0) return TESSERA_OK;
    tessera_status status = make_test_state(c, index, like, &state, &memory, error);
    if (status == TESSERA_OK) status = identity_random(nonce, sizeof nonce, error);
    bool knows = part->own != NULL;
    if (status == TESSERA_OK && knows) status = client_compute(c, index, &state, false, &known, error);
    if (status == TESSERA_OK && knows && has_other_kernels(c, part)) status = client_measure_tolerances(c, index, &state, &known, error);
    left = 0;
    for (int i = 0; i < part->count && status == TESSERA_OK; i++) {
        int worker = part->first_worker + i;
        if (!client_worker_usable(&c->workers[worker]) || c->workers[worker].tested) continue;
        tests[i] = (struct test){.c = c, .worker = worker, .known = &known, .state = state};
        struct remote_input input = {.specification = c->workers[worker].description.specification,
                                     .denoiser = c->job.denoiser,
                                     .run = c->job.run,
                                     .range = &part->range,
                                     .state = &tests[i].state,
                                     .constants = &tests[i].constants};
        memcpy(input.job, nonce, sizeof nonce);
        memcpy(input.part_digest, part->digest, sizeof input.part_digest);
        status = remote_run(c->workers[worker].remote, &input, &tests[i], &tests[i].call, error);
        left += status == TESSERA_OK;
    }
    while (left > 0 && status == TESSERA_OK) {
        status = remotes_wait(c->remotes, 1, error);
        while (status == TESSERA_OK && (call = remotes_next(c->remotes)) != NULL) {
            struct test *t = remote_call_user(call);
            left--;
            if (client_take_result(c, t->worker, call))
                status = judge_test(t, error);
            else
                c->workers[t->worker].gone = true; /* in this job */
        }
    }
    if (status == TESSERA_OK && !knows) status = compare_tests(c, index, tests, error);
    for (int i = 0; i < part->count; i++) remote_call_end(tests[i].call);
    split_answer_free(&known);
    free(memory);
    return status;
}

/* Steps that this machine cannot compute need two operators. */
static tessera_status check_operators(const struct client *c, int index, tessera_error *error) {
    const struct client_part *part = &c->parts[index];
    const char *first = c->workers[part->first_worker].operator_name;
    bool alone = true;
    for (int i = 1; i < part->count; i++) alone = alone && strcmp(c->workers[part->first_worker + i].operator_name, first) == 0;
    if (!alone || part->own != NULL || c->verification.kind != VERIFY_CHALLENGE) return TESSERA_OK;
    return error_set(
        error, TESSERA_ERROR_ARGUMENT,
        "verify challenge: part %d has one operator alone, and %s has not the weights of its blocks %d to %d: name a worker of another "
        "operator, or take the whole model",
        index + 1, c->job.folder, part->range.first, part->range.end - 1);
}

tessera_status client_prepare(struct client *c, const struct denoiser_state *state, tessera_error *error) {
    TRY(open_parts(c, error));
    check_digests(c);
    for (int p = 0; p < c->num_parts; p++) TRY(check_operators(c, p, error));
    for (int p = 0; p < c->num_parts; p++) {
        struct test *tests = calloc((size_t)c->parts[p].count, sizeof *tests);
        tessera_status status = tests != NULL ? test_part(c, p, tests, state, error) : out_of_memory(error);
        free(tests);
        TRY(status);
        TRY(client_check_part(c, p, error));
    }
    for (int i = 0; i < c->num_workers; i++) c->workers[i].usual = 0; /* a small request says little */
    return TESSERA_OK;
}

/* ---- requests ---- */

struct remote_input client_input(struct client *c, struct workers_unit unit, int part, int worker, const struct denoiser_state *state) {
    struct remote_input input = {.specification = c->workers[worker].description.specification,
                                 .step = (uint32_t)unit.step,
                                 .row = (uint32_t)unit.row,
                                 .denoiser = c->job.denoiser,
                                 .run = c->job.run,
                                 .range = &c->parts[part].range,
                                 .state = state,
                                 .constants = client_constants(c, unit, part)};
    memcpy(input.job, c->nonces[unit.picture], sizeof input.job);
    memcpy(input.part_digest, c->parts[part].digest, sizeof input.part_digest);
    return input;
}
