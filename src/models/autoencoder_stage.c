/* Strips of a normalise-upsample-convolve step; the drawing is in the header. Pictures of a batch
 * go one by one.
 *
 * Sent per rank, of a picture cut by rows: a row of x to each neighbour (stride 2: to the one above
 * only), and statistics. */
#include "models/autoencoder_stage.h"

#include <assert.h>

#include "backend/memory.h"
#include "base/mean_variance.h"

#include "nn/layers.h"

/* Rows first .. first + count of picture b of x, as [1, count, W, C]. */
static struct tensor rows_of(struct tensor x, int64_t b, int64_t first, int64_t count) {
    size_t row = (size_t)(x.shape[2] * x.shape[3]) * dtype_size(x.dtype);
    x.data = (char *)x.data + (size_t)(b * x.shape[1] + first) * row;
    x.shape[0] = 1;
    x.shape[1] = count;
    return x;
}

/* Ranks that share a picture share strip_bytes too, so that all of a pass's memory is cut. */
static int64_t strip_rows(const struct run *run, int64_t rows, size_t row_bytes) {
    size_t ranks = parallel_cuts_positions(run->parallel) ? (size_t)comm_size(run->parallel->cut_group) : 1;
    int64_t fit = (int64_t)(run->strip_bytes / (row_bytes > 0 ? row_bytes * ranks : ranks));
    if (run->strip_bytes == 0 || fit > rows) return rows;
    return fit > 0 ? fit : 1;
}

/* stats (mean, variance) of `seen` rows become those of seen + more rows. */
static void merge_stats(float *stats, const float *strip_stats, int groups, double seen, double more) {
    for (int g = 0; g < groups; g++) {
        struct mean_variance all = {stats[2 * g], stats[2 * g + 1]}, strip = {strip_stats[2 * g], strip_stats[2 * g + 1]};
        mean_variance_merge(&all, seen, strip, more);
        stats[2 * g] = (float)all.mean;
        stats[2 * g + 1] = (float)all.variance;
    }
}

static void merge_strip(struct run *run, struct tensor stats, struct tensor strip_stats, double seen, double more) {
    float *all = run_map(run, &stats, MAP_READ | MAP_WRITE), *strip = run_map(run, &strip_stats, MAP_READ);
    if (!run_failed(run)) merge_stats(all, strip, (int)stats.shape[1], seen, more);
    run_unmap(run, &strip_stats, strip, MAP_READ);
    run_unmap(run, &stats, all, MAP_READ | MAP_WRITE);
}

/* Picture b of stats [B, groups, 2]. */
static struct tensor stats_of(struct tensor stats, int64_t b) {
    stats.data = (float *)stats.data + b * 2 * stats.shape[1];
    stats.shape[0] = 1;
    return stats;
}

/* Of this rank's rows of picture b; `strip_stats` has the room of `stats`. */
static void picture_stats(struct run *run, struct tensor stats, struct tensor strip_stats, struct tensor x, int64_t b) {
    int64_t rows = x.shape[1], step = strip_rows(run, rows, (size_t)(x.shape[2] * x.shape[3]) * dtype_size(x.dtype));
    for (int64_t first = 0; first < rows; first += step) {
        int64_t count = first + step < rows ? step : rows - first;
        struct tensor strip = rows_of(x, b, first, count);
        run->backend->ops->group_stats(run->backend, first == 0 ? &stats : &strip_stats, &strip);
        if (first > 0) merge_strip(run, stats, strip_stats, (double)first, (double)count);
    }
}

/* F32 [B, groups, 2]: of each whole picture. */
static struct tensor whole_stats(struct run *run, int groups, struct tensor x) {
    struct tensor stats = run_tensor(run, DTYPE_F32, SHAPE(x.shape[0], groups, 2));
    if (run->backend->reproducible && !run_failed(run)) {
        nn_group_stats_by_rows(run, stats, x);
        return stats;
    }
    struct tensor strip_stats = run_tensor(run, DTYPE_F32, SHAPE(1, groups, 2));
    for (int64_t b = 0; b < x.shape[0] && !run_failed(run); b++) picture_stats(run, stats_of(stats, b), strip_stats, x, b);
    exchange_group_stats(run, &stats, (double)(x.shape[1] * x.shape[2]), (double)(x.shape[1] * x.shape[2] * x.shape[3] / groups));
    return stats;
}

/* One picture on its way through a stage. */
struct passage {
    const struct autoencoder_stage *stage;
    struct tensor x, out, stats;
    struct halo halo;    /* the neighbours' rows beside x: rows -1 and x.shape[1], where there are any */
    struct tensor carry; /* in place: the normalised row before the next strip, whose place is already overwritten */
    bool carried;        /* the first row of the strip is `carry` */
    int64_t b;
};

/* Rows from `at` on of a strip: those of `from`, normalised if the stage has a norm. */
static void take_rows(struct run *run, const struct passage *p, struct tensor strip, int64_t at, struct tensor from) {
    const struct norm *norm = p->stage->norm;
    struct tensor to = rows_of(strip, 0, at, from.shape[1]);
    if (norm != NULL) {
        struct tensor stats = stats_of(p->stats, p->b);
        run->backend->ops->group_norm(run->backend, &to, &from, &stats, &norm->weight, &norm->bias, norm->eps, ACTIVATION_SILU);
    } else {
        backend_copy(run->backend, &to, &from);
    }
}

/* Rows first .. end - 1 of x and the neighbours' rows beside it, normalised. */
static struct tensor normalised(struct run *run, const struct passage *p, int64_t first, int64_t end) {
    int64_t height = p->x.shape[1], own = first < 0 ? 0 : first, own_end = end > height ? height : end;
    if (p->stage->norm == NULL && own == first && own_end == end) return rows_of(p->x, p->b, first, end - first);
    struct tensor strip = run_tensor(run, p->x.dtype, SHAPE(1, end - first, p->x.shape[2], p->x.shape[3]));
    if (run_failed(run)) return strip;
    if (first < 0) take_rows(run, p, strip, 0, rows_of(p->halo.above, p->b, 0, 1));
    if (p->carried) {
        backend_copy_bytes(run->backend, strip.data, p->carry.data, tensor_bytes(&p->carry));
        own++;
    }
    if (own < own_end) take_rows(run, p, strip, own - first, rows_of(p->x, p->b, own, own_end - own));
    if (end > height) take_rows(run, p, strip, height - first, rows_of(p->halo.below, p->b, 0, 1));
    return strip;
}

/* What the convolution reads for output rows r0 .. r1 - 1; sets the padding that remains. */
static struct tensor strip_input(struct run *run, struct passage *p, int64_t r0, int64_t r1, struct conv2d_geometry *g) {
    const struct autoencoder_stage *stage = p->stage;
    int64_t factor = stage->upsample ? 2 : 1, kernel = stage->conv->weight.shape[1];
    int64_t first = r0 * g->stride - g->pad_top, end = (r1 - 1) * g->stride - g->pad_top + kernel;
    int64_t top = p->halo.above.data != NULL ? -factor : 0;
    int64_t bottom = (p->x.shape[1] + (p->halo.below.data != NULL ? 1 : 0)) * factor;
    g->pad_top = first < top ? (int)(top - first) : 0;
    g->pad_bottom = end > bottom ? (int)(end - bottom) : 0;
    p->carried = p->carry.data != NULL && r0 > 0;
    if (first < top) first = top;
    if (end > bottom) end = bottom;
    if (!stage->upsample) {
        struct tensor strip = normalised(run, p, first, end);
        if (p->carry.data != NULL && !run_failed(run) && r1 < p->x.shape[1]) {
            struct tensor last = rows_of(strip, 0, r1 - 1 - first, 1);
            backend_copy(run->backend, &p->carry, &last);
        }
        return strip;
    }
    int64_t half = first < 0 ? -1 : first / 2, half_end = (end + 1) / 2;
    struct tensor from = normalised(run, p, half, half_end);
    struct tensor strip = run_tensor(run, from.dtype, SHAPE(1, 2 * (half_end - half), 2 * from.shape[2], from.shape[3]));
    if (run_failed(run)) return strip;
    run->backend->ops->upsample(run->backend, &strip, &from);
    return rows_of(strip, 0, first - 2 * half, end - first);
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
        nn_conv_into(run, &projected, stage->shortcut, &residual, NULL, (struct conv2d_geometry){.stride = 1});
        residual = projected;
    }
    /* In place, rows of x that this strip writes over are normalised copies by now, and the row the
     * next one needs is carried. */
    nn_conv_into(run, &out, stage->conv, &input, stage->residual != NULL ? &residual : NULL, g);
    arena_release(run->arena, scope);
}

/* Strips that need no neighbour's row first, while those rows are on their way; in place, the order
 * is that of the rows. */
static void run_strips(struct run *run, struct passage *p, int64_t rows, int64_t step) {
    int64_t last = (rows - 1) / step;
    bool in_place = p->stage->in_place;
    for (int64_t i = 1; i < last && !in_place && !run_failed(run); i++) run_strip(run, p, i * step, (i + 1) * step);
    exchange_halo_wait(run, &p->halo);
    for (int64_t i = 0; i <= last && !run_failed(run); i++) {
        if (in_place || i == 0 || i == last) run_strip(run, p, i * step, i < last ? (i + 1) * step : rows);
    }
}

/* The rows of the neighbours that the kernel reaches: at most one on each side, whether or not it
 * is upsampled first. */
static struct halo start_halo(struct run *run, const struct autoencoder_stage *stage, struct tensor x) {
    const struct conv2d_geometry *g = &stage->geometry;
    int64_t below = stage->conv->weight.shape[1] - g->stride - g->pad_top;
    assert(g->pad_top <= 1 && below <= 1);
    return exchange_halo_start(run, x, g->pad_top, below > 0 ? below : 0);
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
    p.halo = start_halo(run, stage, x);
    if (stage->in_place) p.carry = run_tensor(run, x.dtype, SHAPE(1, 1, x.shape[2], x.shape[3]));
    if (stage->norm != NULL) p.stats = whole_stats(run, stage->groups, x);
    int64_t widest = columns * w[0] > columns * g.stride * w[3] * g.stride ? columns * w[0] : columns * g.stride * w[3] * g.stride;
    int64_t step = strip_rows(run, rows, (size_t)widest * dtype_size(x.dtype));
    for (p.b = 0; p.b < x.shape[0] && !run_failed(run); p.b++) run_strips(run, &p, rows, step);
    exchange_halo_wait(run, &p.halo); /* after a failure, too: messages use the arena's memory */
    arena_release(run->arena, scope);
    return run_checked(run, TESSERA_OK, p.out);
}
