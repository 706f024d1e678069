/* Layers whose units (heads, channels, groups of channels) are divided over ranks: of each a
 * rank loads its slice.
 *
 *     outputs    [units held * width, in]     load_linear_outputs, load_linear_chunk: rows of the matrix, and of its bias
 *     inputs     [out, units held * width]    load_linear_inputs, load_linear_joined_inputs: columns; the first rank has the bias
 *
 * Convolutions are in load_conv.c. */
#include "nn/load_slices.h"

#include <stdio.h>
#include <string.h>

#include "nn/load_side.h"

enum { MAX_DEGREES_NAMED = 16 };

/* `units` groups of `width` channels. */
struct unit_range {
    int64_t units, width;
};

static struct span slice_of(const struct loader *loader, int64_t units) {
    return loader->scope.count > 1 ? cut_evenly(units, loader->scope.count, loader->scope.index) : (struct span){0, units};
}

int64_t load_units(struct loader *loader, int64_t units) {
    if (units < loader->scope.count && !load_failed(loader))
        error_set(&loader->error, TESSERA_ERROR_ARGUMENT,
                  "%s: tensor degree %d: this model's layers have as few as %lld heads or channels to give, so at most %lld are possible",
                  loader_where(loader), loader->scope.count, (long long)units, (long long)units);
    return slice_of(loader, units).count;
}

bool load_scope_has(const struct load_scope *scope, int index) {
    const struct span *mine = &scope->blocks;
    return mine->count == 0 || (index >= mine->first && index < mine->first + mine->count);
}

struct span load_span(const struct loader *loader, int64_t units) {
    return slice_of(loader, units);
}

struct span load_channels(const struct loader *loader, int64_t units, int64_t width) {
    struct span mine = slice_of(loader, units);
    return (struct span){mine.first * width, mine.count * width};
}

struct tensor load_vector_slice(struct loader *loader, const char *base, const char *parameter, int64_t channels, struct span mine) {
    struct tensor whole = stored_parameter(loader, DTYPE_F32, base, parameter, SHAPE(channels));
    if (whole.ndim == 0) return whole;
    float *data = whole.data != NULL ? (float *)whole.data + mine.first : NULL;
    return loader_keep(loader, tensor_of(data, DTYPE_F32, SHAPE(mine.count)));
}

/* Do all ranks' slices of a layer's inputs begin and end between blocks? */
static bool cuts_between_blocks(const struct unit_range ranges[2], int degree, int64_t block) {
    for (int r = 0; r < 2; r++) {
        for (int i = 0; i < degree; i++)
            if (cut_evenly(ranges[r].units, degree, i).count * ranges[r].width % block != 0) return false;
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
              loader_where(loader), loader->scope.count, name, (long long)dtype_block(t->dtype), dtype_name(t->dtype), MAX_DEGREES_NAMED,
              degrees);
}

/* Rows and columns (of two ranges, side by side; the second may be empty) of the matrix `name`,
 * stored as [out, in]. */
static struct tensor slice_matrix(struct loader *loader, const char *name, struct tensor whole, struct span rows,
                                  const struct span columns[2], const struct unit_range ranges[2]) {
    int64_t width = columns[0].count + columns[1].count, in = whole.shape[1];
    if (whole.ndim == 0) return whole;
    enum dtype dtype = stored_matrix_dtype(loader, name, &whole);
    if ((width != in || rows.count != whole.shape[0]) && in % dtype_block(dtype) != 0) dtype = loader->dtype; /* blocks cross its rows */
    if (width != in && !cuts_between_blocks(ranges, loader->scope.count, dtype_block(dtype))) {
        refuse_cut(loader, name, &whole, ranges);
        return (struct tensor){0};
    }
    struct load_piece left = {whole.shape, rows, columns[0]}, right = {whole.shape, rows, columns[1]};
    if (columns[1].count == 0) return stored_piece(loader, name, whole, left, dtype);
    struct tensor slice = tensor_of(NULL, dtype, SHAPE(rows.count, width));
    loader->converted += tensor_bytes(&slice);
    if (!loader_reads(loader)) return slice;
    slice.data = loader_take(loader, tensor_bytes(&slice));
    stored_put(loader, name, whole, left, dtype, slice.data, width);
    if (load_failed(loader)) return (struct tensor){0};
    char *middle = (char *)slice.data + dtype_bytes(dtype, columns[0].count);
    stored_put(loader, name, whole, right, dtype, middle, width);
    return load_failed(loader) ? (struct tensor){0} : slice;
}

/* A layer of those rows and columns, without a bias. */
static struct linear slice_linear(struct loader *loader, const char *name, int64_t out, int64_t in, struct span rows,
                                  const struct span columns[2], const struct unit_range ranges[2]) {
    struct tensor whole = stored_find(loader, name, SHAPE(out, in));
    struct linear layer = {.side = load_side(loader, name, &whole, rows, columns)};
    layer.weight = loader_keep(loader, slice_matrix(loader, name, whole, rows, columns, ranges));
    return layer;
}

/* This rank's slice of one of `chunks` equal chunks of a linear's outputs, each `units` groups of
 * `width`. */
static struct linear slice_outputs(struct loader *loader, int64_t in, int chunk, int chunks, int64_t units, int64_t width, bool bias,
                                   const char *name) {
    struct span mine = load_channels(loader, units, width);
    mine.first += chunk * units * width;
    char weight_name[NAME_CAPACITY + 16];
    snprintf(weight_name, sizeof weight_name, "%s.weight", name);
    struct linear layer = slice_linear(loader, weight_name, chunks * units * width, in, mine, (struct span[2]){{0, in}, {0}}, NULL);
    if (bias) layer.bias = load_vector_slice(loader, name, "bias", chunks * units * width, mine);
    return layer;
}

struct linear load_linear_outputs(struct loader *loader, int64_t in, int64_t units, int64_t width, bool bias, const char *name, ...) {
    FULL_NAME(name);
    return slice_outputs(loader, in, 0, 1, units, width, bias, full);
}

/* A linear whose inputs are two ranges of units, of which a rank has its slice. */
static struct linear slice_inputs(struct loader *loader, const struct unit_range ranges[2], int64_t out, bool bias, const char *name) {
    int64_t first = ranges[0].units * ranges[0].width, in = first + ranges[1].units * ranges[1].width;
    struct span columns[2] = {load_channels(loader, ranges[0].units, ranges[0].width),
                              load_channels(loader, ranges[1].units, ranges[1].width)};
    columns[1].first += first;
    char weight_name[NAME_CAPACITY + 16];
    snprintf(weight_name, sizeof weight_name, "%s.weight", name);
    struct linear layer = slice_linear(loader, weight_name, out, in, (struct span){0, out}, columns, ranges);
    if (bias && columns[0].first == 0) layer.bias = stored_keep_parameter(loader, DTYPE_F32, name, "bias", SHAPE(out));
    return layer;
}

struct linear load_linear_inputs(struct loader *loader, int64_t units, int64_t width, int64_t out, bool bias, const char *name, ...) {
    FULL_NAME(name);
    return slice_inputs(loader, (struct unit_range[2]){{units, width}, {0}}, out, bias, full);
}

struct linear load_linear_joined_inputs(struct loader *loader, int64_t units, int64_t width, int64_t channels, int64_t out, bool bias,
                                        const char *name, ...) {
    FULL_NAME(name);
    return slice_inputs(loader, (struct unit_range[2]){{units, width}, {channels, 1}}, out, bias, full);
}

struct linear load_linear_chunk(struct loader *loader, int64_t in, int chunk, int chunks, int64_t units, int64_t width, bool bias,
                                const char *name, ...) {
    FULL_NAME(name);
    if (loader_records(loader) && chunk > 0) { /* the matrix is recorded with its first chunk */
        struct span mine = load_channels(loader, units, width);
        struct linear layer = {.weight = loader_keep(loader, tensor_of(NULL, loader->dtype, SHAPE(mine.count, in)))};
        if (bias) layer.bias = loader_keep(loader, tensor_of(NULL, DTYPE_F32, SHAPE(mine.count)));
        return layer;
    }
    return slice_outputs(loader, in, chunk, chunks, units, width, bias, full);
}

struct norm load_norm_slice(struct loader *loader, enum norm_kind kind, int64_t units, int64_t width, float eps, bool bias,
                            const char *name, ...) {
    FULL_NAME(name);
    struct span mine = load_channels(loader, units, width);
    struct norm layer = {.kind = kind, .eps = eps};
    layer.weight = load_vector_slice(loader, full, "weight", units * width, mine);
    if (bias) layer.bias = load_vector_slice(loader, full, "bias", units * width, mine);
    return layer;
}
