/* Loading what stands beside a matrix of a small type; private to loading. */
#ifndef TESSERA_NN_LOAD_SIDE_H
#define TESSERA_NN_LOAD_SIDE_H

#include "nn/load_stored.h"

/* To be called before the weight itself is brought: a difference reads the weight and lets go of
 * its bytes.
 *
 * The side products of some rows and of columns (two ranges, side by side; the second may be empty)
 * of the matrix `name`, which stored_find gave as `whole`. NULL: it has none, or layers get no
 * data, or loading failed. */
const struct linear_side *load_side(struct loader *loader, const char *name, const struct tensor *whole, struct span rows,
                                    const struct span columns[2]);

#endif
