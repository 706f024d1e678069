/* Attention with bfloat16 products and float32 sums (vdpbf16ps of AVX512_BF16, or the tiles of
 * AMX): twice the float32 peak, and more.
 *
 * The algorithm is that of kernels_attention.c (tiles of keys, running softmax); what differs is
 * the layout, see kernels_micro_bf16.h. A block of queries is cut into groups of MICRO_COLUMNS,
 * whose scores and weights stay in the first-level cache while k and v of a tile are used by all
 * groups:
 *
 *     q[group][pairs along D][COLUMNS]     o[group][D][COLUMNS] float32     s[key][COLUMNS] float32, overwritten by p
 *
 * Weights are powers of two of (score - max) scale log2(e), rounded to bfloat16 for the second
 * product, as in flash attention; their sum is of the unrounded ones. */
#include "backend/cpu/kernels_attention.h"

#ifdef ATTENTION_BF16
#include "backend/cpu/kernels_micro_bf16.h"

#define QUERIES 384 /* a multiple of MICRO_COLUMNS: the larger, the more use of a packed tile */
#define KEYS 96     /* a multiple of BF16_ROWS and of twice BF16_PAIRS */
static const float log2_e = 1.44269504f;

struct workspace {
    uint32_t *q, *k, *v;
    float *s, *o, *max, *sum;
    int64_t pairs, groups; /* pairs along D; groups in a block */
};

/* Cuts the thread's work space into its arrays; every one is a multiple of a vector. With base NULL
 * it only counts floats. */
static size_t workspace_cut(struct workspace *w, float *base, const struct attention_problem *p) {
    int64_t pairs = pairs_of(p->width), queries = round_up(p->block, MICRO_COLUMNS);
    const size_t sizes[] = {(size_t)(pairs * queries),
                            (size_t)round_up(pairs * KEYS, 16),
                            (size_t)(p->padded_width * pairs_of(KEYS)),
                            KEYS * MICRO_COLUMNS,
                            (size_t)(p->padded_width * queries),
                            (size_t)queries,
                            (size_t)queries};
    float *array[7];
    size_t total = 0;
    for (int i = 0; i < 7; total += sizes[i++]) array[i] = base == NULL ? NULL : base + total;
    *w = (struct workspace){
        (uint32_t *)array[0], (uint32_t *)array[1], (uint32_t *)array[2], array[3], array[4], array[5], array[6], pairs, 0};
    return total;
}

/* One group's queries as to[pairs][COLUMNS]; columns past the last query are zero. */
static void pack_queries(uint32_t *to, const struct attention_problem *p, struct attention_block at) {
    const uint16_t *from = (const uint16_t *)p->args->q->data + attention_row(p->args->q, at.b, at.first, at.head);
    int64_t stride = p->heads * p->width, pairs = pairs_of(p->width);
    for (int64_t column = 0; column < MICRO_COLUMNS; column += 16)
        for (int64_t d = 0; d < p->width; d += 32) {
            __m512i rows[16];
            for (int64_t i = 0; i < 16; i++)
                rows[i] = column + i < at.queries ? _mm512_maskz_loadu_epi16(first_of(p->width - d), from + (column + i) * stride + d)
                                                  : _mm512_setzero_si512();
            transpose(rows);
            for (int64_t i = 0; i < min64(16, pairs - d / 2); i++) _mm512_store_si512(to + (d / 2 + i) * MICRO_COLUMNS + column, rows[i]);
        }
}

/* Rows of k side by side, each padded to `pairs`; zeros after the last up to a multiple of BF16_ROWS. */
static void pack_keys(uint32_t *to, const struct attention_problem *p, struct attention_block at, int64_t first_key, int64_t keys) {
    const struct tensor *k = p->args->k;
    const uint16_t *from = (const uint16_t *)k->data + attention_row(k, at.b, first_key, at.head);
    int64_t pairs = pairs_of(p->width), last = p->width / 2;
    for (int64_t i = 0; i < keys; i++, from += p->heads * p->width, to += pairs) {
        memset(to + last, 0, (size_t)(pairs - last) * sizeof *to);
        memcpy(to, from, (size_t)p->width * sizeof *from);
    }
    memset(to, 0, (size_t)((round_up(keys, BF16_ROWS) - keys) * pairs) * sizeof *to);
}

/* 2^x for x <= 0 within 3e-6 of itself: 2^floor(x) times a polynomial in the rest. 0 at minus
 * infinity, NaN stays. */
static inline __m512 exp2_of(__m512 x) {
    __m512 r = _mm512_reduce_ps(x, 0x09), p = _mm512_set1_ps(1.353417e-2f); /* x - floor(x); 0 at an infinity */
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.201146e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.4144276e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.9300383e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0000026f));
    return _mm512_scalef_ps(p, x);
}

/* Two rows of weights as pairs of bfloat16. */
static inline __m512i pair_weights(__m512 even, __m512 odd) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3,
                                           18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(odd, even));
}

/* Turns scores, in units of log 2 once times `unit`, into pairs_of(keys) rows of paired weights in
 * place; factor is what the output so far must be multiplied by. max (of scores) and sum [COLUMNS]. */
static void update_softmax(float *s, int64_t keys, float unit, float *max, float *sum, __m512 factor[BF16_VECTORS]) {
    const __m512 lowest = _mm512_set1_ps(-INFINITY), log2_of = _mm512_set1_ps(unit);
    __m512 base[BF16_VECTORS], total[BF16_VECTORS];
    for (int j = 0; j < BF16_VECTORS; j++) base[j] = _mm512_load_ps(max + j * 16);
    for (int64_t k = 0; k < keys; k++)
#pragma GCC unroll 3
        for (int j = 0; j < BF16_VECTORS; j++) base[j] = _mm512_max_ps(_mm512_load_ps(s + k * MICRO_COLUMNS + j * 16), base[j]);
    for (int j = 0; j < BF16_VECTORS; j++) {
        __m512 old = _mm512_load_ps(max + j * 16);
        _mm512_store_ps(max + j * 16, base[j]);
        base[j] = _mm512_mask_mov_ps(base[j], _mm512_cmp_ps_mask(base[j], lowest, _CMP_EQ_OQ), _mm512_setzero_ps());
        base[j] = _mm512_mul_ps(base[j], log2_of);
        factor[j] = exp2_of(_mm512_fmsub_ps(old, log2_of, base[j]));
        total[j] = _mm512_mul_ps(_mm512_load_ps(sum + j * 16), factor[j]);
    }
    for (int64_t k = 0; k < keys; k += 2)
#pragma GCC unroll 3
        for (int j = 0; j < BF16_VECTORS; j++) {
            const float *from = s + k * MICRO_COLUMNS + j * 16;
            __m512 even = exp2_of(_mm512_fmsub_ps(_mm512_load_ps(from), log2_of, base[j])), odd = _mm512_setzero_ps();
            if (k + 1 < keys) odd = exp2_of(_mm512_fmsub_ps(_mm512_load_ps(from + MICRO_COLUMNS), log2_of, base[j]));
            total[j] = _mm512_add_ps(total[j], _mm512_add_ps(even, odd));
            _mm512_store_si512(s + k / 2 * MICRO_COLUMNS + j * 16, pair_weights(even, odd));
        }
    for (int j = 0; j < BF16_VECTORS; j++) _mm512_store_ps(sum + j * 16, total[j]);
    int64_t weights = (keys + 1) / 2;
    memset(s + weights * MICRO_COLUMNS, 0, (size_t)((pairs_of(keys) - weights) * MICRO_COLUMNS) * sizeof *s);
}

/* One group against one packed tile. `at` is the group. */
static void process_group(const struct attention_problem *p, const struct workspace *w, int64_t group, struct attention_block at,
                          int64_t first_key, int64_t keys) {
    const uint32_t *q = w->q + group * w->pairs * MICRO_COLUMNS;
    float *o = w->o + group * p->padded_width * MICRO_COLUMNS;
    int64_t depth = pairs_of(keys);
    __m512 factor[BF16_VECTORS];
    for (int64_t k = 0; k < keys; k += BF16_ROWS) micro_scores(w->s + k * MICRO_COLUMNS, w->pairs, w->k + k * w->pairs, q);
    if (attention_tile_masked(p, at.first, first_key, keys))
        attention_mask(p, w->s, MICRO_COLUMNS, 1.0f / p->args->scale, at, first_key, keys);
    update_softmax(w->s, keys, p->args->scale * log2_e, w->max + group * MICRO_COLUMNS, w->sum + group * MICRO_COLUMNS, factor);
    for (int64_t d = 0; d < p->padded_width; d += BF16_ROWS)
        micro_output(o + d * MICRO_COLUMNS, factor, depth, w->v + d * depth, (const uint32_t *)w->s);
}

static void store_group(const struct attention_problem *p, const struct workspace *w, int64_t group, struct attention_block at) {
    const float *o = w->o + group * p->padded_width * MICRO_COLUMNS, *max = w->max + group * MICRO_COLUMNS;
    const float *sum = w->sum + group * MICRO_COLUMNS;
    uint16_t *to = (uint16_t *)p->out->data + attention_row(p->out, at.b, at.first, at.head);
    float *lse = p->lse == NULL ? NULL : (float *)p->lse->data + (at.b * p->heads + at.head) * p->queries + at.first;
    for (int64_t i = 0; lse != NULL && i < at.queries; i++) lse[i] = max[i] * p->args->scale + logf(sum[i]);
    for (int64_t column = 0; column < at.queries; column += 16)
        for (int64_t d = 0; d < p->width; d += 16) {
            __m512i rows[16];
            for (int64_t i = 0; i < 16; i++)
                rows[i] = d + i < p->width ? _mm512_load_si512(o + (d + i) * MICRO_COLUMNS + column) : _mm512_setzero_si512();
            transpose(rows);
            for (int64_t i = 0; i < min64(16, at.queries - column); i++) {
                float total = sum[column + i], inverse = total > 0.0f ? 1.0f / total : total == 0.0f ? 0.0f : NAN;
                __m256bh half = _mm512_cvtneps_pbh(_mm512_mul_ps(_mm512_castsi512_ps(rows[i]), _mm512_set1_ps(inverse)));
                _mm256_mask_storeu_epi16(to + (column + i) * p->heads * p->width + d, (__mmask16)first_of(p->width - d), (__m256i)half);
            }
        }
}

static struct attention_block group_of(struct attention_block block, int64_t group) {
    int64_t first = group * MICRO_COLUMNS;
    return (struct attention_block){block.b, block.head, block.first + first, min64(MICRO_COLUMNS, block.queries - first)};
}

static void compute_block(const struct attention_problem *p, float *work, struct attention_block block) {
    struct workspace w;
    workspace_cut(&w, work, p);
    int64_t groups = (block.queries + MICRO_COLUMNS - 1) / MICRO_COLUMNS;
    for (int64_t g = 0; g < groups; g++) pack_queries(w.q + g * w.pairs * MICRO_COLUMNS, p, group_of(block, g));
    memset(w.o, 0, (size_t)(groups * MICRO_COLUMNS * p->padded_width) * sizeof *w.o);
    memset(w.sum, 0, (size_t)(groups * MICRO_COLUMNS) * sizeof *w.sum);
    for (int64_t i = 0; i < groups * MICRO_COLUMNS; i++) w.max[i] = -INFINITY;
    micro_begin();
    int64_t seen = p->args->causal ? min64(p->keys, block.first + block.queries) : p->keys;
    for (int64_t k = 0; k < seen; k += KEYS) {
        int64_t keys = min64(KEYS, p->keys - k);
        pack_keys(w.k, p, block, k, keys);
        const struct tensor *v = p->args->v;
        pack_values(w.v, (const uint16_t *)v->data + attention_row(v, block.b, k, block.head), p->heads * p->width, keys, p->width,
                    p->padded_width);
        for (int64_t g = 0; g < groups; g++) process_group(p, &w, g, group_of(block, g), k, keys);
    }
    micro_end();
    for (int64_t g = 0; g < groups; g++) store_group(p, &w, g, group_of(block, g));
}

void KERNEL(kernels_attention_bf16)(struct attention_problem *problem) {
    struct workspace unused;
    problem->block = QUERIES;
    problem->padded_width = round_up(problem->width, BF16_ROWS);
    problem->compute = compute_block;
    problem->floats = workspace_cut(&unused, NULL, problem);
}
#endif
