/* Products with weights of another type than the activations: dequantised by the tile, then
 * multiplied. */
#ifndef TESSERA_NN_SMALL_WEIGHTS_H
#define TESSERA_NN_SMALL_WEIGHTS_H

#include "nn/run.h"

/* The backend's linear and conv2d (see backend.h for shapes), for weights of any type that
 * dtype_convert reads. */
tessera_status small_weights_linear(struct run *run, struct tensor *out, const struct tensor *x, const struct tensor *w,
                                    const struct tensor *bias, enum activation act);
tessera_status small_weights_conv2d(struct run *run, struct tensor *out, const struct tensor *x, const struct tensor *w,
                                    const struct tensor *bias, const struct tensor *residual, struct conv2d_geometry geometry);

#endif
