/* See manifest.h. */
#include "split/manifest.h"

#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/file.h"
#include "split/fields.h"

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

/* One part, behind the one that ends at block `after`. */
static tessera_status read_part(const struct fields *f, const struct manifest *m, int after, struct manifest_part *out) {
    uint64_t first, last;
    bool finish;
    TRY(fields_text(f, "file", &out->file));
    if (!file_name_is_plain(out->file) || strlen(out->file) > MOST_NAME)
        return fields_wrong(f, "file", "not the plain name of a file beside the manifest");
    TRY(fields_number(f, "first", m->blocks - 1, &first));
    TRY(fields_number(f, "last", m->blocks - 1, &last));
    TRY(fields_number(f, "bytes", 0x1p53, &out->bytes));
    TRY(fields_boolean(f, "has_last_block", &finish));
    TRY(fields_hex(f, "digest", out->digest, sizeof out->digest));
    out->range = (struct split_range){(int)first, (int)last + 1, finish};
    if (out->range.first < after) return fields_wrong(f, "first", "a block of the part before it: parts come in the order of their blocks");
    if (split_range_check(&out->range, m->blocks, NULL) == TESSERA_OK) return TESSERA_OK;
    return fields_wrong(f, "last", "before the first block, or not the model's last block although has_last_block is true");
}

static tessera_status read_parts(const struct fields *f, struct manifest *m) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(f->item, "parts");
    int count = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : 0, after = 0;
    if (count < 1 || count > MANIFEST_MOST_PARTS) return fields_wrong(f, "parts", "no list of 1 to 1024 parts");
    m->parts = calloc((size_t)count, sizeof *m->parts);
    if (m->parts == NULL) return out_of_memory(f->error);
    for (const cJSON *item = list->child; item != NULL; item = item->next) {
        const struct fields part = {.name = f->name, .item = item, .place = m->count, .error = f->error};
        struct manifest_part *out = &m->parts[m->count++];
        TRY(read_part(&part, m, after, out));
        after = out->range.end;
    }
    return TESSERA_OK;
}

static tessera_status read_fields(const struct fields *f, struct manifest *m) {
    const char *specification = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(f->item, "specification"));
    uint64_t blocks;
    if (specification == NULL || strcmp(specification, SPLIT_SPECIFICATION) != 0)
        return fields_wrong(f, "specification", "is not \"" SPLIT_SPECIFICATION "\": not a manifest, or one of another version");
    TRY(fields_text(f, "model", &m->model));
    TRY(fields_text(f, "class", &m->class_name));
    TRY(fields_text(f, "configuration", &m->configuration));
    TRY(fields_number(f, "blocks", MOST_BLOCKS, &blocks));
    m->blocks = (int)blocks;
    TRY(read_parts(f, m));
    TRY(fields_base64(f, "public_key", m->owner.bytes, sizeof m->owner.bytes));
    return fields_base64(f, "signature", m->signature, sizeof m->signature);
}

static tessera_status check_owner(const struct fields *f, const struct manifest *m, const char *pin) {
    uint8_t hash[CANONICAL_HASH_BYTES];
    char own[IDENTITY_PIN_CHARS];
    signed_hash(m, hash);
    if (!identity_verify(&m->owner, hash, sizeof hash, m->signature))
        return fields_wrong(f, "signature", "not that of public_key: the manifest was changed after it was signed");
    identity_pin(&m->owner, own);
    if (pin == NULL || identity_pin_matches(&m->owner, pin)) return TESSERA_OK;
    return error_set(f->error, TESSERA_ERROR_FORMAT, "%s: field public_key: signed by the owner with the pin %s, but %s is expected",
                     f->name, own, pin);
}

struct reading {
    struct manifest *manifest;
    const char *pin;
};

static tessera_status read_manifest(const struct fields *f, void *out) {
    const struct reading *r = out;
    TRY(read_fields(f, r->manifest));
    return check_owner(f, r->manifest, r->pin);
}

tessera_status manifest_parse(const char *name, const char *text, size_t length, const char *pin, struct manifest *out,
                              tessera_error *error) {
    *out = (struct manifest){0};
    return fields_parse(name, text, length, read_manifest, &(struct reading){out, pin}, error);
}

tessera_status manifest_open(const char *path, const char *pin, struct manifest *out, tessera_error *error) {
    *out = (struct manifest){0};
    return fields_open(path, MANIFEST_MOST_BYTES, read_manifest, &(struct reading){out, pin}, error);
}

/* ---- writing ---- */

static bool add_part(cJSON *list, const struct manifest_part *part) {
    cJSON *item = cJSON_CreateObject();
    if (item == NULL || !cJSON_AddItemToArray(list, item)) {
        cJSON_Delete(item);
        return false;
    }
    return cJSON_AddStringToObject(item, "file", part->file) != NULL && cJSON_AddNumberToObject(item, "first", part->range.first) != NULL &&
           cJSON_AddNumberToObject(item, "last", part->range.end - 1) != NULL &&
           cJSON_AddBoolToObject(item, "has_last_block", part->range.finish) != NULL &&
           cJSON_AddNumberToObject(item, "bytes", (double)part->bytes) != NULL &&
           fields_add_hex(item, "digest", part->digest, sizeof part->digest);
}

static bool add_fields(cJSON *root, const struct manifest *m) {
    bool good = cJSON_AddStringToObject(root, "specification", SPLIT_SPECIFICATION) != NULL &&
                cJSON_AddStringToObject(root, "model", m->model) != NULL && cJSON_AddStringToObject(root, "class", m->class_name) != NULL &&
                cJSON_AddStringToObject(root, "configuration", m->configuration) != NULL &&
                cJSON_AddNumberToObject(root, "blocks", m->blocks) != NULL;
    cJSON *list = good ? cJSON_AddArrayToObject(root, "parts") : NULL;
    good = list != NULL;
    for (int i = 0; i < m->count && good; i++) good = add_part(list, &m->parts[i]);
    return good && fields_add_base64(root, "public_key", m->owner.bytes, sizeof m->owner.bytes) &&
           fields_add_base64(root, "signature", m->signature, sizeof m->signature);
}

tessera_status manifest_write(struct manifest *m, const struct identity *owner, const char *path, tessera_error *error) {
    uint8_t hash[CANONICAL_HASH_BYTES];
    signed_hash(m, hash);
    m->owner = *identity_public(owner);
    TRY(identity_sign(owner, hash, sizeof hash, m->signature, error));
    cJSON *root = cJSON_CreateObject();
    if (root == NULL || !add_fields(root, m)) {
        cJSON_Delete(root);
        return out_of_memory(error);
    }
    return fields_write(root, path, error);
}
