/* The known-answer test: before a job a small request of random numbers goes to each worker, whose
 * answer this machine knows or most workers agree on. See client_parts.h. */
#include <stdlib.h>
#include <string.h>

#include "base/bf16.h"
#include "split/client_parts.h"

/* Patches on a side of the picture, and tokens of the text (CLIP's), beside those that the model
 * adds to it. */
enum { TEST_SIDE = 8, TEST_TEXT = 77, ALIGNMENT = 64 };

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for testing the workers");
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

/* A small state of random numbers that enters a part, of the kind of the job's. Its memory is one
 * allocation, *memory. */
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
    bool agrees = false;
    TRY(client_test_agrees(c, c->workers[t->worker].part, &t->state, t->known, &r->answer, &distance, &agrees, error));
    if (!agrees) client_drop(c, t->worker, "a request whose answer is known got another answer (relative distance %.3g)", distance);
    return TESSERA_OK;
}

/* Where nobody here knows the answer: that of most workers is right. Others than reproducible ones
 * have no bits to compare. */
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
    TRY(client_open_parts(c, error));
    client_check_digests(c);
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
