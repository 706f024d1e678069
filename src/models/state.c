/* See state.h. */
#include "models/state.h"

#include <openssl/sha.h>
#include <string.h>

#include "backend/memory.h"
#include "base/little_endian.h"
#include "parallel/exchange.h"

enum { UNIT = 64, FLAG_SKIPPED = 1 };

/* How a field comes. */
enum { WHOLE, BY_DIGEST, CONSTANT /* whole, and to be kept */ };

/* ---- numbers ---- */

static size_t aligned(size_t bytes) {
    return (bytes + UNIT - 1) / UNIT * UNIT;
}

/* ---- what must come ---- */

/* A picture between blocks: tokens, or rows and columns of a convolutional model. */
static struct tensor expected_picture(const struct denoiser *denoiser, const struct denoiser_state *state, enum dtype dtype, int64_t batch,
                                      struct denoiser_map map) {
    int64_t channels = map.channels > 0 ? map.channels : denoiser->form.width;
    if (denoiser->row_unit == 0)
        return tensor_of(NULL, dtype, SHAPE(batch, cut_mine(state->cut, state->rows * state->columns).count, channels));
    return tensor_of(NULL, dtype, SHAPE(batch, denoiser_state_rows(state, map.level), denoiser_state_columns(state, map.level), channels));
}

/* Convolutional models are cut by rows, on as many levels as the unit of rows has halves. */
static const struct cut *expected_cut(const struct denoiser *denoiser, struct run *run, int64_t rows, int64_t columns) {
    int levels = 1;
    if (denoiser->row_unit == 0) return exchange_cut_tokens(run, rows, columns);
    while (denoiser->row_unit >> levels > 0) levels++;
    return exchange_cut_rows(run, rows, columns, denoiser->row_unit, levels);
}

/* The picture's map and the text's presence where `block` begins. */
static struct denoiser_block_info entering(const struct denoiser *denoiser, int block) {
    struct denoiser_block_info info = {.carries = DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_TEXT | DENOISER_CARRIES_COND};
    if (block > 0) denoiser->class->describe(denoiser, block - 1, &info);
    return info;
}

struct denoiser_state denoiser_state_expected(const struct denoiser *denoiser, struct run *run, const struct denoiser_inputs *in, int block,
                                              unsigned carries, const struct denoiser_map *maps, int num_maps) {
    int64_t batch = in->latents.shape[0], text = in->text.shape[1] + (in->text_2.ndim > 1 ? in->text_2.shape[1] : 0);
    struct denoiser_state state = {
        .rows = in->latents.shape[1] / denoiser->patch_size, .columns = in->latents.shape[2] / denoiser->patch_size, .num_skips = num_maps};
    struct denoiser_block_info before = entering(denoiser, block);
    text += denoiser->form.text_added;
    state.cut = expected_cut(denoiser, run, state.rows, state.columns);
    if (denoiser->text_stream) state.text_tokens = text;
    if (denoiser->text_stream) text = exchange_text_span(run, text).count;
    carries &= before.carries;
    if (carries & DENOISER_CARRIES_PICTURE) state.picture = expected_picture(denoiser, &state, run->dtype, batch, before.out);
    if (carries & DENOISER_CARRIES_TEXT) state.text = tensor_of(NULL, run->dtype, SHAPE(batch, text, denoiser->form.text_width));
    if ((carries & DENOISER_CARRIES_TEXT) && denoiser->form.text_mask && in->text_mask.data != NULL)
        state.text_mask = tensor_of(NULL, DTYPE_F32, SHAPE(batch, text));
    if (carries & DENOISER_CARRIES_COND) state.cond = tensor_of(NULL, DTYPE_F32, SHAPE(batch, denoiser->form.cond_width));
    for (int i = 0; i < num_maps; i++) state.skips[i] = expected_picture(denoiser, &state, run->dtype, batch, maps[i]);
    return state;
}

unsigned denoiser_state_constants(const struct denoiser *denoiser) {
    return 1u << STATE_TEXT_MASK | (denoiser->text_stream ? 0u : 1u << STATE_TEXT);
}

/* ---- constants that have come ---- */

const void *state_store_find(const struct state_store *store, const uint8_t digest[STATE_DIGEST_BYTES], size_t bytes) {
    for (int i = 0; i < store->count; i++)
        if (store->constants[i].bytes == bytes && memcmp(store->constants[i].digest, digest, STATE_DIGEST_BYTES) == 0)
            return store->constants[i].data;
    return NULL;
}

/* A copy of `bytes` of host memory, unless they are there. */
static tessera_status keep_constant(struct state_store *store, const uint8_t digest[STATE_DIGEST_BYTES], const void *data, size_t bytes,
                                    const char *field, tessera_error *error) {
    struct backend *backend = store->backend;
    if (state_store_find(store, digest, bytes) != NULL) return TESSERA_OK;
    if (store->count == STATE_STORE_MOST)
        return error_set(error, TESSERA_ERROR_FORMAT,
                         "state of a block: field %s: it differs from message to message, but must not in a job", field);
    struct state_constant *constant = &store->constants[store->count];
    *constant = (struct state_constant){.bytes = bytes, .data = backend->ops->alloc(backend, bytes, error)};
    if (constant->data == NULL) return error->status;
    memcpy(constant->digest, digest, STATE_DIGEST_BYTES);
    store->count++; /* close gives it back, whatever comes */
    backend->counts.uploaded += bytes;
    return backend->ops->upload(backend, constant->data, data, bytes, error);
}

void state_store_close(struct state_store *store) {
    for (int i = 0; i < store->count; i++)
        store->backend->ops->release(store->backend, store->constants[i].data, store->constants[i].bytes);
    store->count = 0;
}

/* ---- fields ---- */

static struct tensor *field_of(struct denoiser_state *state, int field) {
    struct tensor *const fields[] = {&state->picture, &state->text, &state->text_mask, &state->cond};
    return field < STATE_SKIPS ? fields[field] : &state->skips[field - STATE_SKIPS];
}

static const struct tensor *const_field_of(const struct denoiser_state *state, int field) {
    return field_of((struct denoiser_state *)(uintptr_t)state, field);
}

static const char *field_name(int field, char *text, size_t size) {
    static const char *const names[] = {"picture", "text", "text_mask", "cond"};
    if (field < STATE_SKIPS) return names[field];
    snprintf(text, size, "skips[%d]", field - STATE_SKIPS);
    return text;
}

static bool travels(const struct denoiser_state *state, int field) {
    return const_field_of(state, field)->ndim > 0;
}

static int num_fields(const struct denoiser_state *state) {
    return STATE_SKIPS + state->num_skips;
}

static bool is_bit(unsigned fields, int field) {
    return field < STATE_SKIPS && (fields >> field & 1) != 0;
}

static int count_tensors(const struct denoiser_state *state) {
    int count = 0;
    for (int f = 0; f < num_fields(state); f++) count += travels(state, f);
    return count;
}

static size_t body_bytes(const struct denoiser_state *state, unsigned by_digest, int field) {
    return is_bit(by_digest, field) ? STATE_DIGEST_BYTES : tensor_bytes(const_field_of(state, field));
}

size_t denoiser_state_bytes(const struct denoiser_state *state, unsigned by_digest) {
    size_t bytes = STATE_HEAD_BYTES;
    for (int f = 0; f < num_fields(state); f++) {
        if (!travels(state, f)) continue;
        size_t body = body_bytes(state, by_digest, f);
        if (body > SIZE_MAX / 4 - bytes) return 0;
        bytes += STATE_RECORD_BYTES + aligned(body);
    }
    return bytes;
}

/* ---- packing ---- */

static void put_head(uint8_t *head, const struct denoiser_state *state, const struct state_message *message) {
    memset(head, 0, STATE_HEAD_BYTES);
    memcpy(head, "TDST", 4);
    little_endian_put(head + 4, STATE_VERSION, 2);
    little_endian_put(head + 6, message->skipped ? FLAG_SKIPPED : 0, 2);
    little_endian_put(head + 8, message->job, 8);
    little_endian_put(head + 16, (uint64_t)state->rows, 8);
    little_endian_put(head + 24, (uint64_t)state->columns, 8);
    little_endian_put(head + 32, (uint64_t)state->text_tokens, 8);
    little_endian_put(head + 40, (uint64_t)count_tensors(state), 4);
    little_endian_put(head + 44, (uint64_t)state->num_skips, 4);
}

static void put_record(uint8_t *record, int field, const struct tensor *t, unsigned how) {
    memset(record, 0, STATE_RECORD_BYTES);
    little_endian_put(record, (uint64_t)field, 4);
    little_endian_put(record + 4, (uint64_t)t->dtype, 4);
    little_endian_put(record + 8, (uint64_t)t->ndim, 4);
    little_endian_put(record + 12, how, 4);
    for (int i = 0; i < t->ndim; i++) little_endian_put(record + 16 + 8 * i, (uint64_t)t->shape[i], 8);
    little_endian_put(record + 56, tensor_bytes(t), 8);
}

static unsigned how_of(const struct state_message *message, int field) {
    if (is_bit(message->by_digest, field)) return BY_DIGEST;
    return is_bit(message->constants, field) ? CONSTANT : WHOLE;
}

static tessera_status put_body(uint8_t *body, const struct tensor *t, unsigned how, uint8_t *digest, struct backend *backend,
                               tessera_error *error) {
    size_t bytes = how == BY_DIGEST ? STATE_DIGEST_BYTES : tensor_bytes(t);
    if (how == BY_DIGEST)
        memcpy(body, digest, bytes);
    else if (backend != NULL && !backend->shares_host && backend_holds(backend, t))
        TRY(backend_download(backend, body, t, error));
    else if (bytes > 0)
        memcpy(body, t->data, bytes);
    memset(body + bytes, 0, aligned(bytes) - bytes); /* gaps travel, too */
    if (how == CONSTANT) SHA256(body, bytes, digest);
    return TESSERA_OK;
}

tessera_status denoiser_state_pack(const struct denoiser_state *state, struct state_message *message, struct backend *backend, uint8_t *out,
                                   tessera_error *error) {
    uint8_t *record = out + STATE_HEAD_BYTES, *body = record + (size_t)count_tensors(state) * STATE_RECORD_BYTES;
    put_head(out, state, message);
    for (int f = 0; f < num_fields(state); f++) {
        const struct tensor *t = const_field_of(state, f);
        unsigned how = how_of(message, f);
        if (!travels(state, f)) continue;
        put_record(record, f, t, how);
        TRY(put_body(body, t, how, f < STATE_SKIPS ? message->digests[f] : NULL, backend, error));
        record += STATE_RECORD_BYTES;
        body += aligned(body_bytes(state, message->by_digest, f));
    }
    return TESSERA_OK;
}

/* ---- unpacking ---- */

static tessera_status wrong(const char *field, const char *what, uint64_t got, uint64_t want, tessera_error *error) {
    return error_set(error, TESSERA_ERROR_FORMAT, "state of a block: field %s: %s is %llu, but this model expects %llu", field, what,
                     (unsigned long long)got, (unsigned long long)want);
}

bool denoiser_state_begins(const uint8_t *bytes, size_t size) {
    return size >= STATE_HEAD_BYTES && memcmp(bytes, "TDST", 4) == 0;
}

static tessera_status check_head(const uint8_t *head, size_t size, const struct denoiser_state *expected, uint64_t job,
                                 tessera_error *error) {
    if (!denoiser_state_begins(head, size))
        return error_set(error, TESSERA_ERROR_FORMAT, "state of a block: field magic: %zu bytes that are no such message", size);
    const struct {
        const char *name;
        uint64_t got, want;
    } fields[] = {
        {"version", little_endian_get(head + 4, 2), STATE_VERSION},
        {"flags", little_endian_get(head + 6, 2) & ~(uint64_t)FLAG_SKIPPED, 0},
        {"job", little_endian_get(head + 8, 8), job},
        {"rows", little_endian_get(head + 16, 8), (uint64_t)expected->rows},
        {"columns", little_endian_get(head + 24, 8), (uint64_t)expected->columns},
        {"text_tokens", little_endian_get(head + 32, 8), (uint64_t)expected->text_tokens},
        {"tensors", little_endian_get(head + 40, 4), (uint64_t)count_tensors(expected)},
        {"num_skips", little_endian_get(head + 44, 4), (uint64_t)expected->num_skips},
        {"reserved", little_endian_get(head + 48, 8) | little_endian_get(head + 56, 8), 0},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].got != fields[i].want) return wrong(fields[i].name, "the value", fields[i].got, fields[i].want, error);
    return TESSERA_OK;
}

static tessera_status check_record(const uint8_t *record, int field, const struct tensor *want, bool constant, tessera_error *error) {
    char text[32];
    const char *name = field_name(field, text, sizeof text);
    uint64_t how = little_endian_get(record + 12, 4), bytes = little_endian_get(record + 56, 8);
    if (little_endian_get(record, 4) != (uint64_t)field)
        return wrong(name, "the field's number", little_endian_get(record, 4), (uint64_t)field, error);
    if (little_endian_get(record + 4, 4) != (uint64_t)want->dtype)
        return wrong(name, "dtype", little_endian_get(record + 4, 4), (uint64_t)want->dtype, error);
    if (little_endian_get(record + 8, 4) != (uint64_t)want->ndim)
        return wrong(name, "ndim", little_endian_get(record + 8, 4), (uint64_t)want->ndim, error);
    for (int i = 0; i < TENSOR_MAX_DIMS; i++) {
        uint64_t got = little_endian_get(record + 16 + 8 * i, 8), wanted = i < want->ndim ? (uint64_t)want->shape[i] : 0;
        if (got != wanted) return wrong(name, "a length of the shape", got, wanted, error);
    }
    if (constant ? how != CONSTANT && how != BY_DIGEST : how != WHOLE)
        return wrong(name, "how it comes", how, constant ? CONSTANT : WHOLE, error);
    return bytes == tensor_bytes(want) ? TESSERA_OK : wrong(name, "bytes", bytes, tensor_bytes(want), error);
}

/* Are all exponents below the largest, which infinities and NaNs have? */
static bool is_finite(const void *data, const struct tensor *t) {
    const uint32_t *words = data, exponent = 0x7f800000u;
    const uint16_t *halves = data;
    int64_t count = tensor_count(t);
    bool bad = false;
    if (t->dtype == DTYPE_F32)
        for (int64_t i = 0; i < count; i++) bad |= (words[i] & exponent) == exponent;
    if (t->dtype == DTYPE_BF16)
        for (int64_t i = 0; i < count; i++) bad |= ((uint32_t)halves[i] << 16 & exponent) == exponent;
    return !bad;
}

/* Points a field into the message, or the store. */
static tessera_status take_body(const uint8_t *body, int field, struct state_store *store, struct state_message *message, struct tensor *t,
                                tessera_error *error) {
    char text[32];
    unsigned how = how_of(message, field);
    t->data = (void *)(uintptr_t)body;
    if (how != BY_DIGEST && !is_finite(body, t))
        return error_set(error, TESSERA_ERROR_FORMAT, "state of a block: field %s: has infinities or NaNs, which no block may pass on",
                         field_name(field, text, sizeof text));
    if (how == WHOLE) return TESSERA_OK;
    uint8_t *digest = message->digests[field];
    if (how == BY_DIGEST) {
        memcpy(digest, body, STATE_DIGEST_BYTES);
    } else {
        SHA256(body, tensor_bytes(t), digest);
        TRY(keep_constant(store, digest, body, tensor_bytes(t), field_name(field, text, sizeof text), error));
    }
    t->data = (void *)(uintptr_t)state_store_find(store, digest, tensor_bytes(t));
    t->device = store->backend->device;
    if (t->data != NULL) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT, "state of a block: field %s: comes by a digest that is not known here: send it whole",
                     field_name(field, text, sizeof text));
}

/* The records of which all bytes are there. */
static tessera_status check_records(const uint8_t *bytes, size_t size, const struct denoiser_state *expected, unsigned constants,
                                    tessera_error *error) {
    size_t at = STATE_HEAD_BYTES;
    for (int f = 0; f < num_fields(expected); f++) {
        if (!travels(expected, f)) continue;
        if (size - at < STATE_RECORD_BYTES) return TESSERA_OK;
        TRY(check_record(bytes + at, f, const_field_of(expected, f), is_bit(constants, f), error));
        at += STATE_RECORD_BYTES;
    }
    return TESSERA_OK;
}

tessera_status denoiser_state_check(const uint8_t *bytes, size_t size, const struct denoiser_state *expected,
                                    const struct state_message *message, tessera_error *error) {
    TRY(check_head(bytes, size, expected, message->job, error));
    return check_records(bytes, size, expected, message->constants, error);
}

/* The length that follows from the records, and which of them come by digest. */
static tessera_status check_length(const uint8_t *bytes, size_t size, const struct denoiser_state *expected, unsigned *by_digest,
                                   tessera_error *error) {
    size_t bodies = STATE_HEAD_BYTES + (size_t)count_tensors(expected) * STATE_RECORD_BYTES;
    const uint8_t *record = bytes + STATE_HEAD_BYTES;
    if (size < bodies) return wrong("length", "the message", size, bodies, error);
    *by_digest = 0;
    for (int f = 0; f < num_fields(expected); f++) {
        if (!travels(expected, f)) continue;
        if (little_endian_get(record + 12, 4) == BY_DIGEST) *by_digest |= 1u << f;
        record += STATE_RECORD_BYTES;
    }
    size_t whole = denoiser_state_bytes(expected, *by_digest);
    return size == whole ? TESSERA_OK : wrong("length", "the message", size, whole, error);
}

tessera_status denoiser_state_unpack(const uint8_t *bytes, size_t size, const struct denoiser_state *expected, struct state_store *store,
                                     struct denoiser_state *out, struct state_message *message, tessera_error *error) {
    TRY(denoiser_state_check(bytes, size, expected, message, error));
    TRY(check_length(bytes, size, expected, &message->by_digest, error));
    message->skipped = (little_endian_get(bytes + 6, 2) & FLAG_SKIPPED) != 0;
    struct denoiser_state state = *expected;
    const uint8_t *body = bytes + STATE_HEAD_BYTES + (size_t)count_tensors(expected) * STATE_RECORD_BYTES;
    for (int f = 0; f < num_fields(expected); f++) {
        if (!travels(expected, f)) continue;
        TRY(take_body(body, f, store, message, field_of(&state, f), error));
        body += aligned(body_bytes(expected, message->by_digest, f));
    }
    *out = state;
    return TESSERA_OK;
}
