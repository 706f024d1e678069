/* What the kernel files share beside rows.h: exp and the activations.
 *
 * Every loop here is written for the compiler's vectoriser: straight-line bodies, selections
 * instead of branches. */
#ifndef TESSERA_BACKEND_CPU_KERNELS_H
#define TESSERA_BACKEND_CPU_KERNELS_H

#include "backend/cpu/rows.h"

/* Each file's part of the table. */
void KERNEL(kernels_fill)(struct backend_ops *ops);
void KERNEL(kernels_fill_attention)(struct backend_ops *ops);
void KERNEL(kernels_fill_elementwise)(struct backend_ops *ops);
void KERNEL(kernels_fill_norm)(struct backend_ops *ops);
void KERNEL(kernels_fill_product)(struct backend_ops *ops);

/* e^x within 2 ulp: x = n ln 2 + r, a polynomial of degree 6 in r, n added to the exponent. Below
 * -87 it gives 0. */
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

#endif
