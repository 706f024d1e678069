/* Linear layers and convolutions. An output is
 *
 *     round(act(s + bias) + residual),   s = fma(x_K-1, w_K-1, ... fma(x_1, w_1, fma(x_0, w_0, +0)))
 *
 * in float32, k ascending; a convolution's k runs over (kernel row, kernel column, channel), and x
 * is 0 outside the picture. The order of work around that (tiles of outputs; DEPTH terms of each at
 * a time, between which the accumulators rest in memory; Goto and van de Geijn
 * 2008) changes no bit. */
#include "backend/cpu/reproducible/functions.h"
#include "backend/cpu/reproducible/lanes.h"
#include "backend/cpu/reproducible/operators.h"
#include "backend/cpu/windows.h"

enum { DEPTH = 192, TILE_ROWS = 384, PANELS = 4, TILE_COLUMNS = PANELS * LANE_COLUMNS };

struct product {
    const struct tensor *x, *w, *residual;
    const float *bias;
    struct tensor *out;
    enum activation act;
    int64_t rows, columns, depth, tile_columns;
    bool is_conv;
    struct windows windows;
    float *work; /* [threads][WORK_FLOATS] */
};

/* a [TILE_ROWS][DEPTH] rows of x; staged [LANE_COLUMNS][DEPTH] rows of w; b [DEPTH][LANE_COLUMNS]
 * the same transposed; c [PANELS][TILE_ROWS][LANE_COLUMNS] accumulators. */
enum { WORK_FLOATS = TILE_ROWS * DEPTH + 2 * LANE_COLUMNS * DEPTH + TILE_ROWS * TILE_COLUMNS };

struct tile {
    int64_t row, rows, column, columns;
    float *a, *staged, *b, *c;
};

static void load_row(float *to, const struct product *p, int64_t row, int64_t from, int64_t count) {
    if (p->is_conv)
        windows_load(to, &p->windows, row, from, count);
    else
        row_load(to, p->x->data, p->x->dtype, row * p->depth + from, count);
}

/* Terms [from, from + count) of the tile's rows of x; rows up to a multiple of LANE_ROWS are zero. */
static void load_rows(const struct product *p, const struct tile *t, int64_t from, int64_t count) {
    for (int64_t r = 0; r < t->rows; r++) load_row(t->a + r * DEPTH, p, t->row + r, from, count);
    for (int64_t r = t->rows; r < round_up(t->rows, LANE_ROWS); r++) memset(t->a + r * DEPTH, 0, (size_t)count * sizeof(float));
}

/* The same terms of the weights of the tile's columns from `first` on, transposed; columns up to
 * LANE_COLUMNS are zero. */
static void load_panel(const struct product *p, const struct tile *t, int64_t first, int64_t from, int64_t count) {
    int64_t columns = min64(LANE_COLUMNS, t->columns - first);
    for (int64_t j = 0; j < columns; j++)
        row_load(t->staged + j * DEPTH, p->w->data, p->w->dtype, (t->column + first + j) * p->depth + from, count);
    for (int64_t j = columns; j < LANE_COLUMNS; j++) memset(t->staged + j * DEPTH, 0, (size_t)count * sizeof(float));
    lanes_transpose(t->b, t->staged, DEPTH, round_up(count, 4));
}

/* float32 accumulators of a row, columns [first, first + n) of all, to the output. */
static void finish_row(const struct product *p, float *c, int64_t row, int64_t first, int64_t n) {
    int64_t at = row * p->columns + first;
    if (p->bias != NULL)
        for (int64_t j = 0; j < n; j++) c[j] += p->bias[first + j];
    row_activate(c, n, p->act);
    if (p->residual != NULL) {
        float residual[LANE_COLUMNS];
        row_load(residual, p->residual->data, p->residual->dtype, at, n);
        for (int64_t j = 0; j < n; j++) c[j] += residual[j];
    }
    row_store(p->out->data, p->out->dtype, at, c, n);
}

static void compute_tile(const void *operation, int64_t item, int thread) {
    const struct product *p = operation;
    int64_t across = (p->columns + p->tile_columns - 1) / p->tile_columns;
    float *work = p->work + (size_t)thread * WORK_FLOATS;
    struct tile t = {.row = item / across * TILE_ROWS, .column = item % across * p->tile_columns, .a = work};
    t.rows = min64(TILE_ROWS, p->rows - t.row), t.columns = min64(p->tile_columns, p->columns - t.column);
    t.staged = t.a + TILE_ROWS * DEPTH, t.b = t.staged + LANE_COLUMNS * DEPTH, t.c = t.b + LANE_COLUMNS * DEPTH;
    for (int64_t j = 0; j < t.columns; j += LANE_COLUMNS)
        memset(t.c + j * TILE_ROWS, 0, (size_t)(round_up(t.rows, LANE_ROWS) * LANE_COLUMNS) * sizeof(float));
    for (int64_t k = 0; k < p->depth; k += DEPTH) {
        int64_t count = min64(DEPTH, p->depth - k);
        load_rows(p, &t, k, count);
        for (int64_t j = 0; j < t.columns; j += LANE_COLUMNS) {
            load_panel(p, &t, j, k, count);
            for (int64_t r = 0; r < t.rows; r += LANE_ROWS)
                lanes_accumulate(count, t.a + r * DEPTH, DEPTH, 1, t.b, t.c + j * TILE_ROWS + r * LANE_COLUMNS);
        }
    }
    for (int64_t j = 0; j < t.columns; j += LANE_COLUMNS)
        for (int64_t r = 0; r < t.rows; r++)
            finish_row(p, t.c + j * TILE_ROWS + r * LANE_COLUMNS, t.row + r, t.column + j, min64(LANE_COLUMNS, t.columns - j));
}

/* Narrower tiles where there are few for the threads. */
static tessera_status product_run(struct backend *backend, struct product *p, tessera_error *error) {
    if (p->rows == 0 || p->columns == 0) return TESSERA_OK;
    assert(p->depth > 0);
    int64_t down = (p->rows + TILE_ROWS - 1) / TILE_ROWS;
    p->tile_columns = TILE_COLUMNS;
    if (down * ((p->columns + TILE_COLUMNS - 1) / TILE_COLUMNS) < 4 * backend->threads) p->tile_columns = LANE_COLUMNS;
    int64_t tiles = down * ((p->columns + p->tile_columns - 1) / p->tile_columns);
    int threads = (int)min64(backend->threads, tiles);
    p->work = aligned_alloc(64, (size_t)threads * WORK_FLOATS * sizeof(float));
    if (p->work == NULL)
        return error_set(error, TESSERA_ERROR_MEMORY, "no memory for the work space of a product of %lld x %lld", (long long)p->rows,
                         (long long)p->columns);
    reproducible_run(backend, threads, tiles, compute_tile, p);
    free(p->work);
    return reproducible_status(backend, error);
}

static tessera_status linear(struct backend *backend, struct tensor *out, const struct tensor *x, const struct tensor *w,
                             const struct tensor *bias, enum activation act, tessera_error *error) {
    int64_t depth = last_dim(x), columns = w->shape[0], rows = depth > 0 ? tensor_count(x) / depth : 0;
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

void KERNEL(reproducible_fill_product)(struct backend_ops *ops) {
    ops->linear = linear;
    ops->conv2d = conv2d;
}
