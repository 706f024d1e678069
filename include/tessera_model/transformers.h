/* Parts that diffusion transformers are made of (Peebles and Xie 2023, DiT; Esser et al. 2024).
 * Included by tessera_model.h. */
#ifndef TESSERA_MODEL_TRANSFORMERS_H
#define TESSERA_MODEL_TRANSFORMERS_H

#include "tessera_model/loading.h"
#include "tessera_model/tokens.h"

/*     embedder        sinusoid -> linear, SiLU, linear
 *     modulations     linear(silu(cond)) -> shift, scale and gate of each half of a block (adaLN-zero)
 *     attention       linears and norms by head of queries and keys, softmax over all tokens, linear
 *     feed-forward    x + gate * linear(gelu(linear(norm(x) modulated)))
 *
 * How many heads and hidden channels of attention and feed-forward are held here is told by the
 * shapes of the layers. */
enum { DIT_TIMESTEP_CHANNELS = 256 };
#define DIT_NORM_EPS 1e-6f /* diffusers writes it in the code, not in the config */

extern const struct norm dit_plain_norm; /* without weights, of DIT_NORM_EPS */

struct mlp {
    struct linear in, out;
};

/* "<name>.linear_1" [hidden, in] and "<name>.linear_2" [out, hidden]. */
struct mlp dit_load_embedder(struct loader *loader, int64_t in, int64_t hidden, int64_t out, const char *name);
/* linear, act, linear of x, whatever its type, in the run's type. */
struct tensor dit_mlp(struct run *run, const struct mlp *mlp, struct tensor x, enum activation act);
/* The embedder of each value's sinusoid, in the run's type: [count, out]. */
struct tensor dit_embed_values(struct run *run, const struct mlp *embedder, const float *values, int64_t count);
/* The tokens of a picture [B, H, W, I] held here, through a convolution as wide as its
 * stride. The result is [B, S, O]. */
struct tensor dit_embed_picture(struct run *run, const struct conv *proj, struct tensor picture, const struct cut *cut);
/* A linear of the text's tokens held here, whatever their type: [B, T, O]. */
struct tensor dit_embed_text(struct run *run, const struct linear *layer, struct tensor text);

/* silu(cond) in the run's type: what every modulation is a linear of. */
struct tensor dit_activated_cond(struct run *run, struct tensor cond);

/* The modulations in their order in the weights: of a block's attention, its feed-forward, a second
 * attention. Each F32 [B, C]. */
struct modulation {
    struct tensor shift, scale, gate, ff_shift, ff_scale, ff_gate, shift2, scale2, gate2;
};

/* The first `chunks` of them; the rest are empty. emb: activated cond. */
struct modulation dit_modulation(struct run *run, const struct linear *layer, struct tensor emb, int chunks);
/* norm(x) * (1 + scale) + shift, where a linear of emb gives scale, then shift (diffusers'
 * AdaLayerNormContinuous). */
struct tensor dit_norm_continuous(struct run *run, const struct linear *layer, struct tensor x, struct tensor emb);

/* norm_q and norm_k, of each head, are zeros where a model has none; q and out are empty where a
 * stream gives keys and values only. */
struct attention {
    struct linear q, k, v, out;
    struct norm norm_q, norm_k;
};

/* Names of its weights in a file; "" where there is none to load. */
struct attention_names {
    const char *q, *k, *v, *out, *norm_q, *norm_k;
};

/* diffusers' names of the two streams of a joint attention. */
extern const struct attention_names dit_picture_names, dit_text_names;

/* Of streams of heads * head_dim channels; with `bias`, biases of the linears; with `norms`, RMS
 * norms of each head. */
struct attention dit_load_attention(struct loader *loader, int64_t heads, int64_t head_dim, const struct attention_names *names, bool bias,
                                    bool norms);

/* Cosines and sines by which queries and keys turn: F32 [tokens, head_dim]. */
struct rotation {
    struct tensor cos, sin;
};

/* Queries or keys of x, [B, S, heads held * head_dim]: a linear, a norm of each head where there
 * is one, and a rotation where r is not NULL. */
struct tensor dit_project(struct run *run, const struct linear *layer, const struct norm *norm, const struct rotation *r, int64_t head_dim,
                          struct tensor x);
/* x of queries or keys [B, S, heads * head_dim], turned; x itself where r is NULL. */
struct tensor dit_rotate(struct run *run, const struct rotation *r, int64_t head_dim, struct tensor x);
/* Attention of queries [B, Sq, C] to keys and values [B, Sk, C], C = heads * head_dim, as
 * nn_joint_attention: [B, Sq, C]. */
struct tensor dit_attend(struct run *run, int64_t head_dim, struct tensor q, struct tensor k, struct tensor v, const struct cut *cut,
                         struct text_span text);
/* Which keys queries meet: those of all tokens of the picture (and its text, as in
 * nn_joint_attention), or, where `text` is not NULL, those of that text alone, which every process has
 * whole, with a mask F32 [B, T] or NULL. */
struct dit_asked {
    const struct cut *cut;
    struct text_span span;
    const struct tensor *text, *mask;
};
/* Attention with its linears, `out` too where there is one: queries of x [B, S, C], keys and values
 * of x, or of the text, which is not rotated. Where memory is short some queries at a time. */
struct tensor dit_attention(struct run *run, int64_t head_dim, const struct attention *a, const struct rotation *r, struct tensor x,
                            const struct dit_asked *asked);
/* Two streams, each with its own weights, in one attention; x[0]'s tokens come first, and r is of
 * both. Each becomes its attention's output, through `out`; the second is left empty if its weights
 * give keys and values only. */
void dit_joint_attention(struct run *run, int64_t head_dim, const struct attention *const weights[2], const struct rotation *r,
                         struct tensor x[2], const struct cut *cut, struct text_span text);

/* "<name>.net.0.proj" [hidden, channels] and "<name>.net.2" [channels, hidden], with the hidden
 * channels held here. */
struct mlp dit_load_feed_forward(struct loader *loader, int64_t channels, int64_t hidden, const char *name);
/* x + gate * ff(norm(x) modulated). */
struct tensor dit_feed_forward(struct run *run, const struct mlp *ff, struct tensor x, const struct modulation *mod);

/* How many weights a layer multiplies each token with (0: an empty layer); *parameters grows by
 * them and the biases. */
int64_t dit_count_linear(const struct linear *layer, int64_t *parameters);
int64_t dit_count_attention(const struct attention *attention, int64_t *parameters);
int64_t dit_count_mlp(const struct mlp *mlp, int64_t *parameters);

#endif
