/* See fields.h. */
#include "split/fields.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/file.h"
#include "base/json.h"
#include "split/identity.h"

static const cJSON *find(const struct fields *f, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(f->item, key);
}

tessera_status fields_parse(const char *name, const char *text, size_t length, fields_reader *read, void *out, tessera_error *error) {
    struct json *json;
    TRY(json_parse(name, text, length, &json, error));
    const struct fields f = {.name = name, .item = json_root(json), .place = -1, .error = error};
    tessera_status status = read(&f, out);
    json_free(json);
    return status;
}

tessera_status fields_open(const char *path, size_t most_bytes, fields_reader *read, void *out, tessera_error *error) {
    char *text;
    size_t length;
    TRY(file_read_regular(path, most_bytes, &text, &length, error));
    tessera_status status = fields_parse(path, text, length, read, out, error);
    free(text);
    return status;
}

tessera_status fields_wrong(const struct fields *f, const char *key, const char *what) {
    if (f->place < 0) return error_set(f->error, TESSERA_ERROR_FORMAT, "%s: field %s: %s", f->name, key, what);
    return error_set(f->error, TESSERA_ERROR_FORMAT, "%s: field parts[%d].%s: %s", f->name, f->place, key, what);
}

tessera_status fields_text(const struct fields *f, const char *key, char **out) {
    const char *value = cJSON_GetStringValue(find(f, key));
    *out = NULL;
    if (value == NULL) return fields_wrong(f, key, "is missing, or no text");
    *out = strdup(value);
    return *out != NULL ? TESSERA_OK : error_set(f->error, TESSERA_ERROR_MEMORY, "out of memory");
}

tessera_status fields_number(const struct fields *f, const char *key, double most, uint64_t *out) {
    const cJSON *value = find(f, key);
    *out = 0;
    if (!cJSON_IsNumber(value) || !(value->valuedouble >= 0 && value->valuedouble <= most) ||
        value->valuedouble != (double)(uint64_t)value->valuedouble)
        return fields_wrong(f, key, "is missing, or no whole number that is possible here");
    *out = (uint64_t)value->valuedouble;
    return TESSERA_OK;
}

tessera_status fields_boolean(const struct fields *f, const char *key, bool *out) {
    *out = cJSON_IsTrue(find(f, key));
    return cJSON_IsBool(find(f, key)) ? TESSERA_OK : fields_wrong(f, key, "is missing, or neither true nor false");
}

tessera_status fields_hex(const struct fields *f, const char *key, uint8_t *out, size_t bytes) {
    const char *value = cJSON_GetStringValue(find(f, key));
    if (value != NULL && identity_unhex(value, out, bytes)) return TESSERA_OK;
    return fields_wrong(f, key, "is missing, or not as many lower-case hexadecimal digits as it has");
}

tessera_status fields_base64(const struct fields *f, const char *key, uint8_t *out, size_t bytes) {
    const char *value = cJSON_GetStringValue(find(f, key));
    uint8_t *data = NULL;
    size_t count = 0;
    bool right = value != NULL && identity_unbase64(value, bytes, &data, &count) && count == bytes;
    if (right) memcpy(out, data, bytes);
    free(data);
    return right ? TESSERA_OK : fields_wrong(f, key, "is missing, or not base64 of as many bytes as it has");
}

bool fields_add_hex(cJSON *object, const char *key, const uint8_t *data, size_t bytes) {
    char *text = malloc(2 * bytes + 1);
    if (text == NULL) return false;
    identity_hex(data, bytes, text);
    bool added = cJSON_AddStringToObject(object, key, text) != NULL;
    free(text);
    return added;
}

bool fields_add_base64(cJSON *object, const char *key, const void *data, size_t bytes) {
    char *text = identity_base64(data, bytes);
    bool added = text != NULL && cJSON_AddStringToObject(object, key, text) != NULL;
    free(text);
    return added;
}

static tessera_status write_text(const char *path, const char *text, tessera_error *error) {
    struct file_output output;
    TRY(file_output_open(path, &output, error));
    fprintf(output.stream, "%s\n", text);
    return file_output_commit(&output, error);
}

tessera_status fields_write(cJSON *root, const char *path, tessera_error *error) {
    char *text = root != NULL ? cJSON_Print(root) : NULL;
    cJSON_Delete(root);
    tessera_status status =
        text != NULL ? write_text(path, text, error) : error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory for writing it", path);
    cJSON_free(text);
    return status;
}
