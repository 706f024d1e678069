/* Loading: from names in a file to layers, every shape checked. load_stored.c brings the numbers. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "backend/memory.h"
#include "nn/load_side.h"

enum { MAX_DEGREES_NAMED = 16 };

/* `units` groups of `width` channels. */
struct unit_range {
    int64_t units, width;
};

bool load_failed(const struct loader *loader) {
    return loader->error.status != TESSERA_OK;
}

tessera_error *load_error(struct loader *loader) {
    return &loader->error;
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

bool load_has(const struct loader *loader, const char *name, ...) {
    FULL_NAME(name);
    return stored_records(loader) || (loader->weights != NULL && weights_has(loader->weights, full));
}

void load_unused(struct loader *loader, int ndim, const int64_t *shape, const char *name, ...) {
    FULL_NAME(name);
    if (stored_records(loader) && !load_failed(loader)) loader->hooks->record(loader->hooks->user, full, ndim, shape);
}

struct tensor load_place(struct loader *loader, struct tensor host) {
    if (loader->memory == NULL || load_failed(loader) || host.data == NULL) return host;
    struct tensor t = host;
    t.device = loader->backend->device;
    t.data = arena_alloc(loader->memory, tensor_bytes(&t));
    if (t.data == NULL)
        error_set(&loader->error, TESSERA_ERROR_MEMORY, "%s: no memory for %zu bytes of weights on their device", stored_where(loader),
                  tensor_bytes(&t));
    else
        backend_upload(loader->backend, &t, host.data, &loader->error);
    return load_failed(loader) ? (struct tensor){0} : t;
}

/* `t`, which a layer keeps. */
static struct tensor counted(struct loader *loader, struct tensor t) {
    if (t.ndim > 0) loader->bytes += tensor_bytes(&t);
    return load_place(loader, t);
}

static struct tensor whole_parameter(struct loader *loader, enum dtype dtype, const char *base, const char *part, int ndim,
                                     const int64_t *shape) {
    char name[NAME_CAPACITY + 16];
    snprintf(name, sizeof name, "%s.%s", base, part);
    return stored_whole(loader, name, stored_find(loader, name, ndim, shape), dtype);
}

static struct tensor parameter(struct loader *loader, enum dtype dtype, const char *base, const char *part, int ndim,
                               const int64_t *shape) {
    return counted(loader, whole_parameter(loader, dtype, base, part, ndim, shape));
}

struct linear load_linear(struct loader *loader, int64_t in, int64_t out, bool bias, const char *name, ...) {
    FULL_NAME(name);
    char part[NAME_CAPACITY + 16];
    snprintf(part, sizeof part, "%s.weight", full);
    struct tensor whole = stored_find(loader, part, SHAPE(out, in));
    struct linear layer = {.side = load_side(loader, part, &whole, (struct span){0, out}, (struct span[2]){{0, in}, {0}})};
    layer.weight = counted(loader, stored_whole(loader, part, whole, stored_matrix_dtype(loader, part, &whole)));
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
                  stored_where(loader), loader->share.count, (long long)units, (long long)units);
    return share_of(loader, units).count;
}

bool load_share_has(const struct load_share *share, int index) {
    const struct span *mine = &share->blocks;
    return mine->count == 0 || (index >= mine->first && index < mine->first + mine->count);
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
    if (whole.ndim == 0) return whole;
    float *data = whole.data != NULL ? (float *)whole.data + mine.first : NULL;
    return counted(loader, tensor_of(data, DTYPE_F32, SHAPE(mine.count)));
}

/* Do all ranks' shares of a layer's inputs begin and end between blocks? */
static bool cuts_between_blocks(const struct unit_range ranges[2], int degree, int64_t block) {
    for (int r = 0; r < 2; r++) {
        for (int i = 0; i < degree; i++)
            if (cut_share(ranges[r].units, degree, i).count * ranges[r].width % block != 0) return false;
    }
    return true;
}

static void refuse_cut(struct loader *loader, const char *name, const struct tensor *t, const struct unit_range ranges[2]) {
    char degrees[64] = "1";
    for (int d = 2; d <= MAX_DEGREES_NAMED && d <= ranges[0].units; d++) {
        size_t used = strlen(degrees);
        if (cuts_between_blocks(ranges, d, dtype_block(t->dtype))) snprintf(degrees + used, sizeof degrees - used, ", %d", d);
    }
    error_set(&loader->error, TESSERA_ERROR_UNSUPPORTED,
              "%s: tensor degree %d cuts tensor \"%s\" inside blocks of %lld numbers (%s): of the degrees up to %d, %s fit this tensor",
              stored_where(loader), loader->share.count, name, (long long)dtype_block(t->dtype), dtype_name(t->dtype), MAX_DEGREES_NAMED,
              degrees);
}

/* Rows and columns (of two ranges, side by side; the second may be empty) of the matrix `name`, stored as [out, in]. */
static struct tensor share_matrix(struct loader *loader, const char *name, struct tensor whole, struct span rows,
                                  const struct span columns[2], const struct unit_range ranges[2]) {
    int64_t width = columns[0].count + columns[1].count, in = whole.shape[1];
    if (whole.ndim == 0) return whole;
    enum dtype dtype = stored_matrix_dtype(loader, name, &whole);
    if ((width != in || rows.count != whole.shape[0]) && in % dtype_block(dtype) != 0) dtype = loader->dtype; /* blocks cross its rows */
    if (width != in && !cuts_between_blocks(ranges, loader->share.count, dtype_block(dtype))) {
        refuse_cut(loader, name, &whole, ranges);
        return (struct tensor){0};
    }
    struct load_piece left = {whole.shape, rows, columns[0]}, right = {whole.shape, rows, columns[1]};
    if (columns[1].count == 0) return stored_piece(loader, name, whole, left, dtype);
    struct tensor part = tensor_of(NULL, dtype, SHAPE(rows.count, width));
    loader->converted += tensor_bytes(&part);
    if (!stored_reads(loader)) return part;
    part.data = stored_take(loader, tensor_bytes(&part));
    stored_put(loader, name, whole, left, dtype, part.data, width);
    if (load_failed(loader)) return (struct tensor){0};
    char *middle = (char *)part.data + dtype_bytes(dtype, columns[0].count);
    stored_put(loader, name, whole, right, dtype, middle, width);
    return load_failed(loader) ? (struct tensor){0} : part;
}

/* A layer of those rows and columns, without a bias. */
static struct linear share_linear(struct loader *loader, const char *name, int64_t out, int64_t in, struct span rows,
                                  const struct span columns[2], const struct unit_range ranges[2]) {
    struct tensor whole = stored_find(loader, name, SHAPE(out, in));
    struct linear layer = {.side = load_side(loader, name, &whole, rows, columns)};
    layer.weight = counted(loader, share_matrix(loader, name, whole, rows, columns, ranges));
    return layer;
}

/* This rank's share of one of `parts` equal parts of a linear's outputs, each `units` groups of `width`. */
static struct linear share_outputs(struct loader *loader, int64_t in, int part, int parts, int64_t units, int64_t width, bool bias,
                                   const char *name) {
    struct span mine = channels_of(loader, units, width);
    mine.first += part * units * width;
    char weight_name[NAME_CAPACITY + 16];
    snprintf(weight_name, sizeof weight_name, "%s.weight", name);
    struct linear layer = share_linear(loader, weight_name, parts * units * width, in, mine, (struct span[2]){{0, in}, {0}}, NULL);
    if (bias) layer.bias = share_vector(loader, name, "bias", parts * units * width, mine);
    return layer;
}

struct linear load_linear_outputs(struct loader *loader, int64_t in, int64_t units, int64_t width, bool bias, const char *name, ...) {
    FULL_NAME(name);
    return share_outputs(loader, in, 0, 1, units, width, bias, full);
}

/* A linear whose inputs are two ranges of units, of which a rank has its share. */
static struct linear share_inputs(struct loader *loader, const struct unit_range ranges[2], int64_t out, bool bias, const char *name) {
    int64_t first = ranges[0].units * ranges[0].width, in = first + ranges[1].units * ranges[1].width;
    struct span columns[2] = {channels_of(loader, ranges[0].units, ranges[0].width), channels_of(loader, ranges[1].units, ranges[1].width)};
    columns[1].first += first;
    char part[NAME_CAPACITY + 16];
    snprintf(part, sizeof part, "%s.weight", name);
    struct linear layer = share_linear(loader, part, out, in, (struct span){0, out}, columns, ranges);
    if (bias && columns[0].first == 0) layer.bias = parameter(loader, DTYPE_F32, name, "bias", SHAPE(out));
    return layer;
}

struct linear load_linear_inputs(struct loader *loader, int64_t units, int64_t width, int64_t out, bool bias, const char *name, ...) {
    FULL_NAME(name);
    return share_inputs(loader, (struct unit_range[2]){{units, width}, {0}}, out, bias, full);
}

struct linear load_linear_joined_inputs(struct loader *loader, int64_t units, int64_t width, int64_t channels, int64_t out, bool bias,
                                        const char *name, ...) {
    FULL_NAME(name);
    return share_inputs(loader, (struct unit_range[2]){{units, width}, {channels, 1}}, out, bias, full);
}

struct linear load_linear_part(struct loader *loader, int64_t in, int part, int parts, int64_t units, int64_t width, bool bias,
                               const char *name, ...) {
    FULL_NAME(name);
    if (stored_records(loader) && part > 0) { /* the matrix is recorded with its first part */
        struct span mine = channels_of(loader, units, width);
        struct linear layer = {.weight = counted(loader, tensor_of(NULL, loader->dtype, SHAPE(mine.count, in)))};
        if (bias) layer.bias = counted(loader, tensor_of(NULL, DTYPE_F32, SHAPE(mine.count)));
        return layer;
    }
    return share_outputs(loader, in, part, parts, units, width, bias, full);
}

/* ---- convolutions ---- */

/* [O, I, kh, kw] -> [O, kh, kw, I], element by element of `size` bytes. */
static void reorder_kernel(char *to, const char *from, const int64_t *shape, size_t size) {
    int64_t taps = shape[2] * shape[3], inputs = shape[1];
    for (int64_t o = 0; o < shape[0]; o++, from += (size_t)(inputs * taps) * size) {
        for (int64_t tap = 0; tap < taps; tap++) {
            for (int64_t i = 0; i < inputs; i++, to += size) memcpy(to, from + (size_t)(i * taps + tap) * size, size);
        }
    }
}

/* The type of re-ordered kernels: blocks follow another order, so only numbers that stand alone can stay small. */
static enum dtype kernel_dtype(const struct loader *loader, const char *name, const struct tensor *t) {
    bool saves = dtype_is_small(t->dtype) && dtype_block(t->dtype) == 1;
    return saves ? stored_matrix_dtype(loader, name, t) : loader->dtype;
}

/* Outputs and inputs of the kernels `file`; 1x1 kernels lie in the file in the order that is wanted. */
static struct tensor reordered(struct loader *loader, const char *name, struct tensor file, struct span outputs, struct span inputs) {
    struct load_piece piece = {file.shape, outputs, inputs};
    enum dtype dtype = kernel_dtype(loader, name, &file);
    struct tensor weight = tensor_of(NULL, dtype, SHAPE(outputs.count, file.shape[2], file.shape[3], inputs.count));
    bool in_order = file.shape[2] * file.shape[3] == 1;
    if (!in_order) weight.data = stored_take(loader, tensor_bytes(&weight));
    size_t mark = arena_mark(loader->arena);
    struct tensor part = stored_piece(loader, name, file, piece, dtype);
    if (load_failed(loader)) return (struct tensor){0};
    if (in_order) {
        weight.data = part.data;
        return weight;
    }
    reorder_kernel(weight.data, part.data, part.shape, dtype_size(weight.dtype));
    stored_forget(loader, &part);
    arena_release(loader->arena, mark);
    return weight;
}

/* The weights of the convolution `name`, [out, in, kernel, kernel] in the file, or `flat`: [out, in * kernel * kernel]. */
static struct conv share_conv(struct loader *loader, const char *name, int64_t out, int64_t in, int kernel, bool flat, struct span outputs,
                              struct span inputs) {
    struct conv layer = {.first_input = inputs.first};
    char weight_name[NAME_CAPACITY + 16];
    snprintf(weight_name, sizeof weight_name, "%s.weight", name);
    struct tensor file = flat ? stored_find(loader, weight_name, SHAPE(out, in * kernel * kernel))
                              : stored_find(loader, weight_name, SHAPE(out, in, kernel, kernel));
    if (file.ndim > 0 && stored_reads(loader)) {
        file = tensor_reshape(file, SHAPE(out, in, kernel, kernel));
        layer.weight = counted(loader, reordered(loader, weight_name, file, outputs, inputs));
    } else if (file.ndim > 0) {
        enum dtype dtype = kernel_dtype(loader, weight_name, &file);
        struct tensor weight = tensor_of(NULL, dtype, SHAPE(outputs.count, kernel, kernel, inputs.count));
        if (kernel > 1 || dtype != file.dtype) loader->converted += tensor_bytes(&weight);
        layer.weight = counted(loader, weight);
    }
    return layer;
}

struct conv load_conv(struct loader *loader, int64_t in, int64_t out, int kernel, const char *name, ...) {
    FULL_NAME(name);
    struct conv layer = share_conv(loader, full, out, in, kernel, false, (struct span){0, out}, (struct span){0, in});
    layer.bias = parameter(loader, DTYPE_F32, full, "bias", SHAPE(out));
    return layer;
}

struct conv load_conv_flat(struct loader *loader, int64_t in, int64_t out, int kernel, const char *name, ...) {
    FULL_NAME(name);
    struct conv layer = share_conv(loader, full, out, in, kernel, true, (struct span){0, out}, (struct span){0, in});
    layer.bias = parameter(loader, DTYPE_F32, full, "bias", SHAPE(out));
    return layer;
}

struct conv load_conv_outputs(struct loader *loader, int64_t in, int64_t units, int64_t width, int kernel, const char *name, ...) {
    FULL_NAME(name);
    struct span mine = channels_of(loader, units, width);
    struct conv layer = share_conv(loader, full, units * width, in, kernel, false, mine, (struct span){0, in});
    layer.bias = share_vector(loader, full, "bias", units * width, mine);
    return layer;
}

struct conv load_conv_inputs(struct loader *loader, int64_t units, int64_t width, int64_t out, int kernel, const char *name, ...) {
    FULL_NAME(name);
    struct span mine = channels_of(loader, units, width);
    struct conv layer = share_conv(loader, full, out, units * width, kernel, false, (struct span){0, out}, mine);
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
    return counted(loader, stored_whole(loader, full, stored_find(loader, full, ndim, shape), dtype));
}

struct tensor load_table(struct loader *loader, int64_t rows, int64_t columns, const char *name, ...) {
    FULL_NAME(name);
    struct tensor table = stored_find(loader, full, SHAPE(rows, columns));
    return counted(loader, stored_table(loader, full, table));
}

void *load_alloc(struct loader *loader, size_t bytes) {
    void *memory = load_failed(loader) ? NULL : arena_alloc(loader->arena, bytes);
    if (memory == NULL && !load_failed(loader))
        error_set(&loader->error, TESSERA_ERROR_MEMORY, "%s: no memory for the model's layers", stored_where(loader));
    return memory != NULL ? memset(memory, 0, bytes) : NULL;
}

struct tensor load_made(struct loader *loader, enum dtype dtype, int ndim, const int64_t *shape) {
    struct tensor t = tensor_of(NULL, dtype, ndim, shape);
    if (load_failed(loader)) return (struct tensor){0};
    loader->room += tensor_bytes(&t) + ARENA_SLACK;
    if (stored_reads(loader)) t.data = stored_take(loader, tensor_bytes(&t));
    return load_failed(loader) ? (struct tensor){0} : t;
}
