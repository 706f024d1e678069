/* The micro-kernel: a MICRO_ROWS x MICRO_COLUMNS tile of a float32 product, held in registers over
 * the whole depth.
 *
 *     c[r][j] (+)= sum over k of a[k][r] b[k][j]
 *
 * Per step of k it loads three vectors of b and broadcasts MICRO_ROWS numbers of a. Vectors are the
 * compiler's own (vector_size), as wide as the instruction set has them. */
#ifndef TESSERA_BACKEND_CPU_KERNELS_MICRO_H
#define TESSERA_BACKEND_CPU_KERNELS_MICRO_H

#include "backend/cpu/kernels.h"

#if defined __AVX512F__
#define MICRO_VECTOR 16
#define MICRO_ROWS 8
#elif defined __AVX2__
#define MICRO_VECTOR 8
#define MICRO_ROWS 4
#else
#define MICRO_VECTOR 4
#define MICRO_ROWS 4
#endif
#define MICRO_COLUMNS (3 * MICRO_VECTOR)

typedef float micro_vector __attribute__((vector_size(MICRO_VECTOR * 4), may_alias));

/* a [depth, a_stride], b [depth, b_stride] and c [MICRO_ROWS, c_stride]; b and c aligned to vectors. */
static inline void micro_product(int64_t depth, const float *restrict a, int64_t a_stride, const float *restrict b, int64_t b_stride,
                                 float *restrict c, int64_t c_stride, bool accumulate) {
    micro_vector sum[MICRO_ROWS][3] = {0};
    for (int64_t k = 0; k < depth; k++, a += a_stride, b += b_stride) {
        const micro_vector *row = (const micro_vector *)b;
        micro_vector b0 = row[0], b1 = row[1], b2 = row[2];
#pragma GCC unroll 8
        for (int r = 0; r < MICRO_ROWS; r++) {
            sum[r][0] += a[r] * b0;
            sum[r][1] += a[r] * b1;
            sum[r][2] += a[r] * b2;
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < MICRO_ROWS; r++) {
        micro_vector *to = (micro_vector *)(c + r * c_stride);
#pragma GCC unroll 3
        for (int j = 0; j < 3; j++) {
            if (accumulate) sum[r][j] += to[j];
            to[j] = sum[r][j];
        }
    }
}

#endif
