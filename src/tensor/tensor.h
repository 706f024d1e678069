/* A tensor: a pointer, an element type, a shape, and the device it lies on. It owns nothing.
 *
 * Elements are contiguous, last dimension fastest. Pictures and feature maps are [batch, rows, columns, channels], tokens
 * [batch, tokens, channels]: the same memory, so a cut by rows is a contiguous piece of each picture. */
#ifndef TESSERA_TENSOR_TENSOR_H
#define TESSERA_TENSOR_TENSOR_H

#include "base/error.h"

enum dtype { DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_F64, DTYPE_I8, DTYPE_U8, DTYPE_I16, DTYPE_I32, DTYPE_I64, DTYPE_BOOL, DTYPE_COUNT };

enum device_kind { DEVICE_CPU, DEVICE_CUDA };
struct device {
    enum device_kind kind;
    int index;
};

#define TENSOR_MAX_DIMS 5

struct tensor {
    void *data;
    enum dtype dtype;
    struct device device;
    int ndim;
    int64_t shape[TENSOR_MAX_DIMS];
};

size_t dtype_size(enum dtype dtype);
const char *dtype_name(enum dtype dtype); /* safetensors' names: "F32", "BF16", ... */
bool dtype_from_name(const char *name, enum dtype *out);

int64_t tensor_count(const struct tensor *t); /* elements */
size_t tensor_bytes(const struct tensor *t);
/* A view of `data` (host memory) with the given shape. */
struct tensor tensor_of(void *data, enum dtype dtype, int ndim, const int64_t *shape);
/* The same memory under another shape of the same count. */
struct tensor tensor_reshape(struct tensor t, int ndim, const int64_t *shape);
/* "[2, 16, 64]"; returns `buffer`. */
const char *tensor_shape_text(int ndim, const int64_t *shape, char *buffer, size_t capacity);

/* Element conversion between F32, F16 and BF16 on the host, rounding to nearest even. */
void dtype_convert(void *to, enum dtype to_dtype, const void *from, enum dtype from_dtype, size_t count);
float bf16_to_f32(uint16_t x);
uint16_t f32_to_bf16(float x);
float f16_to_f32(uint16_t x);
uint16_t f32_to_f16(float x);

#define SHAPE(...)                                                                                                                         \
    ((int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t))), (const int64_t[]) {                                                       \
        __VA_ARGS__                                                                                                                        \
    }

#endif
