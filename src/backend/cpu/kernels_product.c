/* Linear layers and convolutions in plain C: one blocked product over two sources of rows.
 *
 * A convolution is a product of its picture's windows (a row per output pixel, kh x kw x C numbers,
 * zero outside the picture) with w[O, kh x kw x C]; only the way to fetch a piece of a row differs
 * from a linear layer. The output is cut into tiles; a thread packs a tile's rows and weights,
 * DEPTH numbers at a time, for the micro-kernel (Goto and van de Geijn 2008, without their cache
 * levels). It leaves out Winograd's transform and copies of the weights between calls. */
#include "backend/cpu/kernels_micro.h"
#include "backend/cpu/windows.h"

#define DEPTH 256
#define TILE 192 /* rows and columns of an output tile: a multiple of every MICRO_ROWS and MICRO_COLUMNS */

struct product {
    const struct tensor *x, *w, *residual;
    const float *bias;
    struct tensor *out;
    enum activation act;
    int64_t rows, columns, depth;
    bool is_conv;
    struct windows windows;
    int64_t tile_rows, tile_columns;
};

struct workspace {
    float *row, *a, *b, *c;
};
#define WORKSPACE_FLOATS (DEPTH + 2 * TILE * DEPTH + TILE * TILE)

/* Packs rows [first, first + n) of the left or right operand as to[DEPTH][TILE]; rows up to
 * `padded` are zero. */
static void pack_rows(float *restrict to, float *restrict row, const struct product *p, bool weights, int64_t first, int64_t n,
                      int64_t padded, int64_t from, int64_t count) {
    for (int64_t r = 0; r < padded; r++) {
        if (r >= n)
            memset(row, 0, (size_t)count * sizeof(float));
        else if (weights)
            row_load(row, p->w->data, p->w->dtype, (first + r) * p->depth + from, count);
        else if (p->is_conv)
            windows_load(row, &p->windows, first + r, from, count);
        else
            row_load(row, p->x->data, p->x->dtype, (first + r) * p->depth + from, count);
        for (int64_t k = 0; k < count; k++) to[k * TILE + r] = row[k];
    }
}

static void store_tile(const struct product *p, float *c, int64_t first, int64_t rows, int64_t first_column, int64_t columns) {
    float residual[TILE];
    for (int64_t r = 0; r < rows; r++, c += TILE) {
        int64_t at = (first + r) * p->columns + first_column;
        if (p->bias != NULL)
            for (int64_t j = 0; j < columns; j++) c[j] += p->bias[first_column + j];
        row_activate(c, columns, p->act);
        if (p->residual != NULL) {
            row_load(residual, p->residual->data, p->residual->dtype, at, columns);
            for (int64_t j = 0; j < columns; j++) c[j] += residual[j];
        }
        row_store(p->out->data, p->out->dtype, at, c, columns);
    }
}

static void compute_tile(const struct product *p, struct workspace *work, int64_t tile) {
    int64_t across = (p->columns + p->tile_columns - 1) / p->tile_columns;
    int64_t first = tile / across * p->tile_rows, first_column = tile % across * p->tile_columns;
    int64_t rows = min64(p->tile_rows, p->rows - first), columns = min64(p->tile_columns, p->columns - first_column);
    int64_t padded_rows = round_up(rows, MICRO_ROWS), padded_columns = round_up(columns, MICRO_COLUMNS);
    for (int64_t k = 0; k < p->depth; k += DEPTH) {
        int64_t count = min64(DEPTH, p->depth - k);
        pack_rows(work->a, work->row, p, false, first, rows, padded_rows, k, count);
        pack_rows(work->b, work->row, p, true, first_column, columns, padded_columns, k, count);
        for (int64_t j = 0; j < padded_columns; j += MICRO_COLUMNS)
            for (int64_t r = 0; r < padded_rows; r += MICRO_ROWS)
                micro_product(count, work->a + r, TILE, work->b + j, TILE, work->c + r * TILE + j, TILE, k > 0);
    }
    store_tile(p, work->c, first, rows, first_column, columns);
}

/* Shares the tiles among the threads, each a contiguous run; narrower tiles where there are few. */
static tessera_status product_run(struct backend *backend, struct product *p, tessera_error *error) {
    if (p->rows == 0 || p->columns == 0) return TESSERA_OK;
    assert(p->depth > 0);
    p->tile_rows = p->tile_columns = TILE;
    int64_t tiles = ((p->rows + TILE - 1) / TILE) * ((p->columns + TILE - 1) / TILE);
    if (tiles < 4 * backend->threads) {
        p->tile_columns = MICRO_COLUMNS;
        tiles = ((p->rows + TILE - 1) / TILE) * ((p->columns + MICRO_COLUMNS - 1) / MICRO_COLUMNS);
    }
    int threads = (int)min64(backend->threads, tiles);
    float *buffer = aligned_alloc(64, (size_t)threads * WORKSPACE_FLOATS * sizeof(float));
    if (buffer == NULL)
        return error_set(error, TESSERA_ERROR_MEMORY, "no memory for the work space of a product of %lld x %lld", (long long)p->rows,
                         (long long)p->columns);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int t = 0; t < threads; t++) {
        float *base = buffer + (size_t)t * WORKSPACE_FLOATS;
        struct workspace work = {base, base + DEPTH, base + DEPTH + TILE * DEPTH, base + DEPTH + 2 * TILE * DEPTH};
        for (int64_t tile = tiles * t / threads; tile < tiles * (t + 1) / threads; tile++) compute_tile(p, &work, tile);
    }
    free(buffer);
    return TESSERA_OK;
}

static tessera_status linear(struct backend *backend, struct tensor *out, const struct tensor *x, const struct tensor *w,
                             const struct tensor *bias, enum activation act, tessera_error *error) {
    int64_t depth = last_dim(x), columns = w->shape[0], rows = tensor_count(x) / depth;
    assert(w->ndim == 2 && w->shape[1] == depth && last_dim(out) == columns && tensor_count(out) == rows * columns);
    assert(is_activation(x) && out->dtype == x->dtype && w->dtype == x->dtype && (bias == NULL || bias->dtype == DTYPE_F32));
    struct product p = {
        .x = x, .w = w, .out = out, .bias = bias == NULL ? NULL : bias->data, .act = act, .rows = rows, .columns = columns, .depth = depth};
    return product_run(backend, &p, error);
}

static tessera_status conv2d(struct backend *backend, struct tensor *out, const struct tensor *x, const struct tensor *w,
                             const struct tensor *bias, const struct tensor *residual, struct conv2d_geometry geometry,
                             tessera_error *error) {
    assert(x->ndim == 4 && w->ndim == 4 && out->ndim == 4 && w->shape[3] == x->shape[3] && out->shape[3] == w->shape[0]);
    assert(out->shape[1] == (x->shape[1] + geometry.pad_top + geometry.pad_bottom - w->shape[1]) / geometry.stride + 1);
    assert(out->shape[2] == (x->shape[2] + geometry.pad_left + geometry.pad_right - w->shape[2]) / geometry.stride + 1);
    assert(is_activation(x) && out->dtype == x->dtype && w->dtype == x->dtype && (bias == NULL || bias->dtype == DTYPE_F32));
    struct product p = {.x = x,
                        .w = w,
                        .out = out,
                        .residual = residual,
                        .bias = bias == NULL ? NULL : bias->data,
                        .is_conv = true,
                        .rows = out->shape[0] * out->shape[1] * out->shape[2],
                        .columns = w->shape[0],
                        .depth = w->shape[1] * w->shape[2] * w->shape[3],
                        .windows = {x, out->shape[1], out->shape[2], w->shape[2], geometry}};
    return product_run(backend, &p, error);
}

void KERNEL(kernels_fill_product)(struct backend_ops *ops) {
    ops->linear = linear;
    ops->conv2d = conv2d;
}
