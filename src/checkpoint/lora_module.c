/* The kinds of change; see lora_module.h. The definitions are LyCORIS'
 * (github.com/KohakuBlueleaf/LyCORIS, lycoris/modules and functional) and, for magnitudes under
 * peft's name (lora_magnitude_vector), peft's, which diffusers uses: there the user's scale lies
 * inside the length, in LyCORIS (dora_scale) outside. */
#include "checkpoint/lora_module.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/lora_merge.h"

enum { CHUNK_ROWS = 64 }; /* of LoHa's two products, that live at once */

/* ---- tensors ---- */

bool lora_role_is_readable(enum lora_role role, enum dtype dtype) {
    static const enum dtype numbers[] = {DTYPE_F64, DTYPE_I8, DTYPE_U8, DTYPE_I16, DTYPE_I32, DTYPE_I64};
    bool is_number = dtype_is_float(dtype);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers && role == LORA_ALPHA; i++) is_number = is_number || dtype == numbers[i];
    return is_number;
}

static const struct tensor *tensor_of_role(const struct lora_module *m, enum lora_role role) {
    return m->tensors[role] != NULL ? &m->tensors[role]->tensor : NULL;
}

static bool has(const struct lora_module *m, enum lora_role role) {
    return m->tensors[role] != NULL;
}

const struct safetensors_entry *lora_module_entry(const struct lora_module *m) {
    for (int i = 0; i < LORA_ROLES; i++)
        if (m->tensors[i] != NULL && i != LORA_ALPHA) return m->tensors[i];
    return m->tensors[LORA_ALPHA];
}

static const struct {
    enum lora_role first, last; /* the roles that tell the kind */
    const char *missing;
} kinds[] = {
    [LORA_KIND_LORA] = {LORA_DOWN, LORA_UP, "lora_A (lora_down) or lora_B (lora_up)"},
    [LORA_KIND_LOHA] = {LOHA_W1_A, LOHA_T2, "hada_w1_a, hada_w1_b, hada_w2_a or hada_w2_b"},
    [LORA_KIND_LOKR] = {LOKR_W1, LOKR_T2, "lokr_w1 or lokr_w2, or the two matrices that make it up"},
    [LORA_KIND_DIFF] = {LORA_DIFF, LORA_DIFF, "diff"},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

static bool is_complete(const struct lora_module *m) {
    switch (m->kind) {
    case LORA_KIND_LORA:
        return has(m, LORA_DOWN) && has(m, LORA_UP);
    case LORA_KIND_LOHA:
        return has(m, LOHA_W1_A) && has(m, LOHA_W1_B) && has(m, LOHA_W2_A) && has(m, LOHA_W2_B) && has(m, LOHA_T1) == has(m, LOHA_T2);
    case LORA_KIND_LOKR:
        return (has(m, LOKR_W1) || (has(m, LOKR_W1_A) && has(m, LOKR_W1_B))) &&
               (has(m, LOKR_W2) || (has(m, LOKR_W2_A) && has(m, LOKR_W2_B)));
    case LORA_KIND_DIFF:
        return has(m, LORA_DIFF);
    }
    return false;
}

tessera_status lora_module_complete(struct lora_module *m, const char *file, tessera_error *error) {
    int found = 0;
    m->kind = LORA_KIND_LORA;
    for (int kind = 0; kind < KINDS; kind++) {
        bool any = false;
        for (int role = (int)kinds[kind].first; role <= (int)kinds[kind].last; role++) any = any || m->tensors[role] != NULL;
        if (any) m->kind = (enum lora_kind)kind;
        found += any;
    }
    const char *key = lora_module_entry(m)->name;
    if (found > 1)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: the module of key \"%.300s\" has tensors of two kinds of change", file, key);
    if (is_complete(m)) return TESSERA_OK;
    bool no_down = m->kind == LORA_KIND_LORA && !has(m, LORA_DOWN), no_up = m->kind == LORA_KIND_LORA && !has(m, LORA_UP);
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: the module of key \"%.300s\" has no %s: is the file cut off?", file, key,
                     no_down ? "lora_A (lora_down)"
                     : no_up ? "lora_B (lora_up)"
                             : kinds[m->kind].missing);
}

int64_t lora_module_rank(const struct lora_module *m) {
    const struct tensor *t = m->kind == LORA_KIND_LORA               ? tensor_of_role(m, LORA_DOWN)
                             : m->kind == LORA_KIND_LOHA             ? tensor_of_role(m, LOHA_W1_B)
                             : m->kind == LORA_KIND_DIFF             ? NULL
                             : has(m, LOKR_W1_B) && !has(m, LOKR_W1) ? tensor_of_role(m, LOKR_W1_B)
                             : has(m, LOKR_W2)                       ? NULL
                                                                     : tensor_of_role(m, LOKR_W2_B);
    return t != NULL ? t->shape[0] : 0;
}

/* One number of any type. */
static double number_of(const struct tensor *t) {
    float value = 0;
    uint64_t integer = 0;
    double wide = 0;
    int unused_bits = 64 - 8 * (int)dtype_size(t->dtype); /* of a number's type */
    switch (t->dtype) {
    case DTYPE_F64:
        memcpy(&wide, t->data, sizeof wide);
        return wide;
    case DTYPE_I8:
        return *(const int8_t *)t->data;
    case DTYPE_U8:
        return *(const uint8_t *)t->data;
    case DTYPE_I16:
    case DTYPE_I32:
    case DTYPE_I64: /* little-endian, as the file is: shifts bring the sign up, and down again */
        memcpy(&integer, t->data, dtype_size(t->dtype));
        return (double)((int64_t)(integer << unused_bits) >> unused_bits);
    default:
        dtype_convert(&value, DTYPE_F32, t->data, t->dtype, 1);
        return value;
    }
}

double lora_module_alpha(const struct lora_module *m, double fallback) {
    return has(m, LORA_ALPHA) ? number_of(tensor_of_role(m, LORA_ALPHA)) : fallback;
}

bool lora_module_needs_whole(const struct lora_module *m) {
    return has(m, LORA_DORA_SCALE);
}

/* ---- LoRA and LoHa: products ---- */

static int64_t taps_of(int ndim, const int64_t *shape) {
    int64_t taps = 1;
    for (int i = 2; i < ndim; i++) taps *= shape[i];
    return taps;
}

/* `t` as [rows, I, ...] of a weight's form, if it is stored as [rows, I * taps]. */
static struct tensor unfolded(const struct tensor *t, int ndim, const int64_t *shape) {
    int64_t whole[TENSOR_MAX_DIMS];
    if (t->ndim != 2 || ndim < 3 || t->shape[1] != shape[1] * taps_of(ndim, shape)) return *t;
    memcpy(whole, shape, (size_t)ndim * sizeof *shape);
    whole[0] = t->shape[0];
    return tensor_reshape(*t, ndim, whole);
}

/* The LoRA's product, or LoHa's first or second one. */
static struct lora_product product_of(const struct lora_module *m, int which, int ndim, const int64_t *shape) {
    const enum lora_role roles[][3] = {{LORA_DOWN, LORA_MID, LORA_UP}, {LOHA_W1_B, LOHA_T1, LOHA_W1_A}, {LOHA_W2_B, LOHA_T2, LOHA_W2_A}};
    const enum lora_role *p = roles[which];
    struct lora_product product = {.up = *tensor_of_role(m, p[2]), .factor = which == 0 ? m->factor : 1, .threads = m->threads};
    product.down = has(m, p[1]) ? *tensor_of_role(m, p[0]) : unfolded(tensor_of_role(m, p[0]), ndim, shape);
    if (has(m, p[1])) product.mid = *tensor_of_role(m, p[1]);
    product.up_transposed = which > 0 && has(m, p[1]);
    return product;
}

int64_t lora_module_low_rank(const struct lora_module *m) {
    bool plain = m->kind == LORA_KIND_LORA && !has(m, LORA_MID) && !has(m, LORA_DORA_SCALE);
    return plain ? tensor_of_role(m, LORA_DOWN)->shape[0] : 0;
}

void lora_module_read_down(const struct lora_module *m, struct span inputs, float *out, int64_t stride) {
    const struct tensor *down = tensor_of_role(m, LORA_DOWN);
    for (int64_t r = 0; r < down->shape[0]; r++) {
        const char *from = (const char *)down->data + (size_t)(r * down->shape[1] + inputs.first) * dtype_size(down->dtype);
        dtype_convert(out + r * stride, DTYPE_F32, from, down->dtype, (size_t)inputs.count);
    }
}

void lora_module_read_up(const struct lora_module *m, struct span rows, float *out) {
    const struct tensor *up = tensor_of_role(m, LORA_UP);
    int64_t rank = up->shape[1];
    dtype_convert(out, DTYPE_F32, (const char *)up->data + (size_t)(rows.first * rank) * dtype_size(up->dtype), up->dtype,
                  (size_t)(rows.count * rank));
    for (int64_t i = 0; i < rows.count * rank; i++) out[i] *= m->factor;
}

static tessera_status add_loha(const struct lora_module *m, int ndim, const int64_t *shape, struct span rows, struct span inputs,
                               float *values, tessera_error *error) {
    struct lora_product first = product_of(m, 1, ndim, shape), second = product_of(m, 2, ndim, shape);
    int64_t columns = inputs.count * taps_of(ndim, shape);
    if (rows.count == 0 || columns == 0) return TESSERA_OK;
    tessera_status status = TESSERA_OK;
    float *a = NULL;
    for (int64_t top = 0; top < rows.count && status == TESSERA_OK; top += CHUNK_ROWS) {
        struct span chunk = {rows.first + top, rows.count - top < CHUNK_ROWS ? rows.count - top : CHUNK_ROWS};
        free(a);
        a = calloc((size_t)(2 * chunk.count * columns), sizeof *a);
        if (a == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for %lld columns of a LoHa", (long long)columns);
        float *b = a + chunk.count * columns, *to = values + top * columns;
        status = lora_merge_piece(&first, chunk, inputs, a, error);
        if (status == TESSERA_OK) status = lora_merge_piece(&second, chunk, inputs, b, error);
        for (int64_t i = 0; i < chunk.count * columns && status == TESSERA_OK; i++) to[i] += m->factor * a[i] * b[i];
    }
    free(a);
    return status;
}

/* ---- LoKr ---- */

/* The shape of one of LoKr's matrices as [rows, columns, taps], from what is stored; false if the
 * tensors do not fit together. */
struct factor_shape {
    int64_t rows, columns, taps;
};

static bool factor_shape(const struct lora_module *m, int which, int64_t taps, struct factor_shape *out) {
    const struct tensor *whole = tensor_of_role(m, which == 1 ? LOKR_W1 : LOKR_W2);
    const struct tensor *a = tensor_of_role(m, which == 1 ? LOKR_W1_A : LOKR_W2_A),
                        *b = tensor_of_role(m, which == 1 ? LOKR_W1_B : LOKR_W2_B);
    const struct tensor *t = which == 2 ? tensor_of_role(m, LOKR_T2) : NULL;
    if (whole != NULL) {
        *out = (struct factor_shape){whole->shape[0], whole->shape[1], taps_of(whole->ndim, whole->shape)};
    } else if (t != NULL) {
        *out = (struct factor_shape){a->shape[1], b->shape[1], taps_of(t->ndim, t->shape)};
        return t->shape[0] == t->shape[1] && a->shape[0] == t->shape[0] && b->shape[0] == t->shape[0] && taps_of(a->ndim, a->shape) == 1 &&
               taps_of(b->ndim, b->shape) == 1;
    } else {
        *out = (struct factor_shape){a->shape[0], b->shape[1] * taps_of(b->ndim, b->shape), 1};
        if (a->shape[1] != b->shape[0] || taps_of(a->ndim, a->shape) != 1) return false;
    }
    if (which == 2 && out->taps == 1 && out->columns % taps == 0) { /* a convolution's, stored flat */
        out->columns /= taps;
        out->taps = taps;
    }
    return true;
}

/* A [rows, r] B [r, columns], or through T [r, r, taps] with A stored as [r, rows]; float32. */
static tessera_status multiply_factor(const struct tensor *a, const struct tensor *b, const struct tensor *t, struct factor_shape s,
                                      int threads, float *out, tessera_error *error) {
    struct lora_product product = {.down = *b, .up = *a, .factor = 1, .threads = threads, .up_transposed = t != NULL};
    if (t != NULL) product.mid = *t;
    int64_t inputs = b->shape[1];
    return lora_merge_piece(&product, (struct span){0, s.rows}, (struct span){0, inputs}, out, error);
}

/* One of the two matrices in float32, [rows, columns, taps]; the caller frees. */
static tessera_status read_factor(const struct lora_module *m, int which, struct factor_shape s, float **out, tessera_error *error) {
    const struct tensor *whole = tensor_of_role(m, which == 1 ? LOKR_W1 : LOKR_W2);
    *out = calloc((size_t)(s.rows * s.columns * s.taps) + 1, sizeof **out);
    if (*out == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a LoKr's matrices");
    if (whole != NULL) {
        dtype_convert(*out, DTYPE_F32, whole->data, whole->dtype, (size_t)tensor_count(whole));
        return TESSERA_OK;
    }
    return multiply_factor(tensor_of_role(m, which == 1 ? LOKR_W1_A : LOKR_W2_A), tensor_of_role(m, which == 1 ? LOKR_W1_B : LOKR_W2_B),
                           which == 2 ? tensor_of_role(m, LOKR_T2) : NULL, s, m->threads, *out, error);
}

/* Row o = o1 O2 + o2, input i = i1 I2 + i2: W1[o1, i1] W2[o2, i2]. */
static tessera_status add_lokr(const struct lora_module *m, int ndim, const int64_t *shape, struct span rows, struct span inputs,
                               float *values, tessera_error *error) {
    int64_t taps = taps_of(ndim, shape);
    struct factor_shape s1, s2;
    float *w1 = NULL, *w2 = NULL;
    if (!factor_shape(m, 1, 1, &s1) || !factor_shape(m, 2, taps, &s2)) return error_set(error, TESSERA_ERROR_FORMAT, "a LoKr does not fit");
    tessera_status status = read_factor(m, 1, s1, &w1, error);
    if (status == TESSERA_OK) status = read_factor(m, 2, s2, &w2, error);
    for (int64_t row = 0; row < rows.count && status == TESSERA_OK; row++) {
        int64_t o = rows.first + row;
        const float *left = w1 + o / s2.rows * s1.columns, *right = w2 + o % s2.rows * s2.columns * taps;
        for (int64_t i = 0; i < inputs.count; i++, values += taps) {
            int64_t input = inputs.first + i;
            for (int64_t k = 0; k < taps; k++) values[k] += m->factor * (left[input / s2.columns] * right[input % s2.columns * taps + k]);
        }
    }
    free(w1);
    free(w2);
    return status;
}

/* ---- all kinds ---- */

/* Adds rows of a difference. */
static void add_diff(const struct lora_module *m, int64_t inputs_of_all, int64_t taps, struct span rows, struct span inputs,
                     float *values) {
    const struct tensor *t = tensor_of_role(m, LORA_DIFF);
    for (int64_t row = 0; row < rows.count; row++) {
        const char *from =
            (const char *)t->data + (size_t)(((rows.first + row) * inputs_of_all + inputs.first) * taps) * dtype_size(t->dtype);
        for (int64_t i = 0; i < inputs.count * taps; i++) {
            float value;
            dtype_convert(&value, DTYPE_F32, from + (size_t)i * dtype_size(t->dtype), t->dtype, 1);
            *values++ += m->factor * value;
        }
    }
}

int64_t lora_module_rows(const struct lora_module *m) {
    struct factor_shape s1, s2;
    switch (m->kind) {
    case LORA_KIND_LORA:
        return tensor_of_role(m, LORA_UP)->shape[0];
    case LORA_KIND_LOHA:
        return tensor_of_role(m, LOHA_W1_A)->shape[has(m, LOHA_T1) ? 1 : 0];
    case LORA_KIND_LOKR:
        return factor_shape(m, 1, 1, &s1) && factor_shape(m, 2, 1, &s2) && s2.rows > 0 && s1.rows <= INT64_MAX / s2.rows ? s1.rows * s2.rows
                                                                                                                         : 0;
    case LORA_KIND_DIFF:
        return tensor_of_role(m, LORA_DIFF)->shape[0];
    }
    return 0;
}

static bool lokr_fits(const struct lora_module *m, int64_t rows, int ndim, const int64_t *shape) {
    struct factor_shape s1, s2;
    int64_t taps = taps_of(ndim, shape);
    if (ndim < 2 || taps < 1 || !factor_shape(m, 1, 1, &s1) || !factor_shape(m, 2, taps, &s2)) return false;
    return s1.taps == 1 && s2.taps == taps && s1.rows > 0 && s2.rows > 0 && s1.columns > 0 && s2.columns > 0 && rows == s1.rows * s2.rows &&
           shape[1] % s2.columns == 0 && shape[1] / s2.columns == s1.columns;
}

static bool diff_fits(const struct lora_module *m, int ndim, const int64_t *shape) {
    const struct tensor *t = tensor_of_role(m, LORA_DIFF);
    int64_t inputs = ndim > 1 ? shape[1] : 1, stored = t->ndim > 1 ? t->shape[1] : 1;
    return inputs * taps_of(ndim, shape) == stored * taps_of(t->ndim, t->shape) && stored == inputs;
}

bool lora_module_fits(const struct lora_module *m, int ndim, const int64_t *shape) {
    int64_t rows = lora_module_rows(m);
    if (m->kind == LORA_KIND_LOKR) return rows > 0 && lokr_fits(m, rows, ndim, shape);
    if (m->kind == LORA_KIND_DIFF) return diff_fits(m, ndim, shape);
    for (int which = m->kind == LORA_KIND_LORA ? 0 : 1; which <= (m->kind == LORA_KIND_LORA ? 0 : 2); which++) {
        struct lora_product product = product_of(m, which, ndim, shape);
        if (!lora_product_fits(&product, rows, ndim, shape)) return false;
    }
    return true;
}

tessera_status lora_module_add(const struct lora_module *m, int ndim, const int64_t *shape, struct span rows, struct span inputs,
                               float *values, tessera_error *error) {
    if (m->kind == LORA_KIND_LOHA) return add_loha(m, ndim, shape, rows, inputs, values, error);
    if (m->kind == LORA_KIND_LOKR) return add_lokr(m, ndim, shape, rows, inputs, values, error);
    if (m->kind == LORA_KIND_DIFF) {
        add_diff(m, ndim > 1 ? shape[1] : 1, taps_of(ndim, shape), rows, inputs, values);
        return TESSERA_OK;
    }
    struct lora_product product = product_of(m, 0, ndim, shape);
    return lora_merge_piece(&product, rows, inputs, values, error);
}

/* ---- DoRA ---- */

/* peft's magnitudes, or LyCORIS'? */
static bool is_peft(const struct lora_module *m) {
    return strstr(m->tensors[LORA_DORA_SCALE]->name, ".dora_scale") == NULL;
}

/* Do the magnitudes belong to the inputs? LyCORIS' older files have them as [1, I, 1, 1]; peft's
 * convolutions have [1, O, 1, 1]. */
static bool on_inputs(const struct lora_module *m, int64_t inputs) {
    const struct tensor *t = &m->tensors[LORA_DORA_SCALE]->tensor;
    return !is_peft(m) && t->ndim >= 2 && t->shape[0] == 1 && t->shape[1] == inputs;
}

/* What a length `norm` becomes: the factor of its row. */
static float ratio_of(const struct lora_module *m, float magnitude, double norm) {
    if (is_peft(m)) return norm > 0 ? (float)((double)magnitude / norm) : 0.0f;
    double ratio = (double)magnitude / (norm + FLT_EPSILON); /* LyCORIS' */
    return (float)((double)m->scale * (ratio - 1) + 1);
}

/* The change without the user's scale where LyCORIS applies it outside. */
static tessera_status add_inner(const struct lora_module *m, int ndim, const int64_t *shape, struct span rows, float *values,
                                tessera_error *error) {
    struct lora_module inner = *m;
    if (!is_peft(m)) inner.factor = m->scale != 0 ? m->factor / m->scale : 0;
    return lora_module_add(&inner, ndim, shape, rows, (struct span){0, shape[1]}, values, error);
}

/* Lengths of rows (first [rows]) or of inputs ([inputs]) of w [rows, inputs, taps]. */
static void measure(const float *w, int64_t rows, int64_t inputs, int64_t taps, bool by_input, double *norms) {
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t i = 0; i < inputs; i++) {
            double sum = 0;
            for (int64_t k = 0; k < taps; k++, w++) sum += (double)*w * *w;
            norms[by_input ? i : row] += sum;
        }
    }
    for (int64_t i = 0; i < (by_input ? inputs : rows); i++) norms[i] = sqrt(norms[i]);
}

tessera_status lora_module_add_decomposed(const struct lora_module *m, int ndim, const int64_t *shape, struct span rows,
                                          const float *original, float *values, tessera_error *error) {
    const struct tensor *scale = tensor_of_role(m, LORA_DORA_SCALE);
    int64_t total = lora_module_rows(m), inputs = ndim > 1 ? shape[1] : 1, taps = taps_of(ndim, shape), columns = inputs * taps;
    bool by_input = on_inputs(m, inputs);
    const char *key = m->tensors[LORA_DORA_SCALE]->name;
    if (tensor_count(scale) != (by_input ? inputs : total))
        return error_set(error, TESSERA_ERROR_FORMAT, "\"%.250s\" has %lld magnitudes where %lld or %lld fit", key,
                         (long long)tensor_count(scale), (long long)total, (long long)inputs);
    if (by_input && rows.count != total)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "\"%.250s\" has magnitudes of inputs of several weights at once", key);
    float *w = malloc((size_t)(rows.count * columns) * sizeof *w),
          *magnitudes = calloc((size_t)tensor_count(scale) + 1, sizeof *magnitudes);
    double *norms = calloc((size_t)(rows.count + inputs), sizeof *norms);
    tessera_status status =
        w != NULL && magnitudes != NULL && norms != NULL
            ? TESSERA_OK
            : error_set(error, TESSERA_ERROR_MEMORY, "no memory for a copy of a weight of %lld columns", (long long)columns);
    if (status == TESSERA_OK) {
        memcpy(w, original, (size_t)(rows.count * columns) * sizeof *w);
        dtype_convert(magnitudes, DTYPE_F32, scale->data, scale->dtype, (size_t)tensor_count(scale));
        status = add_inner(m, ndim, shape, rows, w, error);
    }
    if (status == TESSERA_OK) measure(w, rows.count, inputs, taps, by_input, norms);
    for (int64_t i = 0; i < rows.count * columns && status == TESSERA_OK; i++) {
        int64_t row = i / columns, input = i % columns / taps;
        float magnitude = magnitudes[by_input ? input : rows.first + row];
        values[i] += ratio_of(m, magnitude, norms[by_input ? input : row]) * w[i] - original[i];
    }
    free(norms);
    free(magnitudes);
    free(w);
    return status;
}
