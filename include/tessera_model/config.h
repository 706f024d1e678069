/* A model's config.json, and other JSON files. Included by tessera_model.h. */
#ifndef TESSERA_MODEL_CONFIG_H
#define TESSERA_MODEL_CONFIG_H

#include "tessera_model/errors.h"

struct json; /* a document; values are borrowed from it */

/* Opens a JSON file of at most `max_bytes` (0: 64 MiB). The caller frees it with json_free; NULL is
 * fine there. */
tessera_status json_open(const char *path, size_t max_bytes, struct json **out, tessera_error *error);
void json_free(struct json *json);

/* Getters take dotted paths of object keys. A missing or null field gives `fallback`; one of the
 * wrong type, or outside [low, high], is a FORMAT error that names file and field. */
tessera_status json_int(const struct json *json, const char *path, int64_t fallback, int64_t low, int64_t high, int64_t *out,
                        tessera_error *error);
tessera_status json_double(const struct json *json, const char *path, double fallback, double *out, tessera_error *error);
tessera_status json_bool(const struct json *json, const char *path, bool fallback, bool *out, tessera_error *error);
/* Borrowed; `fallback` may be NULL. */
tessera_status json_string(const struct json *json, const char *path, const char *fallback, const char **out, tessera_error *error);
/* Fills at most `capacity` integers; *count is how many there are (an absent field: 0). More than
 * `capacity`, or one outside [low, high], is an error. */
tessera_status json_ints(const struct json *json, const char *path, int64_t low, int64_t high, int64_t *out, int capacity, int *count,
                         tessera_error *error);
/* The file's name, for messages. */
const char *json_path(const struct json *json);

#endif
