/* Reference cases for tests: a folder with case.json, io.safetensors and often model/ (see
 * tests/cases).
 *
 * Tensors are lent from the file; what is converted (ids, masks, layouts) is malloc'ed and the
 * caller frees it. */
#ifndef TESSERA_TESTS_CASE_IO_H
#define TESSERA_TESTS_CASE_IO_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "tensor/safetensors.h"

struct case_io {
    struct json *json;
    struct safetensors *io; /* NULL where the case has no io.safetensors */
    const char *kind;
    double atol, rtol;
};

static inline void case_close(struct case_io *c) {
    if (c->io != NULL) safetensors_close(c->io);
    if (c->json != NULL) json_free(c->json);
    memset(c, 0, sizeof *c);
}

static inline tessera_status case_open(const char *folder, struct case_io *c, tessera_error *error) {
    memset(c, 0, sizeof *c);
    char *json = file_join(folder, "case.json"), *io = file_join(folder, "io.safetensors");
    tessera_status status = json_open(json, 0, &c->json, error);
    if (status == TESSERA_OK) status = json_string(c->json, "kind", "", &c->kind, error);
    if (status == TESSERA_OK) status = json_double(c->json, "tolerance.atol", 0.0, &c->atol, error);
    if (status == TESSERA_OK) status = json_double(c->json, "tolerance.rtol", 0.0, &c->rtol, error);
    if (status == TESSERA_OK && file_exists(io)) status = safetensors_open(io, &c->io, error);
    free(json);
    free(io);
    if (status != TESSERA_OK) case_close(c);
    return status;
}

/* Empty (data == NULL) where the case has no such tensor. */
static inline struct tensor case_tensor(const struct case_io *c, const char *name) {
    const struct safetensors_entry *entry = c->io != NULL ? safetensors_find(c->io, name) : NULL;
    return entry != NULL ? entry->tensor : (struct tensor){0};
}

/* Element i of an F32, I64 or I32 tensor. */
static inline double case_element(const struct tensor *t, int64_t i) {
    if (t->dtype == DTYPE_I64) return (double)((const int64_t *)t->data)[i];
    if (t->dtype == DTYPE_I32) return (double)((const int32_t *)t->data)[i];
    return (double)((const float *)t->data)[i];
}

/* NULL for an empty tensor. */
static inline int32_t *case_ids(const struct tensor *t) {
    int64_t count = t->data != NULL ? tensor_count(t) : 0;
    int32_t *ids = count > 0 ? malloc((size_t)count * sizeof *ids) : NULL;
    for (int64_t i = 0; ids != NULL && i < count; i++) ids[i] = (int32_t)case_element(t, i);
    return ids;
}

static inline float *case_floats(const struct tensor *t) {
    int64_t count = t->data != NULL ? tensor_count(t) : 0;
    float *values = count > 0 ? malloc((size_t)count * sizeof *values) : NULL;
    for (int64_t i = 0; values != NULL && i < count; i++) values[i] = (float)case_element(t, i);
    return values;
}

/* F32 [B, C, H, W] -> F32 [B, H, W, C]; the caller frees .data. */
static inline struct tensor case_channels_last(const struct tensor *t) {
    int64_t batch = t->shape[0], channels = t->shape[1], pixels = t->shape[2] * t->shape[3];
    struct tensor out = tensor_of(malloc(tensor_bytes(t)), DTYPE_F32, SHAPE(batch, t->shape[2], t->shape[3], channels));
    for (int64_t b = 0; b < batch; b++) {
        for (int64_t c = 0; c < channels; c++) {
            for (int64_t i = 0; i < pixels; i++) {
                ((float *)out.data)[(b * pixels + i) * channels + c] = ((const float *)t->data)[(b * channels + c) * pixels + i];
            }
        }
    }
    return out;
}

/* Flux's packed patches F32 [B, h w, C 2 2] (channel, row, column within the patch) -> F32 [B, 2 h,
 * 2 w, C]; `ids` [h w, 3] are the patches' (0, row, column), of which the last tells the grid.
 * Empty if the two do not fit; the caller frees .data. */
static inline struct tensor case_unpacked(const struct tensor *packed, const struct tensor *ids) {
    if (packed->data == NULL || ids->data == NULL || packed->ndim != 3 || ids->ndim != 2) return (struct tensor){0};
    int64_t batch = packed->shape[0], patches = ids->shape[0], channels = packed->shape[2] / 4;
    int64_t h = (int64_t)case_element(ids, 3 * patches - 2) + 1, w = (int64_t)case_element(ids, 3 * patches - 1) + 1;
    if (h * w != patches || packed->shape[1] != patches) return (struct tensor){0};
    struct tensor out = tensor_of(malloc(tensor_bytes(packed)), DTYPE_F32, SHAPE(batch, 2 * h, 2 * w, channels));
    for (int64_t i = 0; i < tensor_count(packed); i++) {
        int64_t patch = i / (4 * channels), c = i / 4 % channels, y = patch / w * 2 + i / 2 % 2, x = patch % w * 2 + i % 2;
        ((float *)out.data)[(y * 2 * w + x) * channels + c] = ((const float *)packed->data)[i];
    }
    return out;
}

struct case_difference {
    double worst;       /* largest |a - b| / (atol + rtol |b|): within the tolerance if <= 1 */
    double relative_l2; /* |a - b| / |b| */
};

/* `got` and `want` F32, of the same shape; another shape or an empty tensor, or a value that is no
 * number, differs infinitely. */
static inline struct case_difference case_compare(const struct case_io *c, const struct tensor *got, const struct tensor *want) {
    struct case_difference d = {INFINITY, INFINITY};
    if (got->data == NULL || want->data == NULL || got->dtype != DTYPE_F32 || got->ndim != want->ndim) return d;
    for (int i = 0; i < got->ndim; i++) {
        if (got->shape[i] != want->shape[i]) return d;
    }
    double worst = 0, squares = 0, reference = 0;
    for (int64_t i = 0; i < tensor_count(got); i++) {
        double a = case_element(got, i), b = case_element(want, i);
        if (!isfinite(a)) return d;
        worst = fmax(worst, fabs(a - b) / (c->atol + c->rtol * fabs(b)));
        squares += (a - b) * (a - b);
        reference += b * b;
    }
    return (struct case_difference){worst, sqrt(squares / fmax(reference, 1e-300))};
}

#endif
