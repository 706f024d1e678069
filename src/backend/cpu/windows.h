/* A convolution's picture as rows of a product: each output pixel's window is a row of kh x kw x C
 * numbers, zero outside the picture. */
#ifndef TESSERA_BACKEND_CPU_WINDOWS_H
#define TESSERA_BACKEND_CPU_WINDOWS_H

#include "backend/cpu/rows.h"

struct windows {
    const struct tensor *x;                /* [B, H, W, C] */
    int64_t rows, columns, kernel_columns; /* of one output picture; kw */
    struct conv2d_geometry geometry;
};

/* Numbers [from, from + count) of window `row`. */
static inline void windows_load(float *to, const struct windows *p, int64_t row, int64_t from, int64_t count) {
    const int64_t *in = p->x->shape;
    int64_t column = row % p->columns, line = row / p->columns % p->rows, picture = row / p->columns / p->rows, channels = in[3];
    while (count > 0) {
        int64_t tap = from / channels, c = from % channels, n = min64(count, channels - c);
        int64_t y = line * p->geometry.stride - p->geometry.pad_top + tap / p->kernel_columns;
        int64_t x = column * p->geometry.stride - p->geometry.pad_left + tap % p->kernel_columns;
        if (y >= 0 && y < in[1] && x >= 0 && x < in[2])
            row_load(to, p->x->data, p->x->dtype, ((picture * in[1] + y) * in[2] + x) * channels + c, n);
        else
            memset(to, 0, (size_t)n * sizeof(float));
        to += n;
        from += n;
        count -= n;
    }
}

#endif
