/* The micro-kernel: LANE_ROWS x LANE_COLUMNS outputs in registers, each with one accumulator that
 * takes its terms in ascending k:
 *
 *     c[r][j] = fma(a[r][k], b[k][j], c[r][j])      for k = 0, 1, ..., depth - 1
 *
 * A lane is one column j, so the vector's width, and the order in which outputs are visited, change
 * no bit. */
#ifndef TESSERA_BACKEND_CPU_REPRODUCIBLE_LANES_H
#define TESSERA_BACKEND_CPU_REPRODUCIBLE_LANES_H

#include "backend/cpu/rows.h"

#if defined __AVX512F__
#include <immintrin.h>
#define LANES 16
#define LANE_ROWS 8
typedef __m512 lanes;
static inline lanes lanes_load(const float *x) {
    return _mm512_load_ps(x);
}
static inline void lanes_store(float *to, lanes x) {
    _mm512_store_ps(to, x);
}
static inline lanes lanes_fma(float a, lanes b, lanes c) {
    return _mm512_fmadd_ps(_mm512_set1_ps(a), b, c);
}
#elif defined __AVX2__ && defined __FMA__
#include <immintrin.h>
#define LANES 8
#define LANE_ROWS 4
typedef __m256 lanes;
static inline lanes lanes_load(const float *x) {
    return _mm256_load_ps(x);
}
static inline void lanes_store(float *to, lanes x) {
    _mm256_store_ps(to, x);
}
static inline lanes lanes_fma(float a, lanes b, lanes c) {
    return _mm256_fmadd_ps(_mm256_set1_ps(a), b, c);
}
#else
#define LANES 4
#define LANE_ROWS 4
typedef float lanes __attribute__((vector_size(16)));
static inline lanes lanes_load(const float *x) {
    lanes out;
    memcpy(&out, x, sizeof out);
    return out;
}
static inline void lanes_store(float *to, lanes x) {
    memcpy(to, &x, sizeof x);
}
static inline lanes lanes_fma(float a, lanes b, lanes c) {
    for (int i = 0; i < LANES; i++) c[i] = fmaf(a, b[i], c[i]);
    return c;
}
#endif
#define LANE_COLUMNS (3 * LANES)

/* a[r][k] lies at a[r * a_row + k * a_step]; b [depth, LANE_COLUMNS] and c [LANE_ROWS,
 * LANE_COLUMNS] are packed and aligned to 64 bytes. */
static inline __attribute__((always_inline)) void lanes_accumulate(int64_t depth, const float *restrict a, int64_t a_row, int64_t a_step,
                                                                   const float *restrict b, float *restrict c) {
    lanes sum[LANE_ROWS][3];
#pragma GCC unroll 8
    for (int r = 0; r < LANE_ROWS; r++)
#pragma GCC unroll 3
        for (int j = 0; j < 3; j++) sum[r][j] = lanes_load(c + r * LANE_COLUMNS + j * LANES);
    for (int64_t k = 0; k < depth; k++, a += a_step, b += LANE_COLUMNS) {
        lanes b0 = lanes_load(b), b1 = lanes_load(b + LANES), b2 = lanes_load(b + 2 * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < LANE_ROWS; r++) {
            float x = a[r * a_row];
            sum[r][0] = lanes_fma(x, b0, sum[r][0]);
            sum[r][1] = lanes_fma(x, b1, sum[r][1]);
            sum[r][2] = lanes_fma(x, b2, sum[r][2]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < LANE_ROWS; r++)
#pragma GCC unroll 3
        for (int j = 0; j < 3; j++) lanes_store(c + r * LANE_COLUMNS + j * LANES, sum[r][j]);
}

typedef float quad __attribute__((vector_size(16), aligned(4)));

/* to[k][j] = from[j][k] for j < LANE_COLUMNS, k < depth, in blocks of 4 x 4; to has LANE_COLUMNS
 * columns, from `stride`; depth is a multiple of 4. */
static inline void lanes_transpose(float *restrict to, const float *restrict from, int64_t stride, int64_t depth) {
    for (int64_t j = 0; j < LANE_COLUMNS; j += 4, from += 4 * stride)
        for (int64_t k = 0; k < depth; k += 4) {
            quad a = *(const quad *)(from + k), b = *(const quad *)(from + stride + k);
            quad c = *(const quad *)(from + 2 * stride + k), d = *(const quad *)(from + 3 * stride + k);
            quad ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
            quad ab2 = __builtin_shufflevector(a, b, 2, 6, 3, 7), cd2 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
            float *out = to + k * LANE_COLUMNS + j;
            *(quad *)out = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
            *(quad *)(out + LANE_COLUMNS) = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
            *(quad *)(out + 2 * LANE_COLUMNS) = __builtin_shufflevector(ab2, cd2, 0, 1, 4, 5);
            *(quad *)(out + 3 * LANE_COLUMNS) = __builtin_shufflevector(ab2, cd2, 2, 3, 6, 7);
        }
}

#endif
