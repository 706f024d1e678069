/* Files of tensors: safetensors, and GGUF for writing. Included by tessera_model.h. */
#ifndef TESSERA_MODEL_FILES_H
#define TESSERA_MODEL_FILES_H

#include "tessera_model/tensors.h"

struct safetensors;
tessera_status safetensors_open(const char *path, struct safetensors **out, tessera_error *error);
void safetensors_close(struct safetensors *file);
/* A view that is valid until the file is closed, never to be written; empty if there is no such
 * tensor. */
struct tensor safetensors_tensor(const struct safetensors *file, const char *name);
/* Its tensors in the order of the data, index from 0; what messages call the file; the value of
 * __metadata__[key], or NULL. */
struct safetensors_entry {
    const char *name;
    struct tensor tensor; /* a view into the map; unknown types are DTYPE_UNKNOWN [bytes] */
};
int safetensors_count(const struct safetensors *file);
const struct safetensors_entry *safetensors_at(const struct safetensors *file, int index);
const char *safetensors_path(const struct safetensors *file);
const char *safetensors_metadata(const struct safetensors *file, const char *key);
/* Writes tensors to a new file, which appears whole or not at all, with texts in __metadata__:
 * `notes` in their order, ended by an empty one. A path that ends in ".gguf" becomes a GGUF file.
 * UNSUPPORTED where a tensor has a type that the file cannot have. */
struct safetensors_note {
    const char *key, *value;
};
tessera_status safetensors_write_noted(const char *path, const struct safetensors_entry *entries, int count,
                                       const struct safetensors_note *notes, tessera_error *error);

#endif
