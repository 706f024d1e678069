/* Attention with a running softmax over tiles of keys (Dao et al. 2022, FlashAttention), so that
 * scores never leave the cache.
 *
 *     for a block of queries (QUERIES columns):
 *         for each tile of KEYS keys:
 *             s[key][query] = k q^T             micro-kernel: a = k transposed, b = q transposed and scaled
 *             p = exp(s - max), running max and sum per query, o *= exp(old max - new max)
 *             o[d][query] += v^T p              micro-kernel: a = v as it is stored, b = p
 *
 * Everything is kept with queries as the fastest dimension, so that maxima and sums run down
 * columns and no step needs a sum across a vector. Work items are (batch, head, block of queries),
 * in a static order. This file multiplies in float32; bfloat16 goes to kernels_attention_bf16.c
 * where the instruction set has products of it. */
#include "backend/cpu/kernels_attention.h"
#include "backend/cpu/kernels_micro.h"

#define QUERIES 192 /* a multiple of every MICRO_COLUMNS */
#define KEYS 96     /* a multiple of every MICRO_ROWS */

struct workspace {
    float *q, *k, *v, *s, *o, *row, *max, *sum, *factor;
};

static size_t workspace_floats(int64_t padded_width) {
    int64_t floats = padded_width * (2 * QUERIES + 2 * KEYS) + KEYS * QUERIES + round_up(padded_width, 16) + 3 * QUERIES;
    return (size_t)round_up(floats, 16);
}

static struct workspace workspace_of(float *base, int64_t width) {
    struct workspace w;
    w.q = base;
    w.o = w.q + width * QUERIES;
    w.k = w.o + width * QUERIES;
    w.v = w.k + width * KEYS;
    w.s = w.v + width * KEYS;
    w.max = w.s + KEYS * QUERIES;
    w.sum = w.max + QUERIES;
    w.factor = w.sum + QUERIES;
    w.row = w.factor + QUERIES;
    return w;
}

/* Rows [first, first + n) of one head as to[width][stride], times `factor`; columns up to `padded`
 * are zero. */
static void load_transposed(float *restrict to, int64_t stride, float *restrict row, const struct tensor *t, int64_t b, int64_t head,
                            int64_t first, int64_t n, int64_t padded, float factor) {
    int64_t width = t->shape[3];
    for (int64_t i = 0; i < padded; i++) {
        if (i < n)
            row_load(row, t->data, t->dtype, attention_row(t, b, first + i, head), width);
        else
            memset(row, 0, (size_t)width * sizeof(float));
        for (int64_t d = 0; d < width; d++) to[d * stride + i] = row[d] * factor;
    }
}

static void load_values(float *restrict to, int64_t padded_width, const struct tensor *v, int64_t b, int64_t head, int64_t first,
                        int64_t n) {
    int64_t width = v->shape[3];
    for (int64_t i = 0; i < n; i++, to += padded_width) {
        row_load(to, v->data, v->dtype, attention_row(v, b, first + i, head), width);
        for (int64_t d = width; d < padded_width; d++) to[d] = 0.0f;
    }
}

/* Turns scores into weights; leaves in work->factor what the output so far must be multiplied by. */
static void update_softmax(struct workspace *work, int64_t keys, int64_t padded) {
    float *restrict max = work->max, *restrict sum = work->sum, *restrict factor = work->factor;
    float old[QUERIES];
    memcpy(old, max, (size_t)padded * sizeof(float));
    for (int64_t k = 0; k < keys; k++) {
        const float *restrict s = work->s + k * QUERIES;
        for (int64_t i = 0; i < padded; i++) max[i] = s[i] > max[i] ? s[i] : max[i];
    }
    float base[QUERIES];
    for (int64_t i = 0; i < padded; i++) {
        base[i] = max[i] == -INFINITY ? 0.0f : max[i];
        factor[i] = fast_exp(old[i] - base[i]);
        sum[i] *= factor[i];
    }
    for (int64_t k = 0; k < keys; k++) {
        float *restrict s = work->s + k * QUERIES;
        for (int64_t i = 0; i < padded; i++) {
            s[i] = fast_exp(s[i] - base[i]);
            sum[i] += s[i];
        }
    }
}

static void process_tile(const struct attention_problem *p, struct workspace *work, struct attention_block at, int64_t first_key) {
    const struct attention_args *args = p->args;
    int64_t keys = min64(KEYS, p->keys - first_key), padded_keys = round_up(keys, MICRO_ROWS);
    int64_t padded = round_up(at.queries, MICRO_COLUMNS);
    load_transposed(work->k, KEYS, work->row, args->k, at.b, at.head, first_key, keys, padded_keys, 1.0f);
    load_values(work->v, p->padded_width, args->v, at.b, at.head, first_key, keys);
    for (int64_t j = 0; j < padded; j += MICRO_COLUMNS)
        for (int64_t r = 0; r < padded_keys; r += MICRO_ROWS)
            micro_product(p->width, work->k + r, KEYS, work->q + j, QUERIES, work->s + r * QUERIES + j, QUERIES, false);
    if (attention_tile_masked(p, at.first, first_key, keys)) attention_mask(p, work->s, QUERIES, 1.0f, at, first_key, keys);
    update_softmax(work, keys, padded);
    for (int64_t d = 0; d < p->width; d++) {
        float *restrict o = work->o + d * QUERIES;
        for (int64_t i = 0; i < padded; i++) o[i] *= work->factor[i];
    }
    for (int64_t j = 0; j < padded; j += MICRO_COLUMNS)
        for (int64_t r = 0; r < p->padded_width; r += MICRO_ROWS)
            micro_product(keys, work->v + r, p->padded_width, work->s + j, QUERIES, work->o + r * QUERIES + j, QUERIES, true);
}

static void store_block(const struct attention_problem *p, struct workspace *work, struct attention_block at) {
    for (int64_t i = 0; i < at.queries; i++) {
        float inverse = work->sum[i] > 0.0f ? 1.0f / work->sum[i] : work->sum[i] == 0.0f ? 0.0f : NAN;
        for (int64_t d = 0; d < p->width; d++) work->row[d] = work->o[d * QUERIES + i] * inverse;
        row_store(p->out->data, p->out->dtype, attention_row(p->args->q, at.b, at.first + i, at.head), work->row, p->width);
        int64_t row = (at.b * p->heads + at.head) * p->queries + at.first + i;
        if (p->lse != NULL) ((float *)p->lse->data)[row] = work->max[i] + logf(work->sum[i]);
    }
}

static void compute_block(const struct attention_problem *p, float *base, struct attention_block at) {
    struct workspace work = workspace_of(base, p->padded_width);
    int64_t padded = round_up(at.queries, MICRO_COLUMNS);
    load_transposed(work.q, QUERIES, work.row, p->args->q, at.b, at.head, at.first, at.queries, padded, p->args->scale);
    memset(work.o, 0, (size_t)(p->padded_width * QUERIES) * sizeof(float));
    memset(work.sum, 0, QUERIES * sizeof(float));
    for (int64_t i = 0; i < QUERIES; i++) work.max[i] = -INFINITY;
    int64_t keys = p->args->causal ? min64(p->keys, at.first + at.queries) : p->keys;
    for (int64_t k = 0; k < keys; k += KEYS) process_tile(p, &work, at, k);
    store_block(p, &work, at);
}

static struct attention_problem problem_of(struct tensor *out, struct tensor *lse, const struct attention_args *args) {
    const struct tensor *q = args->q, *k = args->k, *v = args->v;
    assert(q->ndim == 4 && k->ndim == 4 && v->ndim == 4 && k->shape[2] == q->shape[2] && k->shape[3] == q->shape[3]);
    assert(v->shape[1] == k->shape[1] && v->shape[2] == q->shape[2] && v->shape[3] == q->shape[3] && tensor_count(out) == tensor_count(q));
    assert(k->shape[0] == q->shape[0] && v->shape[0] == q->shape[0] && is_activation(q));
    assert(k->dtype == q->dtype && v->dtype == q->dtype && out->dtype == q->dtype && (lse == NULL || lse->dtype == DTYPE_F32));
    int64_t padded_width = round_up(q->shape[3], MICRO_ROWS);
    return (struct attention_problem){.args = args,
                                      .out = out,
                                      .lse = lse,
                                      .batch = q->shape[0],
                                      .queries = q->shape[1],
                                      .keys = k->shape[1],
                                      .heads = q->shape[2],
                                      .width = q->shape[3],
                                      .padded_width = padded_width,
                                      .block = QUERIES,
                                      .floats = workspace_floats(padded_width),
                                      .compute = compute_block};
}

static void compute_item(const struct attention_problem *p, float *work, int64_t item) {
    int64_t blocks = (p->queries + p->block - 1) / p->block, first = item % blocks * p->block;
    p->compute(p, work,
               (struct attention_block){item / blocks / p->heads, item / blocks % p->heads, first, min64(p->block, p->queries - first)});
}

static tessera_status attention(struct backend *backend, struct tensor *out, struct tensor *lse, const struct attention_args *args,
                                tessera_error *error) {
    struct attention_problem p = problem_of(out, lse, args);
    if (tensor_count(out) == 0) return TESSERA_OK;
#ifdef ATTENTION_BF16
    if (out->dtype == DTYPE_BF16) KERNEL(kernels_attention_bf16)(&p);
#endif
    while (p.block > MICRO_COLUMNS && p.batch * p.heads * ((p.queries + p.block - 1) / p.block) < 2 * backend->threads)
        p.block = round_up(p.block / 2, MICRO_COLUMNS);
    int64_t items = p.batch * p.heads * ((p.queries + p.block - 1) / p.block);
    int threads = (int)min64(backend->threads, items);
    float *work = aligned_alloc(64, (size_t)threads * p.floats * sizeof(float));
    if (work == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for attention's work space (%d threads)", threads);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int t = 0; t < threads; t++)
        for (int64_t item = t; item < items; item += threads) compute_item(&p, work + (size_t)t * p.floats, item);
    free(work);
    return TESSERA_OK;
}

static void merge_attention(struct backend *backend, struct tensor *sum, struct tensor *lse, const struct tensor *more,
                            const struct tensor *more_lse) {
    assert(sum->dtype == DTYPE_F32 && tensor_count(sum) == tensor_count(more));
    int64_t tokens = sum->shape[1], heads = sum->shape[2], width = sum->shape[3], rows = sum->shape[0] * tokens * heads;
    float *restrict total = sum->data;
#pragma omp parallel for schedule(static) num_threads(backend->threads)
    for (int64_t row = 0; row < rows; row++) {
        int64_t b = row / (tokens * heads), token = row / heads % tokens, head = row % heads, at = (b * heads + head) * tokens + token;
        float old = ((float *)lse->data)[at], new = ((const float *)more_lse->data)[at], high = old > new ? old : new;
        if (high == -INFINITY) continue;
        float merged = high + logf(expf(old - high) + expf(new - high)), keep = expf(old - merged), take = expf(new - merged);
        for (int64_t d = 0; d < width; d += ROW_CHUNK) {
            float taken[ROW_CHUNK];
            int64_t n = min64(ROW_CHUNK, width - d);
            row_load(taken, more->data, more->dtype, row * width + d, n);
            for (int64_t i = 0; i < n; i++) total[row * width + d + i] = keep * total[row * width + d + i] + take * taken[i];
        }
    }
#pragma omp parallel for schedule(static) num_threads(backend->threads)
    for (int64_t i = 0; i < tensor_count(lse); i++) {
        float old = ((float *)lse->data)[i], new = ((const float *)more_lse->data)[i], high = old > new ? old : new;
        if (high != -INFINITY) ((float *)lse->data)[i] = high + logf(expf(old - high) + expf(new - high));
    }
}

void KERNEL(kernels_fill_attention)(struct backend_ops *ops) {
    ops->attention = attention;
    ops->merge_attention = merge_attention;
}
