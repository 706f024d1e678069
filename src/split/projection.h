/* Random projections of answers: sums of their numbers with random signs. PROJECTIONS of them stand
 * for an answer, because the mean of their squares is the sum of the numbers' squares, and so do
 * differences (Achlioptas 2003, doi:10.1016/S0022-0000(03)00025-4). */
#ifndef TESSERA_SPLIT_PROJECTION_H
#define TESSERA_SPLIT_PROJECTION_H

#include <stdint.h>

enum { PROJECTIONS = 64 };

/* Another seed that follows from this one (splitmix64, Steele et al. 2014). */
uint64_t projection_seed(uint64_t seed);
/* Adds the number at `place` to each sum, with its sign: bit k of projection_seed(seed ^ place) is
 * 1 where sum k takes it negative. */
void projection_add(uint64_t signs, double x, double sums[PROJECTIONS]);
/* |difference| / |size| by the first `length` sums of each; infinite where only `size` is 0. */
double projection_ratio(const double *difference, const double *size, int length);

#endif
