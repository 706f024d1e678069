/* The table of element types, and tensors' sizes. convert.c converts between the types. */
#include "tensor/tensor.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum dtype_kind { KIND_OTHER, KIND_FLOAT, KIND_SMALL };

static const struct {
    const char *name;
    enum dtype_kind kind;
    int block;    /* numbers */
    size_t bytes; /* of a block */
} dtypes[] = {
    [DTYPE_F32] = {"F32", KIND_FLOAT, 1, 4},
    [DTYPE_F16] = {"F16", KIND_FLOAT, 1, 2},
    [DTYPE_BF16] = {"BF16", KIND_FLOAT, 1, 2},
    [DTYPE_F64] = {"F64", KIND_OTHER, 1, 8},
    [DTYPE_I8] = {"I8", KIND_OTHER, 1, 1},
    [DTYPE_U8] = {"U8", KIND_OTHER, 1, 1},
    [DTYPE_I16] = {"I16", KIND_OTHER, 1, 2},
    [DTYPE_I32] = {"I32", KIND_OTHER, 1, 4},
    [DTYPE_I64] = {"I64", KIND_OTHER, 1, 8},
    [DTYPE_BOOL] = {"BOOL", KIND_OTHER, 1, 1},
    [DTYPE_F8_E4M3] = {"F8_E4M3", KIND_SMALL, 1, 1},
    [DTYPE_F8_E5M2] = {"F8_E5M2", KIND_SMALL, 1, 1},
    [DTYPE_Q8_0] = {"Q8_0", KIND_SMALL, 32, 2 + 32},
    [DTYPE_Q4_0] = {"Q4_0", KIND_SMALL, 32, 2 + 16},
    [DTYPE_Q4_1] = {"Q4_1", KIND_SMALL, 32, 4 + 16},
    [DTYPE_Q5_0] = {"Q5_0", KIND_SMALL, 32, 2 + 4 + 16},
    [DTYPE_Q5_1] = {"Q5_1", KIND_SMALL, 32, 4 + 4 + 16},
    [DTYPE_Q2_K] = {"Q2_K", KIND_SMALL, 256, 16 + 64 + 4},
    [DTYPE_Q3_K] = {"Q3_K", KIND_SMALL, 256, 32 + 64 + 12 + 2},
    [DTYPE_Q4_K] = {"Q4_K", KIND_SMALL, 256, 4 + 12 + 128},
    [DTYPE_Q5_K] = {"Q5_K", KIND_SMALL, 256, 4 + 12 + 32 + 128},
    [DTYPE_Q6_K] = {"Q6_K", KIND_SMALL, 256, 128 + 64 + 16 + 2},
    [DTYPE_I8_SCALED] = {"I8_SCALED", KIND_SMALL, 64, 4 + 64},
    [DTYPE_F8_E4M3_SCALED] = {"F8_E4M3_SCALED", KIND_SMALL, 64, 4 + 64},
    [DTYPE_F8_E5M2_SCALED] = {"F8_E5M2_SCALED", KIND_SMALL, 64, 4 + 64},
    [DTYPE_NF4] = {"NF4", KIND_SMALL, 64, 4 + 32},
    [DTYPE_UNKNOWN] = {"unknown", KIND_OTHER, 1, 1}, /* bytes */
};
_Static_assert(sizeof dtypes / sizeof dtypes[0] == DTYPE_COUNT, "every dtype has a name and a size");

int64_t dtype_block(enum dtype dtype) {
    assert(dtype < DTYPE_COUNT);
    return dtypes[dtype].block;
}

size_t dtype_size(enum dtype dtype) {
    assert(dtype < DTYPE_COUNT && dtypes[dtype].block == 1);
    return dtypes[dtype].bytes;
}

size_t dtype_bytes(enum dtype dtype, int64_t count) {
    assert(dtype < DTYPE_COUNT && count % dtypes[dtype].block == 0);
    return (size_t)(count / dtypes[dtype].block) * dtypes[dtype].bytes;
}

size_t dtype_alignment(enum dtype dtype) {
    assert(dtype < DTYPE_COUNT);
    return dtypes[dtype].block == 1 ? dtypes[dtype].bytes : 1;
}

bool dtype_is_float(enum dtype dtype) {
    assert(dtype < DTYPE_COUNT);
    return dtypes[dtype].kind == KIND_FLOAT;
}

bool dtype_is_small(enum dtype dtype) {
    assert(dtype < DTYPE_COUNT);
    return dtypes[dtype].kind == KIND_SMALL;
}

bool dtype_is_weight(enum dtype dtype) {
    return dtype_is_float(dtype) || dtype_is_small(dtype);
}

tessera_status dtype_of_activations(tessera_dtype asked, enum dtype *out, tessera_error *error) {
    switch (asked) {
    case TESSERA_F32:
        *out = DTYPE_F32;
        return TESSERA_OK;
    case TESSERA_BF16:
        *out = DTYPE_BF16;
        return TESSERA_OK;
    }
    return error_set(error, TESSERA_ERROR_ARGUMENT, "dtype: %d is neither TESSERA_BF16 nor TESSERA_F32", (int)asked);
}

const char *dtype_name(enum dtype dtype) {
    assert(dtype < DTYPE_COUNT);
    return dtypes[dtype].name;
}

bool dtype_from_name(const char *name, enum dtype *out) {
    for (int i = 0; i < DTYPE_UNKNOWN; i++) {
        if (strcmp(name, dtypes[i].name) != 0) continue;
        *out = (enum dtype)i;
        return true;
    }
    return false;
}

static int64_t shape_count(int ndim, const int64_t *shape) {
    int64_t count = 1;
    for (int i = 0; i < ndim; i++) count *= shape[i];
    return count;
}

int64_t tensor_count(const struct tensor *t) {
    return shape_count(t->ndim, t->shape);
}

size_t tensor_bytes(const struct tensor *t) {
    return dtype_bytes(t->dtype, tensor_count(t));
}

struct tensor tensor_of(void *data, enum dtype dtype, int ndim, const int64_t *shape) {
    assert(ndim >= 0 && ndim <= TENSOR_MAX_DIMS);
    struct tensor t = {.data = data, .dtype = dtype, .device = {DEVICE_CPU, 0}, .ndim = ndim};
    for (int i = 0; i < ndim; i++) t.shape[i] = shape[i];
    return t;
}

struct tensor tensor_reshape(struct tensor t, int ndim, const int64_t *shape) {
    assert(ndim >= 0 && ndim <= TENSOR_MAX_DIMS);
    assert(shape_count(ndim, shape) == tensor_count(&t));
    struct tensor reshaped = tensor_of(t.data, t.dtype, ndim, shape);
    reshaped.device = t.device;
    return reshaped;
}

const char *tensor_shape_text(int ndim, const int64_t *shape, char *buffer, size_t capacity) {
    size_t length = 0;
    if (capacity > 0) buffer[0] = 0;
    for (int i = 0; i < ndim && length < capacity; i++)
        length += (size_t)snprintf(buffer + length, capacity - length, "%s%lld", i == 0 ? "[" : ", ", (long long)shape[i]);
    if (length < capacity) snprintf(buffer + length, capacity - length, ndim == 0 ? "[]" : "]");
    return buffer;
}
