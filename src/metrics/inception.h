/* Inception v3 as the Fréchet inception distance uses it: a picture becomes the 2048 numbers behind
 * the last mean.
 *
 * Szegedy et al. 2016 with the changes of the weights of 2015-12-05 (Heusel et al. 2017): no
 * auxiliary head, means of 3x3 windows count only what lies in the picture, and the last block
 * takes the largest value where the one before takes the mean. Pictures are scaled to 299x299 by a
 * widened cubic in floats, neither rounded nor through bytes, and cut to 0 .. 255: clean-fid's
 * "clean" (Parmar et al. 2022).
 *
 * The weights are read under pytorch-fid's (torchvision's) names from its published file or a
 * safetensors file: docs/evaluation.md. */
#ifndef TESSERA_METRICS_INCEPTION_H
#define TESSERA_METRICS_INCEPTION_H

#include "image/image.h"
#include "nn/run.h"

struct inception;

/* IO, FORMAT: no such file, or one that is not this network's. Free with inception_free. */
tessera_status inception_open(const char *path, struct inception **out, tessera_error *error);
void inception_free(struct inception *net);

/* How many numbers a picture becomes: 2048 of the published network. */
int inception_dims(const struct inception *net);
/* features [inception_dims]; `run` is float32 and alone. */
tessera_status inception_features(const struct inception *net, struct run *run, const struct image *picture, float *features,
                                  tessera_error *error);

#endif
