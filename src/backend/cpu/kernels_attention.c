/* Attention with a running softmax over tiles of keys (Dao et al. 2022, FlashAttention), so that scores never leave the cache.
 *
 *     for a block of queries (QUERIES columns):
 *         for each tile of KEYS keys:
 *             s[key][query] = k q^T             micro-kernel: a = k transposed, b = q transposed and scaled
 *             p = exp(s - max), running max and sum per query, o *= exp(old max - new max)
 *             o[d][query] += v^T p              micro-kernel: a = v as it is stored, b = p
 *
 * Everything is kept with queries as the fastest dimension, so that maxima and sums run down columns and no step needs a
 * sum across a vector. Work items are (batch, head, block of queries), in a static order. */
#include "backend/cpu/kernels_micro.h"

#define QUERIES 192 /* a multiple of every MICRO_COLUMNS */
#define KEYS 96     /* a multiple of every MICRO_ROWS */

struct workspace {
    float *q, *k, *v, *s, *o, *row, *max, *sum, *factor;
};

struct problem {
    const struct attention_args *args;
    struct tensor *out, *lse;
    int64_t batch, queries, keys, heads, width, padded_width, block;
};

static size_t workspace_floats(int64_t padded_width) {
    return (size_t)padded_width * (2 * QUERIES + 2 * KEYS) + KEYS * QUERIES + (size_t)round_up(padded_width, 16) + 3 * QUERIES;
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

/* Rows [first, first + n) of one head as to[width][stride], times `factor`; columns up to `padded` are zero. */
static void load_transposed(float *restrict to, int64_t stride, float *restrict row, const struct tensor *t, int64_t b, int64_t head,
                            int64_t first, int64_t n, int64_t padded, float factor) {
    int64_t width = t->shape[3], heads = t->shape[2];
    for (int64_t i = 0; i < padded; i++) {
        if (i < n)
            row_load(row, t->data, t->dtype, ((b * t->shape[1] + first + i) * heads + head) * width, width);
        else
            memset(row, 0, (size_t)width * sizeof(float));
        for (int64_t d = 0; d < width; d++) to[d * stride + i] = row[d] * factor;
    }
}

static void load_values(float *restrict to, int64_t padded_width, const struct tensor *v, int64_t b, int64_t head, int64_t first,
                        int64_t n) {
    int64_t width = v->shape[3];
    for (int64_t i = 0; i < n; i++, to += padded_width) {
        row_load(to, v->data, v->dtype, ((b * v->shape[1] + first + i) * v->shape[2] + head) * width, width);
        for (int64_t d = width; d < padded_width; d++) to[d] = 0.0f;
    }
}

/* Adds the bias and writes minus infinity where a key may not be seen. */
static void mask_scores(const struct problem *p, float *s, int64_t b, int64_t head, int64_t first, int64_t queries, int64_t first_key,
                        int64_t keys) {
    const struct attention_args *args = p->args;
    const float *mask = args->mask == NULL ? NULL : (const float *)args->mask->data + b * p->keys + first_key;
    const float *bias = args->bias == NULL ? NULL : (const float *)args->bias->data + (head * p->queries + first) * p->keys + first_key;
    for (int64_t k = 0; k < keys; k++) {
        float *row = s + k * QUERIES;
        if (bias != NULL)
            for (int64_t i = 0; i < queries; i++) row[i] += bias[i * p->keys + k];
        int64_t hidden = args->causal ? first_key + k - first : 0; /* queries before this one do not see the key */
        if (mask != NULL && mask[k] == 0.0f) hidden = QUERIES;
        for (int64_t i = 0; i < min64(hidden, QUERIES); i++) row[i] = -INFINITY;
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

static void process_tile(const struct problem *p, struct workspace *work, int64_t b, int64_t head, int64_t first, int64_t queries,
                         int64_t first_key) {
    const struct attention_args *args = p->args;
    int64_t keys = min64(KEYS, p->keys - first_key), padded_keys = round_up(keys, MICRO_ROWS), padded = round_up(queries, MICRO_COLUMNS);
    load_transposed(work->k, KEYS, work->row, args->k, b, head, first_key, keys, padded_keys, 1.0f);
    load_values(work->v, p->padded_width, args->v, b, head, first_key, keys);
    for (int64_t j = 0; j < padded; j += MICRO_COLUMNS)
        for (int64_t r = 0; r < padded_keys; r += MICRO_ROWS)
            micro_product(p->width, work->k + r, KEYS, work->q + j, QUERIES, work->s + r * QUERIES + j, QUERIES, false);
    if (args->bias != NULL || args->mask != NULL || (args->causal && first_key + keys - 1 > first))
        mask_scores(p, work->s, b, head, first, queries, first_key, keys);
    update_softmax(work, keys, padded);
    for (int64_t d = 0; d < p->width; d++) {
        float *restrict o = work->o + d * QUERIES;
        for (int64_t i = 0; i < padded; i++) o[i] *= work->factor[i];
    }
    for (int64_t j = 0; j < padded; j += MICRO_COLUMNS)
        for (int64_t r = 0; r < p->padded_width; r += MICRO_ROWS)
            micro_product(keys, work->v + r, p->padded_width, work->s + j, QUERIES, work->o + r * QUERIES + j, QUERIES, true);
}

static void store_block(const struct problem *p, struct workspace *work, int64_t b, int64_t head, int64_t first, int64_t queries) {
    for (int64_t i = 0; i < queries; i++) {
        float inverse = work->sum[i] > 0.0f ? 1.0f / work->sum[i] : work->sum[i] == 0.0f ? 0.0f : NAN;
        for (int64_t d = 0; d < p->width; d++) work->row[d] = work->o[d * QUERIES + i] * inverse;
        row_store(p->out->data, p->out->dtype, ((b * p->queries + first + i) * p->heads + head) * p->width, work->row, p->width);
        if (p->lse != NULL) ((float *)p->lse->data)[(b * p->heads + head) * p->queries + first + i] = work->max[i] + logf(work->sum[i]);
    }
}

static void compute_block(const struct problem *p, struct workspace *work, int64_t item) {
    int64_t blocks = (p->queries + p->block - 1) / p->block, first = item % blocks * p->block, head = item / blocks % p->heads;
    int64_t b = item / blocks / p->heads, queries = min64(p->block, p->queries - first), padded = round_up(queries, MICRO_COLUMNS);
    load_transposed(work->q, QUERIES, work->row, p->args->q, b, head, first, queries, padded, p->args->scale);
    memset(work->o, 0, (size_t)(p->padded_width * QUERIES) * sizeof(float));
    memset(work->sum, 0, QUERIES * sizeof(float));
    for (int64_t i = 0; i < QUERIES; i++) work->max[i] = -INFINITY;
    int64_t keys = p->args->causal ? min64(p->keys, first + queries) : p->keys;
    for (int64_t k = 0; k < keys; k += KEYS) process_tile(p, work, b, head, first, queries, k);
    store_block(p, work, b, head, first, queries);
}

static struct problem problem_of(struct tensor *out, struct tensor *lse, const struct attention_args *args) {
    const struct tensor *q = args->q, *k = args->k, *v = args->v;
    assert(q->ndim == 4 && k->ndim == 4 && v->ndim == 4 && k->shape[2] == q->shape[2] && k->shape[3] == q->shape[3]);
    assert(v->shape[1] == k->shape[1] && v->shape[2] == q->shape[2] && v->shape[3] == q->shape[3] && tensor_count(out) == tensor_count(q));
    assert(k->shape[0] == q->shape[0] && v->shape[0] == q->shape[0] && is_activation(q));
    assert(k->dtype == q->dtype && v->dtype == q->dtype && out->dtype == q->dtype && (lse == NULL || lse->dtype == DTYPE_F32));
    return (struct problem){.args = args,
                            .out = out,
                            .lse = lse,
                            .batch = q->shape[0],
                            .queries = q->shape[1],
                            .keys = k->shape[1],
                            .heads = q->shape[2],
                            .width = q->shape[3],
                            .padded_width = round_up(q->shape[3], MICRO_ROWS),
                            .block = QUERIES};
}

static tessera_status attention(struct backend *backend, struct tensor *out, struct tensor *lse, const struct attention_args *args,
                                tessera_error *error) {
    struct problem p = problem_of(out, lse, args);
    if (tensor_count(out) == 0) return TESSERA_OK;
    while (p.block > MICRO_COLUMNS && p.batch * p.heads * ((p.queries + p.block - 1) / p.block) < 2 * backend->threads)
        p.block = round_up(p.block / 2, MICRO_COLUMNS);
    int64_t items = p.batch * p.heads * ((p.queries + p.block - 1) / p.block);
    int threads = (int)min64(backend->threads, items);
    size_t floats = (workspace_floats(p.padded_width) + 15) / 16 * 16;
    float *buffer = aligned_alloc(64, (size_t)threads * floats * sizeof(float));
    if (buffer == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for attention's work space (%d threads)", threads);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int t = 0; t < threads; t++) {
        struct workspace work = workspace_of(buffer + (size_t)t * floats, p.padded_width);
        for (int64_t item = t; item < items; item += threads) compute_block(&p, &work, item);
    }
    free(buffer);
    return TESSERA_OK;
}

static void merge_attention(struct backend *backend, struct tensor *sum, struct tensor *lse, const struct tensor *part,
                            const struct tensor *part_lse) {
    assert(sum->dtype == DTYPE_F32 && tensor_count(sum) == tensor_count(part));
    int64_t tokens = sum->shape[1], heads = sum->shape[2], width = sum->shape[3], rows = sum->shape[0] * tokens * heads;
    float *restrict total = sum->data;
#pragma omp parallel for schedule(static) num_threads(backend->threads)
    for (int64_t row = 0; row < rows; row++) {
        int64_t b = row / (tokens * heads), token = row / heads % tokens, head = row % heads, at = (b * heads + head) * tokens + token;
        float old = ((float *)lse->data)[at], new = ((const float *)part_lse->data)[at], high = old > new ? old : new;
        if (high == -INFINITY) continue;
        float merged = high + logf(expf(old - high) + expf(new - high)), keep = expf(old - merged), take = expf(new - merged);
        for (int64_t d = 0; d < width; d += ROW_CHUNK) {
            float taken[ROW_CHUNK];
            int64_t n = min64(ROW_CHUNK, width - d);
            row_load(taken, part->data, part->dtype, row * width + d, n);
            for (int64_t i = 0; i < n; i++) total[row * width + d + i] = keep * total[row * width + d + i] + take * taken[i];
        }
    }
#pragma omp parallel for schedule(static) num_threads(backend->threads)
    for (int64_t i = 0; i < tensor_count(lse); i++) {
        float old = ((float *)lse->data)[i], new = ((const float *)part_lse->data)[i], high = old > new ? old : new;
        if (high != -INFINITY) ((float *)lse->data)[i] = high + logf(expf(old - high) + expf(new - high));
    }
}

void KERNEL(kernels_fill_attention)(struct backend_ops *ops) {
    ops->attention = attention;
    ops->merge_attention = merge_attention;
}
