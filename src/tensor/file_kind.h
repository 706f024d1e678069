/* What a file is that was given for weights and is none: by its first bytes. */
#ifndef TESSERA_TENSOR_FILE_KIND_H
#define TESSERA_TENSOR_FILE_KIND_H

#include <stddef.h>
#include <stdint.h>

/* "a Git LFS pointer, not the file: run 'git lfs pull' in its folder"; NULL if the bytes are of no
 * kind that is known here. The text lives in `buffer` or for ever. */
const char *file_kind(const uint8_t *data, size_t length, char *buffer, size_t capacity);

#endif
