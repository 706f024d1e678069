/* Sinusoidal positions in two dimensions (Dosovitskiy et al. 2020 as DiT, PixArt and SD3 use them).
 *
 * The first half of the channels tells the column, the second the row; each half is sines, then
 * cosines, of position / 10000^(i / n). Positions are float32 and angles float64, as diffusers
 * computes them. A half depends on its own side only: it is computed along the table's first row or
 * column and copied from there. */
#include "nn/position.h"

#include <string.h>

#include "base/elementary.h"

/* n sines, then n cosines. */
static void fill_half(float *out, int64_t n, float position) {
    for (int64_t i = 0; i < n; i++) {
        double angle = (double)position * (1.0 / elementary_pow(10000.0, (double)i / (double)n));
        out[i] = (float)elementary_sin(angle);
        out[n + i] = (float)elementary_cos(angle);
    }
}

static float scaled(int64_t index, int64_t side, double base_size, double interpolation_scale) {
    return (float)index / (float)((double)side / base_size) / (float)interpolation_scale;
}

void position_sincos_2d(float *table, int64_t rows, int64_t columns, int64_t channels, double base_size, double interpolation_scale) {
    int64_t half = channels / 2;
    size_t bytes = (size_t)half * sizeof *table;
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t column = 0; column < columns; column++) {
            float *out = table + (row * columns + column) * channels;
            if (row == 0)
                fill_half(out, half / 2, scaled(column, columns, base_size, interpolation_scale));
            else
                memcpy(out, table + column * channels, bytes);
            if (column == 0)
                fill_half(out + half, half / 2, scaled(row, rows, base_size, interpolation_scale));
            else
                memcpy(out + half, table + row * columns * channels + half, bytes);
        }
    }
}
