/* The product of a LoRA (Hu et al. 2021, equation 3): W' = W + factor * B A, for some rows and
 * inputs of W.
 *
 *     W  [O, I]           B [O, r]        A [r, I]
 *     W  [O, I, kh, kw]   B [O, r, 1, 1]  A [r, I, kh, kw]               a convolution: the kernel is A's
 *     W  [O, I, kh, kw]   B [O, r, 1, 1]  M [r, r, kh, kw]  A [r, I, 1, 1]   LoCon's middle: A' = M A per tap
 *
 * All are rows of numbers: what follows the first dimension is flattened. */
#ifndef TESSERA_CHECKPOINT_LORA_MERGE_H
#define TESSERA_CHECKPOINT_LORA_MERGE_H

#include "parallel/cut.h"
#include "tensor/tensor.h"

struct lora_product {
    struct tensor down, up; /* A and B: F32, F16 or BF16 */
    struct tensor mid;      /* M, or data == NULL */
    float factor;           /* scale * alpha / rank */
    int threads;            /* that merge it; at least 1 */
    bool up_transposed;     /* B is stored as [r, O] */
};

/* Does the product have the form of a weight of `shape`, with `rows` rows of B in the place of
 * shape[0]? Also true of a 1x1 convolution's LoRA and a matrix, and the other way round. */
bool lora_product_fits(const struct lora_product *product, int64_t rows, int ndim, const int64_t *shape);

/* Adds some rows and some inputs (of all their taps) of the product to `weight`, [rows.count,
 * inputs.count, taps]. The product must fit the whole weight; a piece gets the bits that it has in
 * the whole. MEMORY if float32 copies of these inputs of A and these rows of B cannot be had. The
 * result does not depend on the number of threads. */
tessera_status lora_merge_piece(const struct lora_product *product, struct span rows, struct span inputs, float *weight,
                                tessera_error *error);

#endif
