/* Layers that models are written in. Included by tessera_model.h. */
#ifndef TESSERA_MODEL_LAYERS_H
#define TESSERA_MODEL_LAYERS_H

#include "tessera_model/runs.h"

enum activation {
    ACTIVATION_NONE,
    ACTIVATION_GELU,
    ACTIVATION_GELU_TANH,
    ACTIVATION_QUICK_GELU,
    ACTIVATION_SILU,
    ACTIVATION_RELU,
    ACTIVATION_COUNT
};
enum norm_kind { NORM_LAYER, NORM_RMS };

/* A change of a linear's weight (LoRA) that stays beside the weight: the linear adds up (down x), by
 * two narrow matrices, or up x. */
struct linear_side {
    struct tensor down; /* [r, K]; empty: `up` is [O, K] */
    struct tensor up;   /* [O, r] */
    const struct linear_side *next;
};
struct linear {
    struct tensor weight, bias;     /* [O, K]; [O] F32 or empty */
    const struct linear_side *side; /* set where it is loaded; NULL: nothing beside */
};
struct conv {
    struct tensor weight, bias; /* [O, kh, kw, I]; [O] F32 or empty */
    int64_t first_input;        /* the first input channel held here; 0 if all are */
};
struct norm {
    struct tensor weight, bias;
    enum norm_kind kind;
    float eps;
}; /* [C] F32 or empty; all zeros: no norm */

struct attention_args {
    const struct tensor *q;     /* [B, Sq, N, D] */
    const struct tensor *k, *v; /* [B, Sk, N, D] */
    const struct tensor *bias;  /* F32 [N, Sq, Sk], added to the scores (T5), or NULL */
    const struct tensor *mask;  /* F32 [B, Sk]: 1 keep, 0 drop, or NULL */
    bool causal;                /* query i sees keys 0..i */
    float scale;                /* of q k^T */
};

/* Each function returns its result in the run's memory. The result of an empty tensor (a stream that
 * has no tokens here) is empty. */

/* act(x w^T + bias): x [..., K] -> [..., O]. */
struct tensor nn_linear(struct run *run, const struct linear *layer, struct tensor x, enum activation act);
/* The same for a layer of load_linear_inputs: the whole sum of its products. */
struct tensor nn_linear_sum(struct run *run, const struct linear *layer, struct tensor x);
/* norm(x) with the layer's weight and bias (either may be empty). */
struct tensor nn_norm(struct run *run, const struct norm *layer, struct tensor x);
/* norm(x) * (1 + scale[B, C]) + shift[B, C]; scale and shift F32. */
struct tensor nn_norm_modulated(struct run *run, const struct norm *layer, struct tensor x, struct tensor scale, struct tensor shift);
/* x * (1 + scale[B, C]) + shift[B, C] of tokens x [B, S, C]; scale and shift F32. */
struct tensor nn_modulate(struct run *run, struct tensor x, struct tensor scale, struct tensor shift);
/* Softmax(scale q k^T + bias, masked) v among the given rows, for example cross attention to text.
 * The result is [B, Sq, N, D]. */
struct tensor nn_attention(struct run *run, struct attention_args args);
/* out(act(in x)), or, with gates, out((in x) * act(gates x)): x [B, S, C]. Where memory is short it
 * computes the hidden channels of some rows at a time. */
struct tensor nn_feed_forward(struct run *run, const struct linear *in, const struct linear *gates, const struct linear *out,
                              enum activation act, struct tensor x);
struct tensor nn_activate(struct run *run, struct tensor x, enum activation act);
struct tensor nn_add(struct run *run, struct tensor a, struct tensor b);
/* act(a) * b */
struct tensor nn_multiply(struct run *run, struct tensor a, struct tensor b, enum activation act);
/* residual + gate[B, C] * x; gate F32. */
struct tensor nn_gated_add(struct run *run, struct tensor residual, struct tensor x, struct tensor gate);
/* x [B, S, N, D] with each pair of neighbouring elements turned by the angles of cos and sin, F32
 * [S, D]. */
struct tensor nn_rotary(struct run *run, struct tensor x, struct tensor cos, struct tensor sin);
/* Rows of table [V, C], of any float type, in the run's type: ids [batch * tokens] -> [batch,
 * tokens, C]. nn_embed takes ids in host memory, nn_embed_rows a tensor of them, I32. */
struct tensor nn_embed(struct run *run, struct tensor table, const int32_t *ids, int64_t batch, int64_t tokens);
struct tensor nn_embed_rows(struct run *run, struct tensor table, struct tensor ids, int64_t batch, int64_t tokens);
struct tensor nn_cast(struct run *run, struct tensor x, enum dtype dtype);
/* [B, Sa, C] and [B, Sb, C] -> [B, Sa + Sb, C] */
struct tensor nn_concat_rows(struct run *run, struct tensor a, struct tensor b);
/* [..., Ca] and [..., Cb] -> [..., Ca + Cb] */
struct tensor nn_concat_channels(struct run *run, struct tensor a, struct tensor b);
/* Channels first .. first + count of [..., C]; x itself where that is all. */
struct tensor nn_slice_channels(struct run *run, struct tensor x, int64_t first, int64_t count);
/* Rows first .. first + count of [B, S, C] */
struct tensor nn_slice_rows(struct run *run, struct tensor x, int64_t first, int64_t count);
/* Chunk `index` of `chunks` equal ones of the last dimension, F32 or BF16:
 * x [..., chunks * C] -> [..., C]. */
struct tensor nn_chunk(struct run *run, struct tensor x, int chunks, int index);
/* The same memory under another shape; passes errors on. */
struct tensor nn_reshape(struct tensor x, int ndim, const int64_t *shape);
/* Sinusoids of diffusers' get_timestep_embedding (flip_sin_to_cos = true, downscale_freq_shift = 0,
 * max_period 10000): F32 [count, channels], cosines first. */
struct tensor nn_timestep_embedding(struct run *run, const float *timesteps, int64_t count, int64_t channels);

#endif
