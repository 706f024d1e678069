/* Small weights: element types of 8 bits and fewer, read as float32.
 *
 * float8 has one number in each byte. The others are the block formats of GGUF files (ggml's "Q" types): a block holds 32 or 256
 * numbers that share scales, and lies in memory as one piece. Blocks follow one another along a row. */
#ifndef TESSERA_TENSOR_DEQUANTIZE_H
#define TESSERA_TENSOR_DEQUANTIZE_H

#include "tensor/tensor.h"

/* `count` numbers of type `dtype`, a multiple of its block, from a block's start. dtype_convert calls this. */
void dequantize(float *to, const void *from, enum dtype dtype, size_t count);

#endif
