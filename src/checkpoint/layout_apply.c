/* Bands are views, swapped halves and transposed matrices are made when they are read. All of it
 * works on elements of any type, but that a matrix of a block type becomes float32 when it is
 * transposed: its blocks lie along its rows.
 *
 * Swapping halves and transposing undo themselves, so one function serves both directions. */
#include "checkpoint/layout_apply.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static tessera_status cannot(const char *name, const struct tensor *tensor, const char *what, tessera_error *error) {
    char shape[TENSOR_MAX_DIMS * 24];
    return error_set(error, TESSERA_ERROR_FORMAT, "tensor \"%s\": shape %s cannot be %s", name,
                     tensor_shape_text(tensor->ndim, tensor->shape, shape, sizeof shape), what);
}

static void copy_swapped(const struct tensor *from, void *out) {
    uint8_t *to = out;
    size_t half = tensor_bytes(from) / 2;
    memcpy(to, (const uint8_t *)from->data + half, half);
    memcpy(to + half, from->data, half);
}

enum { MOST_BLOCK = 256, MOST_BLOCK_BYTES = MOST_BLOCK * (int)sizeof(float) };

static void widen_transposed(const struct tensor *from, float *to) {
    int64_t rows = from->shape[0], columns = from->shape[1], block = dtype_block(from->dtype);
    _Alignas(16) uint8_t narrow[MOST_BLOCK_BYTES]; /* `from` may be misaligned */
    float wide[MOST_BLOCK];
    for (int64_t at = 0; at < rows * columns; at += block) {
        int64_t r = at / columns, c = at % columns;
        memcpy(narrow, (const uint8_t *)from->data + dtype_bytes(from->dtype, at), dtype_bytes(from->dtype, block));
        dtype_convert(wide, DTYPE_F32, narrow, from->dtype, (size_t)block);
        for (int64_t i = 0; i < block; i++) to[(c + i) * rows + r] = wide[i];
    }
}

static void copy_transposed(const struct tensor *from, void *out) {
    if (dtype_block(from->dtype) > 1) {
        widen_transposed(from, out);
        return;
    }
    uint8_t *to = out;
    size_t size = dtype_size(from->dtype);
    int64_t rows = from->shape[0], columns = from->shape[1];
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++)
            memcpy(to + (size_t)(c * rows + r) * size, (const uint8_t *)from->data + (size_t)(r * columns + c) * size, size);
}

/* How `from` is rearranged, its shape checked; no recipe where it is not. */
static struct weights_recipe recipe_of(enum layout_how how, const struct tensor *from) {
    void (*write)(const struct tensor *, void *) = how == LAYOUT_TRANSPOSE     ? copy_transposed
                                                   : how == LAYOUT_SWAP_HALVES ? copy_swapped
                                                                               : NULL;
    return (struct weights_recipe){write, *from};
}

static tessera_status take_band(const struct layout_change *change, const char *name, struct tensor *tensor, tessera_error *error) {
    if (tensor->ndim < 1 || tensor->shape[0] % change->bands != 0) return cannot(name, tensor, "cut into its bands", error);
    if (tensor_count(tensor) / change->bands % dtype_block(tensor->dtype) != 0)
        return cannot(name, tensor, "cut between its blocks", error);
    int64_t rows = tensor->shape[0] / change->bands;
    size_t bytes = tensor_bytes(tensor) / (size_t)change->bands;
    tensor->data = (uint8_t *)tensor->data + bytes * (size_t)change->first;
    tensor->shape[0] = rows * change->span;
    return TESSERA_OK;
}

tessera_status layout_apply(const struct layout_change *change, const char *name, const struct tensor *from, struct tensor *to,
                            struct weights_recipe *recipe, tessera_error *error) {
    *to = *from;
    *recipe = recipe_of(change->how, from);
    if (change->how == LAYOUT_BAND) return take_band(change, name, to, error);
    if (change->how == LAYOUT_LINEAR && from->ndim == 4 && from->shape[2] == 1 && from->shape[3] == 1) to->ndim = 2;
    if (recipe->write == NULL) return TESSERA_OK;

    bool even = from->ndim > 0 && from->shape[0] % 2 == 0 && tensor_count(from) / 2 % dtype_block(from->dtype) == 0;
    if (change->how == LAYOUT_SWAP_HALVES && !even) return cannot(name, from, "halved", error);
    bool whole = from->ndim == 2 && from->shape[1] % dtype_block(from->dtype) == 0;
    if (change->how == LAYOUT_TRANSPOSE && !whole) return cannot(name, from, "transposed", error);
    to->data = NULL;
    if (change->how == LAYOUT_TRANSPOSE) {
        to->shape[0] = from->shape[1];
        to->shape[1] = from->shape[0];
        if (dtype_block(from->dtype) > 1) to->dtype = DTYPE_F32;
    }
    return TESSERA_OK;
}

tessera_status layout_original_shape(const struct layout_change *change, const char *name, const struct tensor *band, struct tensor *whole,
                                     tessera_error *error) {
    *whole = *band;
    whole->data = NULL;
    switch (change->how) {
    case LAYOUT_BAND:
        if (band->ndim < 1 || band->shape[0] % change->span != 0) return cannot(name, band, "a band of a fused tensor", error);
        whole->shape[0] = band->shape[0] / change->span * change->bands;
        break;
    case LAYOUT_SWAP_HALVES:
        if (band->ndim < 1 || band->shape[0] % 2 != 0) return cannot(name, band, "halved", error);
        break;
    case LAYOUT_TRANSPOSE:
        if (band->ndim != 2 || dtype_block(band->dtype) > 1) return cannot(name, band, "transposed", error);
        whole->shape[0] = band->shape[1];
        whole->shape[1] = band->shape[0];
        break;
    case LAYOUT_LINEAR:
        if (band->ndim == 2) {
            whole->ndim = 4;
            whole->shape[2] = whole->shape[3] = 1;
        }
        break;
    case LAYOUT_AS_IS:
        break;
    }
    return TESSERA_OK;
}

tessera_status layout_original_band(const struct layout_change *change, const char *name, const struct tensor *band, struct tensor *out,
                                    void **owned, tessera_error *error) {
    *out = *band;
    *owned = NULL;
    struct weights_recipe recipe = recipe_of(change->how, band);
    if (recipe.write == NULL) return TESSERA_OK;
    *owned = out->data = malloc(tensor_bytes(band) + 1);
    if (*owned == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "tensor \"%s\": no memory to rearrange it", name);
    recipe.write(band, *owned);
    return TESSERA_OK;
}
