/* GGUF files, versions 2 and 3: llama.cpp's container, in which people share small weights of
 * diffusion models too. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 *
 *     | "GGUF" | version | tensors | values | key: value ... | name, extents, type, offset ... | padding | data |
 *
 * Strings are 8 bytes of length and then their bytes; numbers are little-endian; extents are listed
 * fastest first; offsets count from the data, which begins at a multiple of general.alignment (32).
 * Everything is checked against the file's length before it is followed.
 *
 * A GGUF file is opened as safetensors files are, and shows its tensors in the same way: extents
 * slowest first, types by ggml's names. */
#ifndef TESSERA_TENSOR_GGUF_H
#define TESSERA_TENSOR_GGUF_H

#include <stdio.h>

#include "tensor/safetensors.h"

/* Do the bytes begin as a GGUF file does? */
bool gguf_is(const uint8_t *data, size_t length);
/* The tensors of a file whose bytes the caller keeps while it is open; `name` stands for it in
 * messages. FORMAT errors name the field. */
tessera_status gguf_parse(const char *name, const uint8_t *data, size_t length, struct safetensors **out, tessera_error *error);

/* For writing (safetensors_write.c): can a GGUF file hold this type? */
bool gguf_has_type(enum dtype dtype);
enum { GGUF_ALIGNMENT = 32, GGUF_MAX_DIMS = 4 };
/* Everything before the data of a file of version 3 with these tensors (names, types and shapes are
 * used), up to the alignment. The bytes of each tensor then follow, each from a multiple of the
 * alignment. */
void gguf_print_header(FILE *stream, const struct safetensors_entry *entries, int count);

#endif
