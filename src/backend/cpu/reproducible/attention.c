/* Attention. For each query and head, with q' = scale q rounded once, over the keys of all ranks in
 * the model's order of tokens, in blocks of KEYS from key 0 on:
 *
 *     s_k = fma chain over d ascending of q'_d k_d, from +0; + bias_k; minus infinity where the key is hidden
 *     m'  = max(m, s_k of the block);  m'' = m', or 0 while it is minus infinity
 *     l   = l exp(m - m''), then + p_k in ascending k, p_k = exp(s_k - m'')
 *     o_d = o_d exp(m - m''), then o_d = fma(v_kd, p_k, o_d) in ascending k
 *
 * and at the end o_d (1 / l), 0 where l is 0 (all keys hidden). This is the online softmax (Milakov
 * and Gimelshein 2018) with one block size for all. Hidden keys count like others: nothing is left
 * out. Queries are lanes; a panel has LANE_COLUMNS of them, an item PANELS panels. */
#include "backend/cpu/reproducible/functions.h"
#include "backend/cpu/reproducible/lanes.h"
#include "backend/cpu/reproducible/operators.h"
#include "base/elementary.h"

enum { KEYS = 64, PANELS = 4, QUERIES = PANELS * LANE_COLUMNS };

struct problem {
    const struct attention_args *args;
    struct tensor *out, *lse;
    int64_t queries, keys, heads, width, padded, panels; /* padded: the width, up to a multiple of LANE_ROWS */
    float *work;                                         /* [threads][floats] */
    size_t floats;
};

/* q and o [PANELS][padded][LANE_COLUMNS], s [KEYS][LANE_COLUMNS], k and v [KEYS][padded], max and
 * sum [PANELS][LANE_COLUMNS]. */
struct space {
    float *q, *o, *s, *k, *v, *max, *sum, *row;
};

/* Queries [first, first + count) of one head of one batch row. */
struct block {
    int64_t b, head, first, count;
};

static size_t space_floats(int64_t padded) {
    return (size_t)round_up(2 * QUERIES * padded + KEYS * LANE_COLUMNS + 2 * KEYS * padded + 2 * QUERIES + padded, 16);
}

static struct space space_at(float *base, int64_t padded) {
    struct space w = {.q = base};
    w.o = w.q + QUERIES * padded;
    w.s = w.o + QUERIES * padded;
    w.max = w.s + KEYS * LANE_COLUMNS;
    w.sum = w.max + QUERIES;
    w.k = w.sum + QUERIES;
    w.v = w.k + KEYS * padded;
    w.row = w.v + KEYS * padded;
    return w;
}

/* Where in a [B, S, N, D] tensor a head's row begins. */
static int64_t row_at(const struct tensor *t, int64_t b, int64_t row, int64_t head) {
    return ((b * t->shape[1] + row) * t->shape[2] + head) * t->shape[3];
}

/* to[panel][d][query] = scale q; queries up to a whole panel are zero. */
static void load_queries(const struct problem *a, const struct space *w, struct block at) {
    for (int64_t i = 0; i < round_up(at.count, LANE_COLUMNS); i++) {
        float *to = w->q + i / LANE_COLUMNS * a->padded * LANE_COLUMNS + i % LANE_COLUMNS;
        memset(w->row, 0, (size_t)a->width * sizeof(float));
        if (i < at.count) row_load(w->row, a->args->q->data, a->args->q->dtype, row_at(a->args->q, at.b, at.first + i, at.head), a->width);
        for (int64_t d = 0; d < a->width; d++) to[d * LANE_COLUMNS] = w->row[d] * a->args->scale;
    }
}

/* Rows [first, first + count) of keys or values, up to `rows` and to the padded width with zeros. */
static void load_block(const struct problem *a, float *to, const struct tensor *t, struct block at, int64_t first, int64_t count,
                       int64_t rows) {
    memset(to, 0, (size_t)(rows * a->padded) * sizeof(float));
    for (int64_t k = 0; k < count; k++) row_load(to + k * a->padded, t->data, t->dtype, row_at(t, at.b, first + k, at.head), a->width);
}

/* Adds the bias and hides keys [first, first + keys) from a panel's queries, which begin with query
 * `query`. */
static void hide(const struct problem *a, float *s, struct block at, int64_t query, int64_t first, int64_t keys) {
    const struct attention_args *args = a->args;
    const float *mask = args->mask == NULL ? NULL : (const float *)args->mask->data + at.b * a->keys;
    const float *bias = args->bias == NULL ? NULL : (const float *)args->bias->data + (at.head * a->queries + query) * a->keys;
    int64_t queries = min64(LANE_COLUMNS, at.first + at.count - query);
    for (int64_t k = first; k < first + keys; k++, s += LANE_COLUMNS)
        for (int64_t i = 0; i < queries; i++) {
            if (bias != NULL) s[i] += bias[i * a->keys + k];
            if ((mask != NULL && mask[k] == 0.0f) || (args->causal && k > query + i)) s[i] = -INFINITY;
        }
}

/* Scores to weights; `factor` is what the sums so far are multiplied by. */
static void weigh(float *restrict s, float *restrict max, float *restrict sum, float *restrict factor, int64_t keys) {
    float base[LANE_COLUMNS], old[LANE_COLUMNS];
    memcpy(old, max, sizeof old);
    for (int64_t k = 0; k < keys; k++)
        for (int i = 0; i < LANE_COLUMNS; i++) max[i] = s[k * LANE_COLUMNS + i] > max[i] ? s[k * LANE_COLUMNS + i] : max[i];
    for (int i = 0; i < LANE_COLUMNS; i++) {
        base[i] = max[i] == -INFINITY ? 0.0f : max[i];
        factor[i] = lane_exp(old[i] - base[i]);
        sum[i] *= factor[i];
    }
    for (int64_t k = 0; k < keys; k++) {
        float *restrict p = s + k * LANE_COLUMNS;
        for (int i = 0; i < LANE_COLUMNS; i++) {
            p[i] = lane_exp(p[i] - base[i]);
            sum[i] += p[i];
        }
    }
}

/* One panel of queries takes in one block of keys. */
static void take_keys(const struct problem *a, const struct space *w, struct block at, int64_t panel, int64_t first, int64_t keys) {
    const struct attention_args *args = a->args;
    const float *q = w->q + panel * a->padded * LANE_COLUMNS;
    float *o = w->o + panel * a->padded * LANE_COLUMNS, factor[LANE_COLUMNS];
    memset(w->s, 0, KEYS * LANE_COLUMNS * sizeof(float));
    for (int64_t k = 0; k < keys; k += LANE_ROWS)
        lanes_accumulate(a->width, w->k + k * a->padded, a->padded, 1, q, w->s + k * LANE_COLUMNS);
    if (args->bias != NULL || args->mask != NULL || args->causal) hide(a, w->s, at, at.first + panel * LANE_COLUMNS, first, keys);
    weigh(w->s, w->max + panel * LANE_COLUMNS, w->sum + panel * LANE_COLUMNS, factor, keys);
    for (int64_t d = 0; d < a->padded; d++)
        for (int i = 0; i < LANE_COLUMNS; i++) o[d * LANE_COLUMNS + i] *= factor[i];
    for (int64_t d = 0; d < a->padded; d += LANE_ROWS) lanes_accumulate(keys, w->v + d, 1, a->padded, w->s, o + d * LANE_COLUMNS);
}

static void store(const struct problem *a, const struct space *w, struct block at) {
    for (int64_t i = 0; i < at.count; i++) {
        const float *o = w->o + i / LANE_COLUMNS * a->padded * LANE_COLUMNS + i % LANE_COLUMNS;
        float inverse = w->sum[i] > 0.0f ? 1.0f / w->sum[i] : w->sum[i] == 0.0f ? 0.0f : NAN;
        for (int64_t d = 0; d < a->width; d++) w->row[d] = o[d * LANE_COLUMNS] * inverse;
        row_store(a->out->data, a->out->dtype, row_at(a->args->q, at.b, at.first + i, at.head), w->row, a->width);
        if (a->lse == NULL) continue;
        ((float *)a->lse->data)[(at.b * a->heads + at.head) * a->queries + at.first + i] = w->max[i] + (float)elementary_log(w->sum[i]);
    }
}

static void compute_item(const void *operation, int64_t item, int thread) {
    const struct problem *a = operation;
    int64_t size = a->panels * LANE_COLUMNS, blocks = (a->queries + size - 1) / size, first = item % blocks * size;
    struct block at = {item / blocks / a->heads, item / blocks % a->heads, first, min64(size, a->queries - first)};
    struct space w = space_at(a->work + (size_t)thread * a->floats, a->padded);
    load_queries(a, &w, at);
    memset(w.o, 0, (size_t)(QUERIES * a->padded) * sizeof(float));
    memset(w.sum, 0, QUERIES * sizeof(float));
    for (int64_t i = 0; i < QUERIES; i++) w.max[i] = -INFINITY;
    for (int64_t k = 0; k < a->keys; k += KEYS) {
        int64_t keys = min64(KEYS, a->keys - k);
        load_block(a, w.k, a->args->k, at, k, keys, round_up(keys, LANE_ROWS));
        load_block(a, w.v, a->args->v, at, k, keys, keys);
        for (int64_t panel = 0; panel * LANE_COLUMNS < at.count; panel++) take_keys(a, &w, at, panel, k, keys);
    }
    store(a, &w, at);
}

static tessera_status attention(struct backend *backend, struct tensor *out, struct tensor *lse, const struct attention_args *args,
                                tessera_error *error) {
    const struct tensor *q = args->q, *k = args->k, *v = args->v;
    assert(q->ndim == 4 && k->ndim == 4 && v->ndim == 4 && k->shape[2] == q->shape[2] && k->shape[3] == q->shape[3]);
    assert(v->shape[1] == k->shape[1] && v->shape[2] == q->shape[2] && v->shape[3] == q->shape[3] && tensor_count(out) == tensor_count(q));
    assert(k->shape[0] == q->shape[0] && v->shape[0] == q->shape[0] && is_activation(q));
    assert(k->dtype == q->dtype && v->dtype == q->dtype && out->dtype == q->dtype && (lse == NULL || lse->dtype == DTYPE_F32));
    if (tensor_count(out) == 0) return TESSERA_OK;
    struct problem a = {.args = args,
                        .out = out,
                        .lse = lse,
                        .queries = q->shape[1],
                        .keys = k->shape[1],
                        .heads = q->shape[2],
                        .width = q->shape[3],
                        .padded = round_up(q->shape[3], LANE_ROWS),
                        .panels = PANELS};
    int64_t rows = q->shape[0] * a.heads, wide = (a.queries + QUERIES - 1) / QUERIES;
    if (rows * wide < 2 * backend->threads) a.panels = 1;
    int64_t items = rows * ((a.queries + a.panels * LANE_COLUMNS - 1) / (a.panels * LANE_COLUMNS));
    int threads = (int)min64(backend->threads, items);
    a.floats = space_floats(a.padded);
    a.work = aligned_alloc(64, (size_t)threads * a.floats * sizeof(float));
    if (a.work == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for attention's work space (%d threads)", threads);
    reproducible_run(backend, threads, items, compute_item, &a);
    free(a.work);
    return reproducible_status(backend, error);
}

void KERNEL(reproducible_fill_attention)(struct backend_ops *ops) {
    ops->attention = attention;
}
