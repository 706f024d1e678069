/* Structural similarity of two pictures (Wang, Bovik, Sheikh and Simoncelli 2004, equation 13), the
 * mean over places and channels:
 *
 *                 (2 mu_x mu_y + C1) (2 sigma_xy + C2)               mu, sigma: under a Gaussian window of 11 x 11, deviation 1.5
 *     SSIM = ---------------------------------------------------     C1 = (0.01 range)^2, C2 = (0.03 range)^2
 *            (mu_x^2 + mu_y^2 + C1) (sigma_x^2 + sigma_y^2 + C2)
 *
 * 1 for equal pictures, near 0 where nothing of their structure agrees. It is scikit-image's
 * structural_similarity with gaussian_weights=True, sigma=1.5, use_sample_covariance=False: only
 * places whose whole window lies in the picture count. */
#ifndef TESSERA_METRICS_SSIM_H
#define TESSERA_METRICS_SSIM_H

#include "image/image.h"

enum { SSIM_WINDOW = 11 };

/* Of a and b [height, width, 3], whose values span `range`. ARGUMENT where a side is shorter than
 * the window; MEMORY. */
tessera_status ssim_of_floats(const float *a, const float *b, int width, int height, double range, double *out, tessera_error *error);
/* The same of two pictures of one size; their bytes span 255. */
tessera_status ssim(const struct image *a, const struct image *b, double *out, tessera_error *error);

#endif
