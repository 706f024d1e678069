/* The one step that convolutional autoencoders are made of: [group norm + SiLU] -> [upsample x 2]
 * -> convolution [+ residual], computed in strips of output rows so that nothing but its input, its
 * output and a strip is ever held.
 *
 *     x      | r0-1 |  r0 ...... r1-1  |  r1  |        rows that output rows r0 .. r1-1 need (3x3, stride 1)
 *     strip  | normalised, upsampled          |        in the arena, gone after the strip
 *     out           |  r0 ...... r1-1  |
 *
 * Statistics of a norm are those of the whole picture: each strip's mean and variance, merged in
 * order (Chan et al. 1979). A picture that fits run->strip_bytes is one strip.
 *
 * Of a picture whose rows are spread over ranks, x, out and residual are this rank's rows: at least
 * one, and an even number before a stride of 2 (the last rank's may be odd). Rows -1 and H are then
 * the neighbours', fetched as they are while statistics and inner strips are computed, and
 * normalised here; statistics are merged over ranks. strip_bytes is divided by the ranks. */
#ifndef TESSERA_MODELS_AUTOENCODER_STAGE_H
#define TESSERA_MODELS_AUTOENCODER_STAGE_H

#include "nn/layers.h"

struct autoencoder_stage {
    const struct norm *norm; /* NULL: none, and no SiLU */
    int groups;
    bool upsample;
    const struct conv *conv;
    struct conv2d_geometry geometry;
    const struct tensor *residual; /* [B, H', W', R] or NULL */
    const struct conv *shortcut;   /* 1x1 from R to the output's channels, applied to the residual; or NULL */
    bool in_place;                 /* write over x: 3x3, stride 1, as many channels out as in, with a norm */
};

/* x [B, H, W, C] -> [B, H', W', O] in the run's arena, or in x's memory. */
struct tensor autoencoder_stage_run(struct run *run, const struct autoencoder_stage *stage, struct tensor x);

#endif
