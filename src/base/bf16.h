/* bfloat16: the upper half of a float32. One rounding for the kernels, the weights and the sums
 * over ranks, which must agree bit for bit. */
#ifndef TESSERA_BASE_BF16_H
#define TESSERA_BASE_BF16_H

#include "base/float_bits.h"

static inline float bf16_widen(uint16_t bits) {
    return float_of((uint32_t)bits << 16);
}

/* To nearest, ties to even; a NaN stays one. */
static inline uint16_t bf16_round(float value) {
    uint32_t bits = bits_of(value);
    uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16, quiet_nan = bits >> 16 | 0x40u;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? quiet_nan : rounded);
}

#endif
