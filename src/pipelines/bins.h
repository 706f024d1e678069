/* Resolution bins: the sizes that PixArt and HunyuanDiT were trained at, and how a picture gets
 * from the nearest of them to the requested size. */
#ifndef TESSERA_PIPELINES_BINS_H
#define TESSERA_PIPELINES_BINS_H

#include <stdbool.h>
#include <stdint.h>

/* PixArt: the bin of the nearest aspect ratio, for a transformer whose sample_size is 32, 64, 128
 * or 256 (pictures of about 256, 512, 1024, 2048 pixels a side). False if sample_size is none of
 * these. */
bool bins_pixart(int64_t sample_size, int *width, int *height);
/* HunyuanDiT: of five aspect ratios the nearest, and of its sizes the one with the nearest area.
 * Always true: models of any sample_size have bins. */
bool bins_hunyuandit(int64_t sample_size, int *width, int *height);

/* Scales x [rows, columns, 3] (bilinear, corners not aligned, as torch's interpolate) until it
 * covers [out_rows, out_columns, 3], and cuts out the middle. */
void bins_resize_and_crop(const float *x, int64_t rows, int64_t columns, float *out, int64_t out_rows, int64_t out_columns);

#endif
