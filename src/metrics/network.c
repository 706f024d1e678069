/* See network.h. */
#include "metrics/network.h"

#include <math.h>
#include <stdio.h>

/* ---- loading ---- */

/* The tensor NAME.SUFFIX with the given shape; -1 takes what is stored and puts it there. */
static tessera_status find(const struct safetensors *file, const char *name, const char *suffix, int ndim, int64_t *shape,
                           struct tensor *out, tessera_error *error) {
    char full[160], stored[96];
    snprintf(full, sizeof full, "%s.%s", name, suffix);
    const struct safetensors_entry *entry = safetensors_find(file, full);
    if (entry == NULL) return error_set(error, TESSERA_ERROR_FORMAT, "%s has no tensor %s", safetensors_path(file), full);
    bool fits = entry->tensor.ndim == ndim && dtype_is_float(entry->tensor.dtype);
    for (int i = 0; fits && i < ndim; i++) {
        fits = entry->tensor.shape[i] > 0 && (shape[i] < 0 || shape[i] == entry->tensor.shape[i]);
        shape[i] = entry->tensor.shape[i];
    }
    *out = safetensors_tensor(file, full);
    if (fits) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: %s is %s %s, which does not fit this network", safetensors_path(file), full,
                     safetensors_type_name(file, full), tensor_shape_text(entry->tensor.ndim, entry->tensor.shape, stored, sizeof stored));
}

static tessera_status read_vector(const struct safetensors *file, const char *name, const char *suffix, int64_t length, struct arena *arena,
                                  float **out, tessera_error *error) {
    struct tensor stored;
    TRY(find(file, name, suffix, 1, &length, &stored, error));
    *out = arena_alloc(arena, (size_t)length * sizeof **out);
    if (*out == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for %s", safetensors_path(file), name);
    dtype_convert(*out, DTYPE_F32, stored.data, stored.dtype, (size_t)length);
    return TESSERA_OK;
}

/* [O, I, kh, kw] of any float type -> F32 [O, kh, kw, I]. */
static tessera_status read_weight(const struct safetensors *file, const struct network_conv *shape, const char *suffix, struct arena *arena,
                                  struct tensor *out, tessera_error *error) {
    int64_t dims[4] = {-1, -1, shape->rows, shape->columns};
    struct tensor stored;
    TRY(find(file, shape->name, suffix, 4, dims, &stored, error));
    int64_t inputs = dims[1], pixels = dims[2] * dims[3];
    *out =
        tensor_of(arena_alloc(arena, (size_t)tensor_count(&stored) * sizeof(float)), DTYPE_F32, SHAPE(dims[0], dims[2], dims[3], inputs));
    size_t scope = arena_mark(arena);
    float *copy = arena_alloc(arena, (size_t)tensor_count(&stored) * sizeof(float));
    if (out->data == NULL || copy == NULL)
        return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for %s", safetensors_path(file), shape->name);
    dtype_convert(copy, DTYPE_F32, stored.data, stored.dtype, (size_t)tensor_count(&stored));
    for (int64_t o = 0; o < dims[0]; o++)
        for (int64_t i = 0; i < inputs; i++)
            for (int64_t p = 0; p < pixels; p++) ((float *)out->data)[(o * pixels + p) * inputs + i] = copy[(o * inputs + i) * pixels + p];
    arena_release(arena, scope);
    return TESSERA_OK;
}

static tessera_status fold_norm(const struct safetensors *file, const char *name, float eps, struct arena *arena, struct conv *layer,
                                tessera_error *error) {
    int64_t outputs = layer->weight.shape[0], inputs = tensor_count(&layer->weight) / outputs;
    float *bias, *weight, *mean, *variance, *w = layer->weight.data;
    TRY(read_vector(file, name, "bn.bias", outputs, arena, &bias, error));
    size_t scope = arena_mark(arena);
    TRY(read_vector(file, name, "bn.weight", outputs, arena, &weight, error));
    TRY(read_vector(file, name, "bn.running_mean", outputs, arena, &mean, error));
    TRY(read_vector(file, name, "bn.running_var", outputs, arena, &variance, error));
    for (int64_t o = 0; o < outputs; o++) {
        float scale = weight[o] / sqrtf(variance[o] + eps);
        bias[o] -= mean[o] * scale;
        for (int64_t i = 0; i < inputs; i++) w[o * inputs + i] *= scale;
    }
    layer->bias = tensor_of(bias, DTYPE_F32, SHAPE(outputs));
    arena_release(arena, scope);
    return TESSERA_OK;
}

tessera_status network_conv_load(const struct network_conv *shape, bool normalized, float eps, const struct safetensors *file,
                                 struct arena *arena, struct conv *out, tessera_error *error) {
    *out = (struct conv){0};
    TRY(read_weight(file, shape, normalized ? "conv.weight" : "weight", arena, &out->weight, error));
    if (normalized) return fold_norm(file, shape->name, eps, arena, out, error);
    float *bias;
    TRY(read_vector(file, shape->name, "bias", out->weight.shape[0], arena, &bias, error));
    out->bias = tensor_of(bias, DTYPE_F32, SHAPE(out->weight.shape[0]));
    return TESSERA_OK;
}

/* ---- computing ---- */

struct tensor network_conv(struct run *run, const struct network_conv *shape, const struct conv *layer, struct tensor x) {
    if (run_failed(run)) return (struct tensor){0};
    if (x.shape[3] != layer->weight.shape[3]) {
        error_set(&run->error, TESSERA_ERROR_FORMAT, "the layer %s takes %lld channels, but what is before it has %lld", shape->name,
                  (long long)layer->weight.shape[3], (long long)x.shape[3]);
        return (struct tensor){0};
    }
    if (x.shape[1] + 2 * shape->pad_rows < shape->rows || x.shape[2] + 2 * shape->pad_columns < shape->columns) {
        error_set(&run->error, TESSERA_ERROR_ARGUMENT, "the picture is too small for the layer %s", shape->name);
        return (struct tensor){0};
    }
    struct conv2d_geometry geometry = {shape->stride, shape->pad_rows, shape->pad_rows, shape->pad_columns, shape->pad_columns};
    size_t scope = run_enter(run);
    return run_leave(run, scope, nn_activate(run, nn_conv_strided(run, layer, x, geometry), ACTIVATION_RELU));
}

/* A window's pixels in the picture, of one dimension: first .. end - 1. */
struct reach {
    int64_t first, end;
};

static struct reach reach_of(int64_t at, int stride, int pad, int64_t size) {
    int64_t first = at * stride - pad, end = first + 3;
    return (struct reach){first > 0 ? first : 0, end < size ? end : size};
}

/* Pools each window of x[b]; `mean`: else the largest. */
static void pool_row(const float *x, int64_t height, int64_t width, int64_t channels, int64_t row, int stride, int pad, bool mean,
                     int64_t columns, float *out) {
    struct reach rows = reach_of(row, stride, pad, height);
    for (int64_t column = 0; column < columns; column++, out += channels) {
        struct reach across = reach_of(column, stride, pad, width);
        float share = 1.0f / (float)((rows.end - rows.first) * (across.end - across.first));
        for (int64_t c = 0; c < channels; c++) out[c] = mean ? 0 : -INFINITY;
        for (int64_t y = rows.first; y < rows.end; y++)
            for (int64_t at = across.first; at < across.end; at++) {
                const float *pixel = x + (y * width + at) * channels;
                for (int64_t c = 0; c < channels; c++) out[c] = mean ? out[c] + pixel[c] : fmaxf(out[c], pixel[c]);
            }
        for (int64_t c = 0; c < channels && mean; c++) out[c] *= share;
    }
}

static struct tensor pool(struct run *run, struct tensor x, int stride, int pad, bool mean) {
    if (run_failed(run)) return (struct tensor){0};
    int64_t height = x.shape[1], width = x.shape[2], channels = x.shape[3];
    int64_t rows = (height + 2 * pad - 3) / stride + 1, columns = (width + 2 * pad - 3) / stride + 1;
    if (height + 2 * pad < 3 || width + 2 * pad < 3) {
        error_set(&run->error, TESSERA_ERROR_ARGUMENT, "the picture is too small for this metric's network");
        return (struct tensor){0};
    }
    struct tensor out = run_tensor(run, DTYPE_F32, SHAPE(x.shape[0], rows, columns, channels));
    for (int64_t i = 0; i < x.shape[0] * rows && !run_failed(run); i++)
        pool_row((const float *)x.data + i / rows * height * width * channels, height, width, channels, i % rows, stride, pad, mean,
                 columns, (float *)out.data + i * columns * channels);
    return out;
}

struct tensor network_max_pool(struct run *run, struct tensor x, int stride) {
    return pool(run, x, stride, stride == 1 ? 1 : 0, false);
}

struct tensor network_mean_pool(struct run *run, struct tensor x) {
    return pool(run, x, 1, 1, true);
}
