/* Writing small weights; see dequantize.c for the formats.
 *
 *     Q8_0   d = max |x| / 127             q = round(x / d), halves away from zero
 *     Q4_0   d = x_m / -8                  q = floor(x / d + 8.5), at most 15; x_m has the largest magnitude, the first of equals
 *     Q4_1   m = min x, d = (max x - m) / 15    q = floor((x - m) / d + 0.5)
 *     Q5_0, Q5_1   the same with -16, 16.5, 31
 *     NF4    s = max |x|                   q = the nearest of nf4_values to x / s
 *
 * The scale is rounded to float16 when it is stored, but q is computed from the unrounded one, as
 * ggml does. Where 1 / d is infinite the block's numbers are below what float16 can scale, and
 * become 0. */
#include "tensor/quantize.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/f16.h"
#include "tensor/dequantize.h"

enum { BLOCK = 32, NF4_BLOCK = 64 };

static void put_half(uint8_t *to, float x) {
    uint16_t half = f16_round(x);
    to[0] = (uint8_t)half;
    to[1] = (uint8_t)(half >> 8);
}

static float inverse(float d) {
    float id = d == 0 ? 0 : 1 / d;
    return isfinite(id) ? id : 0;
}

/* Round to nearest even, as torch's and ml_dtypes' casts do. Below 2^-6 the sum with 2^14, whose
 * last bit is worth 2^-9, rounds to e4m3's subnormal steps. */
static uint8_t e4m3_of(float x) {
    uint32_t bits = bits_of(x);
    uint32_t magnitude = bits & 0x7fffffffu, sign = bits >> 24 & 0x80u;
    if (magnitude < 0x3c800000u) return (uint8_t)(sign | (bits_of(fabsf(x) + 0x1p14f) - 0x46800000u));
    uint32_t rounded = (magnitude - (120u << 23) + 0x7ffffu + (magnitude >> 20 & 1)) >> 20;
    return (uint8_t)(sign | (rounded < 0x7f ? rounded : 0x7f));
}

static void write_q8_0(uint8_t *to, const float *x) {
    float most = 0;
    for (int i = 0; i < BLOCK; i++) most = fmaxf(most, fabsf(x[i]));
    float d = most / 127, id = inverse(d);
    put_half(to, d);
    for (int i = 0; i < BLOCK; i++) to[2 + i] = (uint8_t)(int8_t)roundf(x[i] * id);
}

/* Four bits of q_i and q_{i + 16} to each byte; a fifth bit, if there is one, to the word before. */
static void put_bits(uint8_t *to, const int q[BLOCK], bool five) {
    uint32_t fifth = 0;
    for (int i = 0; i < BLOCK; i++) fifth |= (uint32_t)(q[i] >> 4 & 1) << i;
    for (int i = 0; five && i < 4; i++) *to++ = (uint8_t)(fifth >> 8 * i);
    for (int i = 0; i < BLOCK / 2; i++) to[i] = (uint8_t)((q[i] & 15) | (q[i + BLOCK / 2] & 15) << 4);
}

/* Q4_0 and Q5_0. The sum is rounded once, to float32, before its fraction is cut off: so does gguf. */
static void write_symmetric(uint8_t *to, const float *x, int half) {
    float most = x[0];
    int q[BLOCK];
    for (int i = 1; i < BLOCK; i++) most = fabsf(x[i]) > fabsf(most) ? x[i] : most;
    float d = most / (float)-half;
    double id = (double)inverse(d);
    put_half(to, d);
    for (int i = 0; i < BLOCK; i++) {
        int value = (int)(float)((double)x[i] * id + (half + 0.5));
        q[i] = value < 2 * half - 1 ? value : 2 * half - 1;
    }
    put_bits(to + 2, q, half == 16);
}

/* Q4_1 and Q5_1. */
static void write_offset(uint8_t *to, const float *x, int steps) {
    float low = x[0], high = x[0];
    int q[BLOCK];
    for (int i = 1; i < BLOCK; i++) {
        low = fminf(low, x[i]);
        high = fmaxf(high, x[i]);
    }
    float d = (high - low) / (float)steps, id = inverse(d);
    put_half(to, d);
    put_half(to + 2, low);
    for (int i = 0; i < BLOCK; i++) {
        float scaled = (x[i] - low) * id;
        int value = (int)(scaled + 0.5f);
        q[i] = value < steps ? value : steps;
    }
    put_bits(to + 4, q, steps == 31);
}

static int nearest_nf4(float x) {
    int best = 0;
    for (int i = 1; i < 16; i++) best = fabsf(x - nf4_values[i]) < fabsf(x - nf4_values[best]) ? i : best;
    return best;
}

static void write_nf4(uint8_t *to, const float *x) {
    float most = 0;
    for (int i = 0; i < NF4_BLOCK; i++) most = fmaxf(most, fabsf(x[i]));
    float id = inverse(most);
    uint32_t bits = bits_of(most);
    for (int i = 0; i < 4; i++) *to++ = (uint8_t)(bits >> 8 * i);
    for (int i = 0; i < NF4_BLOCK; i += 2) *to++ = (uint8_t)(nearest_nf4(x[i] * id) << 4 | nearest_nf4(x[i + 1] * id));
}

static void write_block(uint8_t *to, const float *x, enum dtype dtype) {
    switch (dtype) {
    case DTYPE_Q8_0:
        write_q8_0(to, x);
        break;
    case DTYPE_Q4_0:
        write_symmetric(to, x, 8);
        break;
    case DTYPE_Q5_0:
        write_symmetric(to, x, 16);
        break;
    case DTYPE_Q4_1:
        write_offset(to, x, 15);
        break;
    case DTYPE_Q5_1:
        write_offset(to, x, 31);
        break;
    case DTYPE_NF4:
        write_nf4(to, x);
        break;
    default:
        assert(!"a small type that is written");
    }
}

void quantize(void *to, enum dtype dtype, const float *from, size_t count) {
    size_t elements = (size_t)dtype_block(dtype), bytes = dtype_bytes(dtype, (int64_t)elements);
    uint8_t *block = to;
    assert(count % elements == 0);
    for (size_t i = 0; i < count; i += elements, block += bytes) {
        if (dtype == DTYPE_F8_E4M3)
            *block = e4m3_of(from[i]);
        else
            write_block(block, from + i, dtype);
    }
}

float quantize_limit(enum dtype dtype) {
    switch (dtype) {
    case DTYPE_F8_E4M3:
        return 464.0f; /* 448, and what rounds to it */
    case DTYPE_F16:
    case DTYPE_Q8_0:
    case DTYPE_Q4_0:
    case DTYPE_Q4_1:
    case DTYPE_Q5_0:
    case DTYPE_Q5_1:
        return 65504.0f; /* float16's, in which scales and offsets are kept */
    case DTYPE_NF4:
        return INFINITY;
    default:
        return 0;
    }
}
