/* JSON: cJSON behind a small face that names file and field in every error.
 *
 * A document is read once and freed once; values are borrowed from it. What authors of
 * models need, json_open and the getters (json_int, ...), is in tessera_model/config.h. */
#ifndef TESSERA_BASE_JSON_H
#define TESSERA_BASE_JSON_H

#include "base/error.h"
#include "tessera_model/config.h"

struct cJSON; /* a value in a document, borrowed */

/* Parses `length` bytes; `name` stands for the file in messages. */
tessera_status json_parse(const char *name, const char *text, size_t length, struct json **out, tessera_error *error);
/* json_open of FOLDER/NAME. */
tessera_status json_open_in(const char *folder, const char *name, struct json **out, tessera_error *error);
const struct cJSON *json_root(const struct json *json);

/* NULL if absent or null. */
const struct cJSON *json_find(const struct json *json, const char *path);

#endif
