/* From a stored tensor to the numbers that a layer wants.
 *
 * A tensor is lent from the map when its type (and its alignment, which the format does not
 * promise) is what the layer wants; otherwise it is converted once into the loader's arena. Of a
 * weight that is cut over ranks only this rank's piece is read, changed by the hook and kept. */
#include "nn/load_stored.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/scaled_weights.h"

/* A tensor becomes at most F32; a change of it or of its order takes two F32 copies beside, and a
 * recipe its bytes; the arena rounds up. */
static void plan_room(struct loader *loader, const struct tensor *t) {
    size_t wide = (size_t)tensor_count(t) * sizeof(float) + ARENA_SLACK, beside = 2 * wide + tensor_bytes(t);
    if (t->data == NULL) beside += tensor_bytes(t);
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
                     loader_where(loader), name, weights_type_name(loader->weights, name));
}

/* Does the weight `name` have scales in tensors of their own? */
static bool find_scaled(struct loader *loader, const char *name, struct scaled_weight *out) {
    bool found = false;
    if (loader->weights == NULL || loader_records(loader) || load_failed(loader)) return false;
    return scaled_weight_find(loader->weights, name, &found, out, &loader->error) == TESSERA_OK && found;
}

static bool is_scaled(struct loader *loader, const char *name) {
    struct scaled_weight scaled;
    return find_scaled(loader, name, &scaled);
}

/* Notes mapped bytes. */
static void add_span(struct loader *loader, const struct tensor *source) {
    enum { GROWTH = 16 };
    if (source->data == NULL) return;
    if (loader->num_spans % GROWTH == 0) {
        struct load_span *spans = realloc(loader->spans, (size_t)(loader->num_spans + GROWTH) * sizeof *spans);
        if (spans == NULL) {
            error_set(&loader->error, TESSERA_ERROR_MEMORY, "%s: no memory for a list of tensors", loader_where(loader));
            return;
        }
        loader->spans = spans;
    }
    loader->spans[loader->num_spans++] = (struct load_span){source->data, tensor_bytes(source)};
}

/* Notes the mapped bytes that a tensor comes from; `scaled`: where it has scales of its own, or
 * NULL. What says how such scales are laid out is not among them: it is read when they are found.
 */
static void note_spans(struct loader *loader, const char *name, const struct scaled_weight *scaled) {
    if (!loader->notes_spans || loader->mode != LOAD_DESCRIBE || load_failed(loader)) return;
    struct tensor source = weights_source(loader->weights, name);
    add_span(loader, &source);
    if (scaled == NULL) return;
    add_span(loader, &scaled->scales);
    add_span(loader, &scaled->nested_scales);
    add_span(loader, &scaled->nested_values);
}

static int compare_copy(const void *key, const void *element) {
    const struct load_copy *copy = element;
    uintptr_t data = (uintptr_t)key, from = (uintptr_t)copy->from;
    return data < from ? -1 : data - from >= copy->bytes && data != from;
}

/* `data`, of the map, where it lies now. */
static void *moved(const struct loader *loader, void *data) {
    const struct load_copies *copies = loader->copies;
    if (copies == NULL || data == NULL) return data;
    const struct load_copy *copy = bsearch(data, copies->list, (size_t)copies->count, sizeof *copy, compare_copy);
    return copy != NULL ? copies->memory + copy->at + ((const char *)data - (const char *)copy->from) : data;
}

/* Notes whether a layer borrows the bytes of `t`, if they lie in the loader's buffer. */
static void note_lent(const struct loader *loader, const struct tensor *t, bool is_lent) {
    const struct load_copies *copies = loader->copies;
    for (int i = 0; copies != NULL && i < copies->count; i++) {
        struct load_copy *copy = &copies->list[i];
        uintptr_t begin = (uintptr_t)copies->memory + copy->at, data = (uintptr_t)t->data;
        if (data >= begin && data - begin < copy->bytes) copy->is_lent = is_lent;
    }
}

void stored_forget(const struct loader *loader, const struct tensor *t) {
    weights_forget(loader->weights, t);
    note_lent(loader, t, false);
}

struct tensor stored_find(struct loader *loader, const char *name, int ndim, const int64_t *shape) {
    struct tensor t = {0}, empty = {0};
    if (load_failed(loader)) return empty;
    if (loader_records(loader)) {
        loader->hooks->record(loader->hooks->user, name, ndim, shape);
        return tensor_of(NULL, loader->dtype, ndim, shape);
    }
    struct scaled_weight scaled;
    if (weights_get(loader->weights, name, &t, &loader->error) != TESSERA_OK) return empty;
    if (loader->mode == LOAD_FORGET) weights_forget(loader->weights, &t);
    bool has_scales = find_scaled(loader, name, &scaled);
    if (has_scales) t = scaled.tensor;
    if (load_failed(loader)) return empty;
    if (check_type(loader, name, &t) != TESSERA_OK) return empty;
    /* Older files keep the matrices of attention as 1x1 convolutions. */
    if (ndim == 2 && t.ndim == 4 && t.shape[2] == 1 && t.shape[3] == 1) t.ndim = 2;
    bool same = t.ndim == ndim;
    for (int i = 0; same && i < ndim; i++) same = t.shape[i] == shape[i];
    char have[128], want[128];
    if (!same) {
        error_set(&loader->error, TESSERA_ERROR_FORMAT, "%s: tensor \"%s\" has shape %s, but config.json asks for %s", loader_where(loader),
                  name, tensor_shape_text(t.ndim, t.shape, have, sizeof have), tensor_shape_text(ndim, shape, want, sizeof want));
        return empty;
    }
    plan_room(loader, &t);
    note_spans(loader, name, has_scales ? &scaled : NULL);
    t.data = moved(loader, t.data);
    if (!loader_reads(loader)) t.data = NULL;
    return t;
}

static bool is_aligned(const struct tensor *t) {
    return (uintptr_t)t->data % dtype_alignment(t->dtype) == 0;
}

/* `t` itself, or, where a recipe makes it, what that makes in the arena. */
static struct tensor brought(struct loader *loader, const char *name, struct tensor t) {
    if (t.data != NULL || t.ndim == 0) return t;
    t.data = loader_take(loader, tensor_bytes(&t));
    if (t.data == NULL) return (struct tensor){0};
    struct tensor source = weights_source(loader->weights, name);
    source.data = moved(loader, source.data);
    weights_read(loader->weights, name, &source, t.data);
    return t;
}

/* `t` itself where it is aligned, otherwise a copy in the arena. */
static struct tensor aligned(struct loader *loader, struct tensor t) {
    if (t.data == NULL) return t;
    if (is_aligned(&t)) {
        note_lent(loader, &t, true);
        return t;
    }
    void *copy = loader_take(loader, tensor_bytes(&t));
    if (copy == NULL) return (struct tensor){0};
    memcpy(copy, t.data, tensor_bytes(&t));
    weights_forget(loader->weights, &t);
    t.data = copy;
    return t;
}

static bool hook_changes(const struct loader *loader, const char *name) {
    return loader->hooks != NULL && loader->hooks->changes != NULL && loader->hooks->changes(loader->hooks->user, name);
}

bool stored_has_side(const struct loader *loader, const char *name, const struct tensor *t) {
    return t->ndim == 2 && dtype_is_small(t->dtype) && hook_changes(loader, name) && loader->hooks->rank != NULL;
}

/* Does a hook change the weight itself? */
static bool is_hooked(const struct loader *loader, const char *name, const struct tensor *t) {
    return hook_changes(loader, name) && !stored_has_side(loader, name, t);
}

enum dtype stored_matrix_dtype(const struct loader *loader, const char *name, const struct tensor *t) {
    bool narrow = dtype_is_small(t->dtype) || (dtype_is_weight(t->dtype) && dtype_size(t->dtype) <= dtype_size(loader->dtype));
    return narrow && !is_hooked(loader, name, t) ? t->dtype : loader->dtype;
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

/* `count` numbers from number `first` of `row`, as `dtype`; `scratch`, where the types differ and
 * blocks do not begin and end there, has room for all `all` numbers of the row. */
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

/* Is it all of `t`? */
static bool is_whole(const struct tensor *t, struct load_piece piece) {
    return piece.rows.count == t->shape[0] && piece.inputs.count == inputs_of(t);
}

/* Copies the piece as `dtype` to rows that are `stride` numbers apart, at once where both sides lie
 * without gaps. What `scaled` describes (NULL: nothing) or lies misaligned passes through a copy of
 * a row, a piece of a row that cuts blocks through F32; where blocks cross rows, a piece is cut out
 * of the whole in F32. */
static void copy_piece(struct loader *loader, struct tensor t, const struct scaled_weight *scaled, struct load_piece piece, enum dtype dtype,
                       void *to, int64_t stride) {
    int64_t step = inputs_of(&t) * taps_of(&t), first = piece.inputs.first * taps_of(&t), width = piece.inputs.count * taps_of(&t);
    int64_t rows = piece.rows.count, at = piece.rows.first * step, block = dtype_block(t.dtype);
    size_t mark = arena_mark(loader->arena);
    if (step % block != 0 && !(is_whole(&t, piece) && stride == width)) {
        struct tensor wide = cut_to(t, whole_of(&t), DTYPE_F32);
        wide.data = loader_take(loader, tensor_bytes(&wide));
        if (load_failed(loader)) return;
        copy_piece(loader, t, scaled, whole_of(&t), DTYPE_F32, wide.data, step);
        copy_piece(loader, wide, NULL, piece, dtype, to, stride);
        arena_release(loader->arena, mark);
        return;
    }
    if (width == step && width == stride) step = stride = width *= rows, rows = 1;
    void *row = scaled == NULL && is_aligned(&t) ? NULL : loader_take(loader, dtype_bytes(t.dtype, step));
    float *scratch = first % block != 0 || width % block != 0 ? loader_take(loader, (size_t)step * sizeof(float)) : NULL;
    if (load_failed(loader)) return;
    for (int64_t r = 0; r < rows; r++, at += step) {
        const char *numbers = scaled == NULL ? (const char *)t.data + dtype_bytes(t.dtype, at) : row;
        if (scaled != NULL) scaled_weight_read(scaled, at, step, row);
        if (scaled == NULL && row != NULL) numbers = memcpy(row, numbers, dtype_bytes(t.dtype, step));
        copy_numbers((char *)to + dtype_bytes(dtype, r * stride), dtype, numbers, t.dtype, first, width, step, scratch);
    }
    arena_release(loader->arena, mark);
    weights_forget(loader->weights, scaled != NULL ? &scaled->stored : &t); /* what was copied need not stay in memory twice */
}

/* The piece of `t` in the arena as `dtype`, rows `stride` elements apart, as the hook changes it:
 * that gets a copy in F32 of the piece alone, unless the change depends on the whole weight. */
static void put_changed(struct loader *loader, const char *name, struct tensor t, const struct scaled_weight *scaled, struct load_piece piece,
                        enum dtype dtype, void *to, int64_t stride) {
    bool whole = loader->hooks->needs_whole != NULL && loader->hooks->needs_whole(loader->hooks->user, name);
    struct load_piece given = whole ? whole_of(&t) : piece;
    struct tensor cut = cut_to(t, given, DTYPE_F32);
    int64_t width = given.inputs.count * taps_of(&t);
    bool in_place = dtype == DTYPE_F32 && stride == width && !whole;
    cut.data = in_place ? to : loader_take(loader, tensor_bytes(&cut));
    if (load_failed(loader)) return;
    copy_piece(loader, t, scaled, given, DTYPE_F32, cut.data, width);
    if (load_failed(loader)) return;
    if (loader->hooks->change(loader->hooks->user, name, given, &cut, &loader->error) != TESSERA_OK) return;
    if (!in_place) copy_piece(loader, cut, NULL, whole ? piece : whole_of(&cut), dtype, to, stride);
}

/* Brings the numbers of `t`, or, where it has scales of its own, its codes; then *scaled describes
 * it and is returned, else NULL. */
static const struct scaled_weight *bring(struct loader *loader, const char *name, struct tensor *t, struct scaled_weight *scaled) {
    bool found = find_scaled(loader, name, scaled);
    if (load_failed(loader)) return NULL;
    if (found) scaled->stored.data = moved(loader, scaled->stored.data);
    struct tensor *what = found ? &scaled->stored : t;
    *what = brought(loader, name, *what);
    if (!found) return NULL;
    scaled->scales.data = moved(loader, scaled->scales.data);
    scaled->nested_scales.data = moved(loader, scaled->nested_scales.data);
    scaled->nested_values.data = moved(loader, scaled->nested_values.data);
    return scaled;
}

/* The same of any weight. */
void stored_put(struct loader *loader, const char *name, struct tensor t, struct load_piece piece, enum dtype dtype, void *to,
                int64_t stride) {
    size_t mark = arena_mark(loader->arena);
    struct scaled_weight scaled;
    const struct scaled_weight *from = bring(loader, name, &t, &scaled);
    if (load_failed(loader)) return;
    if (is_hooked(loader, name, &t))
        put_changed(loader, name, t, from, piece, dtype, to, stride);
    else
        copy_piece(loader, t, from, piece, dtype, to, stride);
    arena_release(loader->arena, mark);
}

void stored_put_change(struct loader *loader, const char *name, struct tensor t, struct load_piece piece, float *to, int64_t stride) {
    size_t mark = arena_mark(loader->arena);
    float *before = loader_take(loader, (size_t)(piece.rows.count * piece.inputs.count) * sizeof *before);
    struct scaled_weight scaled;
    const struct scaled_weight *from = bring(loader, name, &t, &scaled);
    if (load_failed(loader)) return;
    put_changed(loader, name, t, from, piece, DTYPE_F32, to, stride);
    copy_piece(loader, t, from, piece, DTYPE_F32, before, piece.inputs.count);
    if (load_failed(loader)) return;
    for (int64_t row = 0; row < piece.rows.count; row++)
        for (int64_t i = 0; i < piece.inputs.count; i++) to[row * stride + i] -= before[row * piece.inputs.count + i];
    arena_release(loader->arena, mark);
}

struct tensor stored_piece(struct loader *loader, const char *name, struct tensor t, struct load_piece piece, enum dtype dtype) {
    if (t.ndim == 0) return t;
    bool lent = t.dtype == dtype && piece.inputs.count == inputs_of(&t) && !is_hooked(loader, name, &t) && !is_scaled(loader, name);
    if (!loader_reads(loader)) {
        struct tensor described = cut_to(t, piece, dtype);
        if (!lent) loader->converted += tensor_bytes(&described);
        return described;
    }
    if (lent) {
        t = brought(loader, name, t);
        return load_failed(loader) ? (struct tensor){0} : aligned(loader, rows_of(t, piece.rows));
    }
    struct tensor out = cut_to(t, piece, dtype);
    out.data = loader_take(loader, tensor_bytes(&out));
    stored_put(loader, name, t, piece, dtype, out.data, piece.inputs.count * taps_of(&t));
    return load_failed(loader) ? (struct tensor){0} : out;
}

struct tensor stored_whole(struct loader *loader, const char *name, struct tensor t, enum dtype dtype) {
    return t.ndim == 0 ? t : stored_piece(loader, name, t, whole_of(&t), dtype);
}

struct tensor stored_table(struct loader *loader, const char *name, struct tensor t) {
    bool crossing = t.ndim > 0 && t.shape[t.ndim - 1] % dtype_block(t.dtype) != 0; /* rows are looked up one by one */
    if (crossing) return stored_whole(loader, name, t, loader->dtype);
    if (is_scaled(loader, name)) return stored_whole(loader, name, t, stored_matrix_dtype(loader, name, &t));
    return loader_reads(loader) ? aligned(loader, brought(loader, name, t)) : t;
}

struct tensor stored_parameter(struct loader *loader, enum dtype dtype, const char *base, const char *parameter, int ndim,
                               const int64_t *shape) {
    char name[NAME_CAPACITY + 16];
    snprintf(name, sizeof name, "%s.%s", base, parameter);
    return stored_whole(loader, name, stored_find(loader, name, ndim, shape), dtype);
}

struct tensor stored_keep_parameter(struct loader *loader, enum dtype dtype, const char *base, const char *parameter, int ndim,
                                    const int64_t *shape) {
    return loader_keep(loader, stored_parameter(loader, dtype, base, parameter, ndim, shape));
}
