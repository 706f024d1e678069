/* See manifest.h. */
#include "split/manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/file.h"
#include "base/json.h"

enum { MOST_BLOCKS = 1 << 16, MOST_NAME = 255 };

void manifest_free(struct manifest *m) {
    for (int i = 0; m->parts != NULL && i < m->count; i++) free(m->parts[i].file);
    free(m->parts);
    free(m->model);
    free(m->class_name);
    free(m->configuration);
    *m = (struct manifest){0};
}

const struct manifest_part *manifest_find(const struct manifest *m, const uint8_t digest[CANONICAL_HASH_BYTES]) {
    for (int i = 0; i < m->count; i++)
        if (memcmp(m->parts[i].digest, digest, CANONICAL_HASH_BYTES) == 0) return &m->parts[i];
    return NULL;
}

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a manifest");
}

/* ---- what is signed ---- */

static void signed_hash(const struct manifest *m, uint8_t out[CANONICAL_HASH_BYTES]) {
    struct canonical c;
    canonical_begin(&c, "tessera-manifest-1");
    canonical_text(&c, SPLIT_SPECIFICATION);
    canonical_text(&c, m->model);
    canonical_text(&c, m->class_name);
    canonical_text(&c, m->configuration);
    canonical_u32(&c, (uint32_t)m->blocks);
    canonical_u32(&c, (uint32_t)m->count);
    for (int i = 0; i < m->count; i++) {
        const struct manifest_part *part = &m->parts[i];
        canonical_text(&c, part->file);
        canonical_u32(&c, (uint32_t)part->range.first);
        canonical_u32(&c, (uint32_t)part->range.end - 1);
        canonical_u32(&c, part->range.finish);
        canonical_u64(&c, part->bytes);
        canonical_bytes(&c, part->digest, sizeof part->digest);
    }
    canonical_end(&c, out);
}

/* ---- reading ---- */

struct reading {
    const char *name; /* of the file */
    tessera_error *error;
};

static tessera_status wrong(const struct reading *r, const char *field, const char *what) {
    return error_set(r->error, TESSERA_ERROR_FORMAT, "%s: field %s: %s", r->name, field, what);
}

/* `field`: how messages name object[key]. */
static tessera_status read_text(const struct reading *r, const cJSON *object, const char *key, const char *field, char **out) {
    const char *value = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
    if (value == NULL) return wrong(r, field, "is missing, or no text");
    *out = strdup(value);
    return *out != NULL ? TESSERA_OK : out_of_memory(r->error);
}

static tessera_status read_number(const struct reading *r, const cJSON *object, const char *key, const char *field, double most, double *out) {
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!cJSON_IsNumber(value) || !(value->valuedouble >= 0 && value->valuedouble <= most) || value->valuedouble != (double)(uint64_t)value->valuedouble)
        return wrong(r, field, "is missing, or no whole number that is possible here");
    *out = value->valuedouble;
    return TESSERA_OK;
}

static tessera_status read_bytes(const struct reading *r, const cJSON *object, const char *key, uint8_t *out, size_t bytes) {
    const char *value = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
    uint8_t *data = NULL;
    size_t count = 0;
    bool right = value != NULL && identity_unbase64(value, bytes, &data, &count) && count == bytes;
    if (right) memcpy(out, data, bytes);
    free(data);
    return right ? TESSERA_OK : wrong(r, key, "is missing, or not base64 of as many bytes as it has");
}

/* One part, behind the one that ends at block `after`. */
static tessera_status read_part(const struct reading *r, const cJSON *item, const struct manifest *m, int index, int after, struct manifest_part *out) {
    char field[48];
    double first = 0, last = 0, bytes = 0;
    const cJSON *finish = cJSON_GetObjectItemCaseSensitive(item, "has_last_block");
    const char *digest = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "digest"));
#define FIELD(key) (snprintf(field, sizeof field, "parts[%d].%s", index, key), field)
    TRY(read_text(r, item, "file", FIELD("file"), &out->file));
    if (!file_name_is_plain(out->file) || strlen(out->file) > MOST_NAME)
        return wrong(r, FIELD("file"), "not the plain name of a file beside the manifest");
    TRY(read_number(r, item, "first", FIELD("first"), m->blocks - 1, &first));
    TRY(read_number(r, item, "last", FIELD("last"), m->blocks - 1, &last));
    TRY(read_number(r, item, "bytes", FIELD("bytes"), 0x1p53, &bytes));
    if (!cJSON_IsBool(finish)) return wrong(r, FIELD("has_last_block"), "is missing, or neither true nor false");
    if (digest == NULL || !identity_unhex(digest, out->digest, sizeof out->digest))
        return wrong(r, FIELD("digest"), "is missing, or not 64 lower-case hexadecimal digits");
    out->range = (struct split_range){(int)first, (int)last + 1, cJSON_IsTrue(finish)};
    out->bytes = (uint64_t)bytes;
    if (out->range.first < after) return wrong(r, FIELD("first"), "a block of the part before it: parts come in the order of their blocks");
    if (split_range_check(&out->range, m->blocks, NULL) != TESSERA_OK) return wrong(r, FIELD("last"), "before the first block, or has_last_block without the last one");
#undef FIELD
    return TESSERA_OK;
}

static tessera_status read_parts(const struct reading *r, const cJSON *list, struct manifest *m) {
    int count = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : 0, after = 0;
    if (count < 1 || count > MANIFEST_MOST_PARTS) return wrong(r, "parts", "no list of 1 to 1024 parts");
    m->parts = calloc((size_t)count, sizeof *m->parts);
    if (m->parts == NULL) return out_of_memory(r->error);
    for (const cJSON *item = list->child; item != NULL; item = item->next) {
        struct manifest_part *part = &m->parts[m->count];
        TRY(read_part(r, item, m, m->count++, after, part));
        after = part->range.end;
    }
    return TESSERA_OK;
}

static tessera_status read_fields(const struct reading *r, const cJSON *root, struct manifest *m) {
    const char *specification = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "specification"));
    double blocks = 0;
    if (specification == NULL || strcmp(specification, SPLIT_SPECIFICATION) != 0)
        return wrong(r, "specification", "is not \"" SPLIT_SPECIFICATION "\": not a manifest, or one of another version");
    TRY(read_text(r, root, "model", "model", &m->model));
    TRY(read_text(r, root, "class", "class", &m->class_name));
    TRY(read_text(r, root, "configuration", "configuration", &m->configuration));
    TRY(read_number(r, root, "blocks", "blocks", MOST_BLOCKS, &blocks));
    m->blocks = (int)blocks;
    TRY(read_parts(r, cJSON_GetObjectItemCaseSensitive(root, "parts"), m));
    TRY(read_bytes(r, root, "public_key", m->owner.bytes, sizeof m->owner.bytes));
    return read_bytes(r, root, "signature", m->signature, sizeof m->signature);
}

static tessera_status check_owner(const struct reading *r, const struct manifest *m, const char *pin) {
    uint8_t hash[CANONICAL_HASH_BYTES];
    char own[IDENTITY_PIN_CHARS];
    signed_hash(m, hash);
    if (!identity_verify(&m->owner, hash, sizeof hash, m->signature))
        return wrong(r, "signature", "not that of public_key: the manifest was changed after it was signed");
    identity_pin(&m->owner, own);
    if (pin == NULL || identity_pin_matches(&m->owner, pin)) return TESSERA_OK;
    return error_set(r->error, TESSERA_ERROR_FORMAT, "%s: field public_key: signed by the owner with the pin %s, but %s is expected", r->name, own, pin);
}

tessera_status manifest_parse(const char *name, const char *text, size_t length, const char *pin, struct manifest *out, tessera_error *error) {
    const struct reading r = {name, error};
    struct json *json;
    *out = (struct manifest){0};
    TRY(json_parse(name, text, length, &json, error));
    tessera_status status = read_fields(&r, json_root(json), out);
    json_free(json);
    if (status == TESSERA_OK) status = check_owner(&r, out, pin);
    return status;
}

tessera_status manifest_open(const char *path, const char *pin, struct manifest *out, tessera_error *error) {
    char *text;
    size_t length;
    *out = (struct manifest){0};
    TRY(file_read_regular(path, MANIFEST_MOST_BYTES, &text, &length, error));
    tessera_status status = manifest_parse(path, text, length, pin, out, error);
    free(text);
    return status;
}

/* ---- writing ---- */

static bool add_bytes(cJSON *object, const char *key, const void *data, size_t bytes) {
    char *text = identity_base64(data, bytes);
    bool added = text != NULL && cJSON_AddStringToObject(object, key, text) != NULL;
    free(text);
    return added;
}

static bool add_part(cJSON *list, const struct manifest_part *part) {
    char digest[2 * CANONICAL_HASH_BYTES + 1];
    cJSON *item = cJSON_CreateObject();
    if (item == NULL || !cJSON_AddItemToArray(list, item)) {
        cJSON_Delete(item);
        return false;
    }
    identity_hex(part->digest, sizeof part->digest, digest);
    return cJSON_AddStringToObject(item, "file", part->file) != NULL && cJSON_AddNumberToObject(item, "first", part->range.first) != NULL &&
           cJSON_AddNumberToObject(item, "last", part->range.end - 1) != NULL &&
           cJSON_AddBoolToObject(item, "has_last_block", part->range.finish) != NULL &&
           cJSON_AddNumberToObject(item, "bytes", (double)part->bytes) != NULL && cJSON_AddStringToObject(item, "digest", digest) != NULL;
}

static bool add_fields(cJSON *root, const struct manifest *m) {
    bool good = cJSON_AddStringToObject(root, "specification", SPLIT_SPECIFICATION) != NULL && cJSON_AddStringToObject(root, "model", m->model) != NULL &&
                cJSON_AddStringToObject(root, "class", m->class_name) != NULL &&
                cJSON_AddStringToObject(root, "configuration", m->configuration) != NULL && cJSON_AddNumberToObject(root, "blocks", m->blocks) != NULL;
    cJSON *list = good ? cJSON_AddArrayToObject(root, "parts") : NULL;
    good = list != NULL;
    for (int i = 0; i < m->count && good; i++) good = add_part(list, &m->parts[i]);
    return good && add_bytes(root, "public_key", m->owner.bytes, sizeof m->owner.bytes) &&
           add_bytes(root, "signature", m->signature, sizeof m->signature);
}

static tessera_status write_text(const char *path, const char *text, tessera_error *error) {
    struct file_output output;
    TRY(file_output_open(path, &output, error));
    fprintf(output.stream, "%s\n", text);
    return file_output_commit(&output, error);
}

tessera_status manifest_write(struct manifest *m, const struct identity *owner, const char *path, tessera_error *error) {
    uint8_t hash[CANONICAL_HASH_BYTES];
    signed_hash(m, hash);
    m->owner = *identity_public(owner);
    TRY(identity_sign(owner, hash, sizeof hash, m->signature, error));
    cJSON *root = cJSON_CreateObject();
    char *text = root != NULL && add_fields(root, m) ? cJSON_Print(root) : NULL;
    tessera_status status = text != NULL ? write_text(path, text, error) : out_of_memory(error);
    cJSON_free(text);
    cJSON_Delete(root);
    return status;
}
