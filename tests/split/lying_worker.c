/* A worker that lies, for tests: it says that it has a part, and answers something else.
 *
 *     lying_worker PART HOW HONEST-REQUESTS --identity FILE --token-file FILE --port N [--threads N] [--kernels best|reproducible]
 *
 * The first requests are answered well (the client's known-answer test is among them). HOW:
 *
 *     q8        computes with weights rounded to 8 bits          bit       turns the last bit of an answer
 *     old       gives the answer of an earlier step              nan       puts NaN into an answer
 *     garbage   random bytes      half   half of a reply         huge      says that its state has 2^60 bytes
 *     other     signs for another job     forged   signs with another key's signature      silent   never answers
 *
 *     exit      ends, as if it were killed
 *     mute      as bit, and ends when it is asked for the hashes after its blocks
 *     slow      tells no lie, and takes half a second more for each answer
 *
 *     noise     changes each number by 6e-7 of it, up or down: four times what honest kernels lie apart
 *
 * q8, bit, mute, old and noise are signed as an honest answer is, and hashes after each block are
 * made to fit. */
#include <cjson/cJSON.h>
#include <signal.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bf16.h"
#include "base/file.h"
#include "split/server.h"
#include "split/worker.h"

enum { MOST_LIES = 4096, ALIGNMENT = 64 };

struct lie {
    uint8_t job[SPLIT_NONCE_BYTES], hash[CANONICAL_HASH_BYTES];
    uint32_t step, row;
};
struct liar {
    const char *how;
    int honest; /* requests that are left before it lies */
    struct split_part *part, *other;
    struct identity *identity;
    struct state_store store;
    uint8_t job[SPLIT_NONCE_BYTES]; /* that the store is of */
    uint8_t *old[2];                /* an earlier answer of each row */
    size_t old_bytes[2];
    struct lie lies[MOST_LIES];
    int num_lies;
};

static bool is(const struct liar *l, const char *how) {
    return strcmp(l->how, how) == 0;
}

/* ---- other weights ---- */

/* Rounds floats to 127 levels on each side of 0, by the largest of each 64. */
static void round_weights(char *data, size_t bytes, const char *type) {
    size_t size = strcmp(type, "F32") == 0 ? 4 : strcmp(type, "BF16") == 0 ? 2 : 0;
    for (size_t first = 0; size > 0 && first < bytes; first += 64 * size) {
        float values[64], most = 0;
        size_t count = bytes - first < 64 * size ? (bytes - first) / size : 64;
        for (size_t i = 0; i < count; i++) {
            if (size == 4) memcpy(&values[i], data + first + 4 * i, 4);
            if (size == 2) values[i] = bf16_widen(((uint16_t *)(void *)(data + first))[i]);
            most = fmaxf(most, fabsf(values[i]));
        }
        for (size_t i = 0; i < count && most > 0; i++) {
            float x = roundf(values[i] / most * 127) / 127 * most;
            if (size == 4) memcpy(data + first + 4 * i, &x, 4);
            if (size == 2) ((uint16_t *)(void *)(data + first))[i] = bf16_round(x);
        }
    }
}

/* A copy of a part file with such weights; F16 is left alone. */
static bool write_rounded(const char *from, const char *to) {
    char *data;
    size_t length;
    uint64_t head = 0;
    tessera_error error = {0};
    if (file_read(from, (size_t)1 << 32, &data, &length, &error) != TESSERA_OK) return false;
    memcpy(&head, data, 8);
    cJSON *root = cJSON_ParseWithLength(data + 8, head);
    for (const cJSON *item = root->child; item != NULL; item = item->next) {
        const cJSON *at = cJSON_GetObjectItem(item, "data_offsets");
        if (at == NULL) continue;
        size_t first = (size_t)cJSON_GetArrayItem(at, 0)->valuedouble, end = (size_t)cJSON_GetArrayItem(at, 1)->valuedouble;
        round_weights(data + 8 + head + first, end - first, cJSON_GetStringValue(cJSON_GetObjectItem(item, "dtype")));
    }
    cJSON_Delete(root);
    FILE *out = fopen(to, "wb");
    bool written = out != NULL && fwrite(data, 1, length, out) == length && fclose(out) == 0;
    free(data);
    return written;
}

/* ---- lies ---- */

/* The state after the part, with this answer, as it is hashed. */
static void hash_answer(struct liar *l, const uint8_t *body, size_t size, const struct wire_request *request, const uint8_t *answer,
                        size_t bytes, uint8_t out[CANONICAL_HASH_BYTES]) {
    const struct denoiser *d = split_part_denoiser(l->part);
    struct run *run = split_part_run_of(l->part);
    const struct split_range *range = &split_part_header(l->part)->range;
    struct state_message message = {.job = split_job_number(request->job), .constants = denoiser_state_constants(d)};
    struct split_shape shape;
    struct denoiser_state state, read, form;
    tessera_error error = {0};
    const uint8_t *bytes_of_state = body + WIRE_REQUEST_BYTES;
    uint8_t *copy = aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    memcpy(copy, answer, bytes);
    bool good = split_shape_read(d, bytes_of_state, size - WIRE_REQUEST_BYTES, NULL, &shape, &error) == TESSERA_OK;
    if (good) form = split_state_form(d, run, range, range->first, &shape);
    good = good &&
           denoiser_state_unpack(bytes_of_state, size - WIRE_REQUEST_BYTES, &form, &l->store, &state, &message, &error) == TESSERA_OK &&
           split_answer_read(d, run, range, &shape, message.job, copy, bytes, &read, &error) == TESSERA_OK;
    if (good) split_answer_merge(d, range, &state, &read);
    if (good) split_state_hash(&state, out);
    if (!good) fprintf(stderr, "lying_worker: %s\n", error.message);
    free(copy);
}

/* An answer of float32 tensors: the picture's and the text's. */
static void add_noise(struct split_answer *a) {
    float *numbers = (float *)(void *)(a->bytes + STATE_HEAD_BYTES + 2 * STATE_RECORD_BYTES);
    size_t count = (a->size - STATE_HEAD_BYTES - 2 * STATE_RECORD_BYTES) / sizeof *numbers;
    for (size_t i = 0; i < count; i++) numbers[i] *= i % 3 == 0 ? 1 + 6e-7f : 1 - 6e-7f;
}

/* Changes an honest answer into what it is to be. */
static void change_answer(struct liar *l, const struct wire_request *request, struct split_answer *a) {
    uint32_t nan = 0x7fc00000;
    int row = request->row & 1;
    if (is(l, "bit") || is(l, "mute")) a->bytes[STATE_HEAD_BYTES + 2 * STATE_RECORD_BYTES + 64] ^= 1;
    if (is(l, "noise")) add_noise(a);
    if (is(l, "nan")) memcpy(a->bytes + a->size - 4, &nan, 4);
    if (is(l, "old") && l->old[row] != NULL && l->old_bytes[row] == a->size) {
        memcpy(a->bytes, l->old[row], a->size);
        memcpy(a->bytes + 8, request->job, 8); /* the job's number in the head: models/state.h */
    } else if (is(l, "old")) {
        free(l->old[row]);
        l->old[row] = memcpy(malloc(a->size), a->bytes, a->size);
        l->old_bytes[row] = a->size;
    }
}

static struct lie *find_lie(struct liar *l, const struct wire_request *r) {
    for (int i = 0; i < l->num_lies; i++)
        if (memcmp(l->lies[i].job, r->job, sizeof r->job) == 0 && l->lies[i].step == r->step && l->lies[i].row == r->row)
            return &l->lies[i];
    return NULL;
}

static void note_lie(struct liar *l, const struct wire_request *r, const uint8_t hash[CANONICAL_HASH_BYTES]) {
    if (l->num_lies == MOST_LIES) return;
    struct lie *lie = &l->lies[l->num_lies++];
    *lie = (struct lie){.step = r->step, .row = r->row};
    memcpy(lie->job, r->job, sizeof lie->job);
    memcpy(lie->hash, hash, sizeof lie->hash);
}

/* ---- replies ---- */

static void sign(struct liar *l, const struct wire_request *request, struct split_answer *a, struct wire_reply *head) {
    struct receipt_reply *s = &head->signed_fields;
    tessera_error error = {0};
    *head = (struct wire_reply){.worker = *identity_public(l->identity), .signed_fields = {.step = request->step, .row = request->row}};
    memcpy(head->id, request->id, sizeof head->id);
    snprintf(s->specification, sizeof s->specification, "%s", split_part_specification(l->part));
    memcpy(s->part_digest, request->part_digest, sizeof s->part_digest);
    memcpy(s->job, request->job, sizeof s->job);
    if (is(l, "other") && l->honest < 0) s->job[0] ^= 1;
    memcpy(s->input_hash, a->input_hash, sizeof s->input_hash);
    memcpy(s->output_hash, a->output_hash, sizeof s->output_hash);
    receipt_sign(s, l->identity, head->signature, &error);
    if (is(l, "forged") && l->honest < 0) head->signature[5] ^= 1;
    if (a->num_hashes > 0)
        receipt_sign_blocks(s, (const uint8_t(*)[CANONICAL_HASH_BYTES])a->hashes, a->num_hashes, l->identity, head->blocks_signature,
                            &error);
}

static void reply_with(struct liar *l, const struct wire_reply *head, const struct split_answer *a, struct server_reply *reply) {
    size_t hashes = head->num_hashes * sizeof *a->hashes, bytes = WIRE_REPLY_BYTES + head->state_bytes + hashes;
    uint8_t *data = malloc(bytes);
    wire_reply_write(head, data);
    if (head->state_bytes > 0) memcpy(data + WIRE_REPLY_BYTES, a->bytes, head->state_bytes);
    if (hashes > 0) memcpy(data + WIRE_REPLY_BYTES + head->state_bytes, a->hashes, hashes);
    if (is(l, "half") && l->honest < 0) bytes /= 2;
    if (is(l, "garbage") && l->honest < 0) identity_random(data, bytes, NULL);
    if (is(l, "huge") && l->honest < 0) data[15] = 0x10;
    *reply = (struct server_reply){.status = 200, .type = "application/octet-stream", .data = data, .size = bytes};
}

static void compute(struct liar *l, bool hashes, const uint8_t *body, size_t size, struct server_reply *reply) {
    struct wire_request request;
    struct split_answer a = {0};
    struct wire_reply head;
    tessera_error error = {0};
    unsigned missing = 0;
    if (!hashes) l->honest--;
    bool lies = l->honest < 0;
    if (lies && is(l, "silent")) sleep(600);
    if (lies && is(l, "slow")) usleep(500000);
    if ((lies && is(l, "exit")) || (hashes && is(l, "mute"))) _exit(0);
    if (wire_request_read(body, size, size, &request, &error) != TESSERA_OK) return server_reply_text(reply, 400, "%s\n", error.message);
    if (memcmp(l->job, request.job, sizeof l->job) != 0) state_store_close(&l->store), l->store = split_part_store(l->part);
    memcpy(l->job, request.job, sizeof l->job);
    struct split_part *part = lies && is(l, "q8") ? l->other : l->part;
    struct split_request r = {.bytes = body + WIRE_REQUEST_BYTES,
                              .size = size - WIRE_REQUEST_BYTES,
                              .job = split_job_number(request.job),
                              .store = &l->store,
                              .block_hashes = hashes};
    if (split_part_missing(l->part, r.bytes, r.size, r.job, &l->store, &missing, &error) == TESSERA_OK && missing != 0)
        return server_reply_text(reply, WIRE_UNKNOWN_CONSTANTS, "missing\n");
    if (split_part_compute(part, &r, &a, &error) != TESSERA_OK) return server_reply_text(reply, 500, "%s\n", error.message);
    if (lies && !hashes) change_answer(l, &request, &a);
    if (lies && !hashes && !is(l, "nan")) hash_answer(l, body, size, &request, a.bytes, a.size, a.output_hash);
    if (lies && !hashes) note_lie(l, &request, a.output_hash);
    struct lie *lie = hashes ? find_lie(l, &request) : NULL;
    if (lie != NULL) memcpy(a.output_hash, lie->hash, sizeof lie->hash);
    if (lie != NULL && a.num_hashes > 0) memcpy(a.hashes[a.num_hashes - 1], lie->hash, sizeof lie->hash);
    sign(l, &request, &a, &head);
    head.state_bytes = hashes ? 0 : a.size;
    head.num_hashes = (uint32_t)a.num_hashes;
    reply_with(l, &head, &a, reply);
    split_answer_free(&a);
}

static void compute_run(void *user, const uint8_t *body, size_t size, struct server_reply *reply) {
    compute(user, false, body, size, reply);
}

static void compute_hashes(void *user, const uint8_t *body, size_t size, struct server_reply *reply) {
    compute(user, true, body, size, reply);
}

static void answer_part(void *user, const uint8_t *body, size_t size, struct server_reply *reply) {
    const struct liar *l = user;
    const struct part_header *header = split_part_header(l->part);
    struct worker_description d = {.range = header->range,
                                   .worker = *identity_public(l->identity),
                                   .most_request_bytes = 1 << 28,
                                   .most_tokens = 1 << 14,
                                   .most_text_tokens = 1 << 11,
                                   .most_batch = 8,
                                   .threads = 1};
    (void)body, (void)size;
    snprintf(d.specification, sizeof d.specification, "%s", split_part_specification(l->part));
    snprintf(d.class_name, sizeof d.class_name, "%s", header->class_name);
    snprintf(d.kernels, sizeof d.kernels, "unknown");
    memcpy(d.digest, header->digest, sizeof d.digest);
    char *text = worker_description_text(&d);
    *reply = (struct server_reply){.status = 200, .type = "application/json", .data = text, .size = strlen(text)};
}

/* ---- the program ---- */

static tessera_status open_liar(struct liar *l, const char *part, const char *identity, tessera_kernels kernels, int threads,
                                tessera_error *error) {
    const struct split_part_options options = {.kernels = kernels, .dtype = DTYPE_F32, .threads = threads};
    char path[4096];
    TRY(split_part_open(part, &options, &l->part, error));
    TRY(identity_open(identity, &l->identity, error));
    l->store = split_part_store(l->part);
    if (!is(l, "q8")) return TESSERA_OK;
    snprintf(path, sizeof path, "%s.q8-%d", part, (int)getpid());
    if (!write_rounded(part, path)) return error_set(error, TESSERA_ERROR_IO, "%s: cannot be written", path);
    tessera_status status = split_part_open(path, &options, &l->other, error);
    unlink(path);
    return status;
}

int main(int count, char **arguments) {
    static struct liar liar;
    const char *identity = NULL, *token_file = NULL;
    int port = 0, threads = 1;
    tessera_kernels kernels = TESSERA_KERNELS_REPRODUCIBLE;
    tessera_error error = {0};
    static struct tokens tokens;
    struct server *server = NULL;
    char pin[IDENTITY_PIN_CHARS];
    if (count < 4) return 2;
    liar.how = arguments[2];
    liar.honest = atoi(arguments[3]);
    for (int i = 4; i + 1 < count; i += 2) {
        if (strcmp(arguments[i], "--identity") == 0) identity = arguments[i + 1];
        if (strcmp(arguments[i], "--token-file") == 0) token_file = arguments[i + 1];
        if (strcmp(arguments[i], "--port") == 0) port = atoi(arguments[i + 1]);
        if (strcmp(arguments[i], "--threads") == 0) threads = atoi(arguments[i + 1]);
        if (strcmp(arguments[i], "--kernels") == 0 && strcmp(arguments[i + 1], "best") == 0) kernels = TESSERA_KERNELS_BEST;
    }
    const struct server_route routes[] = {
        {.method = "POST", .path = "/v1/run", .largest = 1 << 28, .compute = compute_run},
        {.method = "POST", .path = "/v1/hashes", .largest = 1 << 28, .compute = compute_hashes},
        {.method = "GET", .path = "/v1/part", .answer = answer_part},
    };
    signal(SIGPIPE, SIG_IGN);
    if (open_liar(&liar, arguments[1], identity, kernels, threads, &error) == TESSERA_OK && tokens_read(token_file, &tokens, &error) == TESSERA_OK) {
        const struct server_options options = {.host = "127.0.0.1",
                                               .port = port,
                                               .key = identity_key(liar.identity),
                                               .certificate = identity_certificate(liar.identity),
                                               .tokens = &tokens,
                                               .limits = server_default_limits(),
                                               .routes = routes,
                                               .num_routes = 3,
                                               .user = &liar};
        server_start(&options, &server, &error);
    }
    if (server == NULL) {
        fprintf(stderr, "lying_worker: %s\n", error.message);
        return 1;
    }
    identity_pin(identity_public(liar.identity), pin);
    printf("pin      sha256//%s\nserves   https://127.0.0.1:%d\n", pin, server_port(server));
    fflush(stdout);
    for (;;) pause();
}
