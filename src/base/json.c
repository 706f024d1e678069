/* JSON: cJSON (https://github.com/DaveGamble/cJSON) behind getters that name file and field.
 *
 * The text is parsed from a copy that ends in a 0 byte, because cJSON before 1.7.18 looks one byte
 * beyond the length that it is given. Numbers are doubles: integers are exact up to 2^53, and
 * larger ones are refused. Of a key that comes twice the first counts. */
#include "base/json.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

#define DEFAULT_MAX_BYTES ((size_t)64 << 20)
#define EXACT_INTEGERS 0x1p53

struct json {
    char *path;
    cJSON *root;
};

tessera_status json_open(const char *path, size_t max_bytes, struct json **out, tessera_error *error) {
    *out = NULL;
    char *text;
    size_t length;
    TRY(file_read_regular(path, max_bytes == 0 ? DEFAULT_MAX_BYTES : max_bytes, &text, &length, error));
    tessera_status status = json_parse(path, text, length, out, error);
    free(text);
    return status;
}

tessera_status json_open_in(const char *folder, const char *name, struct json **out, tessera_error *error) {
    *out = NULL;
    char *path = file_join(folder, name);
    if (path == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s/%s: no memory for its path", folder, name);
    tessera_status status = json_open(path, 0, out, error);
    free(path);
    return status;
}

static int line_of(const char *text, const char *position) {
    int line = 1;
    for (; text < position; text++) line += *text == '\n';
    return line;
}

tessera_status json_parse(const char *name, const char *text, size_t length, struct json **out, tessera_error *error) {
    *out = NULL;
    tessera_status status = TESSERA_OK;
    struct json *json = calloc(1, sizeof *json);
    char *copy = length < SIZE_MAX ? malloc(length + 1) : NULL;
    if (json == NULL || copy == NULL || (json->path = strdup(name)) == NULL) {
        status = error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for %zu bytes of JSON", name, length);
        goto fail;
    }
    memcpy(copy, text, length);
    copy[length] = 0;
    const char *end = copy;
    json->root = cJSON_ParseWithLengthOpts(copy, length + 1, &end, true);
    if (json->root == NULL || end != copy + length) {
        status = error_set(error, TESSERA_ERROR_FORMAT, "%s: not JSON: cannot be read on from line %d, byte %zu", name, line_of(copy, end),
                           (size_t)(end - copy));
        goto fail;
    }
    free(copy);
    *out = json;
    return TESSERA_OK;
fail:
    free(copy);
    json_free(json);
    return status;
}

void json_free(struct json *json) {
    if (json == NULL) return;
    cJSON_Delete(json->root);
    free(json->path);
    free(json);
}

const char *json_path(const struct json *json) {
    return json->path;
}

const struct cJSON *json_root(const struct json *json) {
    return json->root;
}

static const cJSON *member(const cJSON *object, const char *key, size_t length) {
    if (!cJSON_IsObject(object)) return NULL;
    for (const cJSON *child = object->child; child != NULL; child = child->next)
        if (strncmp(child->string, key, length) == 0 && child->string[length] == 0) return child;
    return NULL;
}

const struct cJSON *json_find(const struct json *json, const char *path) {
    const cJSON *value = json->root;
    for (const char *key = path; value != NULL;) {
        size_t length = strcspn(key, ".");
        value = member(value, key, length);
        if (key[length] == 0) break;
        key += length + 1;
    }
    return value == NULL || cJSON_IsNull(value) ? NULL : value;
}

static tessera_status wrong_type(const struct json *json, const char *path, const char *expected, tessera_error *error) {
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: field \"%s\" must be %s", json->path, path, expected);
}

/* `place` names the value in messages. */
static tessera_status to_int(const struct json *json, const cJSON *value, const char *place, int64_t low, int64_t high, int64_t *out,
                             tessera_error *error) {
    if (!cJSON_IsNumber(value)) return wrong_type(json, place, "an integer", error);
    double number = value->valuedouble;
    if (!(fabs(number) <= EXACT_INTEGERS) || number != floor(number)) return wrong_type(json, place, "an integer", error);
    int64_t integer = (int64_t)number;
    if (integer < low || integer > high)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: field \"%s\" is %lld, but must be from %lld to %lld", json->path, place,
                         (long long)integer, (long long)low, (long long)high);
    *out = integer;
    return TESSERA_OK;
}

tessera_status json_int(const struct json *json, const char *path, int64_t fallback, int64_t low, int64_t high, int64_t *out,
                        tessera_error *error) {
    const cJSON *value = json_find(json, path);
    *out = fallback;
    return value == NULL ? TESSERA_OK : to_int(json, value, path, low, high, out, error);
}

tessera_status json_double(const struct json *json, const char *path, double fallback, double *out, tessera_error *error) {
    const cJSON *value = json_find(json, path);
    *out = fallback;
    if (value == NULL) return TESSERA_OK;
    if (!cJSON_IsNumber(value) || !isfinite(value->valuedouble)) return wrong_type(json, path, "a finite number", error);
    *out = value->valuedouble;
    return TESSERA_OK;
}

tessera_status json_bool(const struct json *json, const char *path, bool fallback, bool *out, tessera_error *error) {
    const cJSON *value = json_find(json, path);
    *out = fallback;
    if (value == NULL) return TESSERA_OK;
    if (!cJSON_IsBool(value)) return wrong_type(json, path, "true or false", error);
    *out = cJSON_IsTrue(value);
    return TESSERA_OK;
}

tessera_status json_string(const struct json *json, const char *path, const char *fallback, const char **out, tessera_error *error) {
    const cJSON *value = json_find(json, path);
    *out = fallback;
    if (value == NULL) return TESSERA_OK;
    if (!cJSON_IsString(value)) return wrong_type(json, path, "a string", error);
    *out = value->valuestring;
    return TESSERA_OK;
}

tessera_status json_ints(const struct json *json, const char *path, int64_t low, int64_t high, int64_t *out, int capacity, int *count,
                         tessera_error *error) {
    const cJSON *value = json_find(json, path);
    *count = 0;
    if (value == NULL) return TESSERA_OK;
    if (!cJSON_IsArray(value)) return wrong_type(json, path, "a list of integers", error);
    int read = 0;
    for (const cJSON *item = value->child; item != NULL; item = item->next, read++) {
        if (read == capacity)
            return error_set(error, TESSERA_ERROR_FORMAT, "%s: field \"%s\" has more than %d numbers", json->path, path, capacity);
        char place[160];
        snprintf(place, sizeof place, "%s[%d]", path, read);
        TRY(to_int(json, item, place, low, high, &out[read], error));
    }
    *count = read;
    return TESSERA_OK;
}
