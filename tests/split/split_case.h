/* What tests of split models share: a case's model with its inputs, and the client's side of a part
 * in one process. */
#ifndef TESSERA_TESTS_SPLIT_CASE_H
#define TESSERA_TESTS_SPLIT_CASE_H

#include "models/denoiser_test.h"
#include "split/part.h"

enum { BOTH = DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_TEXT, JOB = 7 };

/* The client: the whole model, with the kernels named. */
struct split_case {
    struct case_io c;
    struct component_test t;
    struct denoiser_case inputs;
    char *model;         /* its folder */
    struct tensor whole; /* the prediction of one process, in memory of its own */
};

static inline bool split_case_open(struct split_case *s, const char *name, enum dtype dtype, enum cpu_kernels kernels) {
    char folder[128];
    tessera_error error = {0};
    *s = (struct split_case){0};
    snprintf(folder, sizeof folder, "tests/cases/%s", name);
    CHECK(case_open(folder, &s->c, &error) == TESSERA_OK, "%s", error.message);
    s->model = denoiser_case_model(&s->c, folder);
    if (!component_test_open(&s->t, s->model, dtype)) return false;
    backend_free(s->t.backend);
    s->t.run.backend = s->t.backend = cpu_backend_open(1, kernels, &error);
    s->inputs = denoiser_case_read(&s->c);
    struct tensor whole = denoiser_forward(s->t.component.denoiser, &s->t.run, &s->inputs.in);
    CHECK(whole.data != NULL, "%s", s->t.run.error.message);
    s->whole = whole;
    s->whole.data = memcpy(malloc(tensor_bytes(&whole)), whole.data, tensor_bytes(&whole));
    arena_release(s->t.run.arena, 0);
    return true;
}

static inline void split_case_close(struct split_case *s) {
    free(s->whole.data);
    denoiser_case_free(&s->inputs);
    component_test_close(&s->t);
    case_close(&s->c);
    free(s->model);
}

/* A state as the message to a part; the caller frees. `by_digest`: constants that the part has. */
static inline uint8_t *pack_state(const struct split_case *s, const struct denoiser_state *state, uint64_t job, unsigned by_digest,
                                  size_t *size) {
    struct state_message message = {.job = job, .constants = denoiser_state_constants(s->t.component.denoiser)};
    tessera_error error = {0};
    *size = denoiser_state_bytes(state, 0);
    uint8_t *bytes = aligned_alloc(64, *size);
    CHECK(denoiser_state_pack(state, &message, NULL, bytes, &error) == TESSERA_OK, "%s", error.message);
    if (by_digest == 0) return bytes;
    message.by_digest = message.constants & by_digest;
    free(bytes);
    *size = denoiser_state_bytes(state, message.by_digest);
    bytes = aligned_alloc(64, *size);
    CHECK(denoiser_state_pack(state, &message, NULL, bytes, &error) == TESSERA_OK, "%s", error.message);
    return bytes;
}

/* Sends the state through a part and takes in what comes back; the answer, which the caller frees,
 * holds the tensors. */
static inline bool through_part(struct split_case *s, struct split_part *part, struct denoiser_state *state, struct split_answer *answer) {
    const struct denoiser *d = s->t.component.denoiser;
    const struct split_range *range = &split_part_header(part)->range;
    struct state_store store = split_part_store(part);
    tessera_error error = {0};
    size_t size;
    struct denoiser_state sent = split_request_state(d, range, state), read;
    struct split_shape shape = split_shape_of(state);
    uint8_t *bytes = pack_state(s, &sent, JOB, 0, &size), *before = memcpy(malloc(size), bytes, size);
    const struct split_request request = {.bytes = bytes, .size = size, .job = JOB, .store = &store, .block_hashes = true};
    bool good = split_part_compute(part, &request, answer, &error) == TESSERA_OK;
    CHECK(good, "%s: %s", s->model, error.message);
    CHECK(memcmp(bytes, before, size) == 0, "the request was changed");
    free(before);
    free(bytes);
    state_store_close(&store);
    if (!good) return false;
    uint8_t hash[CANONICAL_HASH_BYTES];
    split_state_hash(&sent, hash);
    CHECK(memcmp(hash, answer->input_hash, sizeof hash) == 0, "the hash of the input");
    good = split_answer_read(d, &s->t.run, range, &shape, JOB, answer->bytes, answer->size, &read, &error) == TESSERA_OK;
    CHECK(good, "%s", error.message);
    if (!good) return false;
    split_answer_merge(d, range, &sent, &read);
    split_state_hash(&sent, hash);
    CHECK(memcmp(hash, answer->output_hash, sizeof hash) == 0, "the hash of the output");
    CHECK(answer->num_hashes == range->end - range->first + range->finish, "%d hashes", answer->num_hashes);
    CHECK(memcmp(hash, answer->hashes[answer->num_hashes - 1], sizeof hash) == 0, "the last hash is another");
    split_answer_merge(d, range, state, &read);
    return true;
}

/* Blocks first .. end - 1 in this process. */
static inline struct denoiser_state own_blocks(struct split_case *s, int first, int end, struct denoiser_state state) {
    for (int i = first; i < end; i++) state = denoiser_block(s->t.component.denoiser, &s->t.run, i, state);
    return state;
}

/* A picture through these parts, which follow one another; this process does all other blocks. The
 * prediction is compared with the whole model's: to the bit where the tolerance is 0, else by the
 * relative L2 error. */
static inline void check_parts(struct split_case *s, struct split_part *const *parts, int count, double tolerance) {
    const struct denoiser *d = s->t.component.denoiser;
    struct denoiser_state state = denoiser_embed(d, &s->t.run, &s->inputs.in, BOTH);
    struct split_answer answers[8] = {0};
    int at = 0;
    bool finished = false, good = true;
    for (int p = 0; p < count && good; p++) {
        const struct split_range *range = &split_part_header(parts[p])->range;
        state = own_blocks(s, at, range->first, state);
        good = through_part(s, parts[p], &state, &answers[p]);
        at = range->end;
        finished = range->finish;
    }
    if (!good) return;
    state = own_blocks(s, at, d->num_blocks, state);
    struct tensor out = finished ? state.picture : denoiser_finish(d, &s->t.run, state);
    CHECK(out.data != NULL && tensor_bytes(&out) == tensor_bytes(&s->whole), "%s", s->t.run.error.message);
    if (out.data != NULL && tolerance == 0) {
        CHECK(memcmp(out.data, s->whole.data, tensor_bytes(&out)) == 0, "%s: %d parts of it give other bits", s->model, count);
    } else if (out.data != NULL) {
        struct case_difference difference = case_compare(&s->c, &out, &s->whole);
        CHECK(difference.relative_l2 <= tolerance, "%s: relative L2 error %g", s->model, difference.relative_l2);
    }
    for (int p = 0; p < count; p++) split_answer_free(&answers[p]);
    arena_release(s->t.run.arena, 0);
}

#endif
