/* Noise as torch's CPU generator draws it, so that a seed gives the same picture as in diffusers.
 *
 * The words are those of the Mersenne Twister MT19937 (Matsumoto and Nishimura 1998). torch.randn
 * draws float32 normals by Box-Muller in two ways: fewer than 16 numbers go one by one through
 * float64 pairs (with a cached second value), 16 or more through float32 blocks of 16
 * (aten/src/ATen/native/cpu/DistributionTemplates.h, normal_fill). */
#ifndef TESSERA_BASE_RANDOM_H
#define TESSERA_BASE_RANDOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/elementary.h"

struct random_generator {
    const struct elementary *functions; /* the C library's after random_seed; for the caller to change before the first number */
    uint32_t state[624];
    int next;
    bool has_cached_normal; /* the scalar path's second value */
    double cached_normal;
};

void random_seed(struct random_generator *generator, uint64_t seed);
uint32_t random_word(struct random_generator *generator);
/* torch.randn(count) in float32. */
void random_normal(struct random_generator *generator, float *out, size_t count);

#endif
