/* Tensors: what there is beside tessera_model.h's struct tensor, which owns nothing and whose elements are contiguous.
 *
 * Pictures and feature maps are [batch, rows, columns, channels], tokens [batch, tokens, channels]: the same memory, so a cut by rows is a
 * contiguous piece of each picture. */
#ifndef TESSERA_TENSOR_TENSOR_H
#define TESSERA_TENSOR_TENSOR_H

#include "base/error.h"

size_t dtype_size(enum dtype dtype);
const char *dtype_name(enum dtype dtype); /* safetensors' names: "F32", "BF16", ... */
bool dtype_from_name(const char *name, enum dtype *out);

/* The same memory under another shape of the same count. */
struct tensor tensor_reshape(struct tensor t, int ndim, const int64_t *shape);
/* "[2, 16, 64]"; returns `buffer`. */
const char *tensor_shape_text(int ndim, const int64_t *shape, char *buffer, size_t capacity);

/* Element conversion between F32, F16 and BF16 on the host, rounding to nearest even. */
void dtype_convert(void *to, enum dtype to_dtype, const void *from, enum dtype from_dtype, size_t count);
float bf16_to_f32(uint16_t x);
uint16_t f32_to_bf16(float x);
float f16_to_f32(uint16_t x);
uint16_t f32_to_f16(float x);

#endif
