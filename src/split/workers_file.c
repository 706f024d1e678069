/* See workers_file.h. */
#include "split/workers_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "split/fields.h"

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a list of workers");
}

static void free_replica(struct workers_replica *r) {
    free(r->url);
    free(r->pin);
    free(r->operator_name);
    free(r->token_file);
}

void workers_file_free(struct workers_file *file) {
    for (int p = 0; p < file->count; p++) {
        for (int i = 0; i < file->parts[p].count; i++) free_replica(&file->parts[p].replicas[i]);
        free(file->parts[p].replicas);
    }
    free(file->manifest_file);
    free(file->manifest_pin);
    free(file->manifest_text);
    *file = (struct workers_file){0};
}

/* Takes the replica over, on failure too. */
static tessera_status add_replica(struct workers_file *file, int part, struct workers_replica replica, tessera_error *error) {
    if (file->count <= part) file->count = part + 1;
    struct workers_part *p = &file->parts[part];
    if (replica.operator_name == NULL && replica.url != NULL) replica.operator_name = strdup(replica.url);
    struct workers_replica *longer = realloc(p->replicas, (size_t)(p->count + 1) * sizeof *longer);
    if (longer != NULL) p->replicas = longer;
    if (longer == NULL || replica.url == NULL || replica.pin == NULL || replica.operator_name == NULL) {
        free_replica(&replica);
        return out_of_memory(error);
    }
    p->replicas[p->count++] = replica;
    return TESSERA_OK;
}

/* ---- the file ---- */

/* The object has these fields alone. */
static tessera_status check_fields(const struct fields *r, const cJSON *object, const char *where, const char *const *known) {
    char field[160];
    for (const cJSON *item = object->child; item != NULL; item = item->next) {
        int i = 0;
        while (known[i] != NULL && strcmp(known[i], item->string) != 0) i++;
        snprintf(field, sizeof field, "%s%.60s", where, item->string);
        if (known[i] == NULL) return fields_wrong(r, field, "is not known here: is it misspelt?");
    }
    return TESSERA_OK;
}

/* A text that may be missing where !needed: *out stays NULL then. */
static tessera_status read_text(const struct fields *r, const cJSON *object, const char *where, const char *key, bool needed, char **out) {
    char field[160];
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    const char *value = cJSON_GetStringValue(item);
    snprintf(field, sizeof field, "%s%s", where, key);
    if (item == NULL && !needed) return TESSERA_OK;
    if (value == NULL || value[0] == 0) return fields_wrong(r, field, "is missing, or no text");
    *out = strdup(value);
    return *out != NULL ? TESSERA_OK : out_of_memory(r->error);
}

/* A file's name, relative to the folder of the JSON file. */
static tessera_status read_path(const struct fields *r, const cJSON *object, const char *where, const char *key, char **out) {
    char *given = NULL;
    const char *slash = strrchr(r->name, '/');
    TRY(read_text(r, object, where, key, false, &given));
    if (given == NULL || given[0] == '/' || slash == NULL) {
        *out = given;
        return TESSERA_OK;
    }
    int length = asprintf(out, "%.*s/%s", (int)(slash - r->name), r->name, given);
    free(given);
    if (length >= 0) return TESSERA_OK;
    *out = NULL;
    return out_of_memory(r->error);
}

static tessera_status read_replica(const struct fields *r, const cJSON *item, int part, int index, struct workers_file *out) {
    static const char *const known[] = {"url", "pin", "operator", "token_file", NULL};
    struct workers_replica replica = {0};
    char where[64];
    snprintf(where, sizeof where, "parts[%d].replicas[%d].", part, index);
    if (!cJSON_IsObject(item)) return fields_wrong(r, where, "is no object");
    tessera_status status = check_fields(r, item, where, known);
    if (status == TESSERA_OK) status = read_text(r, item, where, "url", true, &replica.url);
    if (status == TESSERA_OK) status = read_text(r, item, where, "pin", true, &replica.pin);
    if (status == TESSERA_OK) status = read_text(r, item, where, "operator", false, &replica.operator_name);
    if (status == TESSERA_OK) status = read_path(r, item, where, "token_file", &replica.token_file);
    if (status == TESSERA_OK) return add_replica(out, part, replica, r->error);
    free_replica(&replica);
    return status;
}

static tessera_status read_part(const struct fields *r, const cJSON *item, int part, struct workers_file *out) {
    static const char *const known[] = {"replicas", NULL};
    char where[32];
    int index = 0;
    snprintf(where, sizeof where, "parts[%d].", part);
    if (!cJSON_IsObject(item)) return fields_wrong(r, where, "is no object");
    TRY(check_fields(r, item, where, known));
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(item, "replicas");
    int count = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : 0;
    if (count < 1 || count > WORKERS_MOST_REPLICAS) return fields_wrong(r, where, "replicas: no list of 1 to 64 workers");
    for (const cJSON *replica = list->child; replica != NULL; replica = replica->next) TRY(read_replica(r, replica, part, index++, out));
    return TESSERA_OK;
}

static tessera_status read_manifest(const struct fields *r, const cJSON *root, struct workers_file *out) {
    const cJSON *manifest = cJSON_GetObjectItemCaseSensitive(root, "manifest");
    TRY(read_text(r, root, "", "manifest_pin", false, &out->manifest_pin));
    if (manifest == NULL && out->manifest_pin != NULL) return fields_wrong(r, "manifest_pin", "stands there without a manifest");
    if (!cJSON_IsObject(manifest)) return read_path(r, root, "", "manifest", &out->manifest_file);
    out->manifest_text = cJSON_PrintUnformatted(manifest);
    return out->manifest_text != NULL ? TESSERA_OK : out_of_memory(r->error);
}

static tessera_status read_fields(const struct fields *r, void *user) {
    const cJSON *root = r->item;
    struct workers_file *out = user;
    static const char *const known[] = {"manifest", "manifest_pin", "parts", NULL};
    int part = 0;
    if (!cJSON_IsObject(root)) return fields_wrong(r, "parts", "is missing: the file is no object");
    TRY(check_fields(r, root, "", known));
    TRY(read_manifest(r, root, out));
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(root, "parts");
    int count = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : 0;
    if (count < 1 || count > WORKERS_MOST_PARTS) return fields_wrong(r, "parts", "no list of 1 to 64 parts");
    for (const cJSON *item = list->child; item != NULL; item = item->next) TRY(read_part(r, item, part++, out));
    return TESSERA_OK;
}

tessera_status workers_file_parse(const char *name, const char *text, size_t length, struct workers_file *out, tessera_error *error) {
    return fields_parse(name, text, length, read_fields, out, error);
}

tessera_status workers_file_read(const char *path, struct workers_file *out, tessera_error *error) {
    return fields_open(path, WORKERS_FILE_MOST_BYTES, read_fields, out, error);
}

/* ---- words ---- */

/* One URL#PIN. */
static tessera_status add_words(struct workers_file *file, int part, const char *words, size_t length, const char *token_file,
                                tessera_error *error) {
    const char *mark = memchr(words, '#', length);
    if (mark == NULL || mark == words || mark == words + length - 1)
        return error_set(
            error, TESSERA_ERROR_ARGUMENT,
            "worker %.*s: needs URL#PIN, such as https://a.example:8443#sha256//...: `tessera worker` prints both when it starts",
            (int)length, words);
    struct workers_replica replica = {.url = strndup(words, (size_t)(mark - words)),
                                      .pin = strndup(mark + 1, length - (size_t)(mark + 1 - words))};
    if (token_file != NULL) replica.token_file = strdup(token_file);
    if (token_file != NULL && replica.token_file == NULL) {
        free_replica(&replica);
        return out_of_memory(error);
    }
    return add_replica(file, part, replica, error);
}

tessera_status workers_file_add(struct workers_file *file, const char *words, const char *token_file, tessera_error *error) {
    char *end;
    errno = 0;
    long part = strtol(words, &end, 10);
    if (end == words || *end != '=' || errno != 0 || part < 1 || part > WORKERS_MOST_PARTS)
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "worker %.200s: begins with the number of its part, 1 to %d, as in 1=https://a.example:8443#PIN", words,
                         WORKERS_MOST_PARTS);
    for (const char *at = end; *at != 0; at += strcspn(at, ",")) {
        at++;
        TRY(add_words(file, (int)part - 1, at, strcspn(at, ","), token_file, error));
        if (file->parts[part - 1].count > WORKERS_MOST_REPLICAS)
            return error_set(error, TESSERA_ERROR_ARGUMENT, "worker: part %ld has more than %d replicas", part, WORKERS_MOST_REPLICAS);
    }
    return TESSERA_OK;
}

/* ---- what is missing ---- */

tessera_status workers_file_check(const struct workers_file *file, tessera_error *error) {
    if (file->count == 0) return error_set(error, TESSERA_ERROR_ARGUMENT, "workers: none are named");
    for (int p = 0; p < file->count; p++)
        if (file->parts[p].count == 0)
            return error_set(error, TESSERA_ERROR_ARGUMENT,
                             "workers: part %d has none, but part %d has: parts are numbered from 1 on, without gaps", p + 1, file->count);
    return TESSERA_OK;
}

tessera_status workers_file_manifest(const struct workers_file *file, struct manifest *out, bool *has, tessera_error *error) {
    *out = (struct manifest){0};
    *has = file->manifest_file != NULL || file->manifest_text != NULL;
    if (!*has) return TESSERA_OK;
    if (file->manifest_file != NULL)
        TRY(manifest_open(file->manifest_file, file->manifest_pin, out, error));
    else
        TRY(manifest_parse("manifest in the list of workers", file->manifest_text, strlen(file->manifest_text), file->manifest_pin, out,
                           error));
    if (out->count == file->count) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_ARGUMENT, "workers: the manifest has %d parts, but workers are named for %d", out->count,
                     file->count);
}
