/* Fields of the JSON files of this room: read with every field checked, and written. FORMAT errors
 * name the file and the field. */
#ifndef TESSERA_SPLIT_FIELDS_H
#define TESSERA_SPLIT_FIELDS_H

#include "base/error.h"

struct cJSON;

struct fields {
    const char *name;         /* of the file */
    const struct cJSON *item; /* the object that is read */
    int place;                /* its place in the list "parts", for messages; -1: the file's root */
    tessera_error *error;
};

/* Reads the file's root by `read` into `out`; FORMAT where it is no JSON, or longer than
 * most_bytes. `name` stands for a text in messages. */
typedef tessera_status fields_reader(const struct fields *f, void *out);
tessera_status fields_open(const char *path, size_t most_bytes, fields_reader *read, void *out, tessera_error *error);
tessera_status fields_parse(const char *name, const char *text, size_t length, fields_reader *read, void *out, tessera_error *error);

/* "NAME: field KEY: what". */
tessera_status fields_wrong(const struct fields *f, const char *key, const char *what);
/* A copy, which the caller frees, also after an error. */
tessera_status fields_text(const struct fields *f, const char *key, char **out);
/* A whole number from 0 to `most`, which is at most 2^53. */
tessera_status fields_number(const struct fields *f, const char *key, double most, uint64_t *out);
tessera_status fields_boolean(const struct fields *f, const char *key, bool *out);
/* Exactly so many bytes, as hexadecimal digits, or as base64. */
tessera_status fields_hex(const struct fields *f, const char *key, uint8_t *out, size_t bytes);
tessera_status fields_base64(const struct fields *f, const char *key, uint8_t *out, size_t bytes);

/* False where memory is out. */
bool fields_add_hex(struct cJSON *object, const char *key, const uint8_t *data, size_t bytes);
bool fields_add_base64(struct cJSON *object, const char *key, const void *data, size_t bytes);
/* Writes the document, which appears whole or not at all, and frees it; NULL stands for one that
 * memory was out for. */
tessera_status fields_write(struct cJSON *root, const char *path, tessera_error *error);

#endif
