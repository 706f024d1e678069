/* See projection.h. */
#include "split/projection.h"

#include <math.h>

uint64_t projection_seed(uint64_t seed) {
    seed += 0x9e3779b97f4a7c15u;
    seed = (seed ^ (seed >> 30)) * 0xbf58476d1ce4e5b9u;
    seed = (seed ^ (seed >> 27)) * 0x94d049bb133111ebu;
    return seed ^ (seed >> 31);
}

void projection_add(uint64_t signs, double x, double sums[PROJECTIONS]) {
    for (int k = 0; k < PROJECTIONS; k++) sums[k] += (signs >> k & 1) != 0 ? -x : x;
}

double projection_ratio(const double *difference, const double *size, int length) {
    double d = 0, s = 0;
    for (int k = 0; k < length; k++) {
        d += difference[k] * difference[k];
        s += size[k] * size[k];
    }
    if (s > 0) return sqrt(d / s);
    return d > 0 ? INFINITY : 0;
}
