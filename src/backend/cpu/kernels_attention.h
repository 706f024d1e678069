/* What the attention kernels share: the problem that a call poses, and the masking of a tile of scores.
 *
 * A kernel computes one block of queries of one head; the driver in kernels_attention.c cuts the
 * problem into such blocks and hands them to threads. Scores of a tile lie as s[key][query],
 * queries fastest. */
#ifndef TESSERA_BACKEND_CPU_KERNELS_ATTENTION_H
#define TESSERA_BACKEND_CPU_KERNELS_ATTENTION_H

#include "backend/cpu/kernels.h"

struct attention_block {
    int64_t b, head, first, queries; /* queries [first, first + queries) of one head of one batch row */
};

struct attention_problem {
    const struct attention_args *args;
    struct tensor *out, *lse;
    int64_t batch, queries, keys, heads, width, padded_width, block; /* padded_width: a multiple of MICRO_ROWS; block: queries at most */
    size_t floats;                                                   /* of work space per thread, a multiple of 16 */
    void (*compute)(const struct attention_problem *, float *work, struct attention_block);
};

#ifdef __AVX512BF16__
#define ATTENTION_BF16
/* kernels_attention_bf16.c: sets compute, block and floats, for bfloat16 products of the problem
 * whose other fields are set. */
void KERNEL(kernels_attention_bf16)(struct attention_problem *problem);
#endif

/* Where in a [B, S, N, D] tensor a head's row begins. */
static inline int64_t attention_row(const struct tensor *t, int64_t b, int64_t row, int64_t head) {
    return ((b * t->shape[1] + row) * t->shape[2] + head) * t->shape[3];
}

static inline bool attention_tile_masked(const struct attention_problem *p, int64_t first, int64_t first_key, int64_t keys) {
    return p->args->bias != NULL || p->args->mask != NULL || (p->args->causal && first_key + keys - 1 > first);
}

/* Adds bias * unit to s[keys][stride] and writes minus infinity where a key may not be seen;
 * `stride` >= the block's queries. */
static inline void attention_mask(const struct attention_problem *p, float *s, int64_t stride, float unit, struct attention_block at,
                                  int64_t first_key, int64_t keys) {
    const struct attention_args *args = p->args;
    const float *mask = args->mask == NULL ? NULL : (const float *)args->mask->data + at.b * p->keys + first_key;
    const float *bias =
        args->bias == NULL ? NULL : (const float *)args->bias->data + (at.head * p->queries + at.first) * p->keys + first_key;
    for (int64_t k = 0; k < keys; k++) {
        float *row = s + k * stride;
        if (bias != NULL)
            for (int64_t i = 0; i < at.queries; i++) row[i] += bias[i * p->keys + k] * unit;
        int64_t hidden = args->causal ? first_key + k - at.first : 0; /* queries before this one do not see the key */
        if (mask != NULL && mask[k] == 0.0f) hidden = stride;
        for (int64_t i = 0; i < min64(hidden, stride); i++) row[i] = -INFINITY;
    }
}

#endif
