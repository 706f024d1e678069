/* LPIPS, the learned perceptual distance of two pictures (Zhang et al. 2018, equation 1; version
 * 0.1, AlexNet).
 *
 *     d(a, b) = sum over layers l: mean over pixels of w_l . (n(f_l(a)) - n(f_l(b)))^2        n(f) = f / sqrt(|f|^2 + 1e-8)
 *
 * with the features f_l behind the five relus, and pictures from -1 to 1, shifted and scaled as the
 * network was trained. The weights w_l come with Tessera (assets/metrics); AlexNet's are
 * torchvision's, its published file or a safetensors file (docs/evaluation.md). */
#ifndef TESSERA_METRICS_LPIPS_H
#define TESSERA_METRICS_LPIPS_H

#include "image/image.h"
#include "nn/run.h"

struct lpips;

/* IO, FORMAT: no such files, or not these networks'. Free with lpips_free. */
tessera_status lpips_open(const char *alexnet_path, const char *linear_path, struct lpips **out, tessera_error *error);
void lpips_free(struct lpips *net);
/* Of two pictures of one size. ARGUMENT: they differ in it, or are too small (31 pixels). */
tessera_status lpips_distance(const struct lpips *net, struct run *run, const struct image *a, const struct image *b, double *distance,
                              tessera_error *error);

#endif
