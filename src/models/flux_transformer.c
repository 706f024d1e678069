/* Flux's denoiser (Black Forest Labs 2024; diffusers' FluxTransformer2DModel): a transformer of two kinds of block.
 *
 *     latents -> 2 x 2 patches -> linear ------------> picture --+ double +-----> ... --+ single +--> norm, linear -> un-patch
 *     text states -> linear -------------------------> text -----+ blocks +-----> ... --+ blocks +--> ends
 *     sinusoids of timestep and guidance, pooled text -> MLPs, added -> cond
 *
 * A double block gives each stream its own weights and lets both meet in one attention; a single block has one set of weights for
 * text and picture as one sequence, and computes attention and MLP side by side. In every attention the text comes first, and
 * queries and keys are normed per head and rotated by their patch's row and column (Su et al. 2021); text has position 0.
 *
 * The state keeps picture and text apart at every boundary, so that each cut looks the same. The files count a packed patch as
 * in_channels of patch_size 1; here patches are packed inside, so latents are [B, H, W, in_channels / 4] and patch_size is 2.
 * Timesteps are the scheduler's, 0..1000, and guidance is the plain scale, which is multiplied by 1000 here.
 *
 * Modulations, cond, rotation tables and norms are F32; products and the residual streams have the run's type.
 * Left out: ControlNet residuals, image prompts, positions other than the patch grid's (Kontext), gradient checkpoints. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "models/denoiser.h"

enum { TIMESTEP_CHANNELS = 256, MAX_LAYERS = 256, PATCH = 2, MLP_RATIO = 4, AXES = 3 };
#define NORM_EPS 1e-6f /* of every norm; diffusers writes it in the code, not in the config */
#define ROTARY_THETA 10000.0
#define EMBEDDED_SCALE 1000.0f

/* One stream's weights in a block. In a single block `out` is empty: ff_out takes attention and MLP together. */
struct stream {
    struct linear modulation, q, k, v, out, ff_in, ff_out;
    struct norm norm_q, norm_k;
};

/* single: `picture` serves both streams. */
struct flux_block {
    bool single;
    struct stream picture, text;
};

/* linear, SiLU, linear */
struct embedder {
    struct linear in, out;
};

struct flux_transformer {
    struct denoiser base;
    int64_t num_heads, head_dim, inner_dim, double_blocks;
    int64_t axes[AXES]; /* of a head's channels, how many turn with: nothing here (always position 0), the row, the column */
    bool guidance_embeds;
    struct embedder timestep, guidance, pooled;
    struct linear x_embedder, context_embedder, norm_out, proj_out;
    struct flux_block *blocks;
};

/* ---- loading ---- */

static tessera_status read_axes(const struct json *config, struct flux_transformer *m, tessera_error *error) {
    static const int64_t usual[AXES] = {16, 56, 56};
    int count = 0;
    TRY(json_ints(config, "axes_dims_rope", 2, 1 << 12, m->axes, AXES, &count, error));
    if (count == 0) memcpy(m->axes, usual, sizeof usual);
    bool even = m->axes[0] % 2 == 0 && m->axes[1] % 2 == 0 && m->axes[2] % 2 == 0;
    if ((count != 0 && count != AXES) || !even || m->axes[0] + m->axes[1] + m->axes[2] != m->head_dim) {
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: axes_dims_rope must be three even numbers, in sum attention_head_dim = %lld",
                         json_path(config), (long long)m->head_dim);
    }
    return TESSERA_OK;
}

static tessera_status read_config(const struct json *config, struct flux_transformer *m, tessera_error *error) {
    struct denoiser *base = &m->base;
    int64_t patch_size, in, out, single;
    TRY(json_int(config, "patch_size", 1, 1, 64, &patch_size, error));
    TRY(json_int(config, "in_channels", 64, 1, 1 << 12, &in, error));
    TRY(json_int(config, "out_channels", in, 1, 1 << 12, &out, error));
    TRY(json_int(config, "num_layers", 19, 0, MAX_LAYERS, &m->double_blocks, error));
    TRY(json_int(config, "num_single_layers", 38, 0, MAX_LAYERS, &single, error));
    TRY(json_int(config, "attention_head_dim", 128, 1, 1 << 12, &m->head_dim, error));
    TRY(json_int(config, "num_attention_heads", 24, 1, 1 << 10, &m->num_heads, error));
    TRY(json_int(config, "joint_attention_dim", 4096, 1, 1 << 16, &base->text_channels, error));
    TRY(json_int(config, "pooled_projection_dim", 768, 1, 1 << 16, &base->pooled_channels, error));
    TRY(json_bool(config, "guidance_embeds", false, &m->guidance_embeds, error));
    TRY(read_axes(config, m, error));
    if (patch_size != 1) {
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: patch_size is %lld; only 1 (packed patches of 2 x 2) is known",
                         json_path(config), (long long)patch_size);
    }
    if (in % (PATCH * PATCH) != 0 || out % (PATCH * PATCH) != 0) {
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: in_channels %lld and out_channels %lld must be multiples of 4: patches of 2 x 2",
                         json_path(config), (long long)in, (long long)out);
    }
    if (m->double_blocks + single < 1)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: num_layers and num_single_layers are both 0", json_path(config));
    base->num_blocks = (int)(m->double_blocks + single);
    base->patch_size = PATCH;
    base->in_channels = in / (PATCH * PATCH);
    base->out_channels = out / (PATCH * PATCH);
    m->inner_dim = m->num_heads * m->head_dim;
    return TESSERA_OK;
}

struct stream_names {
    const char *modulation, *q, *k, *v, *out, *norm_q, *norm_k, *ff_in, *ff_out;
};

static const struct stream_names picture_names = {"norm1.linear", "attn.to_q",   "attn.to_k",     "attn.to_v", "attn.to_out.0",
                                                  "attn.norm_q",  "attn.norm_k", "ff.net.0.proj", "ff.net.2"};
static const struct stream_names text_names = {"norm1_context.linear", "attn.add_q_proj",       "attn.add_k_proj",
                                               "attn.add_v_proj",      "attn.to_add_out",       "attn.norm_added_q",
                                               "attn.norm_added_k",    "ff_context.net.0.proj", "ff_context.net.2"};
static const struct stream_names single_names = {"norm.linear", "attn.to_q",   "attn.to_k", "attn.to_v", NULL,
                                                 "attn.norm_q", "attn.norm_k", "proj_mlp",  "proj_out"};

static struct stream load_stream(struct loader *loader, const struct flux_transformer *m, const struct stream_names *names) {
    int64_t c = m->inner_dim, mlp = MLP_RATIO * c;
    bool single = names->out == NULL;
    struct stream s = {
        .modulation = load_linear(loader, c, (single ? 3 : 6) * c, true, "%s", names->modulation),
        .q = load_linear(loader, c, c, true, "%s", names->q),
        .k = load_linear(loader, c, c, true, "%s", names->k),
        .v = load_linear(loader, c, c, true, "%s", names->v),
        .norm_q = load_norm(loader, NORM_RMS, m->head_dim, NORM_EPS, false, "%s", names->norm_q),
        .norm_k = load_norm(loader, NORM_RMS, m->head_dim, NORM_EPS, false, "%s", names->norm_k),
        .ff_in = load_linear(loader, c, mlp, true, "%s", names->ff_in),
        .ff_out = load_linear(loader, single ? c + mlp : mlp, c, true, "%s", names->ff_out),
    };
    if (!single) s.out = load_linear(loader, c, c, true, "%s", names->out);
    return s;
}

static struct embedder load_embedder(struct loader *loader, int64_t in, int64_t channels, const char *name) {
    return (struct embedder){.in = load_linear(loader, in, channels, true, "time_text_embed.%s.linear_1", name),
                             .out = load_linear(loader, channels, channels, true, "time_text_embed.%s.linear_2", name)};
}

/* The prefix of a block's weights, without a dot at the end. */
static void block_name(const struct flux_transformer *m, int index, char *out, size_t size) {
    int doubles = (int)m->double_blocks;
    if (index < doubles)
        snprintf(out, size, "transformer_blocks.%d", index);
    else
        snprintf(out, size, "single_transformer_blocks.%d", index - doubles);
}

static void load_weights(struct loader *loader, struct flux_transformer *m) {
    const struct denoiser *base = &m->base;
    int64_t c = m->inner_dim;
    load_set_prefix(loader, "%s", "");
    m->x_embedder = load_linear(loader, PATCH * PATCH * base->in_channels, c, true, "x_embedder");
    m->context_embedder = load_linear(loader, base->text_channels, c, true, "context_embedder");
    m->timestep = load_embedder(loader, TIMESTEP_CHANNELS, c, "timestep_embedder");
    if (m->guidance_embeds) m->guidance = load_embedder(loader, TIMESTEP_CHANNELS, c, "guidance_embedder");
    m->pooled = load_embedder(loader, base->pooled_channels, c, "text_embedder");
    m->norm_out = load_linear(loader, c, 2 * c, true, "norm_out.linear");
    m->proj_out = load_linear(loader, c, PATCH * PATCH * base->out_channels, true, "proj_out");
    for (int i = 0; i < base->num_blocks && !load_failed(loader); i++) {
        struct flux_block *block = &m->blocks[i];
        char name[64];
        block_name(m, i, name, sizeof name);
        load_set_prefix(loader, "%s.", name);
        *block = (struct flux_block){.single = i >= m->double_blocks};
        block->picture = load_stream(loader, m, block->single ? &single_names : &picture_names);
        if (!block->single) block->text = load_stream(loader, m, &text_names);
    }
}

static struct denoiser *open(const struct json *config, struct loader *loader) {
    struct flux_transformer read = {.base.class = &flux_transformer_class};
    if (read_config(config, &read, &loader->error) != TESSERA_OK) return NULL;
    struct flux_transformer *m = load_alloc(loader, sizeof *m);
    read.blocks = load_alloc(loader, (size_t)read.base.num_blocks * sizeof *read.blocks);
    if (load_failed(loader)) return NULL;
    *m = read;
    load_weights(loader, m);
    return load_failed(loader) ? NULL : &m->base;
}

/* ---- embed ---- */

static tessera_status check_inputs(const struct flux_transformer *m, const struct denoiser_inputs *in, tessera_error *error) {
    TRY(denoiser_check_latents(&m->base, &in->latents, error));
    int64_t batch = in->latents.shape[0];
    TRY(denoiser_check_shape(&m->base, "text", &in->text, SHAPE(batch, -1, m->base.text_channels), error));
    TRY(denoiser_check_shape(&m->base, "pooled text", &in->pooled, SHAPE(batch, m->base.pooled_channels), error));
    if (!m->guidance_embeds) return TESSERA_OK;
    return denoiser_check_shape(&m->base, "guidance (a scale for each picture)", &in->guidance, SHAPE(batch), error);
}

/* The order of a gather between a picture [B, 2 h, 2 w, C] and its patches [B, h w, C 2 2] (channel, row, column within the patch):
 * for each element of the patches its place in the picture if `to_packed`, else the inverse. */
static struct tensor packing(struct run *run, int64_t batch, int64_t h, int64_t w, int64_t channels, bool to_packed) {
    struct tensor index = run_tensor(run, DTYPE_I32, SHAPE(batch * h * w * PATCH * PATCH * channels));
    if (run_failed(run)) return index;
    int32_t *ids = index.data;
    int64_t picture = 0;
    for (int64_t y = 0; y < batch * h * PATCH; y++) {
        for (int64_t x = 0; x < w * PATCH; x++) {
            int64_t patch = y / PATCH * w + x / PATCH, corner = y % PATCH * PATCH + x % PATCH;
            for (int64_t c = 0; c < channels; c++, picture++) {
                int64_t packed = (patch * channels + c) * PATCH * PATCH + corner;
                ids[to_packed ? packed : picture] = (int32_t)(to_packed ? picture : packed);
            }
        }
    }
    return index;
}

/* Elements of x in the order of `index`, in the run's type: [count, 1]. */
static struct tensor reorder(struct run *run, struct tensor x, struct tensor index) {
    if (run_failed(run)) return (struct tensor){0};
    int64_t count = tensor_count(&x);
    return nn_embed(run, tensor_reshape(x, SHAPE(count, 1)), index.data, 1, count);
}

static struct tensor embed_picture(const struct flux_transformer *m, struct run *run, struct tensor latents) {
    int64_t batch = latents.shape[0], h = latents.shape[1] / PATCH, w = latents.shape[2] / PATCH, channels = m->base.in_channels;
    size_t scope = run_enter(run);
    struct tensor x = reorder(run, latents, packing(run, batch, h, w, channels, true));
    x = nn_reshape(x, SHAPE(batch, h * w, PATCH * PATCH * channels));
    return run_leave(run, scope, nn_linear(run, &m->x_embedder, x, ACTIVATION_NONE));
}

/* F32 */
static struct tensor apply_embedder(struct run *run, const struct embedder *e, struct tensor x) {
    x = nn_linear(run, &e->in, nn_cast(run, x, run->dtype), ACTIVATION_SILU);
    return nn_cast(run, nn_linear(run, &e->out, x, ACTIVATION_NONE), DTYPE_F32);
}

static struct tensor embed_guidance(const struct flux_transformer *m, struct run *run, struct tensor guidance) {
    int64_t batch = guidance.shape[0];
    struct tensor scaled = run_tensor(run, DTYPE_F32, SHAPE(batch));
    if (run_failed(run)) return scaled;
    for (int64_t b = 0; b < batch; b++) ((float *)scaled.data)[b] = EMBEDDED_SCALE * ((const float *)guidance.data)[b];
    return apply_embedder(run, &m->guidance, nn_timestep_embedding(run, scaled.data, batch, TIMESTEP_CHANNELS));
}

/* The MLPs of timestep, guidance where the model has it, and pooled text, added: F32 [B, C]. */
static struct tensor embed_cond(const struct flux_transformer *m, struct run *run, const struct denoiser_inputs *in) {
    size_t scope = run_enter(run);
    struct tensor time = nn_timestep_embedding(run, in->timesteps, in->latents.shape[0], TIMESTEP_CHANNELS);
    struct tensor cond = apply_embedder(run, &m->timestep, time);
    if (m->guidance_embeds) cond = nn_add(run, cond, embed_guidance(m, run, in->guidance));
    return run_leave(run, scope, nn_add(run, cond, apply_embedder(run, &m->pooled, in->pooled)));
}

static struct tensor embed_text(const struct flux_transformer *m, struct run *run, struct tensor text) {
    size_t scope = run_enter(run);
    return run_leave(run, scope, nn_linear(run, &m->context_embedder, nn_cast(run, text, run->dtype), ACTIVATION_NONE));
}

static struct denoiser_state embed(const struct denoiser *base, struct run *run, const struct denoiser_inputs *in) {
    const struct flux_transformer *m = (const struct flux_transformer *)base;
    struct denoiser_state state = {0};
    if (run_failed(run) || check_inputs(m, in, &run->error) != TESSERA_OK) return state;
    state.rows = in->latents.shape[1] / PATCH;
    state.columns = in->latents.shape[2] / PATCH;
    state.picture = embed_picture(m, run, in->latents);
    state.text = embed_text(m, run, in->text);
    state.cond = embed_cond(m, run, in);
    return state;
}

/* ---- positions ---- */

/* Cosines and sines by which queries and keys of text, then picture, turn: F32 [tokens, head_dim]. */
struct rotation {
    struct tensor cos, sin;
};

/* One axis: `turn` F32 [2, positions, channels], cosines then sines, of position / theta^(2 i / channels), each twice. */
static void fill_axis(float *turn, int64_t positions, int64_t channels) {
    for (int64_t p = 0; p < positions; p++) {
        for (int64_t i = 0; i < channels; i++) {
            double angle = (double)p / pow(ROTARY_THETA, (double)(i / 2 * 2) / (double)channels);
            turn[p * channels + i] = (float)cos(angle);
            turn[(positions + p) * channels + i] = (float)sin(angle);
        }
    }
}

/* Token (0, y, x) of the picture, or (0, 0, 0) for text; `axes` are the tables of rows and columns. */
static void fill_rotation(const struct flux_transformer *m, float *out, const float *const axes[2], int64_t y, int64_t x, bool is_sin) {
    int64_t still = m->axes[0], rows = m->axes[1], columns = m->axes[2];
    for (int64_t i = 0; i < still; i++) out[i] = is_sin ? 0.0f : 1.0f;
    memcpy(out + still, axes[0] + y * rows, (size_t)rows * sizeof *out);
    memcpy(out + still + rows, axes[1] + x * columns, (size_t)columns * sizeof *out);
}

static struct rotation rotation_of(const struct flux_transformer *m, struct run *run, int64_t text, int64_t h, int64_t w) {
    int64_t tokens = text + h * w;
    struct rotation r = {run_tensor(run, DTYPE_F32, SHAPE(tokens, m->head_dim)), run_tensor(run, DTYPE_F32, SHAPE(tokens, m->head_dim))};
    size_t scope = run_enter(run);
    struct tensor rows = run_tensor(run, DTYPE_F32, SHAPE(2, h, m->axes[1])), columns = run_tensor(run, DTYPE_F32, SHAPE(2, w, m->axes[2]));
    if (run_failed(run)) return r;
    fill_axis(rows.data, h, m->axes[1]);
    fill_axis(columns.data, w, m->axes[2]);
    for (int part = 0; part < 2; part++) {
        const float *const axes[] = {(const float *)rows.data + part * h * m->axes[1], (const float *)columns.data + part * w * m->axes[2]};
        float *out = part == 0 ? r.cos.data : r.sin.data;
        for (int64_t t = 0; t < tokens; t++, out += m->head_dim) {
            int64_t at = t < text ? 0 : t - text;
            fill_rotation(m, out, axes, at / w, at % w, part == 1);
        }
    }
    run_leave_all(run, scope, NULL, 0);
    return r;
}

/* ---- blocks ---- */

static const struct norm plain_norm = {.kind = NORM_LAYER, .eps = NORM_EPS};

/* silu(cond) in the run's type: what every modulation is a linear of. */
static struct tensor activated_cond(struct run *run, struct tensor cond) {
    return nn_cast(run, nn_activate(run, cond, ACTIVATION_SILU), run->dtype);
}

/* The modulations in their order in the weights; a single block has the first three. Each F32 [B, C]. */
struct modulation {
    struct tensor shift, scale, gate, ff_shift, ff_scale, ff_gate;
};

static struct modulation modulate(struct run *run, const struct linear *layer, struct tensor emb, int parts) {
    struct modulation m = {0};
    struct tensor *const chunks[] = {&m.shift, &m.scale, &m.gate, &m.ff_shift, &m.ff_scale, &m.ff_gate};
    struct tensor all = nn_cast(run, nn_linear(run, layer, emb, ACTIVATION_NONE), DTYPE_F32);
    for (int i = 0; i < parts; i++) *chunks[i] = nn_chunk(run, all, parts, i);
    return m;
}

/* Queries or keys [B, S, C]: a linear and a norm of each head. */
static struct tensor project(const struct flux_transformer *m, struct run *run, const struct linear *layer, const struct norm *norm,
                             struct tensor x) {
    if (run_failed(run)) return (struct tensor){0};
    struct tensor y = nn_linear(run, layer, x, ACTIVATION_NONE);
    y = nn_norm(run, norm, nn_reshape(y, SHAPE(x.shape[0], x.shape[1], m->num_heads, m->head_dim)));
    return nn_reshape(y, SHAPE(x.shape[0], x.shape[1], m->inner_dim));
}

/* q, k and v [B, S, C] of text, then picture, not yet rotated -> [B, S, C] */
static struct tensor attend(const struct flux_transformer *m, struct run *run, const struct rotation *r, struct tensor q, struct tensor k,
                            struct tensor v) {
    if (run_failed(run)) return (struct tensor){0};
    int64_t batch = q.shape[0], tokens = q.shape[1];
    q = nn_rotary(run, tensor_reshape(q, SHAPE(batch, tokens, m->num_heads, m->head_dim)), r->cos, r->sin);
    k = nn_rotary(run, tensor_reshape(k, SHAPE(batch, tokens, m->num_heads, m->head_dim)), r->cos, r->sin);
    v = tensor_reshape(v, SHAPE(batch, tokens, m->num_heads, m->head_dim));
    struct attention_args args = {.q = &q, .k = &k, .v = &v, .scale = 1.0f / sqrtf((float)m->head_dim)};
    return nn_reshape(nn_attention(run, args), SHAPE(batch, tokens, m->inner_dim));
}

/* Attention over text and picture together, each with its own weights. */
static void joint_attention(const struct flux_transformer *m, struct run *run, const struct flux_block *block, const struct rotation *r,
                            struct tensor *picture, struct tensor *text) {
    if (run_failed(run)) return;
    const struct stream *a = &block->picture, *c = &block->text;
    int64_t text_tokens = text->shape[1], picture_tokens = picture->shape[1];
    size_t scope = run_enter(run);
    struct tensor q = nn_concat_rows(run, project(m, run, &c->q, &c->norm_q, *text), project(m, run, &a->q, &a->norm_q, *picture));
    struct tensor k = nn_concat_rows(run, project(m, run, &c->k, &c->norm_k, *text), project(m, run, &a->k, &a->norm_k, *picture));
    struct tensor v = nn_concat_rows(run, nn_linear(run, &c->v, *text, ACTIVATION_NONE), nn_linear(run, &a->v, *picture, ACTIVATION_NONE));
    struct tensor y = attend(m, run, r, q, k, v);
    *text = nn_linear(run, &c->out, nn_slice_rows(run, y, 0, text_tokens), ACTIVATION_NONE);
    *picture = nn_linear(run, &a->out, nn_slice_rows(run, y, text_tokens, picture_tokens), ACTIVATION_NONE);
    run_leave_all(run, scope, (struct tensor *[]){picture, text}, 2);
}

/* x + gate * attention, then + gate * ff(norm(x) modulated). */
static struct tensor double_rest(struct run *run, const struct stream *s, struct tensor x, struct tensor attention,
                                 const struct modulation *mod) {
    size_t scope = run_enter(run);
    x = nn_gated_add(run, x, attention, mod->gate);
    struct tensor y = nn_norm_modulated(run, &plain_norm, x, mod->ff_scale, mod->ff_shift);
    y = nn_linear(run, &s->ff_out, nn_linear(run, &s->ff_in, y, ACTIVATION_GELU_TANH), ACTIVATION_NONE);
    return run_leave(run, scope, nn_gated_add(run, x, y, mod->ff_gate));
}

static void double_block(const struct flux_transformer *m, struct run *run, const struct flux_block *b, const struct rotation *r,
                         struct denoiser_state *state) {
    struct tensor emb = activated_cond(run, state->cond);
    struct modulation mod = modulate(run, &b->picture.modulation, emb, 6), text_mod = modulate(run, &b->text.modulation, emb, 6);
    struct tensor picture = nn_norm_modulated(run, &plain_norm, state->picture, mod.scale, mod.shift);
    struct tensor text = nn_norm_modulated(run, &plain_norm, state->text, text_mod.scale, text_mod.shift);
    joint_attention(m, run, b, r, &picture, &text);
    state->picture = double_rest(run, &b->picture, state->picture, picture, &mod);
    state->text = double_rest(run, &b->text, state->text, text, &text_mod);
}

/* [B, S, C] and [B, S, 4 C] -> [B, S, 5 C] */
static struct tensor concat_mlp(struct run *run, struct tensor attention, struct tensor mlp) {
    if (run_failed(run)) return (struct tensor){0};
    int64_t batch = attention.shape[0], tokens = attention.shape[1], c = attention.shape[2];
    struct tensor both = nn_concat_rows(run, tensor_reshape(attention, SHAPE(batch * tokens, 1, c)),
                                        tensor_reshape(mlp, SHAPE(batch * tokens, MLP_RATIO, c)));
    return nn_reshape(both, SHAPE(batch, tokens, (1 + MLP_RATIO) * c));
}

static struct tensor self_attention(const struct flux_transformer *m, struct run *run, const struct stream *s, const struct rotation *r,
                                    struct tensor x) {
    size_t scope = run_enter(run);
    struct tensor q = project(m, run, &s->q, &s->norm_q, x), k = project(m, run, &s->k, &s->norm_k, x);
    return run_leave(run, scope, attend(m, run, r, q, k, nn_linear(run, &s->v, x, ACTIVATION_NONE)));
}

static void single_block(const struct flux_transformer *m, struct run *run, const struct flux_block *b, const struct rotation *r,
                         struct denoiser_state *state) {
    const struct stream *s = &b->picture;
    int64_t text_tokens = state->text.shape[1], picture_tokens = state->picture.shape[1];
    struct modulation mod = modulate(run, &s->modulation, activated_cond(run, state->cond), 3);
    struct tensor x = nn_concat_rows(run, state->text, state->picture);
    struct tensor y = nn_norm_modulated(run, &plain_norm, x, mod.scale, mod.shift);
    struct tensor attention = self_attention(m, run, s, r, y);
    y = concat_mlp(run, attention, nn_linear(run, &s->ff_in, y, ACTIVATION_GELU_TANH));
    x = nn_gated_add(run, x, nn_linear(run, &s->ff_out, y, ACTIVATION_NONE), mod.gate);
    state->text = nn_slice_rows(run, x, 0, text_tokens);
    state->picture = nn_slice_rows(run, x, text_tokens, picture_tokens);
}

static struct denoiser_state block(const struct denoiser *base, struct run *run, int index, struct denoiser_state state) {
    const struct flux_transformer *m = (const struct flux_transformer *)base;
    const struct flux_block *b = &m->blocks[index];
    if (run_failed(run)) return (struct denoiser_state){0};
    size_t scope = run_enter(run);
    struct rotation r = rotation_of(m, run, state.text.shape[1], state.rows, state.columns);
    if (b->single)
        single_block(m, run, b, &r, &state);
    else
        double_block(m, run, b, &r, &state);
    if (index == base->num_blocks - 1) state.text = (struct tensor){0};
    run_leave_all(run, scope, (struct tensor *[]){&state.picture, &state.text}, 2);
    return state;
}

/* ---- finish ---- */

/* Scale comes before shift in this norm's weights (diffusers' AdaLayerNormContinuous). */
static struct tensor finish(const struct denoiser *base, struct run *run, struct denoiser_state state) {
    const struct flux_transformer *m = (const struct flux_transformer *)base;
    if (run_failed(run)) return (struct tensor){0};
    int64_t batch = state.picture.shape[0], h = state.rows, w = state.columns, channels = base->out_channels;
    size_t scope = run_enter(run);
    struct tensor both = nn_cast(run, nn_linear(run, &m->norm_out, activated_cond(run, state.cond), ACTIVATION_NONE), DTYPE_F32);
    struct tensor scale = nn_chunk(run, both, 2, 0), shift = nn_chunk(run, both, 2, 1);
    struct tensor x = nn_norm_modulated(run, &plain_norm, state.picture, scale, shift);
    x = nn_linear(run, &m->proj_out, x, ACTIVATION_NONE);
    x = reorder(run, x, packing(run, batch, h, w, channels, false));
    return run_leave(run, scope, nn_cast(run, nn_reshape(x, SHAPE(batch, h * PATCH, w * PATCH, channels)), DTYPE_F32));
}

/* ---- description ---- */

static int64_t size_of(const struct tensor *t) {
    return t->data == NULL ? 0 : tensor_count(t);
}

/* Weights that each token of a stream is multiplied with, and all parameters. */
static void count_stream(const struct stream *s, int64_t *weights, int64_t *parameters) {
    const struct linear *const linears[] = {&s->q, &s->k, &s->v, &s->out, &s->ff_in, &s->ff_out};
    for (size_t i = 0; i < sizeof linears / sizeof linears[0]; i++) {
        *weights += size_of(&linears[i]->weight);
        *parameters += size_of(&linears[i]->weight) + size_of(&linears[i]->bias);
    }
    *parameters += size_of(&s->modulation.weight) + size_of(&s->modulation.bias);
    *parameters += size_of(&s->norm_q.weight) + size_of(&s->norm_k.weight);
}

/* A pair of tokens costs 2 C for its score and 2 C for its value. */
static void describe(const struct denoiser *base, int index, struct denoiser_block_info *info) {
    const struct flux_transformer *m = (const struct flux_transformer *)base;
    const struct flux_block *b = &m->blocks[index];
    bool last = index == base->num_blocks - 1;
    int64_t picture = 0, text = 0, parameters = 0;
    count_stream(&b->picture, &picture, &parameters);
    count_stream(&b->text, &text, &parameters);
    *info = (struct denoiser_block_info){
        .parameters = parameters,
        .operations_per_picture_token = 2.0 * (double)picture,
        .operations_per_text_token = 2.0 * (double)(b->single ? picture : text),
        .operations_per_token_pair = 4.0 * (double)m->inner_dim,
        .carries = DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_COND | (last ? 0u : DENOISER_CARRIES_TEXT),
    };
    block_name(m, index, info->name, sizeof info->name);
}

const struct denoiser_class flux_transformer_class = {
    .name = "FluxTransformer2DModel", .open = open, .embed = embed, .block = block, .finish = finish, .describe = describe};
