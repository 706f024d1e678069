/* JSON: cJSON behind a small face that names file and field in every error.
 *
 * A document is read once and freed once; values are borrowed from it. Getters take dotted paths of object keys
 * ("text_config.hidden_size"). A missing or null field gives the default; a field of the wrong type is an error. */
#ifndef TESSERA_BASE_JSON_H
#define TESSERA_BASE_JSON_H

#include "base/error.h"

struct json;  /* a document */
struct cJSON; /* a value in it, borrowed */

/* Reads a whole file. `max_bytes` guards against nonsense (0: 64 MiB). */
tessera_status json_open(const char *path, size_t max_bytes, struct json **out, tessera_error *error);
/* Parses `length` bytes; `name` stands for the file in messages. */
tessera_status json_parse(const char *name, const char *text, size_t length, struct json **out, tessera_error *error);
void json_free(struct json *json);
const char *json_path(const struct json *json);
const struct cJSON *json_root(const struct json *json);

/* NULL if absent or null. */
const struct cJSON *json_find(const struct json *json, const char *path);

tessera_status json_int(const struct json *json, const char *path, int64_t fallback, int64_t low, int64_t high, int64_t *out,
                        tessera_error *error);
tessera_status json_double(const struct json *json, const char *path, double fallback, double *out, tessera_error *error);
tessera_status json_bool(const struct json *json, const char *path, bool fallback, bool *out, tessera_error *error);
/* Borrowed; `fallback` may be NULL. */
tessera_status json_string(const struct json *json, const char *path, const char *fallback, const char **out, tessera_error *error);
/* Fills at most `capacity` integers; *count is how many there are (an absent field: 0). More than `capacity`, or one outside [low, high], is an error. */
tessera_status json_ints(const struct json *json, const char *path, int64_t low, int64_t high, int64_t *out, int capacity, int *count,
                         tessera_error *error);

#endif
