/* Loading: from names in a file to layers, every shape checked.
 *
 * A tensor is lent from the map when its type (and its alignment, which the format does not promise) is what the layer wants;
 * otherwise it is converted once into the model's arena. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "nn/load.h"

enum { NAME_CAPACITY = 512 };

bool load_failed(const struct loader *loader) {
    return loader->error.status != TESSERA_OK;
}

void load_set_prefix(struct loader *loader, const char *prefix, ...) {
    va_list arguments;
    va_start(arguments, prefix);
    vsnprintf(loader->prefix, sizeof loader->prefix, prefix, arguments);
    va_end(arguments);
}

static void full_name(const struct loader *loader, char *out, const char *format, va_list arguments) {
    size_t used = (size_t)snprintf(out, NAME_CAPACITY, "%s", loader->prefix);
    vsnprintf(out + used, NAME_CAPACITY - used, format, arguments);
}

#define FULL_NAME(name)                                                                                                                    \
    char full[NAME_CAPACITY];                                                                                                              \
    va_list arguments;                                                                                                                     \
    va_start(arguments, name);                                                                                                             \
    full_name(loader, full, name, arguments);                                                                                              \
    va_end(arguments)

/* What messages call the model. */
static const char *where(const struct loader *loader) {
    return loader->weights != NULL ? weights_folder(loader->weights) : "model";
}

static bool records(const struct loader *loader) {
    return loader->hooks != NULL && loader->hooks->record != NULL;
}

bool load_has(const struct loader *loader, const char *name, ...) {
    FULL_NAME(name);
    return records(loader) || (loader->weights != NULL && weights_has(loader->weights, full));
}

void load_unused(struct loader *loader, int ndim, const int64_t *shape, const char *name, ...) {
    FULL_NAME(name);
    if (records(loader) && !load_failed(loader)) loader->hooks->record(loader->hooks->user, full, ndim, shape);
}

static void *take(struct loader *loader, size_t bytes) {
    void *data = arena_alloc(loader->arena, bytes);
    if (data == NULL && !load_failed(loader)) {
        error_set(&loader->error, TESSERA_ERROR_MEMORY, "%s: no memory for %zu bytes of weights", where(loader), bytes);
    }
    return data;
}

static bool is_float(enum dtype dtype) {
    return dtype == DTYPE_F32 || dtype == DTYPE_F16 || dtype == DTYPE_BF16;
}

/* The stored tensor, its shape and type checked; empty on failure, and where tensors are only recorded. */
static struct tensor stored(struct loader *loader, const char *name, int ndim, const int64_t *shape) {
    struct tensor t = {0}, empty = {0};
    if (load_failed(loader)) return empty;
    if (records(loader)) {
        loader->hooks->record(loader->hooks->user, name, ndim, shape);
        return empty;
    }
    if (weights_get(loader->weights, name, &t, &loader->error) != TESSERA_OK) return empty;
    /* Older files keep the matrices of attention as 1x1 convolutions. */
    if (ndim == 2 && t.ndim == 4 && t.shape[2] == 1 && t.shape[3] == 1) t.ndim = 2;
    bool same = t.ndim == ndim;
    for (int i = 0; same && i < ndim; i++) same = t.shape[i] == shape[i];
    char have[128], want[128];
    if (!same) {
        error_set(&loader->error, TESSERA_ERROR_FORMAT, "%s: tensor \"%s\" has shape %s, but config.json asks for %s", where(loader), name,
                  tensor_shape_text(t.ndim, t.shape, have, sizeof have), tensor_shape_text(ndim, shape, want, sizeof want));
        return empty;
    }
    if (!is_float(t.dtype)) {
        error_set(&loader->error, TESSERA_ERROR_UNSUPPORTED, "%s: tensor \"%s\" is stored as %s; weights can be F32, F16 or BF16",
                  where(loader), name, dtype_name(t.dtype));
        return empty;
    }
    return t;
}

static bool is_aligned(const struct tensor *t) {
    return (uintptr_t)t->data % dtype_size(t->dtype) == 0;
}

/* `t` itself where it is aligned, otherwise a copy in the arena. */
static struct tensor aligned(struct loader *loader, struct tensor t) {
    if (t.data == NULL || is_aligned(&t)) return t;
    void *copy = take(loader, tensor_bytes(&t));
    if (copy == NULL) return (struct tensor){0};
    memcpy(copy, t.data, tensor_bytes(&t));
    t.data = copy;
    return t;
}

/* Does a hook change the weight `name`? */
static bool is_changed(const struct loader *loader, const char *name) {
    return loader->hooks != NULL && loader->hooks->changes != NULL && loader->hooks->changes(loader->hooks->user, name);
}

/* An F32 copy of `t` in the arena, as the hook changes it. */
static struct tensor changed(struct loader *loader, const char *name, struct tensor t) {
    struct tensor copy = t;
    copy.dtype = DTYPE_F32;
    copy.data = take(loader, tensor_bytes(&copy));
    t = aligned(loader, t);
    if (load_failed(loader)) return (struct tensor){0};
    dtype_convert(copy.data, DTYPE_F32, t.data, t.dtype, (size_t)tensor_count(&t));
    if (loader->hooks->change(loader->hooks->user, name, &copy, &loader->error) != TESSERA_OK) return (struct tensor){0};
    return copy;
}

/* `t` in the arena as `dtype`. The copies that misaligned bytes and changes need are taken above the result and given back. */
static struct tensor converted(struct loader *loader, const char *name, struct tensor t, enum dtype dtype) {
    bool change = t.data != NULL && is_changed(loader, name);
    if (t.data == NULL || (t.dtype == dtype && !change)) return aligned(loader, t);
    struct tensor out = t;
    out.dtype = dtype;
    out.data = take(loader, tensor_bytes(&out));
    size_t mark = arena_mark(loader->arena);
    t = change ? changed(loader, name, t) : aligned(loader, t);
    if (load_failed(loader)) return (struct tensor){0};
    dtype_convert(out.data, dtype, t.data, t.dtype, (size_t)tensor_count(&t));
    arena_release(loader->arena, mark);
    return out;
}

/* `t`, which a layer keeps. */
static struct tensor counted(struct loader *loader, struct tensor t) {
    if (t.data != NULL) loader->bytes += tensor_bytes(&t);
    return t;
}

static struct tensor whole_parameter(struct loader *loader, enum dtype dtype, const char *base, const char *part, int ndim,
                                     const int64_t *shape) {
    char name[NAME_CAPACITY + 16];
    snprintf(name, sizeof name, "%s.%s", base, part);
    return converted(loader, name, stored(loader, name, ndim, shape), dtype);
}

static struct tensor parameter(struct loader *loader, enum dtype dtype, const char *base, const char *part, int ndim,
                               const int64_t *shape) {
    return counted(loader, whole_parameter(loader, dtype, base, part, ndim, shape));
}

struct linear load_linear(struct loader *loader, int64_t in, int64_t out, bool bias, const char *name, ...) {
    FULL_NAME(name);
    struct linear layer = {.weight = parameter(loader, loader->dtype, full, "weight", SHAPE(out, in))};
    if (bias) layer.bias = parameter(loader, DTYPE_F32, full, "bias", SHAPE(out));
    return layer;
}

/* ---- shares ---- */

static struct span share_of(const struct loader *loader, int64_t units) {
    return loader->share.count > 1 ? cut_share(units, loader->share.count, loader->share.index) : (struct span){0, units};
}

int64_t load_units(struct loader *loader, int64_t units) {
    if (units < loader->share.count && !load_failed(loader))
        error_set(&loader->error, TESSERA_ERROR_ARGUMENT,
                  "%s: tensor degree %d: this model's layers have as few as %lld heads or channels to give, so at most %lld are possible",
                  where(loader), loader->share.count, (long long)units, (long long)units);
    return share_of(loader, units).count;
}

struct span load_span(const struct loader *loader, int64_t units) {
    return share_of(loader, units);
}

/* This rank's share of `units` groups of `width` channels, in channels. */
static struct span channels_of(const struct loader *loader, int64_t units, int64_t width) {
    struct span mine = share_of(loader, units);
    return (struct span){mine.first * width, mine.count * width};
}

/* Some numbers of the vector "<base>.<part>" [channels], F32. */
static struct tensor share_vector(struct loader *loader, const char *base, const char *part, int64_t channels, struct span mine) {
    struct tensor whole = whole_parameter(loader, DTYPE_F32, base, part, SHAPE(channels));
    return whole.data == NULL ? whole : counted(loader, tensor_of((float *)whole.data + mine.first, DTYPE_F32, SHAPE(mine.count)));
}

/* `columns` of from's rows, from `first_row` on, to columns `at`.. of to's. */
static void copy_columns(struct tensor to, int64_t at, struct tensor from, int64_t first_row, struct span columns) {
    size_t from_size = dtype_size(from.dtype), to_size = dtype_size(to.dtype);
    for (int64_t r = 0; r < to.shape[0]; r++)
        dtype_convert((char *)to.data + (size_t)(r * to.shape[1] + at) * to_size, to.dtype,
                      (const char *)from.data + (size_t)((first_row + r) * from.shape[1] + columns.first) * from_size, from.dtype,
                      (size_t)columns.count);
}

/* Rows and columns (of two ranges, side by side; the second may be empty) of the matrix `name`, stored as [out, in], in the computing type:
 * lent where whole rows lie in the file as they are wanted, otherwise copied; of the file, only what is copied is read. */
static struct tensor share_matrix(struct loader *loader, const char *name, int64_t out, int64_t in, struct span rows,
                                  const struct span columns[2]) {
    int64_t width = columns[0].count + columns[1].count;
    struct tensor whole = stored(loader, name, SHAPE(out, in));
    if (whole.data == NULL || (rows.count == out && width == in)) return converted(loader, name, whole, loader->dtype);
    bool change = is_changed(loader, name);
    struct tensor share = whole;
    share.shape[0] = rows.count;
    share.data = (char *)whole.data + (size_t)(rows.first * in) * dtype_size(whole.dtype);
    if (!change && width == in) return converted(loader, name, share, loader->dtype);
    struct tensor part = tensor_of(NULL, loader->dtype, SHAPE(rows.count, width));
    part.data = take(loader, tensor_bytes(&part));
    size_t mark = arena_mark(loader->arena);
    if (change) whole = changed(loader, name, whole);
    if (load_failed(loader)) return (struct tensor){0};
    copy_columns(part, 0, whole, rows.first, columns[0]);
    copy_columns(part, columns[0].count, whole, rows.first, columns[1]);
    arena_release(loader->arena, mark);
    return part;
}

struct linear load_linear_outputs(struct loader *loader, int64_t in, int64_t units, int64_t width, bool bias, const char *name, ...) {
    FULL_NAME(name);
    struct span mine = share_of(loader, units), rows = {mine.first * width, mine.count * width};
    char part[NAME_CAPACITY + 16];
    snprintf(part, sizeof part, "%s.weight", full);
    struct linear layer = {.weight = counted(loader, share_matrix(loader, part, units * width, in, rows, (struct span[2]){{0, in}, {0}}))};
    if (!bias) return layer;
    layer.bias = parameter(loader, DTYPE_F32, full, "bias", SHAPE(units * width));
    if (layer.bias.data == NULL || rows.count == units * width) return layer;
    layer.bias = tensor_of((float *)layer.bias.data + rows.first, DTYPE_F32, SHAPE(rows.count));
    return layer;
}

/* `columns`: this rank's share of the inputs. */
static struct linear share_inputs(struct loader *loader, int64_t in, const struct span columns[2], int64_t out, bool bias,
                                  const char *name) {
    char part[NAME_CAPACITY + 16];
    snprintf(part, sizeof part, "%s.weight", name);
    struct linear layer = {.weight = counted(loader, share_matrix(loader, part, out, in, (struct span){0, out}, columns))};
    if (bias && columns[0].first == 0) layer.bias = parameter(loader, DTYPE_F32, name, "bias", SHAPE(out));
    return layer;
}

struct linear load_linear_inputs(struct loader *loader, int64_t units, int64_t width, int64_t out, bool bias, const char *name, ...) {
    FULL_NAME(name);
    struct span mine = share_of(loader, units), columns[2] = {{mine.first * width, mine.count * width}, {0}};
    return share_inputs(loader, units * width, columns, out, bias, full);
}

struct linear load_linear_joined_inputs(struct loader *loader, int64_t units, int64_t width, int64_t channels, int64_t out, bool bias,
                                        const char *name, ...) {
    FULL_NAME(name);
    struct span mine = share_of(loader, units), rest = share_of(loader, channels);
    struct span columns[2] = {{mine.first * width, mine.count * width}, {units * width + rest.first, rest.count}};
    return share_inputs(loader, units * width + channels, columns, out, bias, full);
}

struct linear load_linear_part(struct loader *loader, int64_t in, int part, int parts, int64_t units, int64_t width, bool bias,
                               const char *name, ...) {
    FULL_NAME(name);
    struct linear layer = {0};
    if (records(loader) && part > 0) return layer;
    struct span mine = channels_of(loader, units, width);
    mine.first += part * units * width;
    char weight_name[NAME_CAPACITY + 16];
    snprintf(weight_name, sizeof weight_name, "%s.weight", full);
    layer.weight = counted(loader, share_matrix(loader, weight_name, parts * units * width, in, mine, (struct span[2]){{0, in}, {0}}));
    if (bias) layer.bias = share_vector(loader, full, "bias", parts * units * width, mine);
    return layer;
}

/* ---- convolutions ---- */

/* Outputs and inputs of [O, I, kh, kw] -> [O', kh, kw, I'], element by element of `size` bytes. */
static void reorder_kernel(char *to, const char *from, const int64_t *shape, struct span outputs, struct span inputs, size_t size) {
    int64_t taps = shape[2] * shape[3];
    for (int64_t o = outputs.first; o < outputs.first + outputs.count; o++) {
        const char *kernels = from + (size_t)((o * shape[1] + inputs.first) * taps) * size;
        for (int64_t tap = 0; tap < taps; tap++) {
            for (int64_t i = 0; i < inputs.count; i++, to += size) memcpy(to, kernels + (size_t)(i * taps + tap) * size, size);
        }
    }
}

/* Outputs and inputs of the kernels `file`, in the computing type. 1x1 kernels with all inputs lie in the file as they are wanted. */
static struct tensor reordered(struct loader *loader, const char *name, struct tensor file, struct span outputs, struct span inputs) {
    struct tensor weight = tensor_of(NULL, loader->dtype, SHAPE(outputs.count, file.shape[2], file.shape[3], inputs.count));
    if (!is_changed(loader, name)) { /* the others are not even read */
        file.data = (char *)file.data + (size_t)(outputs.first * file.shape[1] * file.shape[2] * file.shape[3]) * dtype_size(file.dtype);
        file.shape[0] = outputs.count;
        outputs.first = 0;
    }
    if (file.shape[0] == outputs.count && file.shape[1] == inputs.count && file.shape[2] * file.shape[3] == 1) {
        weight.data = converted(loader, name, file, loader->dtype).data;
        return load_failed(loader) ? (struct tensor){0} : weight;
    }
    weight.data = take(loader, tensor_bytes(&weight));
    size_t mark = arena_mark(loader->arena);
    file = converted(loader, name, file, loader->dtype);
    if (load_failed(loader)) return (struct tensor){0};
    reorder_kernel(weight.data, file.data, file.shape, outputs, inputs, dtype_size(weight.dtype));
    arena_release(loader->arena, mark);
    return weight;
}

/* The weights of the convolution `name`, [out, in, kernel, kernel] in the file. */
static struct conv share_conv(struct loader *loader, const char *name, int64_t out, int64_t in, int kernel, struct span outputs,
                              struct span inputs) {
    struct conv layer = {.first_input = inputs.first};
    char weight_name[NAME_CAPACITY + 16];
    snprintf(weight_name, sizeof weight_name, "%s.weight", name);
    struct tensor file = stored(loader, weight_name, SHAPE(out, in, kernel, kernel));
    if (file.data != NULL) layer.weight = counted(loader, reordered(loader, weight_name, file, outputs, inputs));
    return layer;
}

struct conv load_conv(struct loader *loader, int64_t in, int64_t out, int kernel, const char *name, ...) {
    FULL_NAME(name);
    struct conv layer = share_conv(loader, full, out, in, kernel, (struct span){0, out}, (struct span){0, in});
    layer.bias = parameter(loader, DTYPE_F32, full, "bias", SHAPE(out));
    return layer;
}

struct conv load_conv_outputs(struct loader *loader, int64_t in, int64_t units, int64_t width, int kernel, const char *name, ...) {
    FULL_NAME(name);
    struct span mine = channels_of(loader, units, width);
    struct conv layer = share_conv(loader, full, units * width, in, kernel, mine, (struct span){0, in});
    layer.bias = share_vector(loader, full, "bias", units * width, mine);
    return layer;
}

struct conv load_conv_inputs(struct loader *loader, int64_t units, int64_t width, int64_t out, int kernel, const char *name, ...) {
    FULL_NAME(name);
    struct span mine = channels_of(loader, units, width);
    struct conv layer = share_conv(loader, full, out, units * width, kernel, (struct span){0, out}, mine);
    if (mine.first == 0) layer.bias = parameter(loader, DTYPE_F32, full, "bias", SHAPE(out));
    return layer;
}

struct norm load_norm(struct loader *loader, enum norm_kind kind, int64_t channels, float eps, bool bias, const char *name, ...) {
    FULL_NAME(name);
    struct norm layer = {.kind = kind, .eps = eps};
    layer.weight = parameter(loader, DTYPE_F32, full, "weight", SHAPE(channels));
    if (bias) layer.bias = parameter(loader, DTYPE_F32, full, "bias", SHAPE(channels));
    return layer;
}

struct norm load_norm_share(struct loader *loader, enum norm_kind kind, int64_t units, int64_t width, float eps, bool bias,
                            const char *name, ...) {
    FULL_NAME(name);
    struct span mine = channels_of(loader, units, width);
    struct norm layer = {.kind = kind, .eps = eps};
    layer.weight = share_vector(loader, full, "weight", units * width, mine);
    if (bias) layer.bias = share_vector(loader, full, "bias", units * width, mine);
    return layer;
}

struct tensor load_tensor(struct loader *loader, enum dtype dtype, int ndim, const int64_t *shape, const char *name, ...) {
    FULL_NAME(name);
    return counted(loader, converted(loader, full, stored(loader, full, ndim, shape), dtype));
}

struct tensor load_table(struct loader *loader, int64_t rows, int64_t columns, const char *name, ...) {
    FULL_NAME(name);
    return counted(loader, aligned(loader, stored(loader, full, SHAPE(rows, columns))));
}

void *load_alloc(struct loader *loader, size_t bytes) {
    void *memory = load_failed(loader) ? NULL : arena_alloc(loader->arena, bytes);
    if (memory == NULL && !load_failed(loader))
        error_set(&loader->error, TESSERA_ERROR_MEMORY, "%s: no memory for the model's layers", where(loader));
    return memory;
}
