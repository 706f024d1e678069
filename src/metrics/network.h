/* What the networks of image metrics have in common: convolutions read from a safetensors file, and
 * pooling. Activations are float32 [B, H, W, C] in a run's arena; errors stick to the run. */
#ifndef TESSERA_METRICS_NETWORK_H
#define TESSERA_METRICS_NETWORK_H

#include "nn/layers.h"
#include "tensor/safetensors.h"

/* A convolution of a published network, and how it is walked over a picture. */
struct network_conv {
    const char *name;
    int rows, columns; /* of the kernel */
    int stride, pad_rows, pad_columns;
};

/* Reads NAME.weight [O, I, rows, columns] and NAME.bias [O], or, where `normalized`,
 * NAME.conv.weight and the batch norm behind it, which becomes part of the weights (Ioffe and
 * Szegedy 2015, with running statistics): NAME.bn.{weight, bias, running_mean, running_var}.
 *
 *     w' = w weight / sqrt(running_var + eps)      bias' = bias - running_mean weight / sqrt(running_var + eps)
 *
 * Any float type, as many channels as are stored; into `arena`. FORMAT names file and tensor. */
tessera_status network_conv_load(const struct network_conv *shape, bool normalized, float eps, const struct safetensors *file,
                                 struct arena *arena, struct conv *out, tessera_error *error);

/* relu(x * layer + bias). A run error if x has other channels than the layer takes. */
struct tensor network_conv(struct run *run, const struct network_conv *shape, const struct conv *layer, struct tensor x);

/* Windows of 3x3: the largest value; `stride` 2 without padding, or 1 with. */
struct tensor network_max_pool(struct run *run, struct tensor x, int stride);
/* Windows of 3x3 around each pixel: the mean of those that lie in the picture. */
struct tensor network_mean_pool(struct run *run, struct tensor x);

#endif
