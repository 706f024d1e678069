/* See ssim.h. The window is the product of two rows of weights, so it is taken over columns first
 * and then over rows, of a channel at a time, in float64. */
#include "metrics/ssim.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "base/error.h"

enum { CHANNELS = 3, MOMENTS = 5, REACH = SSIM_WINDOW / 2 };
#define DEVIATION 1.5

/* Weights of the window along one axis; their sum is 1. */
static void fill_weights(double weights[SSIM_WINDOW]) {
    double sum = 0;
    for (int i = 0; i < SSIM_WINDOW; i++) sum += weights[i] = exp(-0.5 * (i - REACH) * (i - REACH) / (DEVIATION * DEVIATION));
    for (int i = 0; i < SSIM_WINDOW; i++) weights[i] /= sum;
}

/* One row of a channel: weighted sums of x, y, x^2, y^2 and xy around each of its `places`: out
 * [places, MOMENTS]. */
static void sum_row(const float *a, const float *b, int places, const double *weights, double *out) {
    for (int i = 0; i < places; i++) {
        double m[MOMENTS] = {0};
        for (int k = 0; k < SSIM_WINDOW; k++) {
            double x = (double)a[CHANNELS * (i + k)], y = (double)b[CHANNELS * (i + k)], w = weights[k];
            m[0] += w * x, m[1] += w * y, m[2] += w * x * x, m[3] += w * y * y, m[4] += w * x * y;
        }
        for (int j = 0; j < MOMENTS; j++) out[i * MOMENTS + j] = m[j];
    }
}

static double similarity(const double m[MOMENTS], double c1, double c2) {
    double both = m[0] * m[1], squares = m[0] * m[0] + m[1] * m[1];
    double variances = m[2] + m[3] - squares, covariance = m[4] - both;
    return (2 * both + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2));
}

/* The sum of a channel's similarities; rows [height, places, MOMENTS]. */
static double sum_channel(const double *rows, int height, int places, const double *weights, double range) {
    double sum = 0, c1 = 0.01 * range * 0.01 * range, c2 = 0.03 * range * 0.03 * range;
    for (int top = 0; top + SSIM_WINDOW <= height; top++)
        for (int i = 0; i < places; i++) {
            double m[MOMENTS] = {0};
            for (int k = 0; k < SSIM_WINDOW; k++)
                for (int j = 0; j < MOMENTS; j++)
                    m[j] += weights[k] * rows[((size_t)(top + k) * (size_t)places + (size_t)i) * MOMENTS + (size_t)j];
            sum += similarity(m, c1, c2);
        }
    return sum;
}

tessera_status ssim_of_floats(const float *a, const float *b, int width, int height, double range, double *out, tessera_error *error) {
    int places = width - 2 * REACH;
    double weights[SSIM_WINDOW], sum = 0;
    if (width < SSIM_WINDOW || height < SSIM_WINDOW)
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "SSIM looks at windows of %dx%d, but the pictures are %dx%d: leave it out with --metrics", SSIM_WINDOW,
                         SSIM_WINDOW, width, height);
    double *rows = malloc((size_t)height * (size_t)places * MOMENTS * sizeof *rows);
    if (rows == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for the SSIM of pictures of %dx%d", width, height);
    fill_weights(weights);
    for (int c = 0; c < CHANNELS; c++) {
        for (int y = 0; y < height; y++) {
            size_t row = (size_t)y * (size_t)width * CHANNELS + (size_t)c;
            sum_row(a + row, b + row, places, weights, rows + (size_t)y * (size_t)places * MOMENTS);
        }
        sum += sum_channel(rows, height, places, weights, range);
    }
    free(rows);
    *out = sum / ((double)CHANNELS * places * (height - 2 * REACH));
    return TESSERA_OK;
}

tessera_status ssim(const struct image *a, const struct image *b, double *out, tessera_error *error) {
    assert(a->width == b->width && a->height == b->height);
    size_t values = image_values(a);
    float *floats = malloc(2 * values * sizeof *floats);
    if (floats == NULL)
        return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for the SSIM of pictures of %dx%d", a->width, a->height);
    for (size_t i = 0; i < values; i++) floats[i] = a->pixels[i], floats[values + i] = b->pixels[i];
    tessera_status status = ssim_of_floats(floats, floats + values, a->width, a->height, 255, out, error);
    free(floats);
    return status;
}
