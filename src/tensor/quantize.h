/* Writing small weights: float32 to float8 e4m3fn, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 and NF4.
 *
 * The block formats' bytes are those that llama.cpp's Python package `gguf` writes (its quants.py),
 * bit for bit. K types are read only: their writers search for scales, and llama.cpp's tools do
 * that. */
#ifndef TESSERA_TENSOR_QUANTIZE_H
#define TESSERA_TENSOR_QUANTIZE_H

#include "tensor/tensor.h"

/* `count` numbers, a multiple of the block, from a block's start; finite and within quantize_limit.
 * dtype_convert calls this. */
void quantize(void *to, enum dtype dtype, const float *from, size_t count);
/* The largest magnitude that a small type, or F16, can hold, whatever its neighbours in the block;
 * 0 if the type is not written. */
float quantize_limit(enum dtype dtype);

#endif
