/* Tensors: element types, shapes, and the device that the elements lie on. Included by tessera_model.h.
 */
#ifndef TESSERA_MODEL_TENSORS_H
#define TESSERA_MODEL_TENSORS_H

#include "tessera_model/errors.h"

/* Activations are F32 or BF16. Weights may also be F16 or one of the small types: float8, or ggml's
 * block formats (a block of 32 or, for the K types, 256 numbers shares scales). UNKNOWN is raw
 * bytes of a file, of a type that the engine does not know. */
enum dtype {
    DTYPE_F32,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_F64,
    DTYPE_I8,
    DTYPE_U8,
    DTYPE_I16,
    DTYPE_I32,
    DTYPE_I64,
    DTYPE_BOOL,
    DTYPE_F8_E4M3,
    DTYPE_F8_E5M2,
    DTYPE_Q8_0,
    DTYPE_Q4_0,
    DTYPE_Q4_1,
    DTYPE_Q5_0,
    DTYPE_Q5_1,
    DTYPE_Q2_K,
    DTYPE_Q3_K,
    DTYPE_Q4_K,
    DTYPE_Q5_K,
    DTYPE_Q6_K,
    DTYPE_I8_SCALED, /* weights whose scales lie apart in files, as blocks: tensor/dequantize.h */
    DTYPE_F8_E4M3_SCALED,
    DTYPE_F8_E5M2_SCALED,
    DTYPE_NF4,
    DTYPE_UNKNOWN,
    DTYPE_COUNT
};

enum device_kind { DEVICE_CPU, DEVICE_CUDA, DEVICE_FENCED /* of the tests: memory that the host cannot read */ };
struct device {
    enum device_kind kind;
    int index;
};

#define TENSOR_MAX_DIMS 5

/* A pointer, an element type, a shape, and the device it lies on; it owns nothing. Elements are
 * contiguous, last dimension fastest. Empty: data is NULL. */
struct tensor {
    void *data;
    enum dtype dtype;
    struct device device;
    int ndim;
    int64_t shape[TENSOR_MAX_DIMS];
};

int64_t tensor_count(const struct tensor *t); /* elements */
size_t tensor_bytes(const struct tensor *t);
/* A view of `data` (host memory) with the given shape. */
struct tensor tensor_of(void *data, enum dtype dtype, int ndim, const int64_t *shape);

/* SHAPE(2, 16, 64): the two arguments ndim and shape. */
#define SHAPE(...)                                                                                                                         \
    ((int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t))), (const int64_t[]) {                                                       \
        __VA_ARGS__                                                                                                                        \
    }

/* Positions first .. first + count. */
struct span {
    int64_t first, count;
};

#endif
