/* See wire.h. */
#include "split/wire.h"

#include <string.h>

#include "base/little_endian.h"

enum {
    AT_VERSION = 4,
    AT_FLAGS = 6,
    AT_REQUEST_ZEROS = 108,
    AT_HASHES_ZEROS = 108,
    AT_WORKER = 112,
    AT_SPECIFICATION = 160,
    AT_REPLY_ZEROS = 416
};

/* Where a field stands in the head, and in the struct. */
struct field {
    size_t at, bytes, offset;
    bool is_number; /* little-endian in the head; of `bytes` bytes in the struct, too */
};
#define NUMBER(type, at, member)                                                                                                           \
    { at, sizeof((type *)0)->member, offsetof(type, member), true }
#define BYTES(type, at, member)                                                                                                            \
    { at, sizeof((type *)0)->member, offsetof(type, member), false }
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static const struct field request_fields[] = {
    NUMBER(struct wire_request, 8, state_bytes), BYTES(struct wire_request, 16, id),    BYTES(struct wire_request, 32, job),
    BYTES(struct wire_request, 64, part_digest), NUMBER(struct wire_request, 96, step), NUMBER(struct wire_request, 100, row),
    NUMBER(struct wire_request, 104, block),
};
/* All but the specification, which is a text. */
static const struct field reply_fields[] = {
    NUMBER(struct wire_reply, 8, state_bytes),
    BYTES(struct wire_reply, 16, id),
    BYTES(struct wire_reply, 32, signed_fields.job),
    BYTES(struct wire_reply, 64, signed_fields.part_digest),
    NUMBER(struct wire_reply, 96, signed_fields.step),
    NUMBER(struct wire_reply, 100, signed_fields.row),
    NUMBER(struct wire_reply, 104, num_hashes),
    BYTES(struct wire_reply, AT_WORKER, worker.bytes),
    BYTES(struct wire_reply, 224, signed_fields.input_hash),
    BYTES(struct wire_reply, 256, signed_fields.output_hash),
    BYTES(struct wire_reply, 288, signature),
    BYTES(struct wire_reply, 352, blocks_signature),
};

static void write_fields(const struct field *fields, size_t count, const void *from, uint8_t *out) {
    for (const struct field *f = fields; f < fields + count; f++) {
        const char *member = (const char *)from + f->offset;
        uint32_t four;
        uint64_t eight = 0;
        if (!f->is_number) memcpy(out + f->at, member, f->bytes);
        if (!f->is_number) continue;
        memcpy(f->bytes == sizeof four ? (void *)&four : (void *)&eight, member, f->bytes);
        little_endian_put(out + f->at, f->bytes == sizeof four ? four : eight, (int)f->bytes);
    }
}

static void read_fields(const struct field *fields, size_t count, const uint8_t *bytes, void *out) {
    for (const struct field *f = fields; f < fields + count; f++) {
        char *member = (char *)out + f->offset;
        uint64_t eight = f->is_number ? little_endian_get(bytes + f->at, (int)f->bytes) : 0;
        uint32_t four = (uint32_t)eight;
        memcpy(member,
               !f->is_number             ? (const void *)(bytes + f->at)
               : f->bytes == sizeof four ? (const void *)&four
                                         : (const void *)&eight,
               f->bytes);
    }
}

static bool all_zeros(const uint8_t *bytes, size_t count) {
    uint8_t any = 0;
    for (size_t i = 0; i < count; i++) any |= bytes[i];
    return any == 0;
}

static tessera_status wrong(const char *what, const char *field, tessera_error *error) {
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: field %s: is not what version %d of the protocol has there", what, field,
                     WIRE_VERSION);
}

/* Magic, version and flags. */
static tessera_status check_start(const uint8_t *bytes, const char *what, const char *magic, tessera_error *error) {
    if (memcmp(bytes, magic, 4) != 0) return wrong(what, "magic", error);
    if (little_endian_get(bytes + AT_VERSION, 2) != WIRE_VERSION) return wrong(what, "version", error);
    return little_endian_get(bytes + AT_FLAGS, 2) == 0 ? TESSERA_OK : wrong(what, "flags", error);
}

/* ---- requests ---- */

void wire_request_write(const struct wire_request *request, uint8_t out[WIRE_REQUEST_BYTES]) {
    memset(out, 0, WIRE_REQUEST_BYTES);
    memcpy(out, "TDRQ", 4);
    little_endian_put(out + AT_VERSION, WIRE_VERSION, 2);
    write_fields(request_fields, COUNT(request_fields), request, out);
}

tessera_status wire_request_read(const uint8_t *bytes, size_t size, size_t whole, struct wire_request *out, tessera_error *error) {
    static const char what[] = "request";
    if (size < WIRE_REQUEST_BYTES) return wrong(what, "length", error);
    TRY(check_start(bytes, what, "TDRQ", error));
    if (!all_zeros(bytes + AT_REQUEST_ZEROS, WIRE_REQUEST_BYTES - AT_REQUEST_ZEROS)) return wrong(what, "zeros", error);
    read_fields(request_fields, COUNT(request_fields), bytes, out);
    if (out->state_bytes != whole - WIRE_REQUEST_BYTES) return wrong(what, "bytes of the state", error);
    return TESSERA_OK;
}

/* ---- replies ---- */

void wire_reply_write(const struct wire_reply *reply, uint8_t out[WIRE_REPLY_BYTES]) {
    const char *specification = reply->signed_fields.specification;
    memset(out, 0, WIRE_REPLY_BYTES);
    memcpy(out, "TDRP", 4);
    little_endian_put(out + AT_VERSION, WIRE_VERSION, 2);
    write_fields(reply_fields, COUNT(reply_fields), reply, out);
    memcpy(out + AT_SPECIFICATION, specification, strnlen(specification, SPLIT_SPECIFICATION_CHARS - 1));
}

/* A text of printable ASCII, and zeros behind it. */
static bool read_specification(const uint8_t *bytes, char out[SPLIT_SPECIFICATION_CHARS]) {
    size_t length = strnlen((const char *)bytes, SPLIT_SPECIFICATION_CHARS);
    if (length == SPLIT_SPECIFICATION_CHARS || !all_zeros(bytes + length, SPLIT_SPECIFICATION_CHARS - length)) return false;
    for (size_t i = 0; i < length; i++)
        if (bytes[i] < ' ' || bytes[i] > '~') return false;
    memcpy(out, bytes, SPLIT_SPECIFICATION_CHARS);
    return true;
}

tessera_status wire_reply_read(const uint8_t *bytes, size_t size, struct wire_reply *out, tessera_error *error) {
    static const char what[] = "reply";
    if (size < WIRE_REPLY_BYTES) return wrong(what, "length", error);
    TRY(check_start(bytes, what, "TDRP", error));
    if (!all_zeros(bytes + AT_HASHES_ZEROS, 4) || !all_zeros(bytes + AT_WORKER + IDENTITY_PUBLIC_BYTES, 4) ||
        !all_zeros(bytes + AT_REPLY_ZEROS, WIRE_REPLY_BYTES - AT_REPLY_ZEROS))
        return wrong(what, "zeros", error);
    if (!read_specification(bytes + AT_SPECIFICATION, out->signed_fields.specification)) return wrong(what, "specification", error);
    read_fields(reply_fields, COUNT(reply_fields), bytes, out);
    size_t rest = size - WIRE_REPLY_BYTES;
    if (out->num_hashes > RECEIPT_MOST_HASHES) return wrong(what, "hashes", error);
    if (out->state_bytes > rest || rest - out->state_bytes != (size_t)out->num_hashes * CANONICAL_HASH_BYTES)
        return wrong(what, "bytes of the state", error);
    return TESSERA_OK;
}

static tessera_status differs(const char *what, tessera_error *error) {
    return error_set(error, TESSERA_ERROR_FORMAT, "the worker's reply %s", what);
}

tessera_status wire_reply_check(const struct wire_reply *reply, const struct wire_request *request, const char *specification,
                                const char *pin, const uint8_t (*hashes)[CANONICAL_HASH_BYTES], tessera_error *error) {
    const struct receipt_reply *s = &reply->signed_fields;
    if (memcmp(reply->id, request->id, sizeof reply->id) != 0) return differs("is to another request", error);
    if (memcmp(s->job, request->job, sizeof s->job) != 0) return differs("is of another job", error);
    if (memcmp(s->part_digest, request->part_digest, sizeof s->part_digest) != 0) return differs("is of another part", error);
    if (s->step != request->step || s->row != request->row) return differs("is of another step", error);
    if (strcmp(s->specification, specification) != 0)
        return error_set(error, TESSERA_ERROR_FORMAT, "the worker computes by \"%s\", but \"%s\" was agreed", s->specification,
                         specification);
    if (!identity_pin_matches(&reply->worker, pin)) return differs("has the key of another worker", error);
    if (request->block > 0) return TESSERA_OK; /* known by its hash */
    if (!receipt_verify(s, &reply->worker, reply->signature)) return differs("has a signature that is not the worker's", error);
    if (reply->num_hashes > 0 && !receipt_verify_blocks(s, hashes, (int)reply->num_hashes, &reply->worker, reply->blocks_signature))
        return differs("has hashes of blocks that the worker did not sign", error);
    return TESSERA_OK;
}

/* ---- constants ---- */

bool wire_constant_digest(const uint8_t *state, size_t size, int field, uint8_t out[STATE_DIGEST_BYTES]) {
    enum { RECORD_HOW = 12, RECORD_BYTES = 56, HEAD_TENSORS = 40, BY_DIGEST = 1, UNIT = 64 };
    if (size < STATE_HEAD_BYTES) return false;
    size_t tensors = (size_t)little_endian_get(state + HEAD_TENSORS, 4);
    if (tensors > (size - STATE_HEAD_BYTES) / STATE_RECORD_BYTES) return false;
    size_t body = STATE_HEAD_BYTES + tensors * STATE_RECORD_BYTES;
    for (size_t i = 0; i < tensors; i++) {
        const uint8_t *record = state + STATE_HEAD_BYTES + i * STATE_RECORD_BYTES;
        bool by_digest = little_endian_get(record + RECORD_HOW, 4) == BY_DIGEST;
        uint64_t bytes = by_digest ? STATE_DIGEST_BYTES : little_endian_get(record + RECORD_BYTES, 8);
        if (body > size || bytes > size - body) return false;
        if (little_endian_get(record, 4) == (uint64_t)field) {
            if (by_digest) memcpy(out, state + body, STATE_DIGEST_BYTES);
            return by_digest;
        }
        body += (size_t)(bytes + UNIT - 1) / UNIT * UNIT;
    }
    return false;
}
