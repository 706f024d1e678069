/* Tensors: what there is beside tessera_model/tensors.h's struct tensor, which owns nothing and
 * whose elements are contiguous.
 *
 * Pictures and feature maps are [batch, rows, columns, channels], tokens [batch, tokens, channels]:
 * the same memory, so a cut by rows is a contiguous piece of each picture. */
#ifndef TESSERA_TENSOR_TENSOR_H
#define TESSERA_TENSOR_TENSOR_H

#include "base/error.h"
#include "tessera_model/tensors.h"

/* Numbers of a type lie in blocks of dtype_block numbers; 1 for plain types, whose size dtype_size
 * gives. */
int64_t dtype_block(enum dtype dtype);
size_t dtype_size(enum dtype dtype);                 /* bytes of one number of a plain type */
size_t dtype_bytes(enum dtype dtype, int64_t count); /* bytes of `count` numbers, a multiple of the block */
size_t dtype_alignment(enum dtype dtype);            /* of the first byte; 1 for block formats, which are read byte by byte */
const char *dtype_name(enum dtype dtype);            /* safetensors' and GGUF's names: "F32", "F8_E4M3", "Q4_0", ... */
bool dtype_from_name(const char *name, enum dtype *out);
bool dtype_is_float(enum dtype dtype);  /* F32, F16, BF16 */
bool dtype_is_small(enum dtype dtype);  /* float8 and block formats: weights that stay as they are stored */
bool dtype_is_weight(enum dtype dtype); /* one of both: what dtype_convert reads */
bool dtype_is_written(enum dtype dtype); /* what dtype_convert writes: F32, F16, BF16 and the small types of tensor/quantize.h */
/* What the API calls an activation type; ARGUMENT if it is neither TESSERA_F32 nor TESSERA_BF16. */
tessera_status dtype_of_activations(tessera_dtype asked, enum dtype *out, tessera_error *error);

/* The same memory under another shape of the same count. */
struct tensor tensor_reshape(struct tensor t, int ndim, const int64_t *shape);
/* "[2, 16, 64]"; returns `buffer`. */
const char *tensor_shape_text(int ndim, const int64_t *shape, char *buffer, size_t capacity);

/* Element conversion on the host, rounding to nearest even (block formats: as tensor/quantize.h
 * says): from any type of weights to any type that dtype_is_written. Of block formats the pointers
 * are starts of blocks and `count` is a multiple of the block. */
void dtype_convert(void *to, enum dtype to_dtype, const void *from, enum dtype from_dtype, size_t count);

#endif
