/* Peak signal-to-noise ratio of two pictures: -10 log10(mean of (a - b)^2) in dB, values from 0 to
 * 1; infinity where they are the same. */
#ifndef TESSERA_METRICS_PSNR_H
#define TESSERA_METRICS_PSNR_H

#include "image/image.h"

/* Of pictures of one size. */
double psnr(const struct image *a, const struct image *b);

#endif
