/* Merging a LoRA's product into a piece of a weight.
 *
 * The rank r is small, so the product is a sum of r scaled rows of A for each row of W. A is made
 * float32 once; then tiles of TILE_ROWS rows and TILE_COLUMNS columns are summed, each by one
 * thread, RANKS rows of A at a time. An element of W is summed in the same order whatever tile it
 * lies in: a piece gets the bits that it has in the whole. */
#include <stdlib.h>

#include "checkpoint/lora_merge.h"

enum { TILE_ROWS = 8, TILE_COLUMNS = 512, RANKS = 4 };

/* Is what follows the first two dimensions all 1? */
static bool single_tap(int ndim, const int64_t *shape) {
    for (int i = 2; i < ndim; i++) {
        if (shape[i] != 1) return false;
    }
    return true;
}

/* Have two weights the same kernel? */
static bool same_taps(int ndim, const int64_t *shape, int other_ndim, const int64_t *other) {
    if (single_tap(ndim, shape) && single_tap(other_ndim, other)) return true;
    if (ndim != other_ndim) return false;
    for (int i = 2; i < ndim; i++) {
        if (shape[i] != other[i]) return false;
    }
    return true;
}

bool lora_product_fits(const struct lora_product *product, int64_t rows, int ndim, const int64_t *shape) {
    const struct tensor *down = &product->down, *up = &product->up, *mid = &product->mid;
    if (ndim < 2 || down->ndim < 2 || up->ndim < 2) return false;
    int64_t rank = down->shape[0], stored_rows = up->shape[product->up_transposed], stored_rank = up->shape[!product->up_transposed];
    if (rank < 1 || stored_rows != rows || stored_rank != rank || down->shape[1] != shape[1]) return false;
    if (!single_tap(up->ndim, up->shape)) return false;
    if (mid->data == NULL) return same_taps(down->ndim, down->shape, ndim, shape);
    return mid->ndim >= 2 && mid->shape[0] == rank && mid->shape[1] == rank && single_tap(down->ndim, down->shape) &&
           same_taps(mid->ndim, mid->shape, ndim, shape);
}

/* [rows, count] of `t`, [rows, stride] in the file, from element `first` of each row on, as float32
 * times `factor`; the caller frees. NULL: no memory. */
static float *to_f32(const struct tensor *t, int64_t rows, int64_t stride, int64_t first, int64_t count, float factor) {
    float *out = calloc((size_t)(rows * count), sizeof *out);
    if (out == NULL) return NULL;
    for (int64_t row = 0; row < rows; row++) {
        const char *from = (const char *)t->data + (size_t)(row * stride + first) * dtype_size(t->dtype);
        dtype_convert(out + row * count, DTYPE_F32, from, t->dtype, (size_t)count);
    }
    for (int64_t i = 0; factor != 1 && i < rows * count; i++) out[i] *= factor;
    return out;
}

/* Some rows of B as [rows.count, r] in float32 times the factor; the caller frees. NULL: no memory. */
static float *up_rows(const struct lora_product *product, int64_t rank, struct span rows) {
    if (!product->up_transposed) return to_f32(&product->up, 1, 0, rows.first * rank, rows.count * rank, product->factor);
    float *stored = to_f32(&product->up, rank, product->up.shape[1], rows.first, rows.count, product->factor);
    float *out = stored != NULL ? calloc((size_t)(rows.count * rank), sizeof *out) : NULL;
    for (int64_t i = 0; out != NULL && i < rows.count * rank; i++) out[i] = stored[i % rank * rows.count + i / rank];
    free(stored);
    return out;
}

/* A' [r, I, taps]: A'[a, i, k] = sum over b of M[a, b, k] A[b, i]. */
static void through_mid(const float *mid, const float *down, int64_t rank, int64_t inputs, int64_t taps, int threads, float *out) {
#pragma omp parallel for num_threads(threads)
    for (int64_t a = 0; a < rank; a++) {
        for (int64_t b = 0; b < rank; b++) {
            for (int64_t i = 0; i < inputs; i++) {
                for (int64_t k = 0; k < taps; k++)
                    out[(a * inputs + i) * taps + k] += mid[(a * rank + b) * taps + k] * down[b * inputs + i];
            }
        }
    }
}

/* Elements that one of dimension 1 stands for. */
static int64_t taps_of(const struct tensor *t) {
    int64_t taps = 1;
    for (int i = 2; i < t->ndim; i++) taps *= t->shape[i];
    return taps;
}

/* Some inputs of A as [r, inputs.count, taps] in float32, the middle multiplied in; the caller
 * frees. NULL: no memory. */
static float *kernel_rows(const struct lora_product *product, struct span inputs, int64_t taps) {
    const struct tensor *t = &product->down, *m = &product->mid;
    int64_t rank = t->shape[0], each = m->data == NULL ? taps : 1;
    float *down = to_f32(t, rank, t->shape[1] * each, inputs.first * each, inputs.count * each, 1);
    if (m->data == NULL || down == NULL) return down;
    float *mid = to_f32(m, 1, 0, 0, tensor_count(m), 1);
    float *out = mid == NULL || inputs.count * taps > INT64_MAX / rank ? NULL : calloc((size_t)(rank * inputs.count * taps), sizeof *out);
    if (out != NULL) through_mid(mid, down, rank, inputs.count, taps, product->threads, out);
    free(mid);
    free(down);
    return out;
}

/* A row of a tile, `n` columns: w += b a for `rank` rows of A that are `stride` apart. */
static void add_row(float *restrict w, const float *b, const float *restrict a, int64_t rank, int64_t stride, int64_t n) {
    int64_t r = 0;
    for (; r + RANKS <= rank; r += RANKS) {
        const float *a0 = a + r * stride, *a1 = a0 + stride, *a2 = a1 + stride, *a3 = a2 + stride;
        float b0 = b[r], b1 = b[r + 1], b2 = b[r + 2], b3 = b[r + 3];
        for (int64_t j = 0; j < n; j++) w[j] += (b0 * a0[j] + b1 * a1[j]) + (b2 * a2[j] + b3 * a3[j]);
    }
    for (; r < rank; r++) {
        for (int64_t j = 0; j < n; j++) w[j] += b[r] * a[r * stride + j];
    }
}

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* weight [rows, columns] += b [rows, rank] a [rank, columns]. */
static void add_product(float *weight, const float *b, const float *a, int64_t rows, int64_t rank, int64_t columns, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t top = 0; top < rows; top += TILE_ROWS) {
        int64_t bottom = smaller(top + TILE_ROWS, rows);
        for (int64_t left = 0; left < columns; left += TILE_COLUMNS) {
            int64_t n = smaller(TILE_COLUMNS, columns - left);
            for (int64_t row = top; row < bottom; row++) {
                add_row(weight + row * columns + left, b + row * rank, a + left, rank, columns, n);
            }
        }
    }
}

tessera_status lora_merge_piece(const struct lora_product *product, struct span rows, struct span inputs, float *weight,
                                tessera_error *error) {
    int64_t rank = product->down.shape[0], taps = taps_of(product->mid.data == NULL ? &product->down : &product->mid);
    int64_t columns = inputs.count * taps;
    tessera_status status = TESSERA_OK;
    if (rows.count == 0 || columns == 0) return status;
    float *a = kernel_rows(product, inputs, taps);
    float *b = up_rows(product, rank, rows);
    if (a != NULL && b != NULL) {
        add_product(weight, b, a, rows.count, rank, columns, product->threads);
    } else {
        status = error_set(error, TESSERA_ERROR_MEMORY, "no memory for a LoRA of rank %lld of %lld columns", (long long)rank,
                           (long long)columns);
    }
    free(a);
    free(b);
    return status;
}
