/* Layer, root-mean-square and group normalisation.
 *
 * A row is read in chunks three times (mean, squared distance, output): it stays in the first-level
 * cache. Sums run over 16 lanes so that they vectorise without reordering a sum behind the
 * compiler's back. Group statistics use float64, as a picture has up to 2^27 elements per group,
 * and one sum for each channel, which vectorises however narrow groups are. */
#include "backend/cpu/kernels.h"
#include "base/mean_variance.h"

enum { LANES = 16, CHANNELS = 128 /* of which group statistics are taken at a time */ };

/* Sum over the row of (x - mean)^power, power 1 or 2. */
static float row_moment(const struct tensor *x, int64_t at, int64_t channels, float mean, int power) {
    float lanes[LANES] = {0}, row[ROW_CHUNK], total = 0;
    for (int64_t c = 0; c < channels; c += ROW_CHUNK) {
        int64_t n = min64(ROW_CHUNK, channels - c), padded = round_up(n, LANES);
        row_load(row, x->data, x->dtype, at + c, n);
        for (int64_t i = n; i < padded; i++) row[i] = mean;
        for (int64_t i = 0; i < padded; i += LANES)
            for (int j = 0; j < LANES; j++) {
                float d = row[i + j] - mean;
                lanes[j] += power == 1 ? d : d * d;
            }
    }
    for (int j = 0; j < LANES; j++) total += lanes[j];
    return total;
}

struct affine {
    const float *weight, *bias, *scale, *shift;
};

static void norm_row(struct tensor *out, const struct tensor *x, int64_t at, int64_t channels, float mean, float factor,
                     struct affine affine) {
    for (int64_t c = 0; c < channels; c += ROW_CHUNK) {
        float row[ROW_CHUNK];
        int64_t n = min64(ROW_CHUNK, channels - c);
        row_load(row, x->data, x->dtype, at + c, n);
        for (int64_t i = 0; i < n; i++) row[i] = (row[i] - mean) * factor;
        if (affine.weight != NULL)
            for (int64_t i = 0; i < n; i++) row[i] *= affine.weight[c + i];
        if (affine.bias != NULL)
            for (int64_t i = 0; i < n; i++) row[i] += affine.bias[c + i];
        if (affine.scale != NULL)
            for (int64_t i = 0; i < n; i++) row[i] *= 1.0f + affine.scale[c + i];
        if (affine.shift != NULL)
            for (int64_t i = 0; i < n; i++) row[i] += affine.shift[c + i];
        row_store(out->data, out->dtype, at + c, row, n);
    }
}

static const float *floats(const struct tensor *t) {
    assert(t == NULL || t->dtype == DTYPE_F32);
    return t == NULL ? NULL : t->data;
}

static void norm(struct backend *backend, struct tensor *out, const struct tensor *x, enum norm_kind kind, const struct tensor *weight,
                 const struct tensor *bias, const struct tensor *scale, const struct tensor *shift, float eps) {
    int64_t channels = last_dim(x), count = tensor_count(x);
    if (count == 0) return;
    int64_t rows = count / channels,
            batch = scale != NULL   ? scale->shape[0]
                    : shift != NULL ? shift->shape[0]
                                    : 1,
            per_batch = rows / batch;
    assert(tensor_count(out) == count && out->dtype == x->dtype && is_activation(x) && rows % batch == 0);
    const float *w = floats(weight), *b = floats(bias), *modulation_scale = floats(scale), *modulation_shift = floats(shift);
#pragma omp parallel for schedule(static) num_threads(backend->threads) if (count > 8192)
    for (int64_t r = 0; r < rows; r++) {
        int64_t at = r * channels, modulation = r / per_batch * channels;
        float mean = kind == NORM_LAYER ? row_moment(x, at, channels, 0.0f, 1) / (float)channels : 0.0f;
        float variance = row_moment(x, at, channels, mean, 2) / (float)channels;
        struct affine affine = {w, b, modulation_scale == NULL ? NULL : modulation_scale + modulation,
                                modulation_shift == NULL ? NULL : modulation_shift + modulation};
        norm_row(out, x, at, channels, mean, 1.0f / sqrtf(variance + eps), affine);
    }
}

/* Of `n` neighbouring channels (at most CHANNELS) over one picture's pixels, which lie `stride` apart,
 * in one pass. Distances are to the first pixel, which keeps their squares small. */
static void channel_stats(struct mean_variance *out, const struct tensor *x, int64_t at, int64_t pixels, int64_t stride, int64_t n) {
    float first[CHANNELS] = {0}, row[CHANNELS] = {0};
    double sums[CHANNELS] = {0}, squares[CHANNELS] = {0};
    int64_t padded = round_up(n, LANES);
    if (pixels > 0) row_load(first, x->data, x->dtype, at, n); /* a rank without rows has none */
    for (int64_t p = 0; p < pixels; p++) {
        row_load(row, x->data, x->dtype, at + p * stride, n);
        for (int64_t i = 0; i < padded; i++) {
            double d = (double)row[i] - (double)first[i];
            sums[i] += d;
            squares[i] += d * d;
        }
    }
    for (int64_t i = 0; i < n; i++) {
        double mean = sums[i] / (double)pixels, variance = squares[i] / (double)pixels - mean * mean;
        out[i] = (struct mean_variance){(double)first[i] + mean, variance};
    }
}

/* Of one picture's groups `first` to `end`, which lie side by side. */
static void some_group_stats(float *out, const struct tensor *x, int64_t picture, int64_t first, int64_t end, int64_t groups) {
    int64_t pixels = x->shape[1] * x->shape[2], channels = x->shape[3], width = channels / groups;
    struct mean_variance group = {0}, each[CHANNELS];
    for (int64_t c = first * width; c < end * width; c += CHANNELS) {
        int64_t n = min64(CHANNELS, end * width - c);
        channel_stats(each, x, picture * pixels * channels + c, pixels, channels, n);
        for (int64_t i = 0; i < n; i++) {
            int64_t seen = (c + i) % width; /* channels of this group */
            if (seen == 0) group = (struct mean_variance){0};
            mean_variance_merge(&group, (double)seen, each[i], 1);
            if (seen < width - 1) continue;
            float *stats = out + (picture * groups + (c + i) / width) * 2;
            stats[0] = (float)group.mean;
            stats[1] = (float)fmax(group.variance, 0);
        }
    }
}

static void group_stats(struct backend *backend, struct tensor *stats, const struct tensor *x) {
    int64_t batch = x->shape[0], channels = x->shape[3], groups = stats->shape[1], width = channels / groups,
            together = width < LANES ? LANES / width : 1, runs = (groups + together - 1) / together;
    assert(stats->dtype == DTYPE_F32 && stats->shape[0] == batch && channels % groups == 0 && is_activation(x));
#pragma omp parallel for schedule(static) num_threads(backend->threads)
    for (int64_t item = 0; item < batch * runs; item++) {
        int64_t first = item % runs * together;
        some_group_stats(stats->data, x, item / runs, first, min64(first + together, groups), groups);
    }
}

/* One picture's statistics as a factor and an offset per channel: [channels] each. */
static void group_factors(float *factor, float *offset, const float *stats, int64_t channels, int64_t groups, const float *weight,
                          const float *bias, float eps) {
    for (int64_t c = 0; c < channels; c++) {
        const float *of = stats + c / (channels / groups) * 2;
        factor[c] = (weight == NULL ? 1.0f : weight[c]) / sqrtf(of[1] + eps);
        offset[c] = (bias == NULL ? 0.0f : bias[c]) - of[0] * factor[c];
    }
}

static void group_norm(struct backend *backend, struct tensor *out, const struct tensor *x, const struct tensor *stats,
                       const struct tensor *weight, const struct tensor *bias, float eps, enum activation act) {
    int64_t batch = x->shape[0], pixels = x->shape[1] * x->shape[2], channels = x->shape[3], groups = stats->shape[1];
    assert(tensor_count(out) == tensor_count(x) && out->dtype == x->dtype && is_activation(x) && stats->dtype == DTYPE_F32 &&
           channels % groups == 0);
    const float *w = floats(weight), *b = floats(bias);
    int64_t chunks = (channels + ROW_CHUNK - 1) / ROW_CHUNK;
    for (int64_t item = 0; item < batch * chunks; item++) {
        int64_t picture = item / chunks, c = item % chunks * ROW_CHUNK, n = min64(ROW_CHUNK, channels - c);
        float factor[ROW_CHUNK], offset[ROW_CHUNK];
        const float *of = (const float *)stats->data + picture * groups * 2;
        for (int64_t i = 0; i < n; i++)
            group_factors(factor + i, offset + i, of + (c + i) / (channels / groups) * 2, 1, 1, w == NULL ? NULL : w + c + i,
                          b == NULL ? NULL : b + c + i, eps);
#pragma omp parallel for schedule(static) num_threads(backend->threads)
        for (int64_t p = 0; p < pixels; p++) {
            float row[ROW_CHUNK];
            int64_t at = (picture * pixels + p) * channels + c;
            row_load(row, x->data, x->dtype, at, n);
            for (int64_t i = 0; i < n; i++) row[i] = row[i] * factor[i] + offset[i];
            row_activate(row, n, act);
            row_store(out->data, out->dtype, at, row, n);
        }
    }
}

void KERNEL(kernels_fill_norm)(struct backend_ops *ops) {
    ops->norm = norm;
    ops->group_stats = group_stats;
    ops->group_norm = group_norm;
}
