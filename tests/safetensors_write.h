/* A file of tensors without notes. */
#ifndef TESSERA_TESTS_SAFETENSORS_WRITE_H
#define TESSERA_TESTS_SAFETENSORS_WRITE_H

#include "tensor/safetensors.h"

static inline tessera_status safetensors_write(const char *path, const struct safetensors_entry *entries, int count, tessera_error *error) {
    return safetensors_write_noted(path, entries, count, &(struct safetensors_note){NULL, NULL}, error);
}

#endif
