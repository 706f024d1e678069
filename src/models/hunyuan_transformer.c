/* HunyuanDiT's denoiser: a diffusion transformer with rotary positions, cross attention to two texts, and long skips (Li et al. 2024,
 * Hunyuan-DiT, figure 6; diffusers' HunyuanDiT2DModel).
 *
 *     latents -> patches -> linear --------> picture --> block 0 -> block 1 -> ... -> middle two -> ... -> last -> norm_out, linear
 *     text, mlp(text_2), dropped: learned -> text ---------^              \------------ skips -----------/
 *     mlp(timestep) + mlp(attention pool of text_2 [, six sizes, style]) -> cond
 *
 * In a block cond shifts the norm before self attention; queries and keys are normed by head, and the picture's turn by their place.
 * A masked token's state is replaced by a learned one, so all tokens are attended to and the state has no mask.
 *
 * The output of each of the first n / 2 - 1 blocks is a skip, concatenated with the input of its mirror image in the last n / 2 - 1.
 * A block pushes its input, not its output, so the picture itself is never among the skips at a boundary.
 *
 * Positions are those that diffusers' pipeline computes: the picture's rows and columns stretched over a base of 512 / 8 / patch_size
 * positions for the longer side. The output has all of out_channels: the second half is the learned variance, which samplers leave out.
 * Cond, modulations and norms are F32; products and the residual stream have the run's type.
 * Left out: ControlNet residuals, styles other than 0 (the published embedding has one), other activations. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "models/denoiser.h"
#include "nn/patch.h"

enum {
    SINUSOID_CHANNELS = 256,
    MAX_LAYERS = 2 * (DENOISER_MAX_SKIPS + 1),
    NUM_SIZES = 6,
    POOL_HEADS = 8,
    TEXT_MLP_RATIO = 4,
    EXTRA_MLP_RATIO = 4,
    MAX_MLP_RATIO = 64,
    BASE_SIDE = 512 / 8 /* of latents, to whose patches positions are stretched */
};
#define NORM_EPS 1e-6f /* of all norms; diffusers writes it in the code, not in the config */
#define ROTARY_THETA 10000.0f

struct mlp {
    struct linear first, second;
};
struct attention {
    struct linear q, k, v, out;
    struct norm norm_q, norm_k; /* of each head */
};

struct hunyuan_block {
    struct norm skip_norm, norm1, norm2, norm3; /* skip_*: empty in the first half */
    struct linear skip, shift;
    struct attention self, cross;
    struct mlp ff;
};

/* Attention of text_2's mean to itself and to each token. */
struct pool {
    struct tensor positions; /* F32 [text_2_tokens + 1, C] */
    struct linear q, k, v, out;
};

struct hunyuan_transformer {
    struct denoiser base;
    int64_t num_heads, head_dim, inner_dim, ff_dim;
    int64_t text_tokens, text_2_tokens, text_2_channels, pooled_dim;
    bool use_sizes;         /* and style */
    struct conv patch_proj; /* [C, p, p, in] */
    struct mlp text_2, timestep, extra;
    struct tensor padding; /* [text_tokens + text_2_tokens, text_channels]: what dropped tokens become */
    struct pool pool;
    struct tensor style; /* [1, C] */
    struct linear norm_out, proj_out;
    struct hunyuan_block *blocks;
};

static const struct norm plain_norm = {.kind = NORM_LAYER, .eps = NORM_EPS};

/* ---- loading ---- */

static tessera_status check_sizes(const struct json *config, const struct hunyuan_transformer *m, int64_t hidden, tessera_error *error) {
    int64_t layers = m->base.num_blocks;
    if (hidden != m->inner_dim || m->head_dim % 4 != 0)
        return error_set(error, TESSERA_ERROR_FORMAT,
                         "%s: hidden_size %lld must be num_attention_heads * attention_head_dim = %lld, attention_head_dim a multiple of 4",
                         json_path(config), (long long)hidden, (long long)m->inner_dim);
    if (layers > 1 && layers % 2 != 0)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: num_layers is %lld; long skips need an even number", json_path(config),
                         (long long)layers);
    if (m->text_2_channels % POOL_HEADS != 0)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: cross_attention_dim_t5 is %lld; it must be a multiple of %d", json_path(config),
                         (long long)m->text_2_channels, POOL_HEADS);
    return TESSERA_OK;
}

static tessera_status read_feed_forward(const struct json *config, struct hunyuan_transformer *m, tessera_error *error) {
    double ratio;
    const char *activation;
    TRY(json_double(config, "mlp_ratio", 4.0, &ratio, error));
    if (!(ratio * (double)m->inner_dim >= 1.0 && ratio <= MAX_MLP_RATIO))
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: mlp_ratio is %g; a number above 0 and at most %d is needed", json_path(config),
                         ratio, MAX_MLP_RATIO);
    m->ff_dim = (int64_t)(ratio * (double)m->inner_dim);
    TRY(json_string(config, "activation_fn", "gelu-approximate", &activation, error));
    if (strcmp(activation, "gelu-approximate") == 0) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: activation_fn is \"%.60s\"; only \"gelu-approximate\" is known",
                     json_path(config), activation);
}

static tessera_status read_config(const struct json *config, struct hunyuan_transformer *m, tessera_error *error) {
    struct denoiser *base = &m->base;
    int64_t layers, hidden;
    bool learn_sigma;
    TRY(json_int(config, "sample_size", 32, 1, 1 << 16, &base->sample_size, error));
    TRY(json_int(config, "patch_size", 2, 1, BASE_SIDE, &base->patch_size, error));
    TRY(json_int(config, "in_channels", 4, 1, 1 << 12, &base->in_channels, error));
    TRY(json_int(config, "num_layers", 28, 1, MAX_LAYERS, &layers, error));
    TRY(json_int(config, "num_attention_heads", 16, 1, 1 << 10, &m->num_heads, error));
    TRY(json_int(config, "attention_head_dim", 88, 1, 1 << 12, &m->head_dim, error));
    TRY(json_int(config, "hidden_size", 1152, 1, 1 << 22, &hidden, error));
    TRY(json_int(config, "cross_attention_dim", 1024, 1, 1 << 16, &base->text_channels, error));
    TRY(json_int(config, "cross_attention_dim_t5", 2048, 1, 1 << 16, &m->text_2_channels, error));
    TRY(json_int(config, "pooled_projection_dim", 1024, 1, 1 << 16, &m->pooled_dim, error));
    TRY(json_int(config, "text_len", 77, 1, 1 << 12, &m->text_tokens, error));
    TRY(json_int(config, "text_len_t5", 256, 1, 1 << 12, &m->text_2_tokens, error));
    TRY(json_bool(config, "learn_sigma", true, &learn_sigma, error));
    TRY(json_bool(config, "use_style_cond_and_image_meta_size", true, &m->use_sizes, error));
    base->num_blocks = (int)layers;
    base->out_channels = (learn_sigma ? 2 : 1) * base->in_channels;
    m->inner_dim = m->num_heads * m->head_dim;
    TRY(check_sizes(config, m, hidden, error));
    return read_feed_forward(config, m, error);
}

/* "<name>.linear_1" and "<name>.linear_2" */
static struct mlp load_mlp(struct loader *loader, int64_t in, int64_t hidden, int64_t out, const char *name) {
    return (struct mlp){.first = load_linear(loader, in, hidden, true, "%s.linear_1", name),
                        .second = load_linear(loader, hidden, out, true, "%s.linear_2", name)};
}

/* Queries of the picture, keys and values of tokens of `from` channels. */
static struct attention load_attention(struct loader *loader, const struct hunyuan_transformer *m, int64_t from, const char *name) {
    int64_t c = m->inner_dim;
    return (struct attention){.q = load_linear(loader, c, c, true, "%s.to_q", name),
                              .k = load_linear(loader, from, c, true, "%s.to_k", name),
                              .v = load_linear(loader, from, c, true, "%s.to_v", name),
                              .out = load_linear(loader, c, c, true, "%s.to_out.0", name),
                              .norm_q = load_norm(loader, NORM_LAYER, m->head_dim, NORM_EPS, true, "%s.norm_q", name),
                              .norm_k = load_norm(loader, NORM_LAYER, m->head_dim, NORM_EPS, true, "%s.norm_k", name)};
}

/* Does a block take a skip, or push its input as one? */
static bool pops(const struct denoiser *base, int index) {
    return index > base->num_blocks / 2;
}
static bool pushes(const struct denoiser *base, int index) {
    return index >= 1 && index < base->num_blocks / 2;
}

static struct hunyuan_block load_block(struct loader *loader, const struct hunyuan_transformer *m, bool skip) {
    int64_t c = m->inner_dim;
    struct hunyuan_block b = {
        .norm1 = load_norm(loader, NORM_LAYER, c, NORM_EPS, true, "norm1.norm"),
        .shift = load_linear(loader, c, c, true, "norm1.linear"),
        .self = load_attention(loader, m, c, "attn1"),
        .norm2 = load_norm(loader, NORM_LAYER, c, NORM_EPS, true, "norm2"),
        .cross = load_attention(loader, m, m->base.text_channels, "attn2"),
        .norm3 = load_norm(loader, NORM_LAYER, c, NORM_EPS, true, "norm3"),
        .ff = {.first = load_linear(loader, c, m->ff_dim, true, "ff.net.0.proj"),
               .second = load_linear(loader, m->ff_dim, c, true, "ff.net.2")},
    };
    if (!skip) return b;
    b.skip_norm = load_norm(loader, NORM_LAYER, 2 * c, NORM_EPS, true, "skip_norm");
    b.skip = load_linear(loader, 2 * c, c, true, "skip_linear");
    return b;
}

static void load_cond(struct loader *loader, struct hunyuan_transformer *m) {
    int64_t c = m->inner_dim, from = m->text_2_channels, extra = m->pooled_dim;
    load_set_prefix(loader, "time_extra_emb.");
    m->timestep = load_mlp(loader, SINUSOID_CHANNELS, c, c, "timestep_embedder");
    m->pool.positions = load_tensor(loader, DTYPE_F32, SHAPE(m->text_2_tokens + 1, from), "pooler.positional_embedding");
    m->pool.q = load_linear(loader, from, from, true, "pooler.q_proj");
    m->pool.k = load_linear(loader, from, from, true, "pooler.k_proj");
    m->pool.v = load_linear(loader, from, from, true, "pooler.v_proj");
    m->pool.out = load_linear(loader, from, m->pooled_dim, true, "pooler.c_proj");
    if (m->use_sizes) {
        m->style = load_table(loader, 1, c, "style_embedder.weight");
        extra += NUM_SIZES * SINUSOID_CHANNELS + c;
    }
    m->extra = load_mlp(loader, extra, EXTRA_MLP_RATIO * c, c, "extra_embedder");
}

static void load_weights(struct loader *loader, struct hunyuan_transformer *m) {
    const struct denoiser *base = &m->base;
    int64_t c = m->inner_dim, p = base->patch_size;
    load_set_prefix(loader, "%s", "");
    m->patch_proj = load_conv(loader, base->in_channels, c, (int)p, "pos_embed.proj");
    m->text_2 = load_mlp(loader, m->text_2_channels, TEXT_MLP_RATIO * m->text_2_channels, base->text_channels, "text_embedder");
    m->padding =
        load_tensor(loader, loader->dtype, SHAPE(m->text_tokens + m->text_2_tokens, base->text_channels), "text_embedding_padding");
    m->norm_out = load_linear(loader, c, 2 * c, true, "norm_out.linear");
    m->proj_out = load_linear(loader, c, p * p * base->out_channels, true, "proj_out");
    load_cond(loader, m);
    for (int i = 0; i < base->num_blocks && !load_failed(loader); i++) {
        load_set_prefix(loader, "blocks.%d.", i);
        m->blocks[i] = load_block(loader, m, pops(base, i));
    }
}

static struct denoiser *open(const struct json *config, struct loader *loader) {
    struct hunyuan_transformer read = {.base.class = &hunyuan_transformer_class};
    if (read_config(config, &read, &loader->error) != TESSERA_OK) return NULL;
    struct hunyuan_transformer *m = load_alloc(loader, sizeof *m);
    read.blocks = load_alloc(loader, (size_t)read.base.num_blocks * sizeof *read.blocks);
    if (load_failed(loader)) return NULL;
    *m = read;
    load_weights(loader, m);
    return load_failed(loader) ? NULL : &m->base;
}

/* ---- embed ---- */

static tessera_status check_inputs(const struct hunyuan_transformer *m, const struct denoiser_inputs *in, tessera_error *error) {
    const struct denoiser *base = &m->base;
    TRY(denoiser_check_latents(base, &in->latents, error));
    int64_t batch = in->latents.shape[0], t = m->text_tokens, t2 = m->text_2_tokens;
    TRY(denoiser_check_shape(base, "text", &in->text, SHAPE(batch, t, base->text_channels), error));
    TRY(denoiser_check_shape(base, "second text", &in->text_2, SHAPE(batch, t2, m->text_2_channels), error));
    if (in->text_mask.data != NULL) TRY(denoiser_check_shape(base, "text mask", &in->text_mask, SHAPE(batch, t), error));
    if (in->text_2_mask.data != NULL) TRY(denoiser_check_shape(base, "second text mask", &in->text_2_mask, SHAPE(batch, t2), error));
    if (!m->use_sizes) return TESSERA_OK;
    return denoiser_check_shape(base, "size conditions (image_meta_size)", &in->size_conditions, SHAPE(batch, NUM_SIZES), error);
}

static struct tensor apply_mlp(struct run *run, const struct mlp *mlp, struct tensor x, enum activation act) {
    return nn_linear(run, &mlp->second, nn_linear(run, &mlp->first, x, act), ACTIVATION_NONE);
}

static struct tensor embed_picture(const struct hunyuan_transformer *m, struct run *run, struct tensor latents) {
    int64_t p = m->base.patch_size;
    size_t scope = run_enter(run);
    struct linear proj = {.weight = nn_reshape(m->patch_proj.weight, SHAPE(m->inner_dim, p * p * m->base.in_channels)),
                          .bias = m->patch_proj.bias};
    return run_leave(run, scope, nn_linear(run, &proj, nn_patches(run, latents, p, NULL), ACTIVATION_NONE));
}

static bool is_kept(const struct tensor *mask, int64_t batch, int64_t token) {
    return mask->data == NULL || ((const float *)mask->data)[batch * mask->shape[1] + token] != 0.0f;
}

/* Tokens of text, then text_2, or what is learned in their place: a gather from a table of all three, [B, T + T2, C]. */
static struct tensor embed_text(const struct hunyuan_transformer *m, struct run *run, const struct denoiser_inputs *in) {
    size_t scope = run_enter(run);
    int64_t batch = in->text.shape[0], t = m->text_tokens, tokens = t + m->text_2_tokens, c = m->base.text_channels;
    struct tensor text_2 = apply_mlp(run, &m->text_2, nn_cast(run, in->text_2, run->dtype), ACTIVATION_SILU);
    struct tensor both = nn_concat_rows(run, nn_cast(run, in->text, run->dtype), text_2);
    struct tensor table = nn_concat_rows(run, nn_reshape(both, SHAPE(1, batch * tokens, c)), nn_reshape(m->padding, SHAPE(1, tokens, c)));
    struct tensor index = run_tensor(run, DTYPE_I32, SHAPE(batch * tokens));
    if (run_failed(run)) return index;
    int32_t *next = index.data;
    for (int64_t b = 0; b < batch; b++) {
        for (int64_t i = 0; i < tokens; i++) {
            bool kept = i < t ? is_kept(&in->text_mask, b, i) : is_kept(&in->text_2_mask, b, i - t);
            *next++ = (int32_t)((kept ? b : batch) * tokens + i);
        }
    }
    return run_leave(run, scope, nn_embed(run, tensor_reshape(table, SHAPE((batch + 1) * tokens, c)), index.data, batch, tokens));
}

/* The mean of [B, S, C] over S, then its rows, each plus its position: [B, S + 1, C] in the run's type. */
static struct tensor pool_tokens(const struct pool *pool, struct run *run, struct tensor text) {
    int64_t batch = text.shape[0], tokens = text.shape[1], c = text.shape[2], position_count = (tokens + 1) * c;
    struct tensor out = run_tensor(run, DTYPE_F32, SHAPE(batch, tokens + 1, c));
    if (run_failed(run)) return out;
    const float *positions = pool->positions.data;
    for (int64_t b = 0; b < batch; b++) {
        const float *from = (const float *)text.data + b * tokens * c;
        float *to = (float *)out.data + b * position_count;
        for (int64_t i = 0; i < c; i++) {
            double sum = 0;
            for (int64_t t = 0; t < tokens; t++) sum += from[t * c + i];
            to[i] = (float)(sum / (double)tokens) + positions[i];
        }
        for (int64_t i = c; i < position_count; i++) to[i] = from[i - c] + positions[i];
    }
    return nn_cast(run, out, run->dtype);
}

/* All tokens count, masked ones too, as in diffusers: [B, pooled_dim]. */
static struct tensor pool_text(const struct hunyuan_transformer *m, struct run *run, struct tensor text) {
    const struct pool *pool = &m->pool;
    struct tensor x = pool_tokens(pool, run, text), mean = nn_slice_rows(run, x, 0, 1);
    if (run_failed(run)) return x;
    int64_t batch = x.shape[0], tokens = x.shape[1], c = x.shape[2], d = c / POOL_HEADS;
    struct tensor q = nn_reshape(nn_linear(run, &pool->q, mean, ACTIVATION_NONE), SHAPE(batch, 1, POOL_HEADS, d));
    struct tensor k = nn_reshape(nn_linear(run, &pool->k, x, ACTIVATION_NONE), SHAPE(batch, tokens, POOL_HEADS, d));
    struct tensor v = nn_reshape(nn_linear(run, &pool->v, x, ACTIVATION_NONE), SHAPE(batch, tokens, POOL_HEADS, d));
    struct attention_args args = {.q = &q, .k = &k, .v = &v, .scale = 1.0f / sqrtf((float)d)};
    return nn_linear(run, &pool->out, nn_reshape(nn_attention(run, args), SHAPE(batch, c)), ACTIVATION_NONE);
}

/* Sinusoids of the six sizes, then the style 0: [B, 6 * 256 + C] in the run's type. */
static struct tensor embed_sizes(const struct hunyuan_transformer *m, struct run *run, struct tensor sizes) {
    int64_t batch = sizes.shape[0];
    struct tensor sinusoids = nn_timestep_embedding(run, sizes.data, NUM_SIZES * batch, SINUSOID_CHANNELS);
    sinusoids = nn_cast(run, nn_reshape(sinusoids, SHAPE(batch, NUM_SIZES * SINUSOID_CHANNELS)), run->dtype);
    struct tensor index = run_tensor(run, DTYPE_I32, SHAPE(batch));
    if (run_failed(run)) return index;
    memset(index.data, 0, tensor_bytes(&index));
    struct tensor style = nn_reshape(nn_embed(run, m->style, index.data, batch, 1), SHAPE(batch, m->inner_dim));
    return nn_concat_channels(run, sinusoids, style);
}

/* F32 [B, C] */
static struct tensor embed_cond(const struct hunyuan_transformer *m, struct run *run, const struct denoiser_inputs *in) {
    size_t scope = run_enter(run);
    struct tensor sinusoid = nn_timestep_embedding(run, in->timesteps, in->latents.shape[0], SINUSOID_CHANNELS);
    struct tensor time = apply_mlp(run, &m->timestep, nn_cast(run, sinusoid, run->dtype), ACTIVATION_SILU);
    struct tensor extra = pool_text(m, run, in->text_2);
    if (m->use_sizes) extra = nn_concat_channels(run, extra, embed_sizes(m, run, in->size_conditions));
    extra = apply_mlp(run, &m->extra, extra, ACTIVATION_SILU);
    return run_leave(run, scope, nn_add(run, nn_cast(run, time, DTYPE_F32), nn_cast(run, extra, DTYPE_F32)));
}

static struct denoiser_state embed(const struct denoiser *base, struct run *run, const struct denoiser_inputs *in) {
    const struct hunyuan_transformer *m = (const struct hunyuan_transformer *)base;
    struct denoiser_state state = {0};
    if (run_failed(run) || check_inputs(m, in, &run->error) != TESSERA_OK) return state;
    state.rows = in->latents.shape[1] / base->patch_size;
    state.columns = in->latents.shape[2] / base->patch_size;
    state.picture = embed_picture(m, run, in->latents);
    state.text = embed_text(m, run, in);
    state.cond = embed_cond(m, run, in);
    return state;
}

/* ---- positions ---- */

/* Cosines and sines by which queries and keys of the picture turn: F32 [tokens, head_dim]. */
struct rotation {
    struct tensor cos, sin;
};

/* The base's positions that the picture's rows and columns are stretched over: the longer side over all of them, the shorter over as
 * many as its share, in the middle (diffusers' get_resize_crop_region_for_grid; rint rounds halves to even, as Python does). */
struct grid {
    double top, left, bottom, right;
};

static struct grid grid_of(int64_t base, int64_t h, int64_t w) {
    bool tall = h > w;
    double side = (double)base, height = tall ? side : rint(side / (double)w * (double)h),
           width = tall ? rint(side / (double)h * (double)w) : side;
    double top = rint((side - height) / 2.0), left = rint((side - width) / 2.0);
    return (struct grid){.top = top, .left = left, .bottom = top + height, .right = left + width};
}

/* Place `index` of `count` from `start` towards `stop`: torch.linspace(start, stop (count - 1) / count, count), which counts from the
 * nearer end, in float32. */
static float place(double start, double stop, int64_t count, int64_t index) {
    float first = (float)start, last = (float)(stop * (double)(count - 1) / (double)count);
    if (count == 1) return first;
    float step = (last - first) / (float)(count - 1);
    return index < count / 2 ? first + step * (float)index : last - step * (float)(count - 1 - index);
}

/* One axis: `turn` F32 [2, count, channels], cosines then sines, of place / theta^(2 i / channels), each twice. */
static void fill_axis(float *turn, double start, double stop, int64_t count, int64_t channels) {
    for (int64_t p = 0; p < count; p++) {
        float position = place(start, stop, count, p);
        for (int64_t i = 0; i < channels; i++) {
            float angle = position * (1.0f / powf(ROTARY_THETA, (float)(i / 2 * 2) / (float)channels));
            turn[p * channels + i] = cosf(angle);
            turn[(count + p) * channels + i] = sinf(angle);
        }
    }
}

/* Half a head turns by the column, half by the row. */
static struct rotation rotation_of(const struct hunyuan_transformer *m, struct run *run, int64_t h, int64_t w) {
    int64_t tokens = h * w, half = m->head_dim / 2;
    struct rotation r = {run_tensor(run, DTYPE_F32, SHAPE(tokens, m->head_dim)), run_tensor(run, DTYPE_F32, SHAPE(tokens, m->head_dim))};
    size_t scope = run_enter(run);
    struct tensor rows = run_tensor(run, DTYPE_F32, SHAPE(2, h, half)), columns = run_tensor(run, DTYPE_F32, SHAPE(2, w, half));
    if (run_failed(run)) return r;
    struct grid g = grid_of(BASE_SIDE / m->base.patch_size, h, w);
    fill_axis(rows.data, g.top, g.bottom, h, half);
    fill_axis(columns.data, g.left, g.right, w, half);
    for (int part = 0; part < 2; part++) {
        const float *row = (const float *)rows.data + part * h * half, *column = (const float *)columns.data + part * w * half;
        float *out = part == 0 ? r.cos.data : r.sin.data;
        for (int64_t t = 0; t < tokens; t++, out += m->head_dim) {
            memcpy(out, column + t % w * half, (size_t)half * sizeof *out);
            memcpy(out + half, row + t / w * half, (size_t)half * sizeof *out);
        }
    }
    run_leave_all(run, scope, NULL, 0);
    return r;
}

/* ---- blocks ---- */

/* silu(cond) in the run's type */
static struct tensor activated_cond(struct run *run, struct tensor cond) {
    return nn_cast(run, nn_activate(run, cond, ACTIVATION_SILU), run->dtype);
}

/* Queries or keys by head, normed: [B, S, C] -> [B, S, N, D]. */
static struct tensor project(const struct hunyuan_transformer *m, struct run *run, const struct linear *layer, const struct norm *norm,
                             struct tensor x) {
    if (run_failed(run)) return (struct tensor){0};
    struct tensor y = nn_linear(run, layer, x, ACTIVATION_NONE);
    return nn_norm(run, norm, nn_reshape(y, SHAPE(x.shape[0], x.shape[1], m->num_heads, m->head_dim)));
}

/* Queries of x [B, S, C]; keys and values of `text`, or of x itself where text is NULL. */
static struct tensor attend(const struct hunyuan_transformer *m, struct run *run, const struct attention *a, const struct rotation *r,
                            struct tensor x, const struct tensor *text) {
    if (run_failed(run)) return (struct tensor){0};
    int64_t batch = x.shape[0];
    struct tensor from = text != NULL ? *text : x;
    size_t scope = run_enter(run);
    struct tensor q = nn_rotary(run, project(m, run, &a->q, &a->norm_q, x), r->cos, r->sin);
    struct tensor k = project(m, run, &a->k, &a->norm_k, from);
    if (text == NULL) k = nn_rotary(run, k, r->cos, r->sin);
    struct tensor v = nn_reshape(nn_linear(run, &a->v, from, ACTIVATION_NONE), SHAPE(batch, from.shape[1], m->num_heads, m->head_dim));
    struct attention_args args = {.q = &q, .k = &k, .v = &v, .scale = 1.0f / sqrtf((float)m->head_dim)};
    struct tensor y = nn_reshape(nn_attention(run, args), SHAPE(batch, x.shape[1], m->inner_dim));
    return run_leave(run, scope, nn_linear(run, &a->out, y, ACTIVATION_NONE));
}

/* norm1(x) + linear(silu(cond)): a modulation whose scale is 0. */
static struct tensor shifted_norm(struct run *run, const struct hunyuan_block *b, struct tensor x, struct tensor cond) {
    struct tensor shift = nn_cast(run, nn_linear(run, &b->shift, activated_cond(run, cond), ACTIVATION_NONE), DTYPE_F32);
    struct tensor scale = run_tensor(run, DTYPE_F32, SHAPE(cond.shape[0], cond.shape[1]));
    if (run_failed(run)) return scale;
    memset(scale.data, 0, tensor_bytes(&scale));
    return nn_norm_modulated(run, &b->norm1, x, scale, shift);
}

static void push(struct denoiser_state *state, struct tensor x) {
    assert(state->num_skips < DENOISER_MAX_SKIPS);
    state->skips[state->num_skips++] = x;
}

/* The picture with the topmost skip mixed in. */
static struct tensor mix_skip(struct run *run, const struct hunyuan_block *b, struct denoiser_state *state) {
    assert(state->num_skips > 0);
    struct tensor skip = state->skips[--state->num_skips];
    state->skips[state->num_skips] = (struct tensor){0};
    size_t scope = run_enter(run);
    struct tensor both = nn_norm(run, &b->skip_norm, nn_concat_channels(run, state->picture, skip));
    return run_leave(run, scope, nn_linear(run, &b->skip, both, ACTIVATION_NONE));
}

static struct denoiser_state block(const struct denoiser *base, struct run *run, int index, struct denoiser_state state) {
    const struct hunyuan_transformer *m = (const struct hunyuan_transformer *)base;
    const struct hunyuan_block *b = &m->blocks[index];
    if (run_failed(run)) return (struct denoiser_state){0};
    size_t scope = run_enter(run);
    struct rotation r = rotation_of(m, run, state.rows, state.columns);
    if (pushes(base, index)) push(&state, state.picture);
    struct tensor x = pops(base, index) ? mix_skip(run, b, &state) : state.picture;
    x = nn_add(run, x, attend(m, run, &b->self, &r, shifted_norm(run, b, x, state.cond), NULL));
    x = nn_add(run, x, attend(m, run, &b->cross, &r, nn_norm(run, &b->norm2, x), &state.text));
    state.picture = nn_add(run, x, apply_mlp(run, &b->ff, nn_norm(run, &b->norm3, x), ACTIVATION_GELU_TANH));
    if (index == base->num_blocks - 1) state.text = (struct tensor){0};
    state.picture = run_leave(run, scope, state.picture);
    return state;
}

/* ---- finish ---- */

/* Scale comes before shift in this norm's weights (diffusers' AdaLayerNormContinuous). */
static struct tensor finish(const struct denoiser *base, struct run *run, struct denoiser_state state) {
    const struct hunyuan_transformer *m = (const struct hunyuan_transformer *)base;
    if (run_failed(run)) return (struct tensor){0};
    size_t scope = run_enter(run);
    struct tensor both = nn_cast(run, nn_linear(run, &m->norm_out, activated_cond(run, state.cond), ACTIVATION_NONE), DTYPE_F32);
    struct tensor x = nn_norm_modulated(run, &plain_norm, state.picture, nn_chunk(run, both, 2, 0), nn_chunk(run, both, 2, 1));
    x = nn_linear(run, &m->proj_out, x, ACTIVATION_NONE);
    return run_leave(run, scope, nn_unpatch(run, x, base->patch_size, state.rows, state.columns));
}

/* ---- description ---- */

static int64_t size_of(const struct tensor *t) {
    return t->data == NULL ? 0 : tensor_count(t);
}

/* Weights of layers that each token goes through; *parameters grows by theirs and their biases'. */
static int64_t count_weights(const struct linear *const layers[], int count, int64_t *parameters) {
    int64_t weights = 0;
    for (int i = 0; i < count; i++) {
        weights += size_of(&layers[i]->weight);
        *parameters += size_of(&layers[i]->weight) + size_of(&layers[i]->bias);
    }
    return weights;
}

static int64_t count_norms(const struct hunyuan_block *b) {
    const struct norm *const norms[] = {&b->skip_norm,   &b->norm1,       &b->norm2,        &b->norm3,
                                        &b->self.norm_q, &b->self.norm_k, &b->cross.norm_q, &b->cross.norm_k};
    int64_t parameters = 0;
    for (size_t i = 0; i < sizeof norms / sizeof norms[0]; i++) parameters += size_of(&norms[i]->weight) + size_of(&norms[i]->bias);
    return parameters;
}

/* A pair of tokens costs 2 C for its score and 2 C for its value. Skips travel wherever one has been pushed and not yet popped. */
static void describe(const struct denoiser *base, int index, struct denoiser_block_info *info) {
    const struct hunyuan_transformer *m = (const struct hunyuan_transformer *)base;
    const struct hunyuan_block *b = &m->blocks[index];
    const struct linear *const picture[] = {&b->skip,    &b->self.q,    &b->self.k,   &b->self.v,   &b->self.out,
                                            &b->cross.q, &b->cross.out, &b->ff.first, &b->ff.second};
    const struct linear *const text[] = {&b->cross.k, &b->cross.v}, *const cond[] = {&b->shift};
    int last = base->num_blocks - 1;
    int64_t parameters = count_norms(b);
    count_weights(cond, 1, &parameters);
    int64_t picture_weights = count_weights(picture, 9, &parameters), text_weights = count_weights(text, 2, &parameters);
    *info = (struct denoiser_block_info){
        .parameters = parameters,
        .operations_per_picture_token = 2.0 * (double)picture_weights,
        .operations_per_text_token = 2.0 * (double)text_weights,
        .operations_per_token_pair = 4.0 * (double)m->inner_dim,
        .carries = DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_COND | (index < last ? DENOISER_CARRIES_TEXT : 0u) |
                   (index > 0 && index < last ? DENOISER_CARRIES_SKIPS : 0u),
    };
    snprintf(info->name, sizeof info->name, "blocks.%d", index);
}

const struct denoiser_class hunyuan_transformer_class = {
    .name = "HunyuanDiT2DModel", .open = open, .embed = embed, .block = block, .finish = finish, .describe = describe};
