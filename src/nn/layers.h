/* The layers that models are written in. Each returns its result in the run's arena (see nn/run.h for errors and scopes). Of an empty tensor
 * (a stream that has no tokens here) the result is empty.
 *
 * Positions of a picture meet in four kinds of layer only: nn_attention, nn_conv, nn_group_norm and position embeddings. Those are
 * where a strategy will ask other ranks for what they hold; everything else here is local to a token. */
#ifndef TESSERA_NN_LAYERS_H
#define TESSERA_NN_LAYERS_H

#include "nn/run.h"
#include "parallel/exchange.h"

struct linear {
    struct tensor weight, bias;
}; /* [O, K]; [O] F32 or empty */
struct conv {
    struct tensor weight, bias; /* [O, kh, kw, I]; [O] F32 or empty */
    int64_t first_input;        /* of load_conv_inputs: where this rank's input channels begin among all */
};
struct norm {
    struct tensor weight, bias;
    enum norm_kind kind;
    float eps;
}; /* [C] F32 or empty */

/* act(x w^T + bias): x [..., K] -> [..., O]. */
struct tensor nn_linear(struct run *run, const struct linear *layer, struct tensor x, enum activation act);
/* The same for a layer of load_linear_inputs: the sum of all ranks' products, on each of them. */
struct tensor nn_linear_sum(struct run *run, const struct linear *layer, struct tensor x);
/* x [B, H, W, C] -> [B, H', W', O]; "same" padding for stride 1 and odd kernels. `residual` may be NULL. */
struct tensor nn_conv(struct run *run, const struct conv *layer, struct tensor x, const struct tensor *residual);
/* Of a picture x that every rank holds whole, the convolution's rows first .. first + rows: nothing is exchanged. */
struct tensor nn_conv_of_whole(struct run *run, const struct conv *layer, struct tensor x, int64_t first, int64_t rows);
struct tensor nn_conv_strided(struct run *run, const struct conv *layer, struct tensor x, struct conv2d_geometry geometry);
/* nn_conv for a layer of load_conv_inputs: the sum of all ranks' convolutions, each with its own `residual`, on each of them. */
struct tensor nn_conv_sum(struct run *run, const struct conv *layer, struct tensor x, const struct tensor *residual);
/* The channels of x [..., all] that a layer of load_conv_inputs takes; x itself where it takes all. */
struct tensor nn_conv_inputs(struct run *run, const struct conv *layer, struct tensor x);
/* norm(x) with the layer's weight and bias (either may be empty). */
struct tensor nn_norm(struct run *run, const struct norm *layer, struct tensor x);
/* norm(x) * (1 + scale[B, C]) + shift[B, C]; scale and shift F32. */
struct tensor nn_norm_modulated(struct run *run, const struct norm *layer, struct tensor x, struct tensor scale, struct tensor shift);
/* Group normalisation over the whole picture, then `act`: x [B, H, W, C]. */
struct tensor nn_group_norm(struct run *run, const struct norm *layer, int groups, struct tensor x, enum activation act);
struct tensor nn_attention(struct run *run, struct attention_args args);
/* Attention among the tokens of a picture and, for joint attention, of its text: q, k and v hold those that this rank works on. `cut` and
 * `text` are those of nn_cut_tokens and nn_text_part; no mask, bias or causality. */
struct tensor nn_joint_attention(struct run *run, struct attention_args args, const struct cut *cut, struct text_span text);
struct tensor nn_activate(struct run *run, struct tensor x, enum activation act);
struct tensor nn_add(struct run *run, struct tensor a, struct tensor b);
/* act(a) * b */
struct tensor nn_multiply(struct run *run, struct tensor a, struct tensor b, enum activation act);
/* residual + gate[B, C] * x; gate F32. */
struct tensor nn_gated_add(struct run *run, struct tensor residual, struct tensor x, struct tensor gate);
/* x [B, S, N, D] with each pair of neighbouring elements turned by the angles of cos and sin, F32 [S, D]. */
struct tensor nn_rotary(struct run *run, struct tensor x, struct tensor cos, struct tensor sin);
struct tensor nn_embed(struct run *run, struct tensor table, const int32_t *ids, int64_t batch, int64_t tokens);
/* Nearest neighbours: x [B, H, W, C] -> [B, rows, columns, C]; rows 2 H or 2 H - 1, columns 2 W or 2 W - 1. */
struct tensor nn_upsample(struct run *run, struct tensor x, int64_t rows, int64_t columns);
struct tensor nn_cast(struct run *run, struct tensor x, enum dtype dtype);
/* [B, Sa, C] and [B, Sb, C] -> [B, Sa + Sb, C] */
struct tensor nn_concat_rows(struct run *run, struct tensor a, struct tensor b);
/* [..., Ca] and [..., Cb] -> [..., Ca + Cb] */
struct tensor nn_concat_channels(struct run *run, struct tensor a, struct tensor b);
/* Channels first .. first + count of [..., C]; x itself where that is all. */
struct tensor nn_slice_channels(struct run *run, struct tensor x, int64_t first, int64_t count);
/* Rows first .. first + count of [B, S, C] */
struct tensor nn_slice_rows(struct run *run, struct tensor x, int64_t first, int64_t count);
/* Part `index` of `parts` equal parts of the last dimension: x F32 or BF16 [..., parts * C] -> [..., C]. */
struct tensor nn_chunk(struct run *run, struct tensor x, int parts, int index);
/* The same memory under another shape; passes errors on. */
struct tensor nn_reshape(struct tensor x, int ndim, const int64_t *shape);
/* Sinusoids of diffusers' get_timestep_embedding (flip_sin_to_cos = true, downscale_freq_shift = 0, max_period 10000):
 * F32 [count, channels], cosines first. */
struct tensor nn_timestep_embedding(struct run *run, const float *timesteps, int64_t count, int64_t channels);

#endif
