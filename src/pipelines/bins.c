/* The bins as diffusers lists them (pipeline_pixart_alpha.py, pipeline_pixart_sigma.py,
 * pipeline_hunyuandit.py) and its PixArtImageProcessor's classify_height_width_bin and
 * resize_and_crop_tensor. */
#include "pipelines/bins.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>

/* Heights and widths at sample_size 128; the tables of the other sizes are multiples of this one.
 */
struct bin {
    double aspect_ratio; /* height / width, rounded: the key that is compared */
    int height, width;
    bool only_largest; /* in the table of sample_size 256 alone */
};

static const struct bin pixart_bins[] = {
    {0.25, 512, 2048, false}, {0.26, 512, 1984, true},  {0.27, 512, 1920, true},  {0.28, 512, 1856, false}, {0.32, 576, 1792, false},
    {0.33, 576, 1728, false}, {0.35, 576, 1664, false}, {0.4, 640, 1600, false},  {0.42, 640, 1536, false}, {0.48, 704, 1472, false},
    {0.5, 704, 1408, false},  {0.52, 704, 1344, false}, {0.57, 768, 1344, false}, {0.6, 768, 1280, false},  {0.68, 832, 1216, false},
    {0.72, 832, 1152, false}, {0.78, 896, 1152, false}, {0.82, 896, 1088, false}, {0.88, 960, 1088, false}, {0.94, 960, 1024, false},
    {1.0, 1024, 1024, false}, {1.07, 1024, 960, false}, {1.13, 1088, 960, false}, {1.21, 1088, 896, false}, {1.29, 1152, 896, false},
    {1.38, 1152, 832, false}, {1.46, 1216, 832, false}, {1.67, 1280, 768, false}, {1.75, 1344, 768, false}, {2.0, 1408, 704, false},
    {2.09, 1472, 704, false}, {2.4, 1536, 640, false},  {2.5, 1600, 640, false},  {2.89, 1664, 576, true},  {3.0, 1728, 576, false},
    {3.11, 1792, 576, true},  {3.62, 1856, 512, true},  {3.75, 1920, 512, true},  {3.88, 1984, 512, true},  {4.0, 2048, 512, false},
};

bool bins_pixart(int64_t sample_size, int *width, int *height) {
    if (sample_size != 32 && sample_size != 64 && sample_size != 128 && sample_size != 256) return false;
    double ratio = (double)*height / *width;
    const struct bin *best = NULL;
    for (size_t i = 0; i < sizeof pixart_bins / sizeof *pixart_bins; i++) {
        const struct bin *bin = &pixart_bins[i];
        if (bin->only_largest && sample_size != 256) continue;
        if (best == NULL || fabs(bin->aspect_ratio - ratio) < fabs(best->aspect_ratio - ratio)) best = bin;
    }
    *height = (int)(best->height * sample_size / 128);
    *width = (int)(best->width * sample_size / 128);
    return true;
}

bool bins_hunyuandit(int64_t sample_size, int *width, int *height) {
    (void)sample_size;
    static const struct {
        double ratio; /* width / height */
        int sizes[3][2], count;
    } shapes[] = {
        {1.0, {{1024, 1024}, {1280, 1280}}, 2},
        {4.0 / 3.0, {{1024, 768}, {1152, 864}, {1280, 960}}, 3},
        {3.0 / 4.0, {{768, 1024}, {864, 1152}, {960, 1280}}, 3},
        {16.0 / 9.0, {{1280, 768}}, 1},
        {9.0 / 16.0, {{768, 1280}}, 1},
    };
    int shape = 0, size = 0;
    int64_t area = (int64_t)*width * *height, nearest = INT64_MAX;
    double ratio = (double)*width / *height;
    for (int i = 1; i < 5; i++)
        if (fabs(shapes[i].ratio - ratio) < fabs(shapes[shape].ratio - ratio)) shape = i;
    for (int i = 0; i < shapes[shape].count; i++) {
        int64_t difference = llabs((long long)shapes[shape].sizes[i][0] * shapes[shape].sizes[i][1] - area);
        if (difference < nearest) nearest = difference, size = i;
    }
    *width = shapes[shape].sizes[size][0];
    *height = shapes[shape].sizes[size][1];
    return true;
}

/* Where output place i falls between two input places: the lower one, the upper one, and the upper
 * one's share. */
static float source_of(int64_t i, int64_t in, int64_t out, int64_t *low, int64_t *high) {
    float at = ((float)i + 0.5f) * ((float)in / (float)out) - 0.5f;
    if (at < 0.0f) at = 0.0f;
    *low = (int64_t)at;
    *high = *low + (*low < in - 1);
    return at - (float)*low;
}

void bins_resize_and_crop(const float *x, int64_t rows, int64_t columns, float *out, int64_t out_rows, int64_t out_columns) {
    double ratio = fmax((double)out_rows / (double)rows, (double)out_columns / (double)columns);
    int64_t resized_rows = (int64_t)fmax((double)rows * ratio, (double)out_rows);
    int64_t resized_columns = (int64_t)fmax((double)columns * ratio, (double)out_columns);
    int64_t top = (resized_rows - out_rows) / 2, left = (resized_columns - out_columns) / 2;
    for (int64_t i = 0; i < out_rows; i++)
        for (int64_t j = 0; j < out_columns; j++) {
            int64_t r0, r1, c0, c1;
            float down = source_of(i + top, rows, resized_rows, &r0, &r1), right = source_of(j + left, columns, resized_columns, &c0, &c1);
            for (int64_t c = 0; c < 3; c++) {
                float above = x[(r0 * columns + c0) * 3 + c] * (1 - right) + x[(r0 * columns + c1) * 3 + c] * right;
                float below = x[(r1 * columns + c0) * 3 + c] * (1 - right) + x[(r1 * columns + c1) * 3 + c] * right;
                out[(i * out_columns + j) * 3 + c] = above * (1 - down) + below * down;
            }
        }
}
