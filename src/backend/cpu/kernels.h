/* What the kernel files share: names per instruction set, rows in and out of float32, exp and the activations.
 *
 * Every loop here is written for the compiler's vectoriser: straight-line bodies, selections instead of branches. Kernels
 * convert a row (or a tile) to a float32 buffer, compute there, and convert back. */
#ifndef TESSERA_BACKEND_CPU_KERNELS_H
#define TESSERA_BACKEND_CPU_KERNELS_H

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "backend/backend.h"
#include "base/bf16.h"

#define KERNEL_JOIN_(name, suffix) name##_##suffix
#define KERNEL_JOIN(name, suffix) KERNEL_JOIN_(name, suffix)
#define KERNEL(name) KERNEL_JOIN(name, KERNELS_SUFFIX) /* kernels_fill -> kernels_fill_avx2 */

#define ROW_CHUNK 512 /* floats that a row kernel holds on its stack at a time */

/* Each file's part of the table. */
void KERNEL(kernels_fill)(struct backend_ops *ops);
void KERNEL(kernels_fill_attention)(struct backend_ops *ops);
void KERNEL(kernels_fill_elementwise)(struct backend_ops *ops);
void KERNEL(kernels_fill_norm)(struct backend_ops *ops);
void KERNEL(kernels_fill_product)(struct backend_ops *ops);

static inline uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Elements [at, at + count) of a F32 or BF16 array as float32. */
static inline void row_load(float *restrict to, const void *from, enum dtype dtype, int64_t at, int64_t count) {
    const uint16_t *restrict half = (const uint16_t *)from + at;
    switch (dtype) {
    case DTYPE_F32:
        memcpy(to, (const float *)from + at, (size_t)count * sizeof(float));
        break;
    case DTYPE_BF16:
        for (int64_t i = 0; i < count; i++) to[i] = float_of((uint32_t)half[i] << 16);
        break;
    default:
        assert(!"rows are F32 or BF16");
    }
}

static inline void row_store(void *to, enum dtype dtype, int64_t at, const float *restrict from, int64_t count) {
    uint16_t *restrict half = (uint16_t *)to + at;
    switch (dtype) {
    case DTYPE_F32:
        memcpy((float *)to + at, from, (size_t)count * sizeof(float));
        break;
    case DTYPE_BF16:
        for (int64_t i = 0; i < count; i++) half[i] = bf16_round(from[i]);
        break;
    default:
        assert(!"rows are F32 or BF16");
    }
}

/* e^x within 2 ulp: x = n ln 2 + r, a polynomial of degree 6 in r, n added to the exponent. Below -87 it gives 0. */
static inline float fast_exp(float x) {
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it leaves the rounded integer in the low bits */
    float y = x > 88.0f ? 88.0f : x;
    y = y < -87.0f ? -87.0f : y;
    float t = y * 1.44269504f + shift, n = t - shift;
    float r = y - n * 0.693145752f;
    r = r - n * 1.42860677e-6f;
    float p = 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    float scale = float_of((bits_of(t) - bits_of(shift) + 127u) << 23);
    return x < -87.0f ? 0.0f : p * scale;
}

/* erf by Abramowitz and Stegun 7.1.26, absolute error 1.5e-7. */
static inline float fast_erf(float x) {
    float a = fabsf(x), t = 1.0f / (1.0f + 0.3275911f * a);
    float p = ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t;
    return copysignf(1.0f - p * fast_exp(-a * a), x);
}

static inline float swish(float x, float alpha) {
    return x / (1.0f + fast_exp(-alpha * x));
}

/* x[i] = act(x[i]) */
static inline void row_activate(float *restrict x, int64_t count, enum activation act) {
    switch (act) {
    case ACTIVATION_GELU:
        for (int64_t i = 0; i < count; i++) x[i] = 0.5f * x[i] * (1.0f + fast_erf(x[i] * 0.707106781f));
        break;
    case ACTIVATION_GELU_TANH: /* 0.5 x (1 + tanh u) = x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3) */
        for (int64_t i = 0; i < count; i++) x[i] = x[i] / (1.0f + fast_exp(-1.59576912f * (x[i] + 0.044715f * x[i] * x[i] * x[i])));
        break;
    case ACTIVATION_QUICK_GELU:
        for (int64_t i = 0; i < count; i++) x[i] = swish(x[i], 1.702f);
        break;
    case ACTIVATION_SILU:
        for (int64_t i = 0; i < count; i++) x[i] = swish(x[i], 1.0f);
        break;
    case ACTIVATION_RELU:
        for (int64_t i = 0; i < count; i++) x[i] = x[i] < 0.0f ? 0.0f : x[i];
        break;
    default:
        break;
    }
}

static inline int64_t min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static inline int64_t round_up(int64_t n, int64_t to) {
    return (n + to - 1) / to * to;
}

static inline bool is_activation(const struct tensor *t) {
    return t->dtype == DTYPE_F32 || t->dtype == DTYPE_BF16;
}
static inline int64_t last_dim(const struct tensor *t) {
    return t->shape[t->ndim - 1];
}

#endif
