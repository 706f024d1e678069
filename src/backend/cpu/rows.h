/* What all kernel files share: names per instruction set, and rows in and out of float32.
 *
 * Kernels convert a row (or a tile) to a float32 buffer, compute there, and convert back. */
#ifndef TESSERA_BACKEND_CPU_ROWS_H
#define TESSERA_BACKEND_CPU_ROWS_H

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

/* Elements [at, at + count) of a F32 or BF16 array, which activations are, as float32. */
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
