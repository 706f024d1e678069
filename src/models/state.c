/* See state.h. */
#include "models/state.h"

#include <openssl/sha.h>
#include <string.h>

enum { UNIT = 64, FLAG_SKIPPED = 1 };

/* ---- numbers ---- */

static void put(uint8_t *to, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) to[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get(const uint8_t *from, int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) value |= (uint64_t)from[i] << (8 * i);
    return value;
}

static size_t aligned(size_t bytes) {
    return (bytes + UNIT - 1) / UNIT * UNIT;
}

void denoiser_state_digest(const void *data, size_t bytes, uint8_t digest[STATE_DIGEST_BYTES]) {
    SHA256(data, bytes, digest);
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

static bool is_by_digest(unsigned by_digest, int field) {
    return field < STATE_SKIPS && (by_digest >> field & 1) != 0;
}

static int count_tensors(const struct denoiser_state *state) {
    int count = 0;
    for (int f = 0; f < num_fields(state); f++) count += travels(state, f);
    return count;
}

static size_t body_bytes(const struct denoiser_state *state, unsigned by_digest, int field) {
    return is_by_digest(by_digest, field) ? STATE_DIGEST_BYTES : tensor_bytes(const_field_of(state, field));
}

size_t denoiser_state_bytes(const struct denoiser_state *state, unsigned by_digest) {
    size_t bytes = STATE_HEAD_BYTES;
    for (int f = 0; f < num_fields(state); f++) {
        if (!travels(state, f)) continue;
        size_t body = body_bytes(state, by_digest, f);
        if (body > SIZE_MAX / 4 - bytes) return 0;
        bytes += UNIT + aligned(body);
    }
    return bytes;
}

/* ---- packing ---- */

static void put_head(uint8_t *head, const struct denoiser_state *state, const struct state_message *message) {
    memcpy(head, "TDST", 4);
    put(head + 4, STATE_VERSION, 2);
    put(head + 6, message->skipped ? FLAG_SKIPPED : 0, 2);
    put(head + 8, message->job, 8);
    put(head + 16, (uint64_t)state->rows, 8);
    put(head + 24, (uint64_t)state->columns, 8);
    put(head + 32, (uint64_t)state->text_tokens, 8);
    put(head + 40, (uint64_t)count_tensors(state), 4);
    put(head + 44, (uint64_t)state->num_skips, 4);
}

static void put_record(uint8_t *record, int field, const struct tensor *t, bool by_digest) {
    put(record, (uint64_t)field, 4);
    put(record + 4, (uint64_t)t->dtype, 4);
    put(record + 8, (uint64_t)t->ndim, 4);
    put(record + 12, by_digest, 4);
    for (int i = 0; i < t->ndim; i++) put(record + 16 + 8 * i, (uint64_t)t->shape[i], 8);
    put(record + 56, tensor_bytes(t), 8);
}

void denoiser_state_pack(const struct denoiser_state *state, const struct state_message *message, uint8_t *out) {
    uint8_t *record = out + STATE_HEAD_BYTES, *body = record + (size_t)count_tensors(state) * UNIT;
    memset(out, 0, denoiser_state_bytes(state, message->by_digest)); /* gaps travel, too */
    put_head(out, state, message);
    for (int f = 0; f < num_fields(state); f++) {
        const struct tensor *t = const_field_of(state, f);
        bool by_digest = is_by_digest(message->by_digest, f);
        if (!travels(state, f)) continue;
        put_record(record, f, t, by_digest);
        if (by_digest)
            denoiser_state_digest(t->data, tensor_bytes(t), body);
        else if (tensor_bytes(t) > 0)
            memcpy(body, t->data, tensor_bytes(t));
        record += UNIT;
        body += aligned(body_bytes(state, message->by_digest, f));
    }
}

/* ---- unpacking ---- */

static tessera_status wrong(const char *field, const char *part, uint64_t got, uint64_t want, tessera_error *error) {
    return error_set(error, TESSERA_ERROR_FORMAT, "state of a block: field %s: %s is %llu, but this model expects %llu", field, part,
                     (unsigned long long)got, (unsigned long long)want);
}

static tessera_status check_head(const uint8_t *head, size_t size, const struct denoiser_state *expected, tessera_error *error) {
    if (size < STATE_HEAD_BYTES || memcmp(head, "TDST", 4) != 0)
        return error_set(error, TESSERA_ERROR_FORMAT, "state of a block: field magic: %zu bytes that are no such message", size);
    const struct {
        const char *name;
        uint64_t got, want;
    } fields[] = {
        {"version", get(head + 4, 2), STATE_VERSION},
        {"flags", get(head + 6, 2) & ~(uint64_t)FLAG_SKIPPED, 0},
        {"rows", get(head + 16, 8), (uint64_t)expected->rows},
        {"columns", get(head + 24, 8), (uint64_t)expected->columns},
        {"text_tokens", get(head + 32, 8), (uint64_t)expected->text_tokens},
        {"tensors", get(head + 40, 4), (uint64_t)count_tensors(expected)},
        {"num_skips", get(head + 44, 4), (uint64_t)expected->num_skips},
        {"reserved", get(head + 48, 8) | get(head + 56, 8), 0},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].got != fields[i].want) return wrong(fields[i].name, "the value", fields[i].got, fields[i].want, error);
    return TESSERA_OK;
}

static tessera_status check_record(const uint8_t *record, int field, const struct tensor *want, tessera_error *error) {
    char text[32];
    const char *name = field_name(field, text, sizeof text);
    if (get(record, 4) != (uint64_t)field) return wrong(name, "the field's number", get(record, 4), (uint64_t)field, error);
    if (get(record + 4, 4) != (uint64_t)want->dtype) return wrong(name, "dtype", get(record + 4, 4), (uint64_t)want->dtype, error);
    if (get(record + 8, 4) != (uint64_t)want->ndim) return wrong(name, "ndim", get(record + 8, 4), (uint64_t)want->ndim, error);
    for (int i = 0; i < TENSOR_MAX_DIMS; i++) {
        uint64_t got = get(record + 16 + 8 * i, 8), wanted = i < want->ndim ? (uint64_t)want->shape[i] : 0;
        if (got != wanted) return wrong(name, "a length of the shape", got, wanted, error);
    }
    if (get(record + 12, 4) > (field < STATE_SKIPS)) return wrong(name, "by_digest", get(record + 12, 4), field < STATE_SKIPS, error);
    uint64_t bytes = get(record + 56, 8);
    return bytes == tensor_bytes(want) ? TESSERA_OK : wrong(name, "bytes", bytes, tensor_bytes(want), error);
}

/* Points a field into the message, or the store. */
static tessera_status take_body(const uint8_t *body, int field, bool by_digest, const struct state_store *store, struct tensor *t,
                                tessera_error *error) {
    char text[32];
    t->data = (void *)(uintptr_t)body;
    if (!by_digest) return TESSERA_OK;
    t->data = store != NULL ? (void *)(uintptr_t)store->find(store->user, body, tensor_bytes(t)) : NULL;
    if (t->data != NULL) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT, "state of a block: field %s: comes by a digest that is not known here: send it whole",
                     field_name(field, text, sizeof text));
}

/* All records, and the length that follows from them. */
static tessera_status check_records(const uint8_t *bytes, size_t size, const struct denoiser_state *expected, unsigned *by_digest,
                                    tessera_error *error) {
    const uint8_t *record = bytes + STATE_HEAD_BYTES;
    *by_digest = 0;
    for (int f = 0; f < num_fields(expected); f++) {
        if (!travels(expected, f)) continue;
        if (size - (size_t)(record - bytes) < UNIT) return wrong("length", "the message", size, (uint64_t)(record - bytes) + UNIT, error);
        TRY(check_record(record, f, const_field_of(expected, f), error));
        if (get(record + 12, 4) != 0) *by_digest |= 1u << f;
        record += UNIT;
    }
    size_t whole = denoiser_state_bytes(expected, *by_digest);
    return size == whole ? TESSERA_OK : wrong("length", "the message", size, whole, error);
}

tessera_status denoiser_state_unpack(const uint8_t *bytes, size_t size, const struct denoiser_state *expected, const struct state_store *store,
                                     struct denoiser_state *out, struct state_message *message, tessera_error *error) {
    struct state_message got = {0};
    TRY(check_head(bytes, size, expected, error));
    TRY(check_records(bytes, size, expected, &got.by_digest, error));
    got.job = get(bytes + 8, 8);
    got.skipped = (get(bytes + 6, 2) & FLAG_SKIPPED) != 0;
    struct denoiser_state state = *expected;
    const uint8_t *body = bytes + STATE_HEAD_BYTES + (size_t)count_tensors(expected) * UNIT;
    for (int f = 0; f < num_fields(expected); f++) {
        if (!travels(expected, f)) continue;
        TRY(take_body(body, f, is_by_digest(got.by_digest, f), store, field_of(&state, f), error));
        body += aligned(body_bytes(expected, got.by_digest, f));
    }
    *out = state;
    *message = got;
    return TESSERA_OK;
}
