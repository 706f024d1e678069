/* The JSON of /v1/part: see worker.h. */
#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "split/worker.h"

enum { MOST_BLOCKS = 1 << 16 };

char *worker_description_text(const struct worker_description *d) {
    char digest[2 * CANONICAL_HASH_BYTES + 1];
    char *key = identity_base64(d->worker.bytes, sizeof d->worker.bytes);
    cJSON *root = cJSON_CreateObject();
    identity_hex(d->digest, sizeof d->digest, digest);
    bool made = key != NULL && cJSON_AddNumberToObject(root, "protocol", WIRE_VERSION) != NULL &&
                cJSON_AddStringToObject(root, "specification", d->specification) != NULL &&
                cJSON_AddStringToObject(root, "class", d->class_name) != NULL && cJSON_AddStringToObject(root, "digest", digest) != NULL &&
                cJSON_AddNumberToObject(root, "first", d->range.first) != NULL &&
                cJSON_AddNumberToObject(root, "last", d->range.end - 1) != NULL &&
                cJSON_AddBoolToObject(root, "has_last_block", d->range.finish) != NULL &&
                cJSON_AddStringToObject(root, "public_key", key) != NULL &&
                cJSON_AddNumberToObject(root, "most_request_bytes", (double)d->most_request_bytes) != NULL &&
                cJSON_AddNumberToObject(root, "most_tokens", (double)d->most_tokens) != NULL &&
                cJSON_AddNumberToObject(root, "most_text_tokens", (double)d->most_text_tokens) != NULL &&
                cJSON_AddNumberToObject(root, "most_batch", (double)d->most_batch) != NULL &&
                cJSON_AddStringToObject(root, "kernels", d->kernels) != NULL &&
                cJSON_AddNumberToObject(root, "threads", (double)d->threads) != NULL;
    char *text = made ? cJSON_Print(root) : NULL;
    cJSON_Delete(root);
    free(key);
    return text;
}

static tessera_status wrong(const struct json *json, const char *field, tessera_error *error) {
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: field %s: is missing, or is not what a worker says there", json_path(json), field);
}

static tessera_status read_text(const struct json *json, const char *field, char *out, size_t capacity, tessera_error *error) {
    const char *text;
    TRY(json_string(json, field, NULL, &text, error));
    if (text == NULL || strlen(text) >= capacity) return wrong(json, field, error);
    strcpy(out, text);
    return TESSERA_OK;
}

static tessera_status read_key(const struct json *json, struct identity_public *out, tessera_error *error) {
    const char *text;
    uint8_t *bytes = NULL;
    size_t count = 0;
    TRY(json_string(json, "public_key", NULL, &text, error));
    bool fits = text != NULL && identity_unbase64(text, sizeof out->bytes, &bytes, &count) && count == sizeof out->bytes;
    if (fits) memcpy(out->bytes, bytes, count);
    free(bytes);
    return fits ? identity_public_check(out, error) : wrong(json, "public_key", error);
}

static tessera_status read_numbers(const struct json *json, struct worker_description *out, tessera_error *error) {
    const int64_t most = (int64_t)1 << 50;
    int64_t protocol, first, last;
    TRY(json_int(json, "protocol", 0, 0, 1 << 20, &protocol, error));
    if (protocol != WIRE_VERSION)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                         "%s: speaks version %lld of the protocol, not %d: use the same release on both sides", json_path(json),
                         (long long)protocol, WIRE_VERSION);
    TRY(json_int(json, "first", -1, 0, MOST_BLOCKS, &first, error));
    TRY(json_int(json, "last", -1, 0, MOST_BLOCKS, &last, error));
    if (first < 0 || last < first) return wrong(json, "last", error);
    out->range = (struct split_range){.first = (int)first, .end = (int)last + 1};
    TRY(json_bool(json, "has_last_block", false, &out->range.finish, error));
    TRY(json_int(json, "most_request_bytes", 0, 0, most, &out->most_request_bytes, error));
    TRY(json_int(json, "most_tokens", 0, 0, most, &out->most_tokens, error));
    TRY(json_int(json, "most_text_tokens", 0, 0, most, &out->most_text_tokens, error));
    TRY(json_int(json, "most_batch", 0, 0, most, &out->most_batch, error));
    return json_int(json, "threads", 0, 0, most, &out->threads, error);
}

static tessera_status read_all(const struct json *json, struct worker_description *out, tessera_error *error) {
    char digest[2 * CANONICAL_HASH_BYTES + 1];
    TRY(read_numbers(json, out, error));
    TRY(read_text(json, "specification", out->specification, sizeof out->specification, error));
    TRY(read_text(json, "class", out->class_name, sizeof out->class_name, error));
    TRY(read_text(json, "kernels", out->kernels, sizeof out->kernels, error));
    TRY(read_text(json, "digest", digest, sizeof digest, error));
    if (!identity_unhex(digest, out->digest, sizeof out->digest)) return wrong(json, "digest", error);
    return read_key(json, &out->worker, error);
}

tessera_status worker_description_parse(const char *name, const char *text, size_t length, struct worker_description *out,
                                        tessera_error *error) {
    struct json *json = NULL;
    *out = (struct worker_description){.range.first = 0};
    TRY(json_parse(name, text, length, &json, error));
    tessera_status status = read_all(json, out, error);
    json_free(json);
    return status;
}
