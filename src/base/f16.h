/* float16 (IEEE 754 binary16) to and from float32, without branches on the data, so that the
 * compiler can turn loops into vector code; neither depends on subnormal float32 arithmetic, which
 * some libraries switch off. A NaN stays a (quiet) NaN. */
#ifndef TESSERA_BASE_F16_H
#define TESSERA_BASE_F16_H

#include "base/float_bits.h"

/* float16's exponent bias is 15, float32's 127; 112 lies between. A subnormal float16 counts steps
 * of 2^-24. */
static inline float f16_widen(uint16_t x) {
    uint32_t magnitude = x & 0x7fffu;
    uint32_t normal = (magnitude << 13) + (112u << 23);
    uint32_t special = (magnitude << 13) | 0x7f800000u | (magnitude > 0x7c00u ? 0x400000u : 0);
    uint32_t subnormal = bits_of((float)(int32_t)magnitude * 0x1p-24f);
    uint32_t bits = magnitude >= 0x7c00u ? special : magnitude < 0x400u ? subnormal : normal;
    return float_of(bits | (uint32_t)(x & 0x8000u) << 16);
}

/* To nearest, ties to even. Below 2^-14 the sum with 0.5, whose last bit is worth 2^-24, rounds to
 * float16's subnormal steps. */
static inline uint16_t f16_round(float x) {
    uint32_t bits = bits_of(x), magnitude = bits & 0x7fffffffu;
    uint32_t normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1)) >> 13;
    uint32_t subnormal = bits_of(float_of(magnitude < 0x38800000u ? magnitude : 0) + 0.5f) - 0x3f000000u;
    uint32_t nan = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
    uint32_t special = magnitude > 0x7f800000u ? nan : 0x7c00u;
    uint32_t half = magnitude >= 0x47800000u ? special : magnitude < 0x38800000u ? subnormal : normal;
    return (uint16_t)(half | (bits >> 16 & 0x8000u));
}

#endif
