/* HunyuanDiT's denoiser: a diffusion transformer with rotary positions, cross attention to two
 * texts, and long skips (Li et al. 2024, Hunyuan-DiT, figure 6; diffusers' HunyuanDiT2DModel).
 *
 *     latents -> patchify -> linear --------> picture --> block 0 -> block 1 -> ... -> middle two -> ... -> last -> norm_out, linear
 *     text, mlp(text_2), dropped: learned -> text ---------^              \------------ skips -----------/
 *     mlp(timestep) + mlp(attention pool of text_2 [, six sizes, style]) -> cond
 *
 * In a block cond shifts the norm before self attention; queries and keys are normed by head, and
 * the picture's turn by their place. A masked token's state is replaced by a learned one, so all
 * tokens are attended to and the state has no mask.
 *
 * The output of each of the first n / 2 - 1 blocks is a skip, concatenated with the input of its
 * mirror image in the last n / 2 - 1. A block pushes its input, not its output, so the picture
 * itself is never among the skips at a boundary.
 *
 * Positions are those that diffusers' pipeline computes: the picture's rows and columns stretched
 * over a base of 512 / 8 / patch_size positions for the longer side. The output has all of
 * out_channels: the second half is the learned variance, which samplers leave out. Cond,
 * modulations and norms are F32; products and the residual stream have the run's type. Left out:
 * ControlNet residuals, styles other than 0 (the published embedding has one), other activations. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/elementary.h"
#include "models/denoiser.h"
#include "models/dit_layers.h"
#include "nn/by_rows.h"
#include "nn/patchify.h"

enum {
    MAX_LAYERS = 2 * (DENOISER_MAX_SKIPS + 1),
    NUM_SIZES = 6,
    POOL_HEADS = 8,
    TEXT_MLP_RATIO = 4,
    EXTRA_MLP_RATIO = 4,
    MAX_MLP_RATIO = 64,
    BASE_SIDE = 512 / 8 /* of latents, to whose tokens positions are stretched */
};
#define ROTARY_THETA 10000.0f

struct hunyuan_block {
    struct norm skip_norm, norm1, norm2, norm3; /* skip_*: empty in the first half */
    struct linear skip, shift;
    struct attention self, cross;
    struct mlp ff;
};

/* Attention of text_2's mean to itself and to each token. */
struct pool {
    struct tensor positions; /* F32 [text_2_tokens + 1, C] */
    struct attention attention;
};

struct hunyuan_transformer {
    struct denoiser base;
    int64_t num_heads, head_dim, inner_dim, ff_dim;
    struct span my_skips; /* of the 2 C channels that a skip is mixed from, where weights are cut over ranks */
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
    m->base.max_tensor = m->ff_dim;
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
    base->num_heads = m->num_heads;
    base->out_channels = (learn_sigma ? 2 : 1) * base->in_channels;
    m->inner_dim = m->num_heads * m->head_dim;
    base->form = (struct denoiser_form){.width = m->inner_dim, .text_width = base->text_channels, .cond_width = m->inner_dim};
    TRY(check_sizes(config, m, hidden, error));
    return read_feed_forward(config, m, error);
}

/* Queries of the picture, keys and values of tokens of `from` channels. */
static struct attention load_attention(struct loader *loader, const struct hunyuan_transformer *m, int64_t from, const char *name) {
    int64_t c = m->inner_dim, n = m->num_heads, d = m->head_dim;
    return (struct attention){.q = load_linear_outputs(loader, c, n, d, true, "%s.to_q", name),
                              .k = load_linear_outputs(loader, from, n, d, true, "%s.to_k", name),
                              .v = load_linear_outputs(loader, from, n, d, true, "%s.to_v", name),
                              .out = load_linear_inputs(loader, n, d, c, true, "%s.to_out.0", name),
                              .norm_q = load_norm(loader, NORM_LAYER, d, DIT_NORM_EPS, true, "%s.norm_q", name),
                              .norm_k = load_norm(loader, NORM_LAYER, d, DIT_NORM_EPS, true, "%s.norm_k", name)};
}

/* Does a block take a skip, or push its input as one? */
static bool pops(const struct denoiser *base, int index) {
    return index > base->num_blocks / 2;
}
static bool pushes(const struct denoiser *base, int index) {
    return index >= 1 && index < base->num_blocks / 2;
}

static struct hunyuan_block read_block(struct loader *loader, const struct hunyuan_transformer *m, bool skip) {
    int64_t c = m->inner_dim;
    struct hunyuan_block b = {
        .norm1 = load_norm(loader, NORM_LAYER, c, DIT_NORM_EPS, true, "norm1.norm"),
        .shift = load_linear(loader, c, c, true, "norm1.linear"),
        .self = load_attention(loader, m, c, "attn1"),
        .norm2 = load_norm(loader, NORM_LAYER, c, DIT_NORM_EPS, true, "norm2"),
        .cross = load_attention(loader, m, m->base.text_channels, "attn2"),
        .norm3 = load_norm(loader, NORM_LAYER, c, DIT_NORM_EPS, true, "norm3"),
        .ff = dit_load_feed_forward(loader, c, m->ff_dim, "ff"),
    };
    if (!skip) return b;
    b.skip_norm = load_norm(loader, NORM_LAYER, 2 * c, DIT_NORM_EPS, true, "skip_norm");
    b.skip = load_linear_inputs(loader, 2 * c, 1, c, true, "skip_linear");
    return b;
}

static void load_cond(struct loader *loader, struct hunyuan_transformer *m) {
    int64_t c = m->inner_dim, from = m->text_2_channels, extra = m->pooled_dim;
    load_set_prefix(loader, "time_extra_emb.");
    m->timestep = dit_load_embedder(loader, DIT_TIMESTEP_CHANNELS, c, c, "timestep_embedder");
    m->pool.positions = load_tensor(loader, DTYPE_F32, SHAPE(m->text_2_tokens + 1, from), "pooler.positional_embedding");
    m->pool.attention.q = load_linear(loader, from, from, true, "pooler.q_proj");
    m->pool.attention.k = load_linear(loader, from, from, true, "pooler.k_proj");
    m->pool.attention.v = load_linear(loader, from, from, true, "pooler.v_proj");
    m->pool.attention.out = load_linear(loader, from, m->pooled_dim, true, "pooler.c_proj");
    if (m->use_sizes) {
        m->style = load_table(loader, 1, c, "style_embedder.weight");
        extra += NUM_SIZES * DIT_TIMESTEP_CHANNELS + c;
    }
    m->extra = dit_load_embedder(loader, extra, EXTRA_MLP_RATIO * c, c, "extra_embedder");
}

static void load_embed(struct denoiser *base, struct loader *loader) {
    struct hunyuan_transformer *m = (struct hunyuan_transformer *)base;
    int64_t tokens = m->text_tokens + m->text_2_tokens;
    load_set_prefix(loader, "%s", "");
    m->patch_proj = load_conv(loader, base->in_channels, m->inner_dim, (int)base->patch_size, "pos_embed.proj");
    m->text_2 = dit_load_embedder(loader, m->text_2_channels, TEXT_MLP_RATIO * m->text_2_channels, base->text_channels, "text_embedder");
    m->padding = load_tensor(loader, loader->dtype, SHAPE(tokens, base->text_channels), "text_embedding_padding");
    load_cond(loader, m);
}

static void load_block(struct denoiser *base, int index, struct loader *loader) {
    struct hunyuan_transformer *m = (struct hunyuan_transformer *)base;
    load_set_prefix(loader, "blocks.%d.", index);
    m->blocks[index] = read_block(loader, m, pops(base, index));
}

static void load_finish(struct denoiser *base, struct loader *loader) {
    struct hunyuan_transformer *m = (struct hunyuan_transformer *)base;
    int64_t c = m->inner_dim, p = base->patch_size;
    load_set_prefix(loader, "%s", "");
    m->norm_out = load_linear(loader, c, 2 * c, true, "norm_out.linear");
    m->proj_out = load_linear(loader, c, p * p * base->out_channels, true, "proj_out");
}

static struct denoiser *open(const struct json *config, struct loader *loader) {
    struct hunyuan_transformer read = {.base.class = &hunyuan_transformer_class};
    if (read_config(config, &read, &loader->error) != TESSERA_OK) return NULL;
    struct hunyuan_transformer *m = load_alloc(loader, sizeof *m);
    read.blocks = load_alloc(loader, (size_t)read.base.num_blocks * sizeof *read.blocks);
    if (load_failed(loader)) return NULL;
    *m = read;
    load_units(loader, m->num_heads < m->ff_dim ? m->num_heads : m->ff_dim);
    m->my_skips = load_span(loader, 2 * m->inner_dim);
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

/* `mask` [B, tokens], or NULL: all are kept. */
static bool is_kept(const float *mask, int64_t batch, int64_t tokens, int64_t token) {
    return mask == NULL || mask[batch * tokens + token] != 0.0f;
}

/* Tokens of text, then text_2, or what is learned in their place: a gather from a table of all
 * three, [B, T + T2, C]. */
static struct tensor embed_text(const struct hunyuan_transformer *m, struct run *run, const struct denoiser_inputs *in) {
    size_t scope = run_enter(run);
    int64_t batch = in->text.shape[0], t = m->text_tokens, tokens = t + m->text_2_tokens, c = m->base.text_channels;
    struct tensor text_2 = dit_mlp(run, &m->text_2, in->text_2, ACTIVATION_SILU);
    struct tensor both = nn_concat_rows(run, nn_cast(run, in->text, run->dtype), text_2);
    struct tensor table = nn_concat_rows(run, nn_reshape(both, SHAPE(1, batch * tokens, c)), nn_reshape(m->padding, SHAPE(1, tokens, c)));
    struct tensor index = run_tensor(run, DTYPE_I32, SHAPE(batch * tokens));
    int32_t *ids = run_map(run, &index, MAP_WRITE), *next = ids;
    float *mask = run_map(run, &in->text_mask, MAP_READ), *mask_2 = run_map(run, &in->text_2_mask, MAP_READ);
    for (int64_t b = 0; b < batch && !run_failed(run); b++) {
        for (int64_t i = 0; i < tokens; i++) {
            bool kept = i < t ? is_kept(mask, b, t, i) : is_kept(mask_2, b, tokens - t, i - t);
            *next++ = (int32_t)((kept ? b : batch) * tokens + i);
        }
    }
    run_unmap(run, &in->text_mask, mask, MAP_READ);
    run_unmap(run, &in->text_2_mask, mask_2, MAP_READ);
    run_unmap(run, &index, ids, MAP_WRITE);
    return run_leave(run, scope, nn_embed_rows(run, nn_reshape(table, SHAPE((batch + 1) * tokens, c)), index, batch, tokens));
}

/* The mean of [B, S, C] over S, then its rows, each plus its position: [B, S + 1, C] in the run's
 * type. */
static struct tensor pool_tokens(const struct pool *pool, struct run *run, struct tensor text) {
    int64_t batch = text.shape[0], tokens = text.shape[1], c = text.shape[2], position_count = (tokens + 1) * c;
    struct tensor out = run_tensor(run, DTYPE_F32, SHAPE(batch, tokens + 1, c));
    float *positions = run_map(run, &pool->positions, MAP_READ), *states = run_map(run, &text, MAP_READ);
    float *values = run_map(run, &out, MAP_WRITE);
    for (int64_t b = 0; b < batch && !run_failed(run); b++) {
        const float *from = states + b * tokens * c;
        float *to = values + b * position_count;
        for (int64_t i = 0; i < c; i++) {
            double sum = 0;
            for (int64_t t = 0; t < tokens; t++) sum += from[t * c + i];
            to[i] = (float)(sum / (double)tokens) + positions[i];
        }
        for (int64_t i = c; i < position_count; i++) to[i] = from[i - c] + positions[i];
    }
    run_unmap(run, &pool->positions, positions, MAP_READ);
    run_unmap(run, &text, states, MAP_READ);
    run_unmap(run, &out, values, MAP_WRITE);
    return nn_cast(run, out, run->dtype);
}

/* All tokens count, masked ones too, as in diffusers: [B, pooled_dim]. */
static struct tensor pool_text(const struct hunyuan_transformer *m, struct run *run, struct tensor text) {
    const struct attention *a = &m->pool.attention;
    struct tensor x = pool_tokens(&m->pool, run, text), mean = nn_slice_rows(run, x, 0, 1);
    struct tensor q = nn_linear(run, &a->q, mean, ACTIVATION_NONE), k = nn_linear(run, &a->k, x, ACTIVATION_NONE);
    struct tensor v = nn_linear(run, &a->v, x, ACTIVATION_NONE);
    struct tensor y = dit_attend(run, m->text_2_channels / POOL_HEADS, q, k, v, NULL, (struct text_span){0});
    return nn_linear(run, &a->out, nn_reshape(y, SHAPE(y.shape[0], y.shape[2])), ACTIVATION_NONE);
}

/* Sinusoids of the six sizes, then the style 0: [B, 6 * 256 + C] in the run's type. */
static struct tensor embed_sizes(const struct hunyuan_transformer *m, struct run *run, struct tensor sizes) {
    int64_t batch = sizes.shape[0];
    float *values = run_map(run, &sizes, MAP_READ);
    struct tensor sinusoids = nn_timestep_embedding(run, values, NUM_SIZES * batch, DIT_TIMESTEP_CHANNELS);
    run_unmap(run, &sizes, values, MAP_READ);
    sinusoids = nn_cast(run, nn_reshape(sinusoids, SHAPE(batch, NUM_SIZES * DIT_TIMESTEP_CHANNELS)), run->dtype);
    struct tensor index = run_tensor(run, DTYPE_I32, SHAPE(batch));
    if (run_failed(run)) return index;
    run->backend->ops->zero(run->backend, index.data, tensor_bytes(&index));
    struct tensor style = nn_reshape(nn_embed_rows(run, m->style, index, batch, 1), SHAPE(batch, m->inner_dim));
    return nn_concat_channels(run, sinusoids, style);
}

/* F32 [B, C] */
static struct tensor embed_cond(const struct hunyuan_transformer *m, struct run *run, const struct denoiser_inputs *in) {
    size_t scope = run_enter(run);
    struct tensor time = dit_embed_values(run, &m->timestep, in->timesteps, in->latents.shape[0]);
    struct tensor extra = pool_text(m, run, in->text_2);
    if (m->use_sizes) extra = nn_concat_channels(run, extra, embed_sizes(m, run, in->size_conditions));
    extra = dit_mlp(run, &m->extra, extra, ACTIVATION_SILU);
    return run_leave(run, scope, nn_add(run, nn_cast(run, time, DTYPE_F32), nn_cast(run, extra, DTYPE_F32)));
}

static struct denoiser_state embed(const struct denoiser *base, struct run *run, const struct denoiser_inputs *in, unsigned carries) {
    const struct hunyuan_transformer *m = (const struct hunyuan_transformer *)base;
    struct denoiser_state state = {0};
    if (run_failed(run) || check_inputs(m, in, &run->error) != TESSERA_OK) return state;
    state.rows = in->latents.shape[1] / base->patch_size;
    state.columns = in->latents.shape[2] / base->patch_size;
    state.cut = exchange_cut_tokens(run, state.rows, state.columns);
    size_t scope = run_enter(run);
    if (carries & DENOISER_CARRIES_PICTURE)
        state.picture = run_leave(run, scope, dit_embed_picture(run, &m->patch_proj, in->latents, state.cut));
    if (carries & DENOISER_CARRIES_TEXT) state.text = embed_text(m, run, in);
    state.cond = embed_cond(m, run, in);
    return state;
}

/* ---- positions ---- */

/* The base's positions that the picture's rows and columns are stretched over: the longer side over
 * all of them, the shorter over as many as its share, in the middle (diffusers'
 * get_resize_crop_region_for_grid; rint rounds halves to even, as Python does). */
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

/* Place `index` of `count` from `start` towards `stop`: torch.linspace(start, stop (count - 1) /
 * count, count), which counts from the nearer end, in float32. */
static float place(double start, double stop, int64_t count, int64_t index) {
    float first = (float)start, last = (float)(stop * (double)(count - 1) / (double)count);
    if (count == 1) return first;
    float step = (last - first) / (float)(count - 1);
    return index < count / 2 ? first + step * (float)index : last - step * (float)(count - 1 - index);
}

/* One axis: `turn` F32 [2, count, channels], cosines then sines, of place / theta^(2 i / channels),
 * each twice. */
static void fill_axis(const struct elementary *f, float *turn, double start, double stop, int64_t count, int64_t channels) {
    for (int64_t p = 0; p < count; p++) {
        float position = place(start, stop, count, p);
        for (int64_t i = 0; i < channels; i++) {
            float angle = position * (1.0f / f->powf(ROTARY_THETA, (float)(i / 2 * 2) / (float)channels));
            turn[p * channels + i] = f->cosf(angle);
            turn[(count + p) * channels + i] = f->sinf(angle);
        }
    }
}

/* Of this rank's tokens. Half a head turns by the column, half by the row. As in Flux, the host
 * writes the tables and nothing waits. */
static struct rotation rotation_of(const struct hunyuan_transformer *m, struct run *run, const struct denoiser_state *state) {
    int64_t h = state->rows, w = state->columns, half = m->head_dim / 2;
    struct span mine = cut_mine(state->cut, h * w);
    struct rotation r = {run_tensor(run, DTYPE_F32, SHAPE(mine.count, m->head_dim)),
                         run_tensor(run, DTYPE_F32, SHAPE(mine.count, m->head_dim))};
    size_t scope = run_enter(run);
    struct tensor rows = run_tensor(run, DTYPE_F32, SHAPE(2, h, half)), columns = run_tensor(run, DTYPE_F32, SHAPE(2, w, half));
    float *down = run_map(run, &rows, MAP_ROOM), *along = run_map(run, &columns, MAP_ROOM);
    const struct elementary *f = elementary_of(run->backend->reproducible);
    struct grid g = grid_of(BASE_SIDE / m->base.patch_size, h, w);
    if (!run_failed(run)) {
        fill_axis(f, down, g.top, g.bottom, h, half);
        fill_axis(f, along, g.left, g.right, w, half);
    }
    for (int sine = 0; sine < 2; sine++) {
        struct tensor *table = sine == 0 ? &r.cos : &r.sin;
        float *values = run_map(run, table, MAP_WRITE), *out = values;
        for (int64_t t = mine.first; values != NULL && t < mine.first + mine.count; t++, out += m->head_dim) {
            memcpy(out, along + (sine * w + t % w) * half, (size_t)half * sizeof *out);
            memcpy(out + half, down + (sine * h + t / w) * half, (size_t)half * sizeof *out);
        }
        run_unmap(run, table, values, MAP_WRITE);
    }
    run_unmap(run, &rows, down, MAP_ROOM);
    run_unmap(run, &columns, along, MAP_ROOM);
    run_leave_all(run, scope, NULL, 0);
    return r;
}

/* ---- blocks ---- */

/* Queries of x [B, S, C]; keys and values of all ranks' x, or of the text, which each rank has
 * whole, where `text` is not NULL. */
static struct tensor attend(const struct hunyuan_transformer *m, struct run *run, const struct attention *a, const struct rotation *r,
                            struct tensor x, const struct cut *cut, const struct tensor *text) {
    return dit_attention(run, m->head_dim, a, r, x, &(struct dit_asked){.cut = cut, .text = text});
}

static struct tensor feed_forward(struct run *run, const struct mlp *ff, struct tensor x) {
    return nn_feed_forward(run, &ff->in, NULL, &ff->out, ACTIVATION_GELU_TANH, x);
}

/* norm1(x) + linear(silu(cond)): a modulation whose scale is 0. */
static struct tensor shifted_norm(struct run *run, const struct hunyuan_block *b, struct tensor x, struct tensor cond) {
    struct tensor shift = nn_cast(run, nn_linear(run, &b->shift, dit_activated_cond(run, cond), ACTIVATION_NONE), DTYPE_F32);
    struct tensor scale = run_tensor(run, DTYPE_F32, SHAPE(cond.shape[0], cond.shape[1]));
    if (run_failed(run)) return scale;
    run->backend->ops->zero(run->backend, scale.data, tensor_bytes(&scale));
    return nn_norm_modulated(run, &b->norm1, x, scale, shift);
}

static void push(struct denoiser_state *state, struct tensor x) {
    assert(state->num_skips < DENOISER_MAX_SKIPS);
    state->skips[state->num_skips++] = x;
}

/* Channels of x [B, S, C]; x itself where those are all. */
static struct tensor slice_channels(struct run *run, struct tensor x, struct span channels) {
    if (run_failed(run) || channels.count == x.shape[2]) return x;
    struct tensor flat = nn_reshape(x, SHAPE(x.shape[0] * x.shape[1], x.shape[2], 1));
    return nn_reshape(nn_slice_rows(run, flat, channels.first, channels.count), SHAPE(x.shape[0], x.shape[1], channels.count));
}

struct mixing {
    const struct hunyuan_transformer *m;
    const struct hunyuan_block *b;
    struct tensor skip;
};

/* The norm is over all channels, on each rank; the linear over this rank's. */
static struct tensor mix_rows(struct run *run, const void *user, struct tensor x, int64_t first) {
    const struct mixing *mix = user;
    struct tensor both = nn_concat_channels(run, x, nn_some_rows(run, mix->skip, first, x.shape[1]));
    both = nn_norm(run, &mix->b->skip_norm, both);
    return nn_linear_sum(run, &mix->b->skip, slice_channels(run, both, mix->m->my_skips));
}

/* The picture with the topmost skip mixed in. */
static struct tensor mix_skip(const struct hunyuan_transformer *m, struct run *run, const struct hunyuan_block *b,
                              struct denoiser_state *state) {
    assert(state->num_skips > 0);
    struct mixing mix = {m, b, state->skips[--state->num_skips]};
    state->skips[state->num_skips] = (struct tensor){0};
    size_t scope = run_enter(run);
    return run_leave(run, scope, nn_by_rows(run, state->picture, m->inner_dim, 7, mix_rows, &mix));
}

static struct denoiser_state block(const struct denoiser *base, struct run *run, int index, struct denoiser_state state) {
    const struct hunyuan_transformer *m = (const struct hunyuan_transformer *)base;
    const struct hunyuan_block *b = &m->blocks[index];
    if (run_failed(run)) return (struct denoiser_state){0};
    size_t scope = run_enter(run);
    struct rotation r = rotation_of(m, run, &state);
    if (pushes(base, index)) push(&state, state.picture);
    struct tensor x = pops(base, index) ? mix_skip(m, run, b, &state) : state.picture;
    size_t inside = run_enter(run);
    x = run_leave(run, inside, nn_add(run, x, attend(m, run, &b->self, &r, shifted_norm(run, b, x, state.cond), state.cut, NULL)));
    x = run_leave(run, inside, nn_add(run, x, attend(m, run, &b->cross, &r, nn_norm(run, &b->norm2, x), NULL, &state.text)));
    state.picture = nn_add(run, x, feed_forward(run, &b->ff, nn_norm(run, &b->norm3, x)));
    if (index == base->num_blocks - 1) state.text = (struct tensor){0};
    state.picture = run_leave(run, scope, state.picture);
    return state;
}

static struct tensor first_input(const struct denoiser *base, struct run *run, const struct denoiser_state *state) {
    const struct hunyuan_block *b = &((const struct hunyuan_transformer *)base)->blocks[0];
    size_t scope = run_enter(run);
    return run_leave(run, scope, shifted_norm(run, b, state->picture, state->cond));
}

/* ---- finish ---- */

static struct tensor finish(const struct denoiser *base, struct run *run, struct denoiser_state state) {
    const struct hunyuan_transformer *m = (const struct hunyuan_transformer *)base;
    if (run_failed(run)) return (struct tensor){0};
    size_t scope = run_enter(run);
    struct tensor x = dit_norm_continuous(run, &m->norm_out, state.picture, dit_activated_cond(run, state.cond));
    x = exchange_gather(run, nn_linear(run, &m->proj_out, x, ACTIVATION_NONE), state.cut);
    return run_leave(run, scope, nn_unpatchify(run, x, base->patch_size, x.shape[1] / state.columns, state.columns));
}

/* ---- description ---- */

static int64_t size_of(const struct tensor *t) {
    return t->ndim == 0 ? 0 : tensor_count(t);
}

static int64_t count_norms(const struct hunyuan_block *b) {
    const struct norm *const norms[] = {&b->skip_norm, &b->norm1, &b->norm2, &b->norm3};
    int64_t parameters = 0;
    for (int i = 0; i < 4; i++) parameters += size_of(&norms[i]->weight) + size_of(&norms[i]->bias);
    return parameters;
}

/* A pair of tokens costs 2 C for its score and 2 C for its value. Skips travel wherever one has
 * been pushed and not yet popped. */
static void describe(const struct denoiser *base, int index, struct denoiser_block_info *info) {
    const struct hunyuan_transformer *m = (const struct hunyuan_transformer *)base;
    const struct hunyuan_block *b = &m->blocks[index];
    const struct linear *const text[] = {&b->cross.k, &b->cross.v};
    int last = base->num_blocks - 1;
    int64_t parameters = count_norms(b), text_weights = 0, ignored = 0;
    dit_count_linear(&b->shift, &parameters);
    int64_t picture_weights = dit_count_linear(&b->skip, &parameters) + dit_count_attention(&b->self, &parameters) +
                              dit_count_attention(&b->cross, &parameters) + dit_count_mlp(&b->ff, &parameters);
    for (int i = 0; i < 2; i++) text_weights += dit_count_linear(text[i], &ignored);
    picture_weights -= text_weights;
    *info = (struct denoiser_block_info){
        .parameters = parameters,
        .operations_per_picture_token = 2.0 * (double)picture_weights,
        .operations_per_text_token = 2.0 * (double)text_weights,
        .operations_per_token_pair = 4.0 * (double)m->inner_dim,
        .carries = DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_COND | (index < last ? DENOISER_CARRIES_TEXT : 0u),
        .pushes = pushes(base, index),
        .pops = pops(base, index),
    };
    dit_list_meetings(m->num_heads, m->head_dim, pops(base, index) ? 4 : 3, &info->meetings); /* a skip is mixed in by a sum */
    snprintf(info->name, sizeof info->name, "blocks.%d", index);
}

const struct denoiser_class hunyuan_transformer_class = {.name = "HunyuanDiT2DModel",
                                                         .open = open,
                                                         .load_embed = load_embed,
                                                         .load_block = load_block,
                                                         .load_finish = load_finish,
                                                         .embed = embed,
                                                         .block = block,
                                                         .finish = finish,
                                                         .first_input = first_input,
                                                         .describe = describe};
