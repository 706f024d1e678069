/* Operators without sums: activation, addition, product, gating, rotation, look-up, upsampling,
 * conversion, copies.
 *
 * Arrays are cut into chunks of ROW_CHUNK elements; each thread takes a contiguous run of chunks. A
 * chunk is read whole before it is written, so `out` may be an input. */
#include "backend/cpu/kernels.h"

static void activate(struct backend *backend, struct tensor *out, const struct tensor *x, enum activation act) {
    int64_t count = tensor_count(x);
    assert(tensor_count(out) == count && out->dtype == x->dtype && is_activation(x));
#pragma omp parallel for schedule(static) num_threads(backend->threads) if (count > 8192)
    for (int64_t at = 0; at < count; at += ROW_CHUNK) {
        float row[ROW_CHUNK];
        int64_t n = min64(ROW_CHUNK, count - at);
        row_load(row, x->data, x->dtype, at, n);
        row_activate(row, n, act);
        row_store(out->data, out->dtype, at, row, n);
    }
}

static void add(struct backend *backend, struct tensor *out, const struct tensor *a, const struct tensor *b) {
    int64_t count = tensor_count(out);
    assert(tensor_count(a) == count && tensor_count(b) == count && a->dtype == out->dtype && b->dtype == out->dtype && is_activation(out));
#pragma omp parallel for schedule(static) num_threads(backend->threads) if (count > 8192)
    for (int64_t at = 0; at < count; at += ROW_CHUNK) {
        float row[ROW_CHUNK], other[ROW_CHUNK];
        int64_t n = min64(ROW_CHUNK, count - at);
        row_load(row, a->data, a->dtype, at, n);
        row_load(other, b->data, b->dtype, at, n);
        for (int64_t i = 0; i < n; i++) row[i] += other[i];
        row_store(out->data, out->dtype, at, row, n);
    }
}

static void subtract(struct backend *backend, struct tensor *out, const struct tensor *a, const struct tensor *b) {
    int64_t count = tensor_count(out);
    assert(tensor_count(a) == count && tensor_count(b) == count && a->dtype == out->dtype && b->dtype == out->dtype && is_activation(out));
#pragma omp parallel for schedule(static) num_threads(backend->threads) if (count > 8192)
    for (int64_t at = 0; at < count; at += ROW_CHUNK) {
        float row[ROW_CHUNK], other[ROW_CHUNK];
        int64_t n = min64(ROW_CHUNK, count - at);
        row_load(row, a->data, a->dtype, at, n);
        row_load(other, b->data, b->dtype, at, n);
        for (int64_t i = 0; i < n; i++) row[i] -= other[i];
        row_store(out->data, out->dtype, at, row, n);
    }
}

static void distance(struct backend *backend, struct tensor *out, const struct tensor *a, const struct tensor *b) {
    int64_t count = tensor_count(a);
    double *sums = out->data;
    assert(tensor_count(b) == count && a->dtype == b->dtype && is_activation(a) && out->dtype == DTYPE_F64 && tensor_count(out) == 2);
    sums[0] = sums[1] = 0;
    for (int64_t at = 0; at < count; at += ROW_CHUNK) {
        float row[ROW_CHUNK], other[ROW_CHUNK];
        int64_t n = min64(ROW_CHUNK, count - at);
        row_load(row, a->data, a->dtype, at, n);
        row_load(other, b->data, b->dtype, at, n);
        for (int64_t i = 0; i < n; i++) {
            sums[0] += fabsf(row[i] - other[i]);
            sums[1] += fabsf(other[i]);
        }
    }
}

static void multiply(struct backend *backend, struct tensor *out, const struct tensor *a, const struct tensor *b, enum activation act) {
    int64_t count = tensor_count(out);
    assert(tensor_count(a) == count && tensor_count(b) == count && a->dtype == out->dtype && b->dtype == out->dtype && is_activation(out));
#pragma omp parallel for schedule(static) num_threads(backend->threads) if (count > 8192)
    for (int64_t at = 0; at < count; at += ROW_CHUNK) {
        float row[ROW_CHUNK], other[ROW_CHUNK];
        int64_t n = min64(ROW_CHUNK, count - at);
        row_load(row, a->data, a->dtype, at, n);
        row_load(other, b->data, b->dtype, at, n);
        row_activate(row, n, act);
        for (int64_t i = 0; i < n; i++) row[i] *= other[i];
        row_store(out->data, out->dtype, at, row, n);
    }
}

/* One row of gated_add. */
static void gate_row(struct tensor *out, const struct tensor *residual, const struct tensor *x, const float *gate, int64_t at,
                     int64_t channels) {
    for (int64_t c = 0; c < channels; c += ROW_CHUNK) {
        float row[ROW_CHUNK], sum[ROW_CHUNK];
        int64_t n = min64(ROW_CHUNK, channels - c);
        row_load(row, x->data, x->dtype, at + c, n);
        row_load(sum, residual->data, residual->dtype, at + c, n);
        for (int64_t i = 0; i < n; i++) sum[i] += gate[c + i] * row[i];
        row_store(out->data, out->dtype, at + c, sum, n);
    }
}

static void gated_add(struct backend *backend, struct tensor *out, const struct tensor *residual, const struct tensor *x,
                      const struct tensor *gate) {
    int64_t channels = last_dim(out), count = tensor_count(out);
    if (count == 0) return;
    int64_t rows = count / channels, per_batch = rows / gate->shape[0];
    assert(tensor_count(residual) == count && tensor_count(x) == count && gate->dtype == DTYPE_F32 && last_dim(gate) == channels);
    assert(residual->dtype == out->dtype && x->dtype == out->dtype && rows % gate->shape[0] == 0 && is_activation(out));
#pragma omp parallel for schedule(static) num_threads(backend->threads) if (count > 8192)
    for (int64_t r = 0; r < rows; r++)
        gate_row(out, residual, x, (const float *)gate->data + r / per_batch * channels, r * channels, channels);
}

/* One head of rotary; ROW_CHUNK is even, so that no pair is cut. */
static void rotate_row(struct tensor *out, const struct tensor *x, const float *cosines, const float *sines, int64_t at, int64_t width) {
    for (int64_t c = 0; c < width; c += ROW_CHUNK) {
        float row[ROW_CHUNK], turned[ROW_CHUNK];
        int64_t n = min64(ROW_CHUNK, width - c);
        row_load(row, x->data, x->dtype, at + c, n);
        for (int64_t i = 0; i < n; i += 2) {
            turned[i] = row[i] * cosines[c + i] - row[i + 1] * sines[c + i];
            turned[i + 1] = row[i + 1] * cosines[c + i + 1] + row[i] * sines[c + i + 1];
        }
        row_store(out->data, out->dtype, at + c, turned, n);
    }
}

static void rotary(struct backend *backend, struct tensor *out, const struct tensor *x, const struct tensor *cos,
                   const struct tensor *sin) {
    int64_t tokens = x->shape[1], heads = x->shape[2], width = x->shape[3], rows = x->shape[0] * tokens * heads;
    assert(x->ndim == 4 && width % 2 == 0 && tensor_count(out) == tensor_count(x) && out->dtype == x->dtype && is_activation(x));
    assert(cos->dtype == DTYPE_F32 && sin->dtype == DTYPE_F32);
    assert(tensor_count(cos) == tokens * width && tensor_count(sin) == tokens * width);
#pragma omp parallel for schedule(static) num_threads(backend->threads) if (rows * width > 8192)
    for (int64_t r = 0; r < rows; r++) {
        int64_t angles = r / heads % tokens * width;
        rotate_row(out, x, (const float *)cos->data + angles, (const float *)sin->data + angles, r * width, width);
    }
}

static void embed(struct backend *backend, struct tensor *out, const struct tensor *table, const struct tensor *index) {
    const int32_t *ids = index->data;
    int64_t channels = last_dim(out), rows = channels > 0 ? tensor_count(out) / channels : 0;
    assert(last_dim(table) == channels && is_activation(out) && index->dtype == DTYPE_I32 && tensor_count(index) == rows);
    for (int64_t r = 0; r < rows; r++) {
        assert(ids[r] >= 0 && ids[r] < table->shape[0]);
        const char *from = (const char *)table->data + dtype_bytes(table->dtype, ids[r] * channels);
        dtype_convert((char *)out->data + (size_t)(r * channels) * dtype_size(out->dtype), out->dtype, from, table->dtype,
                      (size_t)channels);
    }
}

static void upsample(struct backend *backend, struct tensor *out, const struct tensor *x) {
    int64_t batch = x->shape[0], height = x->shape[1], width = x->shape[2], rows = out->shape[1], columns = out->shape[2];
    size_t pixel = (size_t)x->shape[3] * dtype_size(x->dtype);
    assert((rows + 1) / 2 == height && (columns + 1) / 2 == width && out->shape[3] == x->shape[3] && out->dtype == x->dtype);
#pragma omp parallel for schedule(static) num_threads(backend->threads)
    for (int64_t pair = 0; pair < batch * height; pair++) { /* the output rows that one input row becomes: two, or at an odd end one */
        int64_t row = pair / height * rows + pair % height * 2;
        const char *from = (const char *)x->data + (size_t)(pair * width) * pixel;
        char *to = (char *)out->data + (size_t)(row * columns) * pixel;
        for (int64_t w = 0; w < columns; w++) memcpy(to + (size_t)w * pixel, from + (size_t)(w / 2) * pixel, pixel);
        if (pair % height * 2 + 1 < rows) memcpy(to + (size_t)columns * pixel, to, (size_t)columns * pixel);
    }
}

/* A float16 as float32, as dtype_convert has it: its bits a float32's, times what the exponents'
 * biases differ by; infinities and NaN apart. */
static inline float float_of_half(uint16_t half) {
    uint32_t magnitude = (uint32_t)(half & 0x7fffu) << 13, sign = (uint32_t)(half & 0x8000u) << 16;
    float x = float_of(magnitude) * 0x1p112f;
    return float_of(bits_of(x) | sign | ((half & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u));
}

static void widen_half(float *restrict to, const uint16_t *restrict half, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] = float_of_half(half[i]);
}

static void cast_half(struct tensor *out, const struct tensor *x, int64_t at, int64_t n) {
    float row[ROW_CHUNK];
    widen_half(row, (const uint16_t *)x->data + at, n);
    row_store(out->data, out->dtype, at, row, n);
}

static void cast(struct backend *backend, struct tensor *out, const struct tensor *x) {
    int64_t count = tensor_count(x);
    assert(tensor_count(out) == count);
    bool half = x->dtype == DTYPE_F16 && is_activation(out);
    bool widens = is_activation(x) && out->dtype == DTYPE_F32, narrows = x->dtype == DTYPE_F32 && is_activation(out);
#pragma omp parallel for schedule(static) num_threads(backend->threads) if (count > 8192)
    for (int64_t at = 0; at < count; at += ROW_CHUNK) {
        int64_t n = min64(ROW_CHUNK, count - at);
        if (half && out->dtype == DTYPE_F32)
            widen_half((float *)out->data + at, (const uint16_t *)x->data + at, n);
        else if (widens)
            row_load((float *)out->data + at, x->data, x->dtype, at, n);
        else if (narrows)
            row_store(out->data, out->dtype, at, (const float *)x->data + at, n);
        else if (half)
            cast_half(out, x, at, n);
        else
            dtype_convert((char *)out->data + dtype_bytes(out->dtype, at), out->dtype, (const char *)x->data + dtype_bytes(x->dtype, at),
                          x->dtype, (size_t)n);
    }
}

static void copy_rows(struct backend *backend, struct tensor *out, int64_t to, const struct tensor *x, int64_t from, int64_t rows) {
    int64_t batch = x->shape[0], x_rows = x->shape[1], out_rows = out->shape[1];
    size_t row = (size_t)last_dim(x) * dtype_size(x->dtype);
    assert(last_dim(out) == last_dim(x) && out->dtype == x->dtype && out->shape[0] == batch);
    assert(from >= 0 && to >= 0 && rows >= 0 && from + rows <= x_rows && to + rows <= out_rows);
    if (rows == 0) return;
#pragma omp parallel for schedule(static) num_threads(backend->threads) if (batch * rows * (int64_t)row > 1 << 20)
    for (int64_t b = 0; b < batch; b++)
        memcpy((char *)out->data + (size_t)(b * out_rows + to) * row, (const char *)x->data + (size_t)(b * x_rows + from) * row,
               (size_t)rows * row);
}

void KERNEL(kernels_fill_elementwise)(struct backend_ops *ops) {
    ops->activate = activate;
    ops->add = add;
    ops->subtract = subtract;
    ops->distance = distance;
    ops->multiply = multiply;
    ops->gated_add = gated_add;
    ops->rotary = rotary;
    ops->embed = embed;
    ops->upsample = upsample;
    ops->cast = cast;
    ops->copy_rows = copy_rows;
}
