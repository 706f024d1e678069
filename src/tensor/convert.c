/* Conversion between element types: dequantize.c reads the small ones, quantize.c writes them.
 * Rounding is to nearest, ties to even. */
#include <assert.h>
#include <string.h>

#include "base/bf16.h"
#include "base/f16.h"
#include "tensor/dequantize.h"
#include "tensor/quantize.h"

enum { PIECE = 1024 }; /* numbers that pass through float32 at a time: a multiple of every block */

bool dtype_is_written(enum dtype dtype) {
    return dtype_is_float(dtype) || quantize_limit(dtype) > 0;
}

static void widen(float *restrict to, const void *restrict from, enum dtype from_dtype, size_t count) {
    const uint16_t *restrict half = from;
    switch (from_dtype) {
    case DTYPE_BF16:
        for (size_t i = 0; i < count; i++) to[i] = bf16_widen(half[i]);
        break;
    case DTYPE_F16:
        for (size_t i = 0; i < count; i++) to[i] = f16_widen(half[i]);
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
        for (size_t i = 0; i < count; i++) half[i] = f16_round(from[i]);
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
