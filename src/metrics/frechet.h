/* The Fréchet distance of two normal distributions, each known by samples (Dowson and Landau 1982;
 * of Inception's features it is the FID, Heusel et al. 2017, equation 6):
 *
 *     d^2 = |m - n|^2 + Tr(S) + Tr(T) - 2 Tr((S T)^(1/2))        Tr((S T)^(1/2)) = sum over eigenvalues e of S^(1/2) T S^(1/2): e^(1/2)
 *
 * The published programs take the root of S T itself, which fails where it is singular (fewer
 * samples than dimensions); the eigenvalues of the symmetric form are the same and exist always.
 * LAPACK does the work, in float64. */
#ifndef TESSERA_METRICS_FRECHET_H
#define TESSERA_METRICS_FRECHET_H

#include <stdint.h>

#include "tessera.h"

/* Of x [num_x, dims] and y [num_y, dims], at least two samples each; covariances as of samples (by
 * n - 1). ARGUMENT, MEMORY. */
tessera_status frechet_distance(const float *x, int64_t num_x, const float *y, int64_t num_y, int dims, double *distance,
                                tessera_error *error);

#endif
