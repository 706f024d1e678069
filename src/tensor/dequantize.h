/* Small weights: element types of 8 bits and fewer, read as float32.
 *
 * float8 has one number in each byte. The others are the block formats of GGUF files (ggml's "Q"
 * types): a block holds 32 or 256 numbers that share scales, and lies in memory as one piece.
 * Blocks follow one another through a tensor, row after row.
 *
 * NF4 and the types that end in _SCALED hold what files keep apart (tensor/scaled_weights.h): a
 * block of 64 numbers begins with its float32 scale. */
#ifndef TESSERA_TENSOR_DEQUANTIZE_H
#define TESSERA_TENSOR_DEQUANTIZE_H

#include "tensor/tensor.h"

/* `count` numbers of type `dtype`, a multiple of its block, from a block's start. dtype_convert
 * calls this. */
void dequantize(float *to, const void *from, enum dtype dtype, size_t count);

/* nf4's 16 values for a scale of 1 (Dettmers et al. 2023, QLoRA, appendix E), in float32 as
 * bitsandbytes has them. */
extern const float nf4_values[16];
#define INT8_STEP 7.874015718698502e-3f /* 1 / 127 of I8_SCALED, as bitsandbytes writes it */

#endif
