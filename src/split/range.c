/* See range.h. */
#include "split/range.h"

#include <assert.h>
#include <string.h>

#include "base/little_endian.h"
#include "parallel/cut.h"

enum { EVERY_PART = DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_TEXT | DENOISER_CARRIES_COND };
static const struct split_limits default_limits = {.batch = 8, .tokens = 65536, .text_tokens = 2048};

tessera_status split_range_check(const struct split_range *range, int num_blocks, tessera_error *error) {
    if (range->first < 0 || range->end <= range->first || range->end > num_blocks)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "blocks %d to %d: the model has the blocks 0 to %d", range->first, range->end - 1,
                         num_blocks - 1);
    if (range->finish && range->end != num_blocks)
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "blocks %d to %d: what follows the last block (has_last_block) needs the last block, %d", range->first,
                         range->end - 1, num_blocks - 1);
    return TESSERA_OK;
}

/* ---- skips ---- */

/* The skips on the stack where `block` begins. */
struct stack {
    int height, lowest; /* lowest: the least height since it was set */
    struct denoiser_map maps[DENOISER_MAX_SKIPS];
};

static void pass_block(struct stack *s, const struct denoiser *denoiser, int block) {
    struct denoiser_block_info info;
    denoiser->class->describe(denoiser, block, &info);
    s->height -= info.pops;
    assert(s->height >= 0 && s->height + info.pushes <= DENOISER_MAX_SKIPS);
    if (s->height < s->lowest) s->lowest = s->height;
    for (int k = 0; k < info.pushes; k++) s->maps[s->height++] = info.pushed[k];
}

/* Those that the part has where `block`, one of its own or its end, begins: above the ones that
 * none of its blocks takes. Returns how many. */
static int skips_at(const struct denoiser *denoiser, const struct split_range *range, int block,
                    struct denoiser_map maps[DENOISER_MAX_SKIPS]) {
    struct stack s = {0}, there = {0};
    for (int i = 0; i <= range->end; i++) {
        if (i == range->first) s.lowest = s.height;
        if (i == block) there = s;
        if (i < range->end) pass_block(&s, denoiser, i);
    }
    int count = there.height - s.lowest;
    memcpy(maps, there.maps + s.lowest, (size_t)count * sizeof *maps);
    return count;
}

/* ---- shapes ---- */

static tessera_status too_large(const char *field, uint64_t value, uint64_t most, tessera_error *error) {
    return error_set(error, TESSERA_ERROR_FORMAT, "state of a block: field %s: is %llu, of which 1 to %llu are possible here", field,
                     (unsigned long long)value, (unsigned long long)most);
}

static tessera_status within(const char *field, uint64_t value, int64_t most, int64_t *out, tessera_error *error) {
    if (value < 1 || value > (uint64_t)most) return too_large(field, value, (uint64_t)most, error);
    *out = (int64_t)value;
    return TESSERA_OK;
}

/* A record's dimension, as models/state.c writes it. */
static uint64_t extent(const uint8_t *record, int dim) {
    return little_endian_get(record + 16 + 8 * dim, 8);
}

/* What the records say: the batch is the picture's; text and mask, where they come, are of
 * text_tokens. */
static tessera_status read_records(const uint8_t *bytes, size_t size, const struct split_limits *limits, struct split_shape *out,
                                   tessera_error *error) {
    const uint8_t *record = bytes + STATE_HEAD_BYTES;
    uint64_t count = little_endian_get(bytes + 40, 4);
    for (uint64_t i = 0; i < count && i < STATE_SKIPS; i++, record += STATE_RECORD_BYTES) {
        if ((size_t)(record - bytes) + STATE_RECORD_BYTES > size)
            return error_set(error, TESSERA_ERROR_FORMAT, "state of a block: field length: %zu bytes end within its records", size);
        uint64_t field = little_endian_get(record, 4);
        if (field == STATE_PICTURE) TRY(within("picture: batch", extent(record, 0), limits->batch, &out->batch, error));
        if (field == STATE_TEXT) TRY(within("text: tokens", extent(record, 1), limits->text_tokens, &out->text_tokens, error));
        if (field == STATE_TEXT_MASK) out->text_mask = true;
    }
    return out->batch > 0 ? TESSERA_OK : error_set(error, TESSERA_ERROR_FORMAT, "state of a block: field picture: is missing");
}

static struct split_limits limits_of(const struct split_limits *given) {
    struct split_limits limits = given != NULL ? *given : default_limits;
    if (limits.batch == 0) limits.batch = default_limits.batch;
    if (limits.tokens == 0) limits.tokens = default_limits.tokens;
    if (limits.text_tokens == 0) limits.text_tokens = default_limits.text_tokens;
    return limits;
}

tessera_status split_shape_read(const struct denoiser *denoiser, const uint8_t *bytes, size_t size, const struct split_limits *given,
                                struct split_shape *out, tessera_error *error) {
    struct split_limits limits = limits_of(given);
    *out = (struct split_shape){0};
    if (!denoiser_state_begins(bytes, size))
        return error_set(error, TESSERA_ERROR_FORMAT, "state of a block: field magic: %zu bytes that are no such message", size);
    TRY(within("rows", little_endian_get(bytes + 16, 8), limits.tokens, &out->rows, error));
    TRY(within("columns", little_endian_get(bytes + 24, 8), limits.tokens, &out->columns, error));
    if (out->rows > limits.tokens / out->columns)
        return too_large("rows times columns", (uint64_t)out->rows * (uint64_t)out->columns, (uint64_t)limits.tokens, error);
    if (denoiser->max_side > 0 && (out->rows > denoiser->max_side || out->columns > denoiser->max_side))
        return too_large("rows or columns", (uint64_t)(out->rows > out->columns ? out->rows : out->columns), (uint64_t)denoiser->max_side,
                         error);
    uint64_t text = little_endian_get(bytes + 32, 8);
    if (text > 0) TRY(within("text_tokens", text, limits.text_tokens, &out->text_tokens, error));
    TRY(read_records(bytes, size, &limits, out, error));
    if (out->text_tokens < denoiser->form.text_added)
        return too_large("text_tokens", (uint64_t)out->text_tokens, (uint64_t)limits.text_tokens, error);
    return TESSERA_OK;
}

struct split_shape split_shape_of(const struct denoiser_state *state) {
    return (struct split_shape){.batch = state->picture.shape[0],
                                .rows = state->rows,
                                .columns = state->columns,
                                .text_tokens = state->text.ndim > 0 ? state->text.shape[1] : state->text_tokens,
                                .text_mask = state->text_mask.ndim > 0};
}

/* ---- forms ---- */

/* Inputs of which only the shapes count. */
static struct denoiser_state form_of(const struct denoiser *denoiser, struct run *run, int block, unsigned carries,
                                     const struct split_shape *shape, const struct denoiser_map *maps, int count) {
    static float there;
    int64_t p = denoiser->patch_size, text = shape->text_tokens - denoiser->form.text_added;
    const struct denoiser_inputs in = {
        .latents = tensor_of(NULL, DTYPE_F32, SHAPE(shape->batch, shape->rows * p, shape->columns * p, denoiser->in_channels)),
        .text = tensor_of(NULL, DTYPE_F32, SHAPE(shape->batch, text, denoiser->text_channels)),
        .text_mask = {.data = shape->text_mask ? &there : NULL}};
    return denoiser_state_expected(denoiser, run, &in, block, carries, maps, count);
}

struct denoiser_state split_state_form(const struct denoiser *denoiser, struct run *run, const struct split_range *range, int block,
                                       const struct split_shape *shape) {
    struct denoiser_map maps[DENOISER_MAX_SKIPS];
    int count = skips_at(denoiser, range, block, maps);
    return form_of(denoiser, run, block, EVERY_PART, shape, maps, count);
}

/* The prediction alone. */
static struct denoiser_state finished_form(const struct denoiser *denoiser, struct run *run, const struct split_shape *shape) {
    int64_t p = denoiser->patch_size;
    struct denoiser_state form = form_of(denoiser, run, denoiser->num_blocks, 0, shape, NULL, 0);
    form.picture = tensor_of(NULL, DTYPE_F32, SHAPE(shape->batch, shape->rows * p, shape->columns * p, denoiser->out_channels));
    return form;
}

struct denoiser_state split_answer_form(const struct denoiser *denoiser, struct run *run, const struct split_range *range, int end,
                                        bool finish, const struct split_shape *shape) {
    struct denoiser_map maps[DENOISER_MAX_SKIPS];
    unsigned carries = DENOISER_CARRIES_PICTURE | (denoiser->text_stream ? (unsigned)DENOISER_CARRIES_TEXT : 0u);
    if (finish) return finished_form(denoiser, run, shape);
    int count = skips_at(denoiser, range, end, maps);
    struct denoiser_state form = form_of(denoiser, run, end, carries, shape, maps, count);
    form.text_mask = (struct tensor){0}; /* stays as it was */
    return form;
}

/* ---- states ---- */

struct denoiser_state split_request_state(const struct denoiser *denoiser, const struct split_range *range,
                                          const struct denoiser_state *state) {
    struct denoiser_map maps[DENOISER_MAX_SKIPS];
    struct denoiser_state out = *state;
    out.num_skips = skips_at(denoiser, range, range->first, maps);
    assert(out.num_skips <= state->num_skips);
    memset(out.skips, 0, sizeof out.skips);
    memcpy(out.skips, state->skips + state->num_skips - out.num_skips, (size_t)out.num_skips * sizeof *out.skips);
    return out;
}

void split_state_trim(const struct denoiser *denoiser, int block, struct denoiser_state *state) {
    struct denoiser_block_info before = {.carries = EVERY_PART};
    if (block > 0) denoiser->class->describe(denoiser, block - 1, &before);
    if ((before.carries & DENOISER_CARRIES_TEXT) == 0) state->text = state->text_mask = (struct tensor){0};
}

struct denoiser_state split_answer_state(const struct denoiser *denoiser, const struct denoiser_state *state) {
    struct denoiser_state out = *state;
    out.text_mask = out.cond = (struct tensor){0};
    if (!denoiser->text_stream) out.text = (struct tensor){0};
    return out;
}

struct denoiser_state split_finished_state(const struct denoiser_state *state, struct tensor prediction) {
    return (struct denoiser_state){
        .picture = prediction, .rows = state->rows, .columns = state->columns, .text_tokens = state->text_tokens};
}

tessera_status split_answer_read(const struct denoiser *denoiser, struct run *run, const struct split_range *range,
                                 const struct split_shape *shape, uint64_t job, const uint8_t *bytes, size_t size,
                                 struct denoiser_state *out, tessera_error *error) {
    struct denoiser_state form = split_answer_form(denoiser, run, range, range->end, range->finish, shape);
    struct state_message message = {.job = job};
    TRY(run_status(run, error));
    TRY(denoiser_state_unpack(bytes, size, &form, NULL, out, &message, error));
    if (message.skipped) return error_set(error, TESSERA_ERROR_FORMAT, "state of a block: field flags: says that blocks were left out");
    return TESSERA_OK;
}

void split_answer_merge_within(const struct denoiser *denoiser, int end, struct denoiser_state *state,
                               const struct denoiser_state *answer) {
    state->picture = answer->picture;
    if (denoiser->text_stream) state->text = answer->text;
    split_state_trim(denoiser, end, state);
    memcpy(state->skips, answer->skips, sizeof state->skips);
    state->num_skips = answer->num_skips;
}

void split_answer_merge(const struct denoiser *denoiser, const struct split_range *range, struct denoiser_state *state,
                        const struct denoiser_state *answer) {
    struct denoiser_map maps[DENOISER_MAX_SKIPS];
    struct denoiser_state before = *state;
    if (range->finish) {
        *state = split_finished_state(state, answer->picture);
        return;
    }
    int kept = state->num_skips - skips_at(denoiser, range, range->first, maps);
    split_answer_merge_within(denoiser, range->end, state, answer);
    memcpy(state->skips, before.skips, (size_t)kept * sizeof *state->skips);
    memcpy(state->skips + kept, answer->skips, (size_t)answer->num_skips * sizeof *state->skips);
    state->num_skips = kept + answer->num_skips;
}

/* ---- hashes ---- */

static void add_tensor(struct canonical *c, int field, const struct tensor *t) {
    uint8_t hash[CANONICAL_HASH_BYTES];
    canonical_u32(c, (uint32_t)field);
    canonical_u32(c, (uint32_t)t->dtype);
    canonical_u32(c, (uint32_t)t->ndim);
    for (int i = 0; i < t->ndim; i++) canonical_u64(c, (uint64_t)t->shape[i]);
    canonical_hash(t->data, tensor_bytes(t), hash);
    canonical_bytes(c, hash, sizeof hash);
}

void split_state_hash(const struct denoiser_state *state, uint8_t out[CANONICAL_HASH_BYTES]) {
    const struct tensor *const fields[] = {&state->picture, &state->text, &state->text_mask, &state->cond};
    struct canonical c;
    uint32_t count = (uint32_t)state->num_skips;
    for (int f = 0; f < STATE_SKIPS; f++) count += fields[f]->ndim > 0;
    canonical_begin(&c, "tessera-state-1");
    canonical_u64(&c, (uint64_t)state->rows);
    canonical_u64(&c, (uint64_t)state->columns);
    canonical_u64(&c, (uint64_t)state->text_tokens);
    canonical_u32(&c, count);
    canonical_u32(&c, (uint32_t)state->num_skips);
    for (int f = 0; f < STATE_SKIPS; f++)
        if (fields[f]->ndim > 0) add_tensor(&c, f, fields[f]);
    for (int i = 0; i < state->num_skips; i++) add_tensor(&c, STATE_SKIPS + i, &state->skips[i]);
    canonical_end(&c, out);
}
