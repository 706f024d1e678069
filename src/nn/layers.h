/* The layers that models are written in. Each returns its result in the run's arena (see nn/run.h
 * for errors and scopes). Of an empty tensor (a stream that has no tokens here) the result is
 * empty.
 *
 * Positions of a picture meet in four kinds of layer only: nn_attention, nn_conv, nn_group_norm and
 * position embeddings. Those are where a strategy will ask other ranks for what they hold;
 * everything else here is local to a token.
 *
 * Those that transformers are written in are declared in tessera_model.h; here are the others. */
#ifndef TESSERA_NN_LAYERS_H
#define TESSERA_NN_LAYERS_H

#include "nn/run.h"
#include "parallel/exchange.h"

/* x [B, H, W, C] -> [B, H', W', O]; "same" padding for stride 1 and odd kernels. `residual` may be
 * NULL. */
struct tensor nn_conv(struct run *run, const struct conv *layer, struct tensor x, const struct tensor *residual);
/* Of a picture x that every rank holds whole, the convolution's rows first .. first + rows: nothing
 * is exchanged. */
struct tensor nn_conv_of_whole(struct run *run, const struct conv *layer, struct tensor x, int64_t first, int64_t rows);
/* The convolution of x as it is into `out`, whose rows and columns fit: nothing is exchanged.
 * residual may be NULL. */
void nn_conv_into(struct run *run, struct tensor *out, const struct conv *layer, const struct tensor *x, const struct tensor *residual,
                  struct conv2d_geometry geometry);
struct tensor nn_conv_strided(struct run *run, const struct conv *layer, struct tensor x, struct conv2d_geometry geometry);
/* nn_conv for a layer of load_conv_inputs: the sum of all ranks' convolutions, each with its own
 * `residual`, on each of them. */
struct tensor nn_conv_sum(struct run *run, const struct conv *layer, struct tensor x, const struct tensor *residual);
/* The channels of x [..., all] that a layer of load_conv_inputs takes; x itself where it takes all.
 */
struct tensor nn_conv_inputs(struct run *run, const struct conv *layer, struct tensor x);
/* Group normalisation over the whole picture, then `act`: x [B, H, W, C]. */
struct tensor nn_group_norm(struct run *run, const struct norm *layer, int groups, struct tensor x, enum activation act);
/* Its statistics: F32 [B, groups, 2], (mean, variance) of the whole picture, from those of each row
 * of x [B, this rank's rows, W, C] by itself: what a reproducible backend takes, as neither cuts
 * nor strips matter. */
void nn_group_stats_by_rows(struct run *run, struct tensor stats, struct tensor x);
/* Nearest neighbours: x [B, H, W, C] -> [B, rows, columns, C]; rows 2 H or 2 H - 1, columns 2 W or
 * 2 W - 1. */
struct tensor nn_upsample(struct run *run, struct tensor x, int64_t rows, int64_t columns);

#endif
