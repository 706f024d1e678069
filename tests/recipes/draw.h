/* torch.randn and torch.rand of float32 on a CPU with AVX2, bit for bit: what the weights of the
 * reference cases were drawn with.
 *
 * The engine's own generator (base/random.h) draws the same words, and normals that may differ from
 * torch's in the last bit. Here are torch's vectorised logarithm, sine and cosine
 * (aten/src/ATen/native/cpu/avx_mathfun.h, after Cephes and Julien Pommier's sse_mathfun), one
 * number at a time, with the fused multiplications and additions that its compiler made of them.
 * Every step is exact or rounds once by IEEE 754, so the bits are the same on every machine. */
#ifndef TESSERA_TESTS_RECIPES_DRAW_H
#define TESSERA_TESTS_RECIPES_DRAW_H

#include "base/random.h"

void draw_seed(struct random_generator *generator, uint64_t seed);
/* torch.randn(count) */
void draw_normal(struct random_generator *generator, float *out, size_t count);
/* torch.rand(count) */
void draw_uniform(struct random_generator *generator, float *out, size_t count);

#endif
