/* Mean and variance of numbers that come in several lots: Chan, Golub and LeVeque 1979, "Updating
 * formulae and a pairwise algorithm for computing sample variances", equation 2.1. */
#ifndef TESSERA_BASE_MEAN_VARIANCE_H
#define TESSERA_BASE_MEAN_VARIANCE_H

struct mean_variance {
    double mean, variance;
};

/* *into, of `seen` numbers (0: none yet), becomes that of these and `more` others. */
static inline void mean_variance_merge(struct mean_variance *into, double seen, struct mean_variance others, double more) {
    double share = more / (seen + more), distance = others.mean - into->mean;
    into->variance = into->variance * (1.0 - share) + others.variance * share + distance * distance * share * (1.0 - share);
    into->mean += distance * share;
}

#endif
