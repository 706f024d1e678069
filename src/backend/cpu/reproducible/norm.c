/* Layer, root-mean-square and group normalisation. A sum runs over LANES_OF_SUM lanes, term i in
 * lane i mod 16, each in ascending order, and the lanes are added as a tree: 8 pairs (i, i + 8), 4
 * pairs (i, i + 4), 2, 1. Terms are rounded before they are added. */
#include "backend/cpu/reproducible/functions.h"
#include "backend/cpu/reproducible/operators.h"

enum { LANES_OF_SUM = 16 };

static const float *floats(const struct tensor *t) {
    assert(t == NULL || t->dtype == DTYPE_F32);
    return t == NULL ? NULL : t->data;
}

/* ---- rows ---- */

struct row_norm {
    struct tensor *out;
    const struct tensor *x;
    enum norm_kind kind;
    const float *weight, *bias, *scale, *shift;
    int64_t channels, per_batch;
    float eps;
};

/* Sum over the row of (x - mean)^power, power 1 or 2. */
static float row_moment(const struct tensor *x, int64_t at, int64_t channels, float mean, int power) {
    float lanes[LANES_OF_SUM] = {0}, row[ROW_CHUNK];
    for (int64_t c = 0; c < channels; c += ROW_CHUNK) {
        int64_t n = min64(ROW_CHUNK, channels - c), padded = round_up(n, LANES_OF_SUM);
        row_load(row, x->data, x->dtype, at + c, n);
        for (int64_t i = n; i < padded; i++) row[i] = mean;
        for (int64_t i = 0; i < padded; i += LANES_OF_SUM)
            for (int j = 0; j < LANES_OF_SUM; j++) {
                float d = row[i + j] - mean;
                lanes[j] += power == 1 ? d : d * d;
            }
    }
    for (int half = LANES_OF_SUM / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
    return lanes[0];
}

static void norm_row(const void *operation, int64_t r, int thread) {
    const struct row_norm *o = operation;
    int64_t at = r * o->channels, modulation = r / o->per_batch * o->channels;
    float mean = o->kind == NORM_LAYER ? row_moment(o->x, at, o->channels, 0.0f, 1) / (float)o->channels : 0.0f;
    float variance = row_moment(o->x, at, o->channels, mean, 2) / (float)o->channels, factor = 1.0f / sqrtf(variance + o->eps);
    for (int64_t c = 0; c < o->channels; c += ROW_CHUNK) {
        float row[ROW_CHUNK];
        int64_t n = min64(ROW_CHUNK, o->channels - c);
        row_load(row, o->x->data, o->x->dtype, at + c, n);
        for (int64_t i = 0; i < n; i++) row[i] = (row[i] - mean) * factor;
        if (o->weight != NULL)
            for (int64_t i = 0; i < n; i++) row[i] *= o->weight[c + i];
        if (o->bias != NULL)
            for (int64_t i = 0; i < n; i++) row[i] += o->bias[c + i];
        if (o->scale != NULL)
            for (int64_t i = 0; i < n; i++) row[i] *= 1.0f + o->scale[modulation + c + i];
        if (o->shift != NULL)
            for (int64_t i = 0; i < n; i++) row[i] += o->shift[modulation + c + i];
        row_store(o->out->data, o->out->dtype, at + c, row, n);
    }
}

static void norm(struct backend *backend, struct tensor *out, const struct tensor *x, enum norm_kind kind, const struct tensor *weight,
                 const struct tensor *bias, const struct tensor *scale, const struct tensor *shift, float eps) {
    int64_t channels = last_dim(x), count = tensor_count(x);
    if (count == 0) return;
    int64_t rows = count / channels, batch = scale != NULL ? scale->shape[0] : shift != NULL ? shift->shape[0] : 1;
    assert(tensor_count(out) == count && out->dtype == x->dtype && is_activation(x) && rows % batch == 0);
    struct row_norm operation = {out, x, kind, floats(weight), floats(bias), floats(scale), floats(shift), channels, rows / batch, eps};
    reproducible_run(backend, reproducible_threads(backend, count), rows, norm_row, &operation);
}

/* ---- groups ---- */

struct group_sums {
    float *stats;
    const struct tensor *x;
    int64_t pixels, channels, groups, width;
};

/* Sum over one picture's pixels and one group's channels of (x - mean)^power in float64; the
 * channel's index in its group names the lane. */
static double group_moment(const struct group_sums *o, int64_t at, double mean, int power) {
    double lanes[LANES_OF_SUM] = {0};
    float row[ROW_CHUNK];
    for (int64_t p = 0; p < o->pixels; p++)
        for (int64_t c = 0; c < o->width; c += ROW_CHUNK) {
            int64_t n = min64(ROW_CHUNK, o->width - c);
            row_load(row, o->x->data, o->x->dtype, at + p * o->channels + c, n);
            for (int64_t i = 0; i < n; i++) {
                double d = (double)row[i] - mean;
                lanes[i % LANES_OF_SUM] += power == 1 ? d : d * d;
            }
        }
    for (int half = LANES_OF_SUM / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
    return lanes[0];
}

static void sum_group(const void *operation, int64_t item, int thread) {
    const struct group_sums *o = operation;
    int64_t at = item / o->groups * o->pixels * o->channels + item % o->groups * o->width;
    double count = (double)(o->pixels * o->width), mean = group_moment(o, at, 0.0, 1) / count;
    o->stats[item * 2] = (float)mean;
    o->stats[item * 2 + 1] = (float)(group_moment(o, at, mean, 2) / count);
}

/* Layers ask for each row of a picture by itself, [B H, 1, W, C], and merge the rows in order
 * (nn/group_norm.c). */
static void group_stats(struct backend *backend, struct tensor *stats, const struct tensor *x) {
    int64_t batch = x->shape[0], channels = x->shape[3], groups = stats->shape[1];
    assert(stats->dtype == DTYPE_F32 && stats->shape[0] == batch && channels % groups == 0 && is_activation(x));
    struct group_sums operation = {stats->data, x, x->shape[1] * x->shape[2], channels, groups, channels / groups};
    reproducible_run(backend, reproducible_threads(backend, tensor_count(x)), batch * groups, sum_group, &operation);
}

/* A chunk of the channels of one picture's pixels: x * factor + offset. */
struct group_norm {
    struct tensor *out;
    const struct tensor *x;
    int64_t first, channels, count; /* the chunk's first number of pixel 0; channels of a pixel, and of the chunk */
    enum activation act;
    float factor[ROW_CHUNK], offset[ROW_CHUNK];
};

static void norm_pixel(const void *operation, int64_t pixel, int thread) {
    const struct group_norm *o = operation;
    float row[ROW_CHUNK];
    int64_t at = o->first + pixel * o->channels;
    row_load(row, o->x->data, o->x->dtype, at, o->count);
    for (int64_t i = 0; i < o->count; i++) row[i] = row[i] * o->factor[i] + o->offset[i];
    row_activate(row, o->count, o->act);
    row_store(o->out->data, o->out->dtype, at, row, o->count);
}

/* factor = weight / sqrt(variance + eps), offset = bias - mean * factor */
static void group_norm(struct backend *backend, struct tensor *out, const struct tensor *x, const struct tensor *stats,
                       const struct tensor *weight, const struct tensor *bias, float eps, enum activation act) {
    int64_t pixels = x->shape[1] * x->shape[2], channels = x->shape[3], groups = stats->shape[1], width = channels / groups;
    assert(tensor_count(out) == tensor_count(x) && out->dtype == x->dtype && is_activation(x) && channels % groups == 0);
    const float *w = floats(weight), *b = floats(bias), *of = floats(stats);
    for (int64_t picture = 0; picture < x->shape[0]; picture++, of += 2 * groups)
        for (int64_t c = 0; c < channels; c += ROW_CHUNK) {
            struct group_norm o = {out, x, picture * pixels * channels + c, channels, min64(ROW_CHUNK, channels - c), act, {0}, {0}};
            for (int64_t i = 0; i < o.count; i++) {
                const float *moments = of + (c + i) / width * 2;
                o.factor[i] = (w == NULL ? 1.0f : w[c + i]) / sqrtf(moments[1] + eps);
                o.offset[i] = (b == NULL ? 0.0f : b[c + i]) - moments[0] * o.factor[i];
            }
            reproducible_run(backend, reproducible_threads(backend, pixels * o.count), pixels, norm_pixel, &o);
        }
}

void KERNEL(reproducible_fill_norm)(struct backend_ops *ops) {
    ops->norm = norm;
    ops->group_stats = group_stats;
    ops->group_norm = group_norm;
}
