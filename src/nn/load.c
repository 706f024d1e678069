/* Loading: from names in a file to layers, every shape checked.
 *
 * A tensor is lent from the map when its type (and its alignment, which the format does not promise) is what the layer wants;
 * otherwise it is converted once into the model's arena. Of a weight that is cut over ranks only this rank's piece is read, changed by the
 * hook and kept. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "backend/memory.h"
#include "nn/load.h"

enum { NAME_CAPACITY = 512, ARENA_SLACK = 256, MAX_DEGREES_NAMED = 16 };

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

/* What messages call the model. */
static const char *where(const struct loader *loader) {
    return loader->weights != NULL ? weights_folder(loader->weights) : "model";
}

static bool records(const struct loader *loader) {
    return loader->hooks != NULL && loader->hooks->record != NULL;
}

/* Do layers get data? */
static bool reads(const struct loader *loader) {
    return loader->mode == LOAD_READ && !records(loader);
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

/* A tensor becomes at most F32; a change of it or of its order takes two F32 copies beside; the arena rounds up. */
static void plan_room(struct loader *loader, const struct tensor *t) {
    size_t wide = (size_t)tensor_count(t) * sizeof(float) + ARENA_SLACK, beside = 2 * wide + tensor_bytes(t);
    loader->room += wide;
    if (beside > loader->largest) loader->largest = beside;
}

size_t load_arena_bytes(const struct loader *loader) {
    return loader->room + loader->largest + ARENA_SLACK;
}

static tessera_status check_type(struct loader *loader, const char *name, const struct tensor *t) {
    if (dtype_is_weight(t->dtype)) return TESSERA_OK;
    return error_set(&loader->error, TESSERA_ERROR_UNSUPPORTED,
                     "%s: tensor \"%s\" is stored as %s; weights can be F32, F16, BF16, F8_E4M3, F8_E5M2, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 or "
                     "Q2_K to Q6_K",
                     where(loader), name, weights_type_name(loader->weights, name));
}

/* The stored tensor, its shape and type checked; empty on failure, and without data where layers get none. */
static struct tensor stored(struct loader *loader, const char *name, int ndim, const int64_t *shape) {
    struct tensor t = {0}, empty = {0};
    if (load_failed(loader)) return empty;
    if (records(loader)) {
        loader->hooks->record(loader->hooks->user, name, ndim, shape);
        return tensor_of(NULL, loader->dtype, ndim, shape);
    }
    if (weights_get(loader->weights, name, &t, &loader->error) != TESSERA_OK) return empty;
    if (check_type(loader, name, &t) != TESSERA_OK) return empty;
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
    plan_room(loader, &t);
    if (loader->mode == LOAD_FORGET) weights_forget(loader->weights, &t);
    if (!reads(loader)) t.data = NULL;
    return t;
}

static bool is_aligned(const struct tensor *t) {
    return (uintptr_t)t->data % dtype_alignment(t->dtype) == 0;
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
static bool is_hooked(const struct loader *loader, const char *name) {
    return loader->hooks != NULL && loader->hooks->changes != NULL && loader->hooks->changes(loader->hooks->user, name);
}

/* Float8 files may keep a number by which a whole weight is to be multiplied: "X.scale_weight" of "X.weight". Is there one? Its name is then
 * in `out`. */
static bool has_scale(const struct loader *loader, const char *name, char out[NAME_CAPACITY + 32]) {
    size_t stem = strlen(name) - (strlen(name) < strlen("weight") ? 0 : strlen("weight"));
    if (loader->weights == NULL || records(loader) || strcmp(name + stem, "weight") != 0) return false;
    snprintf(out, NAME_CAPACITY + 32, "%.*sscale_weight", (int)stem, name);
    return weights_has(loader->weights, out);
}

/* Multiplies `part`, F32, by the weight's scale, if it has one. */
static void apply_scale(struct loader *loader, const char *name, const struct tensor *part) {
    char scale_name[NAME_CAPACITY + 32];
    struct tensor stored;
    if (!has_scale(loader, name, scale_name) || load_failed(loader)) return;
    if (weights_get(loader->weights, scale_name, &stored, &loader->error) != TESSERA_OK) return;
    if (tensor_count(&stored) != 1 || !dtype_is_weight(stored.dtype) || dtype_block(stored.dtype) != 1) {
        error_set(&loader->error, TESSERA_ERROR_UNSUPPORTED, "%s: tensor \"%s\" must be one number, the scale of the whole weight", where(loader),
                  scale_name);
        return;
    }
    float scale;
    unsigned char bytes[sizeof scale];
    memcpy(bytes, stored.data, dtype_bytes(stored.dtype, 1)); /* it may be misaligned */
    dtype_convert(&scale, DTYPE_F32, bytes, stored.dtype, 1);
    float *values = part->data;
    for (int64_t i = 0, count = tensor_count(part); i < count; i++) values[i] *= scale;
}

/* Are the weight's values other ones than the file's? */
static bool is_changed(const struct loader *loader, const char *name) {
    char scale_name[NAME_CAPACITY + 32];
    return is_hooked(loader, name) || has_scale(loader, name, scale_name);
}

/* The type of a matrix: the computing type, or a small type as it is stored. What a hook changes has the computing type. */
static enum dtype matrix_dtype(const struct loader *loader, const char *name, const struct tensor *t) {
    return dtype_is_small(t->dtype) && !is_changed(loader, name) ? t->dtype : loader->dtype;
}

/* ---- pieces ---- */

static int64_t inputs_of(const struct tensor *t) {
    return t->ndim > 1 ? t->shape[1] : 1;
}

/* Elements that one of dimension 1 stands for: the taps of a kernel. */
static int64_t taps_of(const struct tensor *t) {
    int64_t taps = 1;
    for (int i = 2; i < t->ndim; i++) taps *= t->shape[i];
    return taps;
}

static struct load_piece whole_of(const struct tensor *t) {
    return (struct load_piece){t->shape, {0, t->shape[0]}, {0, inputs_of(t)}};
}

/* What becomes of `t`: no data yet. */
static struct tensor cut_to(struct tensor t, struct load_piece piece, enum dtype dtype) {
    t.data = NULL;
    t.dtype = dtype;
    t.shape[0] = piece.rows.count;
    if (t.ndim > 1) t.shape[1] = piece.inputs.count;
    return t;
}

/* Some rows of `t`: a view. */
static struct tensor rows_of(struct tensor t, struct span rows) {
    t.data = (char *)t.data + dtype_bytes(t.dtype, rows.first * inputs_of(&t) * taps_of(&t));
    t.shape[0] = rows.count;
    return t;
}

/* `count` numbers from number `first` of `row`, as `dtype`; `scratch`, where the types differ and blocks do not begin and end there, has room
 * for all `all` numbers of the row. */
static void copy_numbers(void *to, enum dtype dtype, const void *row, enum dtype from, int64_t first, int64_t count, int64_t all,
                         float *scratch) {
    if (scratch != NULL) {
        dtype_convert(scratch, DTYPE_F32, row, from, (size_t)all);
        dtype_convert(to, dtype, scratch + first, DTYPE_F32, (size_t)count);
        return;
    }
    const char *numbers = (const char *)row + dtype_bytes(from, first);
    if (dtype == from)
        memcpy(to, numbers, dtype_bytes(dtype, count));
    else
        dtype_convert(to, dtype, numbers, from, (size_t)count);
}

/* Copies the piece as `dtype` to rows that are `stride` numbers apart, at once where both sides lie without gaps. Bytes that are
 * misaligned pass through a copy, pieces of rows that cut blocks through F32. */
static void copy_piece(struct loader *loader, struct tensor t, struct load_piece piece, enum dtype dtype, void *to, int64_t stride) {
    int64_t step = inputs_of(&t) * taps_of(&t), first = piece.inputs.first * taps_of(&t), width = piece.inputs.count * taps_of(&t);
    int64_t rows = piece.rows.count, block = dtype_block(t.dtype);
    if (width == step && width == stride) step = stride = width *= rows, rows = 1;
    size_t mark = arena_mark(loader->arena), row_bytes = dtype_bytes(t.dtype, step);
    const char *from = rows_of(t, piece.rows).data;
    void *row = is_aligned(&t) ? NULL : take(loader, row_bytes);
    float *scratch = first % block != 0 || width % block != 0 ? take(loader, (size_t)step * sizeof(float)) : NULL;
    if (load_failed(loader)) return;
    for (int64_t r = 0; r < rows; r++, from += row_bytes) {
        const void *numbers = row != NULL ? memcpy(row, from, row_bytes) : from;
        copy_numbers((char *)to + dtype_bytes(dtype, r * stride), dtype, numbers, t.dtype, first, width, step, scratch);
    }
    arena_release(loader->arena, mark);
    weights_forget(loader->weights, &t); /* what was copied need not stay in memory twice */
}

/* The piece of `t` in the arena as `dtype`, rows `stride` elements apart, as its scale and the hook change it: what is changed is a copy in F32 of the
 * piece alone, unless the change depends on the whole weight. */
static void put_piece(struct loader *loader, const char *name, struct tensor t, struct load_piece piece, enum dtype dtype, void *to,
                      int64_t stride) {
    if (load_failed(loader)) return;
    if (!is_changed(loader, name)) {
        copy_piece(loader, t, piece, dtype, to, stride);
        return;
    }
    bool hooked = is_hooked(loader, name);
    bool whole = hooked && loader->hooks->needs_whole != NULL && loader->hooks->needs_whole(loader->hooks->user, name);
    struct load_piece given = whole ? whole_of(&t) : piece;
    struct tensor part = cut_to(t, given, DTYPE_F32);
    size_t mark = arena_mark(loader->arena);
    int64_t width = given.inputs.count * taps_of(&t);
    bool in_place = dtype == DTYPE_F32 && stride == width && !whole;
    part.data = in_place ? to : take(loader, tensor_bytes(&part));
    if (load_failed(loader)) return;
    copy_piece(loader, t, given, DTYPE_F32, part.data, width);
    apply_scale(loader, name, &part);
    if (load_failed(loader)) return;
    if (hooked && loader->hooks->change(loader->hooks->user, name, given, &part, &loader->error) != TESSERA_OK) return;
    if (!in_place) copy_piece(loader, part, whole ? piece : whole_of(&part), dtype, to, stride);
    arena_release(loader->arena, mark);
}

/* The piece of `t` as `dtype`: lent where it lies in the file as it is wanted, otherwise in the arena. */
static struct tensor piece_of(struct loader *loader, const char *name, struct tensor t, struct load_piece piece, enum dtype dtype) {
    if (t.data == NULL) return t.ndim > 0 ? cut_to(t, piece, dtype) : t;
    bool rows_as_stored = t.dtype == dtype && piece.inputs.count == inputs_of(&t);
    if (rows_as_stored && !is_changed(loader, name)) return aligned(loader, rows_of(t, piece.rows));
    struct tensor out = cut_to(t, piece, dtype);
    out.data = take(loader, tensor_bytes(&out));
    put_piece(loader, name, t, piece, dtype, out.data, piece.inputs.count * taps_of(&t));
    return load_failed(loader) ? (struct tensor){0} : out;
}

/* All of `t` as `dtype`. */
static struct tensor converted(struct loader *loader, const char *name, struct tensor t, enum dtype dtype) {
    return t.ndim == 0 ? t : piece_of(loader, name, t, whole_of(&t), dtype);
}

struct tensor load_place(struct loader *loader, struct tensor host) {
    if (loader->memory == NULL || load_failed(loader) || host.data == NULL) return host;
    struct tensor t = host;
    t.device = loader->backend->device;
    t.data = arena_alloc(loader->memory, tensor_bytes(&t));
    if (t.data == NULL)
        error_set(&loader->error, TESSERA_ERROR_MEMORY, "%s: no memory for %zu bytes of weights on their device", where(loader),
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
    return converted(loader, name, stored(loader, name, ndim, shape), dtype);
}

static struct tensor parameter(struct loader *loader, enum dtype dtype, const char *base, const char *part, int ndim,
                               const int64_t *shape) {
    return counted(loader, whole_parameter(loader, dtype, base, part, ndim, shape));
}

struct linear load_linear(struct loader *loader, int64_t in, int64_t out, bool bias, const char *name, ...) {
    FULL_NAME(name);
    char part[NAME_CAPACITY + 16];
    snprintf(part, sizeof part, "%s.weight", full);
    struct tensor whole = stored(loader, part, SHAPE(out, in));
    struct linear layer = {.weight = counted(loader, converted(loader, part, whole, matrix_dtype(loader, part, &whole)))};
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

bool load_share_has(const struct load_share *share, int index) {
    const struct span *mine = &share->blocks;
    return mine->count == 0 || (index >= mine->first && index < mine->first + mine->count);
}

bool load_keeps_first(const struct loader *loader) {
    return load_share_has(&loader->share, 0);
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
              where(loader), loader->share.count, name, (long long)dtype_block(t->dtype), dtype_name(t->dtype), MAX_DEGREES_NAMED, degrees);
}

/* Rows and columns (of two ranges, side by side; the second may be empty) of the matrix `name`, stored as [out, in]. */
static struct tensor share_matrix(struct loader *loader, const char *name, int64_t out, int64_t in, struct span rows,
                                  const struct span columns[2], const struct unit_range ranges[2]) {
    int64_t width = columns[0].count + columns[1].count;
    struct tensor whole = stored(loader, name, SHAPE(out, in));
    if (whole.ndim == 0) return whole;
    enum dtype dtype = matrix_dtype(loader, name, &whole);
    if (width != in && !cuts_between_blocks(ranges, loader->share.count, dtype_block(dtype))) {
        refuse_cut(loader, name, &whole, ranges);
        return (struct tensor){0};
    }
    struct load_piece left = {whole.shape, rows, columns[0]}, right = {whole.shape, rows, columns[1]};
    if (whole.data == NULL) return tensor_of(NULL, dtype, SHAPE(rows.count, width));
    if (columns[1].count == 0) return piece_of(loader, name, whole, left, dtype);
    struct tensor part = tensor_of(NULL, dtype, SHAPE(rows.count, width));
    part.data = take(loader, tensor_bytes(&part));
    put_piece(loader, name, whole, left, dtype, part.data, width);
    if (load_failed(loader)) return (struct tensor){0};
    char *middle = (char *)part.data + dtype_bytes(dtype, columns[0].count);
    put_piece(loader, name, whole, right, dtype, middle, width);
    return load_failed(loader) ? (struct tensor){0} : part;
}

/* This rank's share of one of `parts` equal parts of a linear's outputs, each `units` groups of `width`. */
static struct linear share_outputs(struct loader *loader, int64_t in, int part, int parts, int64_t units, int64_t width, bool bias,
                                   const char *name) {
    struct span mine = channels_of(loader, units, width);
    mine.first += part * units * width;
    char weight_name[NAME_CAPACITY + 16];
    snprintf(weight_name, sizeof weight_name, "%s.weight", name);
    struct tensor weight = share_matrix(loader, weight_name, parts * units * width, in, mine, (struct span[2]){{0, in}, {0}}, NULL);
    struct linear layer = {.weight = counted(loader, weight)};
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
    struct linear layer = {.weight = counted(loader, share_matrix(loader, part, out, in, (struct span){0, out}, columns, ranges))};
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
    if (records(loader) && part > 0) { /* the matrix is recorded with its first part */
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
    return dtype_block(t->dtype) > 1 ? loader->dtype : matrix_dtype(loader, name, t);
}

/* Outputs and inputs of the kernels `file`; 1x1 kernels lie in the file in the order that is wanted. */
static struct tensor reordered(struct loader *loader, const char *name, struct tensor file, struct span outputs, struct span inputs) {
    struct load_piece piece = {file.shape, outputs, inputs};
    enum dtype dtype = kernel_dtype(loader, name, &file);
    struct tensor weight = tensor_of(NULL, dtype, SHAPE(outputs.count, file.shape[2], file.shape[3], inputs.count));
    bool in_order = file.shape[2] * file.shape[3] == 1;
    if (!in_order) weight.data = take(loader, tensor_bytes(&weight));
    size_t mark = arena_mark(loader->arena);
    struct tensor part = piece_of(loader, name, file, piece, dtype);
    if (load_failed(loader)) return (struct tensor){0};
    if (in_order) {
        weight.data = part.data;
        return weight;
    }
    reorder_kernel(weight.data, part.data, part.shape, dtype_size(weight.dtype));
    arena_release(loader->arena, mark);
    return weight;
}

/* The weights of the convolution `name`, [out, in, kernel, kernel] in the file, or `flat`: [out, in * kernel * kernel]. */
static struct conv share_conv(struct loader *loader, const char *name, int64_t out, int64_t in, int kernel, bool flat, struct span outputs,
                              struct span inputs) {
    struct conv layer = {.first_input = inputs.first};
    char weight_name[NAME_CAPACITY + 16];
    snprintf(weight_name, sizeof weight_name, "%s.weight", name);
    struct tensor file =
        flat ? stored(loader, weight_name, SHAPE(out, in * kernel * kernel)) : stored(loader, weight_name, SHAPE(out, in, kernel, kernel));
    if (file.data != NULL) {
        file = tensor_reshape(file, SHAPE(out, in, kernel, kernel));
        layer.weight = counted(loader, reordered(loader, weight_name, file, outputs, inputs));
    } else if (file.ndim > 0) {
        enum dtype dtype = kernel_dtype(loader, weight_name, &file);
        layer.weight = counted(loader, tensor_of(NULL, dtype, SHAPE(outputs.count, kernel, kernel, inputs.count)));
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
    return memory != NULL ? memset(memory, 0, bytes) : NULL;
}

struct tensor load_made(struct loader *loader, enum dtype dtype, int ndim, const int64_t *shape) {
    struct tensor t = tensor_of(NULL, dtype, ndim, shape);
    if (load_failed(loader)) return (struct tensor){0};
    loader->room += tensor_bytes(&t) + ARENA_SLACK;
    if (reads(loader)) t.data = take(loader, tensor_bytes(&t));
    return load_failed(loader) ? (struct tensor){0} : t;
}
