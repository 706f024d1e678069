/* Strips of a normalise-upsample-convolve step; the drawing is in the header. Pictures of a batch go one by one. */
#include "models/autoencoder_stage.h"

#include <assert.h>
#include <string.h>

/* Rows first .. first + count of picture b of x, as [1, count, W, C]. */
static struct tensor rows_of(struct tensor x, int64_t b, int64_t first, int64_t count) {
    size_t row = (size_t)(x.shape[2] * x.shape[3]) * dtype_size(x.dtype);
    x.data = (char *)x.data + (size_t)(b * x.shape[1] + first) * row;
    x.shape[0] = 1;
    x.shape[1] = count;
    return x;
}

static int64_t strip_rows(const struct run *run, int64_t rows, size_t row_bytes) {
    int64_t fit = (int64_t)(run->strip_bytes / (row_bytes > 0 ? row_bytes : 1));
    if (run->strip_bytes == 0 || fit > rows) return rows;
    return fit > 0 ? fit : 1;
}

/* stats (mean, variance) of `seen` rows become those of seen + more rows. */
static void merge_stats(float *stats, const float *part, int groups, double seen, double more) {
    for (int g = 0; g < groups; g++) {
        double distance = (double)part[2 * g] - stats[2 * g], share = more / (seen + more);
        double variance = stats[2 * g + 1] * (1.0 - share) + part[2 * g + 1] * share + distance * distance * share * (1.0 - share);
        stats[2 * g] = (float)(stats[2 * g] + distance * share);
        stats[2 * g + 1] = (float)variance;
    }
}

static struct tensor picture_stats(struct run *run, int groups, struct tensor x, int64_t b) {
    struct tensor stats = run_tensor(run, DTYPE_F32, SHAPE(1, groups, 2)), part = run_tensor(run, DTYPE_F32, SHAPE(1, groups, 2));
    if (run_failed(run)) return stats;
    int64_t rows = x.shape[1], step = strip_rows(run, rows, (size_t)(x.shape[2] * x.shape[3]) * dtype_size(x.dtype));
    for (int64_t first = 0; first < rows; first += step) {
        int64_t count = first + step < rows ? step : rows - first;
        struct tensor strip = rows_of(x, b, first, count);
        run->backend->ops->group_stats(run->backend, first == 0 ? &stats : &part, &strip);
        if (first > 0) merge_stats(stats.data, part.data, groups, (double)first, (double)count);
    }
    return stats;
}

/* One picture on its way through a stage. */
struct passage {
    const struct autoencoder_stage *stage;
    struct tensor x, out, stats;
    struct tensor carry; /* in place: the normalised row before the next strip, whose place is already overwritten */
    bool carried;        /* the first row of the strip is `carry` */
    int64_t b;
};

/* Rows first .. first + count of x, normalised. */
static struct tensor normalised(struct run *run, const struct passage *p, int64_t first, int64_t count) {
    const struct norm *norm = p->stage->norm;
    struct tensor from = rows_of(p->x, p->b, first, count);
    if (norm == NULL) return from;
    struct tensor strip = run_tensor(run, from.dtype, from.ndim, from.shape);
    if (run_failed(run)) return strip;
    int64_t carried = p->carried ? 1 : 0;
    if (carried) memcpy(strip.data, p->carry.data, tensor_bytes(&p->carry));
    struct tensor source = rows_of(from, 0, carried, count - carried), target = rows_of(strip, 0, carried, count - carried);
    if (count > carried) {
        run->backend->ops->group_norm(run->backend, &target, &source, &p->stats, &norm->weight, &norm->bias, norm->eps, ACTIVATION_SILU);
    }
    return strip;
}

/* What the convolution reads for output rows r0 .. r1 - 1; sets the padding that remains. */
static struct tensor strip_input(struct run *run, struct passage *p, int64_t r0, int64_t r1, struct conv2d_geometry *g) {
    const struct autoencoder_stage *stage = p->stage;
    int64_t height = p->x.shape[1] * (stage->upsample ? 2 : 1), kernel = stage->conv->weight.shape[1];
    int64_t first = r0 * g->stride - g->pad_top, end = (r1 - 1) * g->stride - g->pad_top + kernel;
    g->pad_top = first < 0 ? (int)-first : 0;
    g->pad_bottom = end > height ? (int)(end - height) : 0;
    p->carried = p->carry.data != NULL && r0 > 0;
    if (first < 0) first = 0;
    if (end > height) end = height;
    if (!stage->upsample) {
        struct tensor strip = normalised(run, p, first, end - first);
        if (p->carry.data != NULL && !run_failed(run) && r1 < height) {
            struct tensor last = rows_of(strip, 0, r1 - 1 - first, 1);
            memcpy(p->carry.data, last.data, tensor_bytes(&last));
        }
        return strip;
    }
    int64_t half = first / 2, half_end = (end + 1) / 2;
    struct tensor from = normalised(run, p, half, half_end - half);
    struct tensor strip = run_tensor(run, from.dtype, SHAPE(1, 2 * (half_end - half), 2 * from.shape[2], from.shape[3]));
    if (run_failed(run)) return strip;
    run->backend->ops->upsample(run->backend, &strip, &from);
    return rows_of(strip, 0, first - 2 * half, end - first);
}

static void convolve(struct run *run, struct tensor *out, const struct tensor *x, const struct conv *conv, const struct tensor *residual,
                     struct conv2d_geometry g) {
    if (run_failed(run)) return;
    const int64_t *w = conv->weight.shape;
    run->operations += 2.0 * (double)tensor_count(out) * (double)(w[1] * w[2] * w[3]);
    run_checked(run, run->backend->ops->conv2d(run->backend, out, x, &conv->weight, &conv->bias, residual, g, &run->error), *out);
}

static void run_strip(struct run *run, struct passage *p, int64_t r0, int64_t r1) {
    const struct autoencoder_stage *stage = p->stage;
    size_t scope = run_enter(run);
    struct conv2d_geometry g = stage->geometry;
    struct tensor input = strip_input(run, p, r0, r1, &g);
    struct tensor target = rows_of(p->out, p->b, r0, r1 - r0), out = target, residual = {0};
    if (stage->residual != NULL) residual = rows_of(*stage->residual, p->b, r0, r1 - r0);
    if (stage->shortcut != NULL) {
        struct tensor projected = run_tensor(run, out.dtype, out.ndim, out.shape);
        convolve(run, &projected, &residual, stage->shortcut, NULL, (struct conv2d_geometry){.stride = 1});
        residual = projected;
    }
    /* In place, rows of x that this strip writes over are normalised copies by now, and the row the next one needs is carried. */
    convolve(run, &out, &input, stage->conv, stage->residual != NULL ? &residual : NULL, g);
    arena_release(run->arena, scope);
}

struct tensor autoencoder_stage_run(struct run *run, const struct autoencoder_stage *stage, struct tensor x) {
    if (run_failed(run)) return (struct tensor){0};
    const int64_t *w = stage->conv->weight.shape;
    struct conv2d_geometry g = stage->geometry;
    int64_t factor = stage->upsample ? 2 : 1;
    int64_t rows = (x.shape[1] * factor + g.pad_top + g.pad_bottom - w[1]) / g.stride + 1;
    int64_t columns = (x.shape[2] * factor + g.pad_left + g.pad_right - w[2]) / g.stride + 1;
    assert(x.ndim == 4 && x.shape[3] == w[3]);
    assert(!stage->in_place || (stage->norm != NULL && !stage->upsample && g.stride == 1 && w[1] == 3 && w[0] == w[3]));
    struct passage p = {.stage = stage, .x = x, .out = x};
    if (!stage->in_place) p.out = run_tensor(run, x.dtype, SHAPE(x.shape[0], rows, columns, w[0]));
    size_t scope = run_enter(run);
    if (stage->in_place) p.carry = run_tensor(run, x.dtype, SHAPE(1, 1, x.shape[2], x.shape[3]));
    int64_t widest = columns * w[0] > columns * g.stride * w[3] * g.stride ? columns * w[0] : columns * g.stride * w[3] * g.stride;
    int64_t step = strip_rows(run, rows, (size_t)widest * dtype_size(x.dtype));
    for (p.b = 0; p.b < x.shape[0] && !run_failed(run); p.b++) {
        size_t picture = run_enter(run);
        if (stage->norm != NULL) p.stats = picture_stats(run, stage->groups, x, p.b);
        for (int64_t r0 = 0; r0 < rows && !run_failed(run); r0 += step) run_strip(run, &p, r0, r0 + step < rows ? r0 + step : rows);
        arena_release(run->arena, picture);
    }
    arena_release(run->arena, scope);
    return run_checked(run, TESSERA_OK, p.out);
}
