/* Tessera for people who bring their own model: a transformer that the engine does not know, in one file of C11.
 *
 *     inputs --embed--> state --block 0--> state --block 1--> ... --finish--> prediction
 *
 * A model is a struct denoiser_class: how it is opened (layers from a config.json and weights), how inputs become the first state, what
 * each block does to a state, how the last state becomes a prediction, and its blocks as data. It is written over the tokens at hand: how
 * many those are, and where the others are, is never asked. Tokens meet in attention only; nn_joint_attention sees to it that all of them
 * take part. So a model that is written once runs in every way in which the engine spreads work. docs/new-model.md is the guide.
 *
 * Pictures are [batch, rows, columns, channels], tokens [batch, tokens, channels]; shapes in brackets: B batch, S tokens, T text tokens,
 * C channels. Norms, modulations and conditioning are float32; products and residual streams have the run's type.
 *
 * Left out: convolutional models, text encoders, autoencoders, which live in the engine alone. */
#ifndef TESSERA_MODEL_H
#define TESSERA_MODEL_H

#include <assert.h>

#include "tessera.h"
#include "tessera_names.h"

/* ---- errors ---- */

/* Passes a failure on to the caller. */
#define TRY(call)                                                                                                                          \
    do {                                                                                                                                   \
        tessera_status try_status = (call);                                                                                                \
        if (try_status != TESSERA_OK) return try_status;                                                                                   \
    } while (0)

/* Writes the message (cut at the end of the buffer, never in the middle of a UTF-8 character) and returns `status`. `error` may be NULL. */
tessera_status error_set(tessera_error *error, tessera_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* ---- config.json ---- */

struct json; /* a document; values are borrowed from it */

/* Getters take dotted paths of object keys. A missing or null field gives `fallback`; one of the wrong type, or outside [low, high], is a
 * FORMAT error that names file and field. */
tessera_status json_int(const struct json *json, const char *path, int64_t fallback, int64_t low, int64_t high, int64_t *out,
                        tessera_error *error);
tessera_status json_double(const struct json *json, const char *path, double fallback, double *out, tessera_error *error);
tessera_status json_bool(const struct json *json, const char *path, bool fallback, bool *out, tessera_error *error);
/* Borrowed; `fallback` may be NULL. */
tessera_status json_string(const struct json *json, const char *path, const char *fallback, const char **out, tessera_error *error);
/* Fills at most `capacity` integers; *count is how many there are (an absent field: 0). More than `capacity`, or one outside [low, high],
 * is an error. */
tessera_status json_ints(const struct json *json, const char *path, int64_t low, int64_t high, int64_t *out, int capacity, int *count,
                         tessera_error *error);
/* The file's name, for messages. */
const char *json_path(const struct json *json);

/* ---- tensors ---- */

/* Activations are F32 or BF16. Weights may also be F16 or one of the small types: float8, or ggml's block formats (a block of 32 or, for
 * the K types, 256 numbers shares scales). UNKNOWN is raw bytes of a file, of a type that the engine does not know. */
enum dtype {
    DTYPE_F32,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_F64,
    DTYPE_I8,
    DTYPE_U8,
    DTYPE_I16,
    DTYPE_I32,
    DTYPE_I64,
    DTYPE_BOOL,
    DTYPE_F8_E4M3,
    DTYPE_F8_E5M2,
    DTYPE_Q8_0,
    DTYPE_Q4_0,
    DTYPE_Q4_1,
    DTYPE_Q5_0,
    DTYPE_Q5_1,
    DTYPE_Q2_K,
    DTYPE_Q3_K,
    DTYPE_Q4_K,
    DTYPE_Q5_K,
    DTYPE_Q6_K,
    DTYPE_I8_SCALED, /* weights whose scales lie apart in files, as blocks: tensor/dequantize.h */
    DTYPE_F8_E4M3_SCALED,
    DTYPE_F8_E5M2_SCALED,
    DTYPE_NF4,
    DTYPE_UNKNOWN,
    DTYPE_COUNT
};

enum device_kind { DEVICE_CPU, DEVICE_CUDA, DEVICE_FENCED /* of the tests: memory that the host cannot read */ };
struct device {
    enum device_kind kind;
    int index;
};

#define TENSOR_MAX_DIMS 5

/* A pointer, an element type, a shape, and the device it lies on; it owns nothing. Elements are contiguous, last dimension fastest. Empty:
 * data is NULL. */
struct tensor {
    void *data;
    enum dtype dtype;
    struct device device;
    int ndim;
    int64_t shape[TENSOR_MAX_DIMS];
};

int64_t tensor_count(const struct tensor *t); /* elements */
size_t tensor_bytes(const struct tensor *t);
/* A view of `data` (host memory) with the given shape. */
struct tensor tensor_of(void *data, enum dtype dtype, int ndim, const int64_t *shape);

/* SHAPE(2, 16, 64): the two arguments ndim and shape. */
#define SHAPE(...)                                                                                                                         \
    ((int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t))), (const int64_t[]) {                                                       \
        __VA_ARGS__                                                                                                                        \
    }

/* Positions first .. first + count. */
struct span {
    int64_t first, count;
};

/* ---- runs ---- */

/* Everything that a layer needs to know and that is not a weight. Activations come from the run's memory; a block of work is bracketed:
 *
 *     size_t scope = run_enter(run);
 *     ... temporaries ...
 *     x = run_leave(run, scope, x);      // all of the scope goes, x stays (moved down to the scope's start)
 *
 * Errors stick: the first one is kept, and from then on layers return empty tensors and compute nothing, so models read as formulas. */
struct run;

size_t run_enter(struct run *run);
struct tensor run_leave(struct run *run, size_t scope, struct tensor keep);
/* As run_leave for several tensors that do not overlap (at most 32); each is moved in place, empty ones stay empty. */
void run_leave_all(struct run *run, size_t scope, struct tensor **keep, int count);
/* An uninitialised tensor; empty if there was an error or memory is out, which then is the run's error. */
struct tensor run_tensor(struct run *run, enum dtype dtype, int ndim, const int64_t *shape);
/* A tensor's elements lie in the run's backend's memory, which the host must not touch. These two give the host's view of all of it, for
 * tables that the host computes: the tensor's own memory where that is the host's (nothing is copied), else a copy. MAP_READ waits until
 * the tensor is computed; MAP_WRITE brings the copy to the tensor in run_unmap; MAP_ROOM is for the host alone. A tensor of host memory
 * is its own view. NULL after an error, or of an empty tensor. */
enum map_use { MAP_ROOM, MAP_READ = 1, MAP_WRITE = 2 };
void *run_map(struct run *run, const struct tensor *t, unsigned use);
/* Ends the view `host` of run_map with the same `use`, after an error too; `host` may be NULL. */
void run_unmap(struct run *run, const struct tensor *t, void *host, unsigned use);
/* A tensor of host memory, in the run's memory: itself where that is the host's (its owner then keeps it until the run has computed what
 * reads it), else an uploaded copy; of one that is there already, itself. Empty stays empty. */
struct tensor run_upload(struct run *run, struct tensor host);
enum dtype run_dtype(const struct run *run); /* of activations: F32 or BF16 */
bool run_failed(const struct run *run);
tessera_error *run_error(struct run *run); /* to be set; its status says whether it is */

/* ---- layers ---- */

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

/* What a linear adds to its product where a change of its weight (LoRA) stays beside it: up (down x), two narrow matrices, or up x. */
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
    int64_t first_input;        /* where the inputs at hand begin among all */
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

/* Each returns its result in the run's memory; of an empty tensor (a stream that has no tokens here) the result is empty. */

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
/* Softmax(scale q k^T + bias, masked) v among the rows given, as for cross attention to text: [B, Sq, N, D]. */
struct tensor nn_attention(struct run *run, struct attention_args args);
/* out(act(in x)), or, with gates, out((in x) * act(gates x)): x [B, S, C]. The hidden channels of some rows at a time where memory is short. */
struct tensor nn_feed_forward(struct run *run, const struct linear *in, const struct linear *gates, const struct linear *out,
                              enum activation act, struct tensor x);
struct tensor nn_activate(struct run *run, struct tensor x, enum activation act);
struct tensor nn_add(struct run *run, struct tensor a, struct tensor b);
/* act(a) * b */
struct tensor nn_multiply(struct run *run, struct tensor a, struct tensor b, enum activation act);
/* residual + gate[B, C] * x; gate F32. */
struct tensor nn_gated_add(struct run *run, struct tensor residual, struct tensor x, struct tensor gate);
/* x [B, S, N, D] with each pair of neighbouring elements turned by the angles of cos and sin, F32 [S, D]. */
struct tensor nn_rotary(struct run *run, struct tensor x, struct tensor cos, struct tensor sin);
/* Rows of table [V, C], of any float type, in the run's type: ids [batch * tokens] -> [batch, tokens, C]. nn_embed takes ids in host
 * memory, nn_embed_rows a tensor of them, I32. */
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
/* Part `index` of `parts` equal parts of the last dimension: x F32 or BF16 [..., parts * C] -> [..., C]. */
struct tensor nn_chunk(struct run *run, struct tensor x, int parts, int index);
/* The same memory under another shape; passes errors on. */
struct tensor nn_reshape(struct tensor x, int ndim, const int64_t *shape);
/* Sinusoids of diffusers' get_timestep_embedding (flip_sin_to_cos = true, downscale_freq_shift = 0, max_period 10000):
 * F32 [count, channels], cosines first. */
struct tensor nn_timestep_embedding(struct run *run, const float *timesteps, int64_t count, int64_t channels);

/* ---- tokens of a picture and its text ---- */

/* Which of a picture's tokens are at hand, in their order row by row; NULL: all. */
struct cut;

/* Those of a picture of rows x columns tokens. Kept, and given again for the same grid. */
const struct cut *exchange_cut_tokens(struct run *run, int64_t rows, int64_t columns);
/* Which they are, of `total`. */
struct span cut_mine(const struct cut *cut, int64_t total);
/* Those at hand of a text's tokens x [B, T, C]: a part, as of the picture, or all of them. */
struct tensor exchange_text(struct run *run, struct tensor x);
/* The other way, for `finish`: x [B, tokens at hand, C] -> [B, all tokens, C]. */
struct tensor exchange_gather(struct run *run, struct tensor x, const struct cut *cut);

/* Text tokens among the rows of q, k and v. */
struct text_span {
    int64_t first, count; /* the rows of k and v at hand that are text; of q, too, if in_queries */
    int64_t total;        /* tokens of the text, of which exchange_text gave those at hand */
    bool in_queries;
};
/* Attention among all tokens of a picture and, for joint attention, of its text: q, k and v hold those at hand, and so does the result. No
 * mask, no bias. */
struct tensor nn_joint_attention(struct run *run, struct attention_args args, const struct cut *cut, struct text_span text);

/* [B, H, W, C] -> [B, S, p p C] in the run's type: the patches at hand of H / p rows of W / p; in a patch pixels row by row. */
struct tensor nn_patches(struct run *run, struct tensor picture, int64_t p, const struct cut *cut);
/* The inverse: [B, h w, p p C] -> F32 [B, h p, w p, C]. */
struct tensor nn_unpatch(struct run *run, struct tensor tokens, int64_t p, int64_t h, int64_t w);

/* diffusers' get_2d_sincos_pos_embed: table [rows, columns, channels]; channels a multiple of 4. Positions along a side of n are
 * scaled so that `base_size` of them span it, then divided by `interpolation_scale`. */
void position_sincos_2d(float *table, int64_t rows, int64_t columns, int64_t channels, double base_size, double interpolation_scale);

/* ---- loading ---- */

/* From names in a file to layers: names, shapes and types are checked once, before anything is computed. A matrix whose stored type is the
 * computing type, or no wider, stays where it is, in the mapped file; biases and norm weights become F32. Errors stick, as in runs. Names are printf
 * formats, relative to the prefix.
 *
 * Heads and hidden channels may be shared out, so that not all of a layer is at hand. A pair of layers says where: load_linear_outputs
 * leads into the units, load_linear_inputs and nn_linear_sum out of them. What is between them has the shapes of the units at hand. */
struct loader;

bool load_failed(const struct loader *loader);
tessera_error *load_error(struct loader *loader);
/* In `open`: memory for the model's structs, zeroed; NULL and an error if it does not fit. */
void *load_alloc(struct loader *loader, size_t bytes);
/* A table in host memory that was made here, in the memory of the backend that the model is for: itself where that is the host's. */
struct tensor load_place(struct loader *loader, struct tensor host);
void load_set_prefix(struct loader *loader, const char *prefix, ...) __attribute__((format(printf, 2, 3)));
/* Of two spellings of a name, ask for the one that published files have: the answer may be true for every name. */
bool load_has(const struct loader *loader, const char *name, ...) __attribute__((format(printf, 2, 3)));

/* Memory for a table that the model makes itself, with the life of the weights that are loaded beside it. No data where layers are only
 * described: then there is nothing to fill in. */
struct tensor load_made(struct loader *loader, enum dtype dtype, int ndim, const int64_t *shape);

/* Weight [out, in] (or [out, in, 1, 1]) at "<name>.weight"; bias [out] at "<name>.bias" if `bias`. */
struct linear load_linear(struct loader *loader, int64_t in, int64_t out, bool bias, const char *name, ...)
    __attribute__((format(printf, 5, 6)));
/* How many of `units` (attention heads, hidden channels) are at hand. An ARGUMENT error where there are too few to be shared. */
int64_t load_units(struct loader *loader, int64_t units);
/* Which they are. */
struct span load_span(const struct loader *loader, int64_t units);
/* A linear whose outputs are `units` groups of `width` channels: [units at hand * width, in]. */
struct linear load_linear_outputs(struct loader *loader, int64_t in, int64_t units, int64_t width, bool bias, const char *name, ...)
    __attribute__((format(printf, 6, 7)));
/* A linear whose inputs are such groups: [out, units at hand * width], for nn_linear_sum. */
struct linear load_linear_inputs(struct loader *loader, int64_t units, int64_t width, int64_t out, bool bias, const char *name, ...)
    __attribute__((format(printf, 6, 7)));
/* The same of inputs that are `units` groups of `width`, then `channels` single ones: [out, units at hand * width + channels at hand]. */
struct linear load_linear_joined_inputs(struct loader *loader, int64_t units, int64_t width, int64_t channels, int64_t out, bool bias,
                                        const char *name, ...) __attribute__((format(printf, 7, 8)));
/* Part `part` of `parts` matrices that the file keeps one above the other, [parts * units * width, in]; of it, as load_linear_outputs. */
struct linear load_linear_part(struct loader *loader, int64_t in, int part, int parts, int64_t units, int64_t width, bool bias,
                               const char *name, ...) __attribute__((format(printf, 8, 9)));
/* [out, in, kernel, kernel] in the file: for dit_embed_patches. */
struct conv load_conv(struct loader *loader, int64_t in, int64_t out, int kernel, const char *name, ...)
    __attribute__((format(printf, 5, 6)));
/* The same from a matrix [out, in * kernel * kernel], a linear of patches with their channels first. */
struct conv load_conv_flat(struct loader *loader, int64_t in, int64_t out, int kernel, const char *name, ...)
    __attribute__((format(printf, 5, 6)));
/* "<name>.weight" [channels] and, if `bias`, "<name>.bias". */
struct norm load_norm(struct loader *loader, enum norm_kind kind, int64_t channels, float eps, bool bias, const char *name, ...)
    __attribute__((format(printf, 6, 7)));
/* A norm of `units` groups of `width` channels: those at hand. */
struct norm load_norm_share(struct loader *loader, enum norm_kind kind, int64_t units, int64_t width, float eps, bool bias,
                            const char *name, ...) __attribute__((format(printf, 7, 8)));
/* Any tensor by its full name below the prefix, converted to `dtype`; the shape must match. */
struct tensor load_tensor(struct loader *loader, enum dtype dtype, int ndim, const int64_t *shape, const char *name, ...)
    __attribute__((format(printf, 5, 6)));
/* As stored (for embedding tables), shape checked. */
struct tensor load_table(struct loader *loader, int64_t rows, int64_t columns, const char *name, ...) __attribute__((format(printf, 4, 5)));
/* A tensor that the file holds and nothing computes with. */
void load_unused(struct loader *loader, int ndim, const int64_t *shape, const char *name, ...) __attribute__((format(printf, 4, 5)));

/* ---- parts that diffusion transformers are made of (Peebles and Xie 2023, DiT; Esser et al. 2024) ---- */

/*     embedder        sinusoid -> linear, SiLU, linear
 *     modulations     linear(silu(cond)) -> shift, scale and gate of each half of a block (adaLN-zero)
 *     attention       linears and norms by head of queries and keys, softmax over all tokens, linear
 *     feed-forward    x + gate * linear(gelu(linear(norm(x) modulated)))
 *
 * How many heads and hidden channels of attention and feed-forward are at hand is told by the shapes of the layers. */
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
/* The patches at hand of a picture [B, H, W, I], through a convolution as wide as its stride: [B, S, O]. */
struct tensor dit_embed_patches(struct run *run, const struct conv *proj, struct tensor picture, const struct cut *cut);
/* A linear of the text's tokens at hand, whatever their type: [B, T, O]. */
struct tensor dit_embed_text(struct run *run, const struct linear *layer, struct tensor text);

/* silu(cond) in the run's type: what every modulation is a linear of. */
struct tensor dit_activated_cond(struct run *run, struct tensor cond);

/* The modulations in their order in the weights: of a block's attention, its feed-forward, a second attention. Each F32 [B, C]. */
struct modulation {
    struct tensor shift, scale, gate, ff_shift, ff_scale, ff_gate, shift2, scale2, gate2;
};

/* The first `parts` of them; the rest are empty. emb: activated cond. */
struct modulation dit_modulation(struct run *run, const struct linear *layer, struct tensor emb, int parts);
/* norm(x) * (1 + scale) + shift, where a linear of emb gives scale, then shift (diffusers' AdaLayerNormContinuous). */
struct tensor dit_norm_continuous(struct run *run, const struct linear *layer, struct tensor x, struct tensor emb);

/* norm_q and norm_k, of each head, are zeros where a model has none; q and out are empty where a stream gives keys and values only. */
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

/* Of streams of heads * head_dim channels; with `bias`, biases of the linears; with `norms`, RMS norms of each head. */
struct attention dit_load_attention(struct loader *loader, int64_t heads, int64_t head_dim, const struct attention_names *names, bool bias,
                                    bool norms);

/* Cosines and sines by which queries and keys turn: F32 [tokens, head_dim]. */
struct rotation {
    struct tensor cos, sin;
};

/* Queries or keys of x, [B, S, heads at hand * head_dim]: a linear, a norm of each head where there is one, and a rotation where r is not
 * NULL. */
struct tensor dit_project(struct run *run, const struct linear *layer, const struct norm *norm, const struct rotation *r, int64_t head_dim,
                          struct tensor x);
/* x of queries or keys [B, S, heads * head_dim], turned; x itself where r is NULL. */
struct tensor dit_rotate(struct run *run, const struct rotation *r, int64_t head_dim, struct tensor x);
/* Attention of queries [B, Sq, C] to keys and values [B, Sk, C], C = heads * head_dim, as nn_joint_attention: [B, Sq, C]. */
struct tensor dit_attend(struct run *run, int64_t head_dim, struct tensor q, struct tensor k, struct tensor v, const struct cut *cut,
                         struct text_span text);
/* Whom queries ask: all tokens of the picture (and its text, as nn_joint_attention), or, where `text` is not NULL, that alone, which is
 * whole everywhere, with a mask F32 [B, T] or NULL. */
struct dit_asked {
    const struct cut *cut;
    struct text_span span;
    const struct tensor *text, *mask;
};
/* Attention with its linears, `out` too where there is one: queries of x [B, S, C], keys and values of x, or of the text, which is not
 * rotated. Where memory is short some queries at a time. */
struct tensor dit_attention(struct run *run, int64_t head_dim, const struct attention *a, const struct rotation *r, struct tensor x,
                            const struct dit_asked *asked);
/* Two streams, each with its own weights, in one attention; x[0]'s tokens come first, and r is of both. Each becomes its attention's
 * output, through `out`; the second is left empty if its weights give keys and values only. */
void dit_joint_attention(struct run *run, int64_t head_dim, const struct attention *const weights[2], const struct rotation *r,
                         struct tensor x[2], const struct cut *cut, struct text_span text);

/* "<name>.net.0.proj" [hidden, channels] and "<name>.net.2" [channels, hidden], the hidden channels at hand. */
struct mlp dit_load_feed_forward(struct loader *loader, int64_t channels, int64_t hidden, const char *name);
/* x + gate * ff(norm(x) modulated). */
struct tensor dit_feed_forward(struct run *run, const struct mlp *ff, struct tensor x, const struct modulation *mod);

/* How many weights a layer multiplies each token with (0: an empty layer); *parameters grows by them and the biases. */
int64_t dit_count_linear(const struct linear *layer, int64_t *parameters);
int64_t dit_count_attention(const struct attention *attention, int64_t *parameters);
int64_t dit_count_mlp(const struct mlp *mlp, int64_t *parameters);

/* ---- denoisers ---- */

/* In the run's memory (run_upload), but what the host reads may lie in the host's: timesteps always, guidance, size_conditions and
 * HunyuanDiT's masks as it comes. */
struct denoiser_inputs {
    struct tensor latents;  /* F32 [B, H, W, C] */
    const float *timesteps; /* [B], the scheduler's: 0..1000 */
    struct tensor text;     /* F32 [B, T, Ct] */
    struct tensor pooled;   /* F32 [B, P] */
    /* The rest is empty (data NULL) where the class does not ask for it. */
    struct tensor text_mask;   /* F32 [B, T]: 1 keep, 0 drop */
    struct tensor text_2;      /* F32 [B, T2, Ct2]: HunyuanDiT's T5 states */
    struct tensor text_2_mask; /* F32 [B, T2] */
    struct tensor guidance;    /* F32 [B]: Flux's embedded guidance scale */
    /* F32 [B, n]: SDXL's time_ids (6), PixArt's resolution and aspect ratio (3), HunyuanDiT's image_meta_size (6) */
    struct tensor size_conditions;
};

enum { DENOISER_MAX_SKIPS = 24 };
/* What travels from block to block. */
struct denoiser_state {
    struct tensor picture;                   /* [B, S, C]; convolutional models: [B, rows, columns, C] */
    struct tensor text;                      /* [B, T, C]; empty where the text's stream has ended */
    struct tensor text_mask;                 /* F32 [B, T] as in the inputs, whose memory it is; empty: all of the text counts */
    struct tensor cond;                      /* conditioning, F32 [B, the class's width] */
    int64_t rows, columns;                   /* of patches, of the whole picture */
    const struct cut *cut;                   /* the patches that `picture` holds: S of them; NULL: all, S = rows * columns */
    int64_t text_tokens;                     /* of the whole text, where its stream is cut (exchange_text): T of them are at hand */
    struct tensor skips[DENOISER_MAX_SKIPS]; /* earlier pictures that later blocks read, a stack; none is also `picture` */
    int num_skips;
};

/* Meetings: what of a block's work comes together from all tokens or all units of a layer, as data: a plan counts bytes and time from it.
 *
 *     attention   every token asks all others
 *     sum         of partial products: nn_linear_sum
 *     join        of shares of a layer's outputs
 *     halo, norm  rows of the neighbours for convolutions, statistics of groups of channels: convolutional models only */
enum meeting_kind { MEETING_ATTENTION, MEETING_SUM, MEETING_JOIN, MEETING_HALO, MEETING_NORM };

/* Whose positions meet. ONCE: none, one row for each picture. */
enum { MEETING_PICTURE = 1, MEETING_TEXT = 2, MEETING_ONCE = 4 };

struct meeting {
    enum meeting_kind kind;
    int count;            /* so many alike */
    unsigned of;          /* MEETING_PICTURE, ... */
    bool text_asks;       /* attention: the text is among the queries, not only among the keys */
    bool is_share;        /* only the units at hand take part */
    int level;            /* the picture's rows and columns have been halved so often */
    int above, below;     /* halo: rows of each neighbour */
    int64_t units, width; /* heads, groups or single channels, and channels of each */
};

enum { MEETING_LIST_CAPACITY = 96 };
struct meeting_list {
    int count;
    struct meeting items[MEETING_LIST_CAPACITY];
};

static inline void meeting_add(struct meeting_list *list, struct meeting meeting) {
    assert(list->count < MEETING_LIST_CAPACITY);
    if (meeting.count > 0) list->items[list->count++] = meeting;
}

enum { DENOISER_CARRIES_PICTURE = 1, DENOISER_CARRIES_TEXT = 2, DENOISER_CARRIES_COND = 4, DENOISER_CARRIES_SKIPS = 8 };

/* A picture between blocks: how often its rows and columns are halved, and its channels; 0: form.width. */
struct denoiser_map {
    int level;
    int64_t channels;
};
enum { DENOISER_MAX_PUSHES = 2 };
struct denoiser_block_info {
    char name[64]; /* the prefix of its weights, e.g. "transformer_blocks.3" */
    int64_t parameters;
    double operations_per_picture_token, operations_per_text_token, operations_per_token_pair;
    unsigned carries;        /* what its output state holds */
    struct denoiser_map out; /* the picture in it */
    int pops, pushes;        /* skips that it takes from the stack, and then puts on it: */
    struct denoiser_map pushed[DENOISER_MAX_PUSHES];
    /* Of its layers; those of embed with the first block, those of finish, but for the prediction, with the last. */
    struct meeting_list meetings;
};

struct part_watch;

/* What a state between blocks looks like. Its batch, the picture's size and the number of text tokens follow from the inputs; with both, a
 * process knows what it must receive from another one, and refuses everything else. */
struct denoiser_form {
    int64_t width;      /* channels of the picture that enters the first block; of tokens, everywhere */
    int64_t text_width; /* channels of the text's tokens */
    int64_t text_added; /* tokens of the text beside those of the inputs (registers) */
    int64_t cond_width; /* channels of the conditioning */
    bool text_mask;     /* the inputs' text_mask, if there is one, is the state's */
};

struct denoiser {
    const struct denoiser_class *class;
    struct denoiser_form form;
    int num_blocks;
    int64_t in_channels, out_channels;
    int64_t patch_size;  /* latent rows and columns must be multiples of it */
    int64_t max_patches; /* a side, 0: no limit */
    int64_t text_channels, pooled_channels;
    int64_t num_heads;   /* of the attention layer that has fewest */
    int64_t max_tensor;  /* into how many shares units can be cut, where other layers set a limit beside the heads; 0: none does */
    int64_t row_unit;    /* pictures are cut by rows, in multiples of this; 0: by tokens */
    int64_t sample_size; /* config's default latent side, 0 if absent */
    bool text_stream;    /* blocks change the text, which meets the picture in their attention; else they only read it */
    const struct part_watch *watch; /* the engine's */
};

enum { DENOISER_CHANGE_POWERS = 5 };
struct denoiser_class {
    const char *name; /* config.json's _class_name */
    /* The handle, which embeds struct denoiser first, and room for its layers, in load_alloc's memory; NULL and load_error on failure. It
     * reads sizes from config.json and loads nothing. */
    struct denoiser *(*open)(const struct json *config, struct loader *loader);
    /* The layers of embed, of one block, of finish. Weights come and go part by part: after `open` each function is called once, and layers
     * get their shapes; it is called again whenever the part's weights are brought into memory or dropped. */
    void (*load_embed)(struct denoiser *, struct loader *);
    void (*load_block)(struct denoiser *, int index, struct loader *);
    void (*load_finish)(struct denoiser *, struct loader *);
    /* The first block's state, with picture and text if `parts` (of the bits above) names them. A process that runs later blocks only
     * receives a state instead: it neither calls this nor loads the weights of load_embed. */
    struct denoiser_state (*embed)(const struct denoiser *, struct run *, const struct denoiser_inputs *, unsigned parts);
    struct denoiser_state (*block)(const struct denoiser *, struct run *, int index, struct denoiser_state);
    /* F32 [B, H, W, out_channels] of the rows at hand. */
    struct tensor (*finish)(const struct denoiser *, struct run *, struct denoiser_state);
    /* What block 0's self-attention is given of the picture, [B, S, C] in the run's type: a step cache compares it between steps. NULL:
     * blocks do not add to one stream of tokens, and no step cache is possible. */
    struct tensor (*first_input)(const struct denoiser *, struct run *, const struct denoiser_state *);
    /* How far a relative change of it tells of one of the prediction: DENOISER_CHANGE_POWERS coefficients of a polynomial, highest power
     * first. NULL: the change itself. */
    const double *change_polynomial;
    void (*describe)(const struct denoiser *, int index, struct denoiser_block_info *);
};

/* For embed: ARGUMENT errors that name the class, the tensor and both shapes. latents must be [B, H, W, in_channels], H and W multiples of
 * patch_size and at most max_patches of them, and few enough for 32-bit places of elements. */
tessera_status denoiser_check_latents(const struct denoiser *denoiser, const struct tensor *latents, tessera_error *error);
/* Must `t` be there with this shape? A wanted extent of -1 stands for any of at least 1. */
tessera_status denoiser_check_shape(const struct denoiser *denoiser, const char *what, const struct tensor *t, int ndim,
                                    const int64_t *wanted, tessera_error *error);

/* ---- trying it ---- */

/* Files of inputs and of what is wanted, as published cases have them: JSON (`max_bytes` guards against nonsense; 0: 64 MiB), and
 * tensors. */
tessera_status json_open(const char *path, size_t max_bytes, struct json **out, tessera_error *error);
void json_free(struct json *json);
struct safetensors;
tessera_status safetensors_open(const char *path, struct safetensors **out, tessera_error *error);
void safetensors_close(struct safetensors *file);
/* A view that is valid until the file is closed, never to be written; empty if there is no such tensor. */
struct tensor safetensors_tensor(const struct safetensors *file, const char *name);
/* Its tensors in the order of the data, index from 0; what messages call the file; the value of __metadata__[key], or NULL. */
struct safetensors_entry {
    const char *name;
    struct tensor tensor; /* a view into the map; of a type that the engine does not know, DTYPE_UNKNOWN [bytes] */
};
int safetensors_count(const struct safetensors *file);
const struct safetensors_entry *safetensors_at(const struct safetensors *file, int index);
const char *safetensors_path(const struct safetensors *file);
const char *safetensors_metadata(const struct safetensors *file, const char *key);
/* Writes tensors to a new file, which appears whole or not at all, with texts in __metadata__: `notes` in their order, ended by an empty
 * one. A path that ends in ".gguf" becomes a GGUF file. UNSUPPORTED where a tensor has a type that the file cannot have. */
struct safetensors_note {
    const char *key, *value;
};
tessera_status safetensors_write_noted(const char *path, const struct safetensors_entry *entries, int count,
                                       const struct safetensors_note *notes, tessera_error *error);

/* The denoising loop alone, for a model that has no pipeline yet: raw inputs, noise in, latents out. */
typedef struct tessera_sampling {
    const char *denoiser;  /* a folder with config.json and weights */
    const char *scheduler; /* a folder with scheduler_config.json, or that file */
    /* As in tessera_model_options. mesh->data: each group makes a picture of its own. */
    const struct denoiser_class *const *denoisers;
    int num_denoisers;
    tessera_dtype dtype;
    int threads;
    tessera_kernels kernels;
    const tessera_mesh *mesh;
    int num_inference_steps;
    /* e_negative + guidance_scale (e_prompt - e_negative): two rows of inputs, the negative prompt's first. 0: one prediction, one row. */
    float guidance_scale, guidance_rescale;
    struct denoiser_inputs inputs; /* without latents and timesteps */
    const char *step_cache;        /* as in tessera_request */
    float step_cache_threshold;
    int64_t rows, columns; /* of the latents */
    uint64_t seed;         /* of what a stochastic sampler adds in each step, [channels, rows, columns] as torch draws it on a CPU */
    /* After each step: the guided prediction and the new latents, [rows, columns, channels] each, in the processes that take the step. */
    void (*report)(void *user, int step, const float *prediction, const float *latents);
    void *user;
    tessera_progress progress; /* as in tessera_request: phase TESSERA_PHASE_DENOISE, and how to stop; may be NULL */
    void *progress_user;
    int64_t blocks, blocks_skipped; /* out: as in tessera_image */
} tessera_sampling;

/* latents: F32 [rows, columns, channels], noise as the scheduler's first step wants it, of `count` numbers; afterwards the picture's, in
 * every process of its group. Weights are opened and closed here. ARGUMENT errors name what does not fit the model; CANCELLED where
 * progress says so. */
tessera_status tessera_sample(tessera_sampling *sampling, float *latents, size_t count, tessera_error *error);

#endif
