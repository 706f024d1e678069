/* Reading small weights: float8 (Micikevicius et al. 2022, "FP8 formats for deep learning") and
 * ggml's block formats.
 *
 * d, m       a block's scale and offset, float16; q a small integer
 * Q8_0       | d | 32 x int8 |                                     x = d q
 * Q4_0       | d | 16 bytes: q of i and of i + 16 |                x = d (q - 8)
 * Q4_1       | d | m | 16 bytes |                                  x = d q + m
 * Q5_0, Q5_1 as Q4_0 and Q4_1 with a word of 32 fifth bits before the bytes; Q5_0 subtracts 16
 * Q2_K .. Q6_K  256 numbers in 16 or 8 groups; each group's scale (and offset) is a small integer times the block's d (and m)
 *
 * I8_SCALED  | s, float32 | 64 x int8 |                            x = q s / 127
 * F8_E4M3_SCALED, F8_E5M2_SCALED  | s, float32 | 64 x float8 |       x = q s
 * NF4        | s, float32 | 32 bytes: q of 2 i high, of 2 i + 1 low |   x = nf4_values[q] s
 *
 * Products and differences are rounded one by one, in the order of ggml's reference code, so that
 * the numbers are the same to the bit. Left out: IQ types, ternary types, microscaled types. */
#include "base/f16.h"
#include "tensor/dequantize.h"

#include <assert.h>
#include <string.h>

enum { BLOCK = 32, SCALED_BLOCK = 64, SUPER_BLOCK = 256 };

static float half_at(const uint8_t *from) {
    return f16_widen((uint16_t)(from[0] | from[1] << 8));
}

static uint32_t word_at(const uint8_t *from) {
    return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

/* ---- float8 ---- */

/* A float8 with `mantissa` bits and an exponent bias; magnitudes from `special` on are infinity
 * (its fraction 0) or NaN. A subnormal one counts steps. As for float16 (tensor.c), nothing depends
 * on subnormal float32 arithmetic or branches. */
static inline float widen(uint8_t x, int mantissa, uint32_t bias, uint32_t special, float step) {
    uint32_t magnitude = x & 0x7fu, fraction = magnitude & ((1u << mantissa) - 1);
    uint32_t normal = (magnitude << (23 - mantissa)) + ((127 - bias) << 23);
    uint32_t subnormal = bits_of((float)(int32_t)magnitude * step);
    uint32_t beyond = 0x7f800000u | (fraction != 0 ? 0x400000u : 0);
    uint32_t bits = magnitude >= special ? beyond : magnitude >> mantissa == 0 ? subnormal : normal;
    return float_of(bits | (uint32_t)(x & 0x80u) << 24);
}

/* e4m3fn has no infinity: only its largest magnitude is special, NaN. */
static void read_e4m3(float *restrict to, const uint8_t *restrict from, size_t count) {
    for (size_t i = 0; i < count; i++) to[i] = widen(from[i], 3, 7, 0x7f, 0x1p-9f);
}

static void read_e5m2(float *restrict to, const uint8_t *restrict from, size_t count) {
    for (size_t i = 0; i < count; i++) to[i] = widen(from[i], 2, 15, 0x7c, 0x1p-16f);
}

/* ---- blocks of 32 ---- */

static void read_q8_0(float *to, const uint8_t *b) {
    float d = half_at(b);
    for (int i = 0; i < BLOCK; i++) to[i] = (float)(int8_t)b[2 + i] * d;
}

static void read_q4_0(float *to, const uint8_t *b) {
    float d = half_at(b);
    for (int i = 0; i < BLOCK / 2; i++) {
        to[i] = (float)((b[2 + i] & 15) - 8) * d;
        to[i + BLOCK / 2] = (float)((b[2 + i] >> 4) - 8) * d;
    }
}

static void read_q4_1(float *to, const uint8_t *b) {
    float d = half_at(b), m = half_at(b + 2);
    for (int i = 0; i < BLOCK / 2; i++) {
        float low = (float)(b[4 + i] & 15) * d, high = (float)(b[4 + i] >> 4) * d;
        to[i] = low + m;
        to[i + BLOCK / 2] = high + m;
    }
}

/* q of number i where four bits are in `nibbles` and the fifth in `fifth`. */
static int five_bits(const uint8_t *nibbles, uint32_t fifth, int i) {
    int low = i < BLOCK / 2 ? nibbles[i] & 15 : nibbles[i - BLOCK / 2] >> 4;
    return low | (int)(fifth >> i & 1) << 4;
}

static void read_q5_0(float *to, const uint8_t *b) {
    float d = half_at(b);
    uint32_t fifth = word_at(b + 2);
    for (int i = 0; i < BLOCK; i++) to[i] = (float)(five_bits(b + 6, fifth, i) - 16) * d;
}

static void read_q5_1(float *to, const uint8_t *b) {
    float d = half_at(b), m = half_at(b + 2);
    uint32_t fifth = word_at(b + 4);
    for (int i = 0; i < BLOCK; i++) {
        float scaled = (float)five_bits(b + 8, fifth, i) * d;
        to[i] = scaled + m;
    }
}

/* ---- blocks of 256 ---- */

/* | 16 bytes: scale and offset of 16 numbers, 4 bits each | 64 bytes: 2 bits each | d | m | */
static void read_q2_k(float *to, const uint8_t *b) {
    float d = half_at(b + 80), m = half_at(b + 82);
    for (int i = 0; i < SUPER_BLOCK; i++) {
        int half = i / 128, pair = i % 128 / 32, group = i / 16;
        float scaled = d * (float)(b[group] & 15) * (float)(b[16 + half * 32 + i % 32] >> (2 * pair) & 3);
        to[i] = scaled - m * (float)(b[group] >> 4);
    }
}

/* | 32 bytes: third bits | 64 bytes: 2 bits each | 12 bytes: 16 scales of 6 bits | d | */
static void read_q3_k(float *to, const uint8_t *b) {
    float d = half_at(b + 108);
    const uint8_t *scales = b + 96;
    for (int i = 0; i < SUPER_BLOCK; i++) {
        int half = i / 128, pair = i % 128 / 32, group = i / 16;
        int low = group < 8 ? scales[group] & 15 : scales[group - 8] >> 4, high = scales[8 + group % 4] >> (2 * (group / 4)) & 3;
        float scale = d * (float)((low | high << 4) - 32);
        int q = b[32 + half * 32 + i % 32] >> (2 * pair) & 3, third = b[i % 32] >> (half * 4 + pair) & 1;
        to[i] = scale * (float)(q - (third ? 0 : 4));
    }
}

/* Scale and offset of group `i` of 8, 6 bits each, of the 12 bytes that Q4_K and Q5_K keep them in. */
static void six_bits(const uint8_t *b, int i, int *scale, int *offset) {
    *scale = i < 4 ? b[i] & 63 : (b[i + 4] & 15) | b[i - 4] >> 6 << 4;
    *offset = i < 4 ? b[i + 4] & 63 : b[i + 4] >> 4 | b[i] >> 6 << 4;
}

/* | d | m | 12 bytes: scales and offsets of 32 numbers | (Q5_K: 32 bytes: fifth bits) | 128 bytes: 4 bits each
 * | */
static void read_q45_k(float *to, const uint8_t *b, bool five) {
    float d = half_at(b), m = half_at(b + 2);
    const uint8_t *fifth = b + 16, *nibbles = five ? b + 48 : b + 16;
    for (int group = 0; group < SUPER_BLOCK / BLOCK; group++) {
        int scale, offset;
        six_bits(b + 4, group, &scale, &offset);
        float group_d = d * (float)scale, group_m = m * (float)offset;
        for (int i = 0; i < BLOCK; i++) {
            int q = nibbles[group / 2 * BLOCK + i] >> (group % 2 * 4) & 15;
            if (five) q += (fifth[i] >> group & 1) << 4;
            float scaled = group_d * (float)q;
            *to++ = scaled - group_m;
        }
    }
}

/* | 128 bytes: 4 bits each | 64 bytes: 2 more | 16 scales, int8 | d | */
static void read_q6_k(float *to, const uint8_t *b) {
    float d = half_at(b + 208);
    for (int i = 0; i < SUPER_BLOCK; i++) {
        int half = i / 128, quarter = i % 128 / 32, at = i % 32;
        int low = b[half * 64 + quarter % 2 * 32 + at] >> (quarter / 2 * 4) & 15, high = b[128 + half * 32 + at] >> (2 * quarter) & 3;
        to[i] = d * (float)(int8_t)b[192 + i / 16] * (float)((low | high << 4) - 32);
    }
}

/* ---- blocks of 64 ---- */

const float nf4_values[16] = {-1.0f,
                              -0.6961928009986877f,
                              -0.5250730514526367f,
                              -0.39491748809814453f,
                              -0.28444138169288635f,
                              -0.18477343022823334f,
                              -0.09105003625154495f,
                              0.0f,
                              0.07958029955625534f,
                              0.16093020141124725f,
                              0.24611230194568634f,
                              0.33791524171829224f,
                              0.44070982933044434f,
                              0.5626170039176941f,
                              0.7229568362236023f,
                              1.0f};

static float float_at(const uint8_t *from) {
    return float_of(word_at(from));
}

/* bitsandbytes multiplies by the scale first, then by 1 / 127. */
static void read_i8_scaled(float *to, const uint8_t *b) {
    float scale = float_at(b);
    for (int i = 0; i < SCALED_BLOCK; i++) {
        float scaled = (float)(int8_t)b[4 + i] * scale;
        to[i] = scaled * INT8_STEP;
    }
}

static void read_f8_scaled(float *to, const uint8_t *b, bool e4m3) {
    float scale = float_at(b);
    if (e4m3)
        read_e4m3(to, b + 4, SCALED_BLOCK);
    else
        read_e5m2(to, b + 4, SCALED_BLOCK);
    for (int i = 0; i < SCALED_BLOCK; i++) to[i] *= scale;
}

static void read_nf4(float *to, const uint8_t *b) {
    float scale = float_at(b);
    for (int i = 0; i < SCALED_BLOCK / 2; i++) {
        to[2 * i] = nf4_values[b[4 + i] >> 4] * scale;
        to[2 * i + 1] = nf4_values[b[4 + i] & 15] * scale;
    }
}

static void read_block(float *to, const uint8_t *b, enum dtype dtype) {
    switch (dtype) {
    case DTYPE_Q8_0:
        read_q8_0(to, b);
        break;
    case DTYPE_Q4_0:
        read_q4_0(to, b);
        break;
    case DTYPE_Q4_1:
        read_q4_1(to, b);
        break;
    case DTYPE_Q5_0:
        read_q5_0(to, b);
        break;
    case DTYPE_Q5_1:
        read_q5_1(to, b);
        break;
    case DTYPE_Q2_K:
        read_q2_k(to, b);
        break;
    case DTYPE_Q3_K:
        read_q3_k(to, b);
        break;
    case DTYPE_Q4_K:
        read_q45_k(to, b, false);
        break;
    case DTYPE_Q5_K:
        read_q45_k(to, b, true);
        break;
    case DTYPE_Q6_K:
        read_q6_k(to, b);
        break;
    case DTYPE_I8_SCALED:
        read_i8_scaled(to, b);
        break;
    case DTYPE_F8_E4M3_SCALED:
        read_f8_scaled(to, b, true);
        break;
    case DTYPE_F8_E5M2_SCALED:
        read_f8_scaled(to, b, false);
        break;
    case DTYPE_NF4:
        read_nf4(to, b);
        break;
    default:
        assert(!"an element type without blocks");
    }
}

void dequantize(float *to, const void *from, enum dtype dtype, size_t count) {
    size_t elements = (size_t)dtype_block(dtype), bytes = dtype_bytes(dtype, (int64_t)elements);
    assert(count % elements == 0);
    if (dtype == DTYPE_F8_E4M3) {
        read_e4m3(to, from, count);
    } else if (dtype == DTYPE_F8_E5M2) {
        read_e5m2(to, from, count);
    } else {
        const uint8_t *block = from;
        for (size_t i = 0; i < count; i += elements, block += bytes) read_block(to + i, block, dtype);
    }
}
