/* The table of element types, tensors' sizes, and conversion between floating-point element types (dequantize.c reads the small ones,
 * quantize.c writes them).
 *
 * Conversions are written without branches on the data, so that the compiler can turn them into vector code; they do not
 * depend on subnormal float32 arithmetic, which some libraries switch off. bfloat16 is the upper half of a float32; float16 is
 * IEEE 754 binary16. Rounding is to nearest, ties to even; a NaN stays a (quiet) NaN. */
#include "tensor/tensor.h"

#include "base/bf16.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "tensor/dequantize.h"
#include "tensor/quantize.h"

enum { PIECE = 1024 }; /* numbers that pass through float32 at a time: a multiple of every block */

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

bool dtype_is_written(enum dtype dtype) {
    return dtype_is_float(dtype) || quantize_limit(dtype) > 0;
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

static inline uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* float16's exponent bias is 15, float32's 127; 112 lies between. A subnormal float16 counts steps of 2^-24. */
static inline float widen_f16(uint16_t x) {
    uint32_t magnitude = x & 0x7fffu;
    uint32_t normal = (magnitude << 13) + (112u << 23);
    uint32_t special = (magnitude << 13) | 0x7f800000u | (magnitude > 0x7c00u ? 0x400000u : 0);
    uint32_t subnormal = bits_of((float)(int32_t)magnitude * 0x1p-24f);
    uint32_t bits = magnitude >= 0x7c00u ? special : magnitude < 0x400u ? subnormal : normal;
    return float_of(bits | (uint32_t)(x & 0x8000u) << 16);
}

/* Below 2^-14 the sum with 0.5, whose last bit is worth 2^-24, rounds to float16's subnormal steps. */
static inline uint16_t narrow_f16(float x) {
    uint32_t bits = bits_of(x), magnitude = bits & 0x7fffffffu;
    uint32_t normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1)) >> 13;
    uint32_t subnormal = bits_of(float_of(magnitude < 0x38800000u ? magnitude : 0) + 0.5f) - 0x3f000000u;
    uint32_t nan = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
    uint32_t special = magnitude > 0x7f800000u ? nan : 0x7c00u;
    uint32_t half = magnitude >= 0x47800000u ? special : magnitude < 0x38800000u ? subnormal : normal;
    return (uint16_t)(half | (bits >> 16 & 0x8000u));
}

float bf16_to_f32(uint16_t x) {
    return bf16_widen(x);
}

uint16_t f32_to_bf16(float x) {
    return bf16_round(x);
}

float f16_to_f32(uint16_t x) {
    return widen_f16(x);
}

uint16_t f32_to_f16(float x) {
    return narrow_f16(x);
}

static void widen(float *restrict to, const void *restrict from, enum dtype from_dtype, size_t count) {
    const uint16_t *restrict half = from;
    switch (from_dtype) {
    case DTYPE_BF16:
        for (size_t i = 0; i < count; i++) to[i] = bf16_widen(half[i]);
        break;
    case DTYPE_F16:
        for (size_t i = 0; i < count; i++) to[i] = widen_f16(half[i]);
        break;
    default:
        dequantize(to, from, from_dtype, count);
    }
}

static void narrow(void *restrict to, enum dtype to_dtype, const float *restrict from, size_t count) {
    uint16_t *restrict half = to;
    switch (to_dtype) {
    case DTYPE_BF16:
        for (size_t i = 0; i < count; i++) half[i] = bf16_round(from[i]);
        break;
    case DTYPE_F16:
        for (size_t i = 0; i < count; i++) half[i] = narrow_f16(from[i]);
        break;
    default:
        quantize(to, to_dtype, from, count);
    }
}

void dtype_convert(void *to, enum dtype to_dtype, const void *from, enum dtype from_dtype, size_t count) {
    assert(dtype_is_written(to_dtype) && dtype_is_weight(from_dtype));
    if (count == 0) return;
    if (to_dtype == from_dtype) {
        memcpy(to, from, dtype_bytes(to_dtype, (int64_t)count));
    } else if (to_dtype == DTYPE_F32) {
        widen(to, from, from_dtype, count);
    } else if (from_dtype == DTYPE_F32) {
        narrow(to, to_dtype, from, count);
    } else {
        char *target = to;
        const char *source = from;
        float piece[PIECE];
        for (size_t done = 0; done < count;) {
            size_t length = count - done < PIECE ? count - done : PIECE;
            widen(piece, source + dtype_bytes(from_dtype, (int64_t)done), from_dtype, length);
            narrow(target + dtype_bytes(to_dtype, (int64_t)done), to_dtype, piece, length);
            done += length;
        }
    }
}
