/* exp, erf and the activations of the reproducible operators, on rows: the compiler's vectoriser
 * sees straight-line loops. */
#ifndef TESSERA_BACKEND_CPU_REPRODUCIBLE_FUNCTIONS_H
#define TESSERA_BACKEND_CPU_REPRODUCIBLE_FUNCTIONS_H

#include "backend/cpu/rows.h"

/* e^x within 2 ulp: x = n ln 2 + r, a polynomial of degree 6 in r, n added to the exponent. Below
 * -87 it gives 0, above 88 e^88. */
static inline float lane_exp(float x) {
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it leaves the rounded integer in the low bits */
    float y = x > 88.0f ? 88.0f : x;
    y = y < -87.0f ? -87.0f : y;
    float t = fmaf(y, 1.44269504f, shift), n = t - shift;
    float r = fmaf(n, -0.693145752f, y);
    r = fmaf(n, -1.42860677e-6f, r);
    float p = fmaf(1.0f / 720, r, 1.0f / 120);
    p = fmaf(p, r, 1.0f / 24);
    p = fmaf(p, r, 1.0f / 6);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    float scale = float_of((bits_of(t) - bits_of(shift) + 127u) << 23);
    return x < -87.0f ? 0.0f : p * scale;
}

/* erf by Abramowitz and Stegun 7.1.26, absolute error 1.5e-7. */
static inline float lane_erf(float x) {
    float a = fabsf(x), t = 1.0f / fmaf(0.3275911f, a, 1.0f);
    float p = fmaf(1.061405429f, t, -1.453152027f);
    p = fmaf(p, t, 1.421413741f);
    p = fmaf(p, t, -0.284496736f);
    p = fmaf(p, t, 0.254829592f) * t;
    return copysignf(fmaf(-p, lane_exp(-a * a), 1.0f), x);
}

static inline float lane_swish(float x, float alpha) {
    return x / (1.0f + lane_exp(-alpha * x));
}

/* x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3): 0.5 x (1 + tanh u) */
static inline float lane_gelu_tanh(float x) {
    float cube = x * x * x;
    return x / (1.0f + lane_exp(-1.59576912f * fmaf(0.044715f, cube, x)));
}

/* x[i] = act(x[i]) */
static inline void row_activate(float *restrict x, int64_t count, enum activation act) {
    switch (act) {
    case ACTIVATION_GELU:
        for (int64_t i = 0; i < count; i++) x[i] = 0.5f * x[i] * (1.0f + lane_erf(x[i] * 0.707106781f));
        break;
    case ACTIVATION_GELU_TANH:
        for (int64_t i = 0; i < count; i++) x[i] = lane_gelu_tanh(x[i]);
        break;
    case ACTIVATION_QUICK_GELU:
        for (int64_t i = 0; i < count; i++) x[i] = lane_swish(x[i], 1.702f);
        break;
    case ACTIVATION_SILU:
        for (int64_t i = 0; i < count; i++) x[i] = lane_swish(x[i], 1.0f);
        break;
    case ACTIVATION_RELU:
        for (int64_t i = 0; i < count; i++) x[i] = x[i] < 0.0f ? 0.0f : x[i];
        break;
    default:
        break;
    }
}

#endif
