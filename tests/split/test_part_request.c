/* Requests to a part: constants by digest, one block alone, only the skips that are needed; and
 * everything that is refused, by field. */
#include "base/little_endian.h"
#include "pipelines/stages.h"
#include "split_case.h"

static const struct split_part_options options = {.kernels = TESSERA_KERNELS_REPRODUCIBLE, .dtype = DTYPE_F32, .threads = 1};

struct trial {
    struct split_case s;
    struct split_part *part;
    struct denoiser_state sent;
    uint8_t *bytes;
    size_t size;
    struct state_store store;
};

static bool open_trial(struct trial *t, const char *name, struct split_range range, const struct split_part_options *how) {
    tessera_error error = {0};
    *t = (struct trial){0};
    if (!split_case_open(&t->s, name, DTYPE_F32, CPU_KERNELS_REPRODUCIBLE)) return false;
    struct denoiser_state state = denoiser_embed(t->s.t.component.denoiser, &t->s.t.run, &t->s.inputs.in, BOTH);
    state = own_blocks(&t->s, 0, range.first, state);
    t->sent = split_request_state(t->s.t.component.denoiser, &range, &state);
    t->bytes = pack_state(&t->s, &t->sent, JOB, 0, &t->size);
    CHECK(split_part_open_model(t->s.model, &range, how, &t->part, &error) == TESSERA_OK, "%s", error.message);
    if (t->part != NULL) t->store = split_part_store(t->part);
    return t->part != NULL;
}

static void close_trial(struct trial *t) {
    state_store_close(&t->store);
    split_part_close(t->part);
    free(t->bytes);
    split_case_close(&t->s);
}

static tessera_status compute(struct trial *t, const uint8_t *bytes, size_t size, const struct split_range *only,
                              struct split_answer *answer, tessera_error *error) {
    const struct split_request request = {.bytes = bytes, .size = size, .job = JOB, .store = &t->store, .only = only, .block_hashes = true};
    *error = (tessera_error){0};
    return split_part_compute(t->part, &request, answer, error);
}

/* What was sent whole once comes by its digest; a part that does not have it says so. */
static void test_constants(const char *name) {
    struct trial t;
    if (open_trial(&t, name, (struct split_range){1, 3, false}, &options)) {
        struct split_answer first = {0}, second = {0};
        tessera_error error = {0};
        size_t size, whole;
        unsigned missing = 0,
                 all = (t.sent.text.ndim > 0 ? 1u << STATE_TEXT : 0u) | (t.sent.text_mask.ndim > 0 ? 1u << STATE_TEXT_MASK : 0u);
        uint8_t *brief = pack_state(&t.s, &t.sent, JOB, ~0u, &size);
        CHECK(size < t.size, "nothing of %s is a constant", name);
        CHECK(split_part_request_bytes(t.part, brief, SPLIT_HEAD_BYTES, JOB, &whole, &error) == TESSERA_OK && whole == size,
              "%zu bytes, not %zu: %s", whole, size, error.message);
        CHECK(split_part_request_bytes(t.part, t.bytes, SPLIT_HEAD_BYTES, JOB, &whole, &error) == TESSERA_OK && whole == t.size, "%s",
              error.message);
        CHECK(split_part_missing(t.part, brief, size, JOB, &t.store, &missing, &error) == TESSERA_OK, "%s", error.message);
        CHECK(missing != 0 && (missing & ~all) == 0, "missing %x of %x", missing, all);
        CHECK(compute(&t, brief, size, NULL, &first, &error) == TESSERA_ERROR_FORMAT && strstr(error.message, "digest") != NULL, "%s",
              error.message);
        split_answer_free(&first);
        CHECK(compute(&t, t.bytes, t.size, NULL, &first, &error) == TESSERA_OK, "%s", error.message);
        CHECK(split_part_missing(t.part, brief, size, JOB, &t.store, &missing, &error) == TESSERA_OK && missing == 0, "still missing %x",
              missing);
        CHECK(compute(&t, brief, size, NULL, &second, &error) == TESSERA_OK, "%s", error.message);
        CHECK(memcmp(first.input_hash, second.input_hash, CANONICAL_HASH_BYTES) == 0, "an input by digest has another hash");
        CHECK(first.size == second.size && memcmp(first.bytes, second.bytes, first.size) == 0, "an input by digest has another result");
        split_answer_free(&first);
        split_answer_free(&second);
        free(brief);
    }
    close_trial(&t);
}

/* Each block alone, from the state before it, gives the hash that the whole part gives after it. */
static void test_single_blocks(const char *name, struct split_range range) {
    struct trial t;
    if (open_trial(&t, name, range, &options)) {
        const struct denoiser *d = t.s.t.component.denoiser;
        struct split_answer whole = {0}, one = {0};
        tessera_error error = {0};
        struct denoiser_state state = t.sent;
        CHECK(compute(&t, t.bytes, t.size, NULL, &whole, &error) == TESSERA_OK, "%s", error.message);
        for (int i = range.first; i < range.end + range.finish && whole.hashes != NULL; i++) {
            const struct split_range only = {i, i < range.end ? i + 1 : i, i == range.end};
            size_t size;
            uint8_t *bytes = pack_state(&t.s, &state, JOB, 0, &size);
            CHECK(compute(&t, bytes, size, &only, &one, &error) == TESSERA_OK, "block %d: %s", i, error.message);
            CHECK(one.num_hashes == 1 && memcmp(one.output_hash, whole.hashes[i - range.first], CANONICAL_HASH_BYTES) == 0,
                  "block %d alone gives another hash", i);
            if (i > range.first)
                CHECK(memcmp(one.input_hash, whole.hashes[i - range.first - 1], CANONICAL_HASH_BYTES) == 0,
                      "what enters block %d is not what left the one before", i);
            split_answer_free(&one);
            free(bytes);
            if (i == range.end) break;
            state = denoiser_block(d, &t.s.t.run, i, state);
            split_state_trim(d, i + 1, &state);
        }
        const struct split_range outside = {range.first - 1, range.first, false};
        CHECK(compute(&t, t.bytes, t.size, &outside, &one, &error) == TESSERA_ERROR_ARGUMENT, "a block of another part");
        split_answer_free(&one);
        split_answer_free(&whole);
    }
    close_trial(&t);
}

/* No more skips travel than between stages of a pipeline, which send each straight to where it is
 * used. */
static void test_skips(const char *name) {
    struct split_case s;
    if (split_case_open(&s, name, DTYPE_F32, CPU_KERNELS_REPRODUCIBLE)) {
        const struct denoiser *d = s.t.component.denoiser;
        struct denoiser_state state = denoiser_embed(d, &s.t.run, &s.inputs.in, BOTH);
        const struct split_shape shape = split_shape_of(&state);
        int n = d->num_blocks, sent = 0;
        for (int first = 1; first < n - 1; first += 2)
            for (int end = first + 1; end < n; end += 2) {
                const struct split_range range = {first, end, false};
                const int given[] = {first, end - first, n - end};
                struct stages stages;
                tessera_error error = {0};
                CHECK(stages_open(d, 3, 1, given, NULL, &stages, &error) == TESSERA_OK, "%s", error.message);
                int taken = split_state_form(d, &s.t.run, &range, first, &shape).num_skips;
                int left = split_answer_form(d, &s.t.run, &range, end, false, &shape).num_skips;
                CHECK(taken == stages.comes[0] && left == stages.num_leaves, "blocks %d to %d: %d skips go and %d come back", first,
                      end - 1, taken, left);
                sent += taken + left;
                stages_free(&stages);
            }
        CHECK(sent > 0, "%s has no skips", name);
    }
    split_case_close(&s);
}

/* ---- what is refused ---- */

static void expect_refusal(struct trial *t, const uint8_t *bytes, size_t size, const char *word) {
    struct split_answer answer = {0};
    tessera_error error;
    CHECK(compute(t, bytes, size, NULL, &answer, &error) == TESSERA_ERROR_FORMAT, "%s passes", word);
    CHECK(strstr(error.message, word) != NULL, "\"%s\" lacks %s", error.message, word);
    CHECK(answer.bytes == NULL, "a refused request has an answer");
    split_answer_free(&answer);
}

/* A field of the head, or of the first record, that says something else. */
static void test_fields(struct trial *t) {
    static const struct {
        int at, bytes;
        uint64_t value;
        const char *word;
    } changes[] = {{0, 1, 'X', "magic"},
                   {4, 2, 9, "version"},
                   {6, 2, 1, "flags"}, /* blocks left out */
                   {6, 2, 2, "flags"},
                   {8, 8, JOB + 1, "job"},
                   {16, 8, 0, "rows"},
                   {16, 8, UINT64_MAX, "rows"},
                   {24, 8, (uint64_t)1 << 40, "columns"},
                   {24, 8, 60000, "columns"}, /* within the limit of tokens, but not with the rows */
                   {32, 8, 7, "text"},
                   {32, 8, (uint64_t)1 << 63, "text_tokens"},
                   {40, 4, 100, "tensors"},
                   {44, 4, 3, "num_skips"},
                   {64, 4, 2, "picture"},
                   {68, 4, 2, "dtype"},
                   {72, 4, 2, "ndim"},
                   {76, 4, 1, "how it comes"},
                   {80, 8, 0, "batch"},
                   {80, 8, UINT64_MAX, "batch"},
                   {88, 8, 1, "shape"},
                   {120, 8, 5, "bytes"}};
    uint8_t *bytes = aligned_alloc(64, t->size);
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        memcpy(bytes, t->bytes, t->size);
        little_endian_put(bytes + changes[i].at, changes[i].value, changes[i].bytes);
        expect_refusal(t, bytes, t->size, changes[i].word);
    }
    memcpy(bytes, t->bytes, t->size);
    for (size_t size = 0; size < t->size; size += size < SPLIT_HEAD_BYTES ? 1 : 4099) expect_refusal(t, bytes, size, "field ");
    free(bytes);
}

static void test_numbers(struct trial *t) {
    static const uint32_t bad[] = {0x7f800000u, 0xff800000u, 0x7fc00000u, 0x7f800001u};
    uint8_t *bytes = aligned_alloc(64, t->size);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        memcpy(bytes, t->bytes, t->size);
        memcpy(bytes + t->size - 64, &bad[i], sizeof bad[i]); /* of the last tensor */
        expect_refusal(t, bytes, t->size, "infinities or NaNs");
    }
    free(bytes);
    /* Finite numbers whose result is not: no answer, so nothing is signed. */
    struct denoiser_state huge = t->sent;
    float *numbers = malloc(tensor_bytes(&huge.picture));
    for (int64_t i = 0; i < tensor_count(&huge.picture); i++) numbers[i] = i % 2 == 0 ? 3e38f : -3e38f;
    huge.picture.data = numbers;
    size_t size;
    uint8_t *message = pack_state(&t->s, &huge, JOB, 0, &size);
    expect_refusal(t, message, size, "infinities or NaNs");
    free(message);
    free(numbers);
}

static void test_limits(void) {
    static const struct {
        struct split_limits limits;
        const char *word;
    } cases[] = {{{.batch = 1}, "batch"}, {{.tokens = 8}, "columns"}, {{.text_tokens = 2}, "text"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct split_part_options limited = options;
        struct trial t;
        limited.limits = cases[i].limits;
        if (open_trial(&t, "sd3", (struct split_range){1, 3, false}, &limited)) {
            size_t whole;
            tessera_error error = {0};
            expect_refusal(&t, t.bytes, t.size, cases[i].word);
            CHECK(split_part_request_bytes(t.part, t.bytes, SPLIT_HEAD_BYTES, JOB, &whole, &error) == TESSERA_ERROR_FORMAT,
                  "a request beyond the limits");
        }
        close_trial(&t);
    }
}

int main(void) {
    struct trial t;
    test_constants("pixart_sigma");
    test_constants("unet_sd15");
    test_constants("hunyuandit");
    test_single_blocks("sd35", (struct split_range){1, 4, true});
    test_single_blocks("flux_dev", (struct split_range){1, 5, false});
    test_single_blocks("pixart_alpha", (struct split_range){1, 4, true});
    test_single_blocks("hunyuandit", (struct split_range){1, 4, true});
    test_single_blocks("unet_sd15", (struct split_range){2, 16, true});
    test_skips("unet_sd15");
    test_skips("unet_sdxl");
    test_skips("hunyuandit");
    if (open_trial(&t, "sd3", (struct split_range){1, 3, false}, &options)) {
        test_fields(&t);
        test_numbers(&t);
    }
    close_trial(&t);
    test_limits();
    return CHECK_REPORT();
}
