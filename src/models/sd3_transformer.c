/* SD3's denoiser: a multimodal diffusion transformer (Esser et al. 2024, figure 2; diffusers' SD3Transformer2DModel).
 *
 *     latents -> patches -> linear + position table ----> picture --+        +--> ... --> norm, linear -> un-patch
 *     text states -> linear ----------------------------> text -----+ blocks +--> ends in the last block
 *     timestep sinusoid, pooled text -> two MLPs, added -> cond ----+        +
 *
 * A block gives each stream its own weights and lets both meet in one attention (picture tokens first, then text). cond
 * modulates: of a linear of silu(cond) come a shift, a scale and a gate before and after each half of a block. SD3.5's blocks
 * also have a second attention of the picture with itself (dual_attention_layers) and norms of queries and keys (qk_norm).
 *
 * Modulations, cond and norms are F32; products and the residual streams have the run's type.
 * Left out: ControlNet residuals, skipped layers, image prompts, gradient checkpoints. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "models/denoiser.h"
#include "nn/patch.h"
#include "nn/position.h"

enum { TIMESTEP_CHANNELS = 256, MAX_LAYERS = 256 };
#define NORM_EPS 1e-6f /* of every norm; diffusers writes it in the code, not in the config */

/* One stream's side of an attention. norm_q and norm_k only where the config asks for them. */
struct projections {
    struct linear q, k, v, out;
    struct norm norm_q, norm_k;
};
struct feed_forward {
    struct linear in, out;
};

struct sd3_block {
    bool dual, last; /* last: the text gives keys and values only, and its stream ends */
    struct linear norm1, norm1_context;
    struct projections attn, attn_context, attn2;
    struct feed_forward ff, ff_context;
};

struct sd3_transformer {
    struct denoiser base;
    int64_t num_heads, head_dim, inner_dim;
    int64_t my_heads; /* of num_heads, where weights are cut over ranks */
    bool qk_norm;
    struct conv patch_proj;  /* [C, p, p, in] */
    struct tensor pos_embed; /* [max_patches^2, C] */
    struct linear timestep_1, timestep_2, pooled_1, pooled_2, context_embedder, norm_out, proj_out;
    struct sd3_block *blocks;
};

/* ---- loading ---- */

static tessera_status read_config(const struct json *config, struct sd3_transformer *m, bool *dual, tessera_error *error) {
    struct denoiser *base = &m->base;
    int64_t layers, caption;
    const char *qk_norm;
    TRY(json_int(config, "sample_size", 128, 1, 1 << 16, &base->sample_size, error));
    TRY(json_int(config, "patch_size", 2, 1, 64, &base->patch_size, error));
    TRY(json_int(config, "in_channels", 16, 1, 1 << 12, &base->in_channels, error));
    TRY(json_int(config, "out_channels", base->in_channels, 1, 1 << 12, &base->out_channels, error));
    TRY(json_int(config, "num_layers", 18, 1, MAX_LAYERS, &layers, error));
    TRY(json_int(config, "attention_head_dim", 64, 1, 1 << 12, &m->head_dim, error));
    TRY(json_int(config, "num_attention_heads", 18, 1, 1 << 10, &m->num_heads, error));
    TRY(json_int(config, "joint_attention_dim", 4096, 1, 1 << 16, &base->text_channels, error));
    TRY(json_int(config, "caption_projection_dim", 1152, 1, 1 << 22, &caption, error));
    TRY(json_int(config, "pooled_projection_dim", 2048, 1, 1 << 16, &base->pooled_channels, error));
    TRY(json_int(config, "pos_embed_max_size", 96, 1, 1 << 12, &base->max_patches, error));
    TRY(json_string(config, "qk_norm", NULL, &qk_norm, error));
    base->num_blocks = (int)layers;
    base->num_heads = m->num_heads;
    m->inner_dim = m->num_heads * m->head_dim;
    m->qk_norm = qk_norm != NULL;
    if (qk_norm != NULL && strcmp(qk_norm, "rms_norm") != 0) {
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: qk_norm is \"%.60s\"; only \"rms_norm\" and null are known",
                         json_path(config), qk_norm);
    }
    if (caption != m->inner_dim) {
        return error_set(error, TESSERA_ERROR_FORMAT,
                         "%s: caption_projection_dim %lld must be num_attention_heads * attention_head_dim = %lld", json_path(config),
                         (long long)caption, (long long)m->inner_dim);
    }
    int64_t indices[MAX_LAYERS];
    int count = 0;
    TRY(json_ints(config, "dual_attention_layers", 0, layers - 1, indices, MAX_LAYERS, &count, error));
    for (int i = 0; i < count; i++) dual[indices[i]] = true;
    return TESSERA_OK;
}

/* `names`: of q, k, v, out, norm_q, norm_k; "" where there is none to load. */
static struct projections load_projections(struct loader *loader, const struct sd3_transformer *m, const char *const names[6]) {
    struct projections p = {0};
    struct linear *const linears[] = {&p.q, &p.k, &p.v};
    struct norm *const norms[] = {&p.norm_q, &p.norm_k};
    for (int i = 0; i < 3; i++) {
        if (names[i][0] != '\0') *linears[i] = load_linear_outputs(loader, m->inner_dim, m->num_heads, m->head_dim, true, "%s", names[i]);
    }
    if (names[3][0] != '\0') p.out = load_linear_inputs(loader, m->num_heads, m->head_dim, m->inner_dim, true, "%s", names[3]);
    for (int i = 0; i < 2; i++) {
        if (m->qk_norm && names[4 + i][0] != '\0')
            *norms[i] = load_norm(loader, NORM_RMS, m->head_dim, NORM_EPS, false, "%s", names[4 + i]);
    }
    return p;
}

static struct feed_forward load_feed_forward(struct loader *loader, int64_t channels, const char *name) {
    return (struct feed_forward){.in = load_linear_outputs(loader, channels, 4 * channels, 1, true, "%s.net.0.proj", name),
                                 .out = load_linear_inputs(loader, 4 * channels, 1, channels, true, "%s.net.2", name)};
}

static const char *const picture_names[] = {"attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.norm_q", "attn.norm_k"};
static const char *const dual_names[] = {"attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0", "attn2.norm_q", "attn2.norm_k"};
static const char *const text_names[] = {"attn.add_q_proj", "attn.add_k_proj",   "attn.add_v_proj",
                                         "attn.to_add_out", "attn.norm_added_q", "attn.norm_added_k"};
static const char *const last_text_names[] = {"", "attn.add_k_proj", "attn.add_v_proj", "", "", "attn.norm_added_k"};

static struct sd3_block load_block(struct loader *loader, const struct sd3_transformer *m, bool dual, bool last) {
    int64_t c = m->inner_dim;
    struct sd3_block block = {
        .dual = dual,
        .last = last,
        .norm1 = load_linear(loader, c, (dual ? 9 : 6) * c, true, "norm1.linear"),
        .norm1_context = load_linear(loader, c, (last ? 2 : 6) * c, true, "norm1_context.linear"),
        .attn = load_projections(loader, m, picture_names),
        .attn_context = load_projections(loader, m, last ? last_text_names : text_names),
        .ff = load_feed_forward(loader, c, "ff"),
    };
    if (dual) block.attn2 = load_projections(loader, m, dual_names);
    if (!last) block.ff_context = load_feed_forward(loader, c, "ff_context");
    if (last) { /* queries of a text stream that ends here */
        load_unused(loader, SHAPE(c, c), "attn.add_q_proj.weight");
        load_unused(loader, SHAPE(c), "attn.add_q_proj.bias");
        if (m->qk_norm) load_unused(loader, SHAPE(m->head_dim), "attn.norm_added_q.weight");
    }
    return block;
}

/* The position table as the file stores it; older files leave it out. */
static struct tensor load_pos_embed(struct loader *loader, const struct sd3_transformer *m, const struct json *config) {
    int64_t side = m->base.max_patches, c = m->inner_dim, base_size = m->base.sample_size / m->base.patch_size;
    if (load_has(loader, "pos_embed.pos_embed")) {
        struct tensor t = load_tensor(loader, DTYPE_F32, SHAPE(1, side * side, c), "pos_embed.pos_embed");
        return nn_reshape(t, SHAPE(side * side, c));
    }
    struct tensor t = tensor_of(NULL, DTYPE_F32, SHAPE(side * side, c));
    if (c % 4 != 0 || base_size < 1) {
        error_set(&loader->error, TESSERA_ERROR_FORMAT, "%s: no position table can be made for %lld channels and sample_size %lld",
                  json_path(config), (long long)c, (long long)m->base.sample_size);
        return t;
    }
    t.data = arena_alloc(loader->arena, tensor_bytes(&t));
    if (t.data != NULL)
        position_sincos_2d(t.data, side, side, c, (double)base_size, 1.0);
    else
        error_set(&loader->error, TESSERA_ERROR_MEMORY, "%s: no memory for the position table", json_path(config));
    return t;
}

static void load_weights(struct loader *loader, struct sd3_transformer *m, const struct json *config, const bool *dual) {
    const struct denoiser *base = &m->base;
    int64_t c = m->inner_dim, p = base->patch_size;
    load_set_prefix(loader, "%s", "");
    m->patch_proj = load_conv(loader, base->in_channels, c, (int)p, "pos_embed.proj");
    if (!load_failed(loader)) m->pos_embed = load_pos_embed(loader, m, config);
    m->timestep_1 = load_linear(loader, TIMESTEP_CHANNELS, c, true, "time_text_embed.timestep_embedder.linear_1");
    m->timestep_2 = load_linear(loader, c, c, true, "time_text_embed.timestep_embedder.linear_2");
    m->pooled_1 = load_linear(loader, base->pooled_channels, c, true, "time_text_embed.text_embedder.linear_1");
    m->pooled_2 = load_linear(loader, c, c, true, "time_text_embed.text_embedder.linear_2");
    m->context_embedder = load_linear(loader, base->text_channels, c, true, "context_embedder");
    m->norm_out = load_linear(loader, c, 2 * c, true, "norm_out.linear");
    m->proj_out = load_linear(loader, c, p * p * base->out_channels, true, "proj_out");
    for (int i = 0; i < base->num_blocks && !load_failed(loader); i++) {
        load_set_prefix(loader, "transformer_blocks.%d.", i);
        m->blocks[i] = load_block(loader, m, dual[i], i == base->num_blocks - 1);
    }
}

static struct denoiser *open(const struct json *config, struct loader *loader) {
    struct sd3_transformer read = {.base.class = &sd3_transformer_class};
    bool dual[MAX_LAYERS] = {0};
    if (read_config(config, &read, dual, &loader->error) != TESSERA_OK) return NULL;
    struct sd3_transformer *m = load_alloc(loader, sizeof *m);
    read.blocks = load_alloc(loader, (size_t)read.base.num_blocks * sizeof *read.blocks);
    if (load_failed(loader)) return NULL;
    *m = read;
    m->my_heads = load_units(loader, m->num_heads);
    load_weights(loader, m, config, dual);
    return load_failed(loader) ? NULL : &m->base;
}

/* ---- embed ---- */

static tessera_status check_inputs(const struct denoiser *m, const struct denoiser_inputs *in, tessera_error *error) {
    TRY(denoiser_check_latents(m, &in->latents, error));
    int64_t batch = in->latents.shape[0];
    TRY(denoiser_check_shape(m, "text", &in->text, SHAPE(batch, -1, m->text_channels), error));
    return denoiser_check_shape(m, "pooled text", &in->pooled, SHAPE(batch, m->pooled_channels), error);
}

/* The table's rows for this rank's patches of an h x w picture in the middle of the largest one, for each of the batch: [B, S, C]. */
static struct tensor positions_of(const struct sd3_transformer *m, struct run *run, int64_t batch, int64_t h, int64_t w,
                                  const struct cut *cut) {
    int64_t side = m->base.max_patches, top = (side - h) / 2, left = (side - w) / 2;
    struct span mine = cut_mine(cut, h * w);
    struct tensor index = run_tensor(run, DTYPE_I32, SHAPE(batch * mine.count));
    if (run_failed(run)) return index;
    int32_t *next = index.data;
    for (int64_t b = 0; b < batch; b++) {
        for (int64_t i = mine.first; i < mine.first + mine.count; i++) *next++ = (int32_t)((top + i / w) * side + left + i % w);
    }
    return nn_embed(run, m->pos_embed, index.data, batch, mine.count);
}

static struct tensor embed_picture(const struct sd3_transformer *m, struct run *run, struct tensor latents, const struct cut *cut) {
    int64_t batch = latents.shape[0], p = m->base.patch_size, h = latents.shape[1] / p, w = latents.shape[2] / p;
    size_t scope = run_enter(run);
    struct linear proj = {.weight = nn_reshape(m->patch_proj.weight, SHAPE(m->inner_dim, p * p * m->base.in_channels)),
                          .bias = m->patch_proj.bias};
    struct tensor x = nn_linear(run, &proj, nn_patches(run, latents, p, cut), ACTIVATION_NONE);
    return run_leave(run, scope, nn_add(run, x, positions_of(m, run, batch, h, w, cut)));
}

/* mlp(sinusoid(timestep)) + mlp(pooled): F32 [B, C]. */
static struct tensor embed_cond(const struct sd3_transformer *m, struct run *run, const struct denoiser_inputs *in) {
    size_t scope = run_enter(run);
    struct tensor time = nn_cast(run, nn_timestep_embedding(run, in->timesteps, in->latents.shape[0], TIMESTEP_CHANNELS), run->dtype);
    time = nn_linear(run, &m->timestep_2, nn_linear(run, &m->timestep_1, time, ACTIVATION_SILU), ACTIVATION_NONE);
    struct tensor pooled = nn_cast(run, in->pooled, run->dtype);
    pooled = nn_linear(run, &m->pooled_2, nn_linear(run, &m->pooled_1, pooled, ACTIVATION_SILU), ACTIVATION_NONE);
    return run_leave(run, scope, nn_add(run, nn_cast(run, time, DTYPE_F32), nn_cast(run, pooled, DTYPE_F32)));
}

static struct tensor embed_text(const struct sd3_transformer *m, struct run *run, struct tensor text, bool *whole) {
    size_t scope = run_enter(run);
    text = nn_cast(run, exchange_text(run, text, whole), run->dtype);
    return run_leave(run, scope, nn_linear(run, &m->context_embedder, text, ACTIVATION_NONE));
}

static struct denoiser_state embed(const struct denoiser *base, struct run *run, const struct denoiser_inputs *in) {
    const struct sd3_transformer *m = (const struct sd3_transformer *)base;
    struct denoiser_state state = {0};
    if (run_failed(run) || check_inputs(base, in, &run->error) != TESSERA_OK) return state;
    state.rows = in->latents.shape[1] / base->patch_size;
    state.columns = in->latents.shape[2] / base->patch_size;
    state.cut = exchange_cut_tokens(run, state.rows, state.columns);
    state.picture = embed_picture(m, run, in->latents, state.cut);
    state.text = embed_text(m, run, in->text, &state.text_whole);
    state.cond = embed_cond(m, run, in);
    return state;
}

/* ---- blocks ---- */

static const struct norm plain_norm = {.kind = NORM_LAYER, .eps = NORM_EPS};

/* silu(cond) in the run's type: what every modulation is a linear of. */
static struct tensor activated_cond(struct run *run, struct tensor cond) {
    return nn_cast(run, nn_activate(run, cond, ACTIVATION_SILU), run->dtype);
}

/* The modulations in their order in the weights: adaLN-zero's six, and three more for a second attention. Each F32 [B, C]. */
struct modulation {
    struct tensor shift, scale, gate, ff_shift, ff_scale, ff_gate, shift2, scale2, gate2;
};

static struct modulation modulate(struct run *run, const struct linear *layer, struct tensor emb, int parts) {
    struct modulation m = {0};
    struct tensor *const chunks[] = {&m.shift, &m.scale, &m.gate, &m.ff_shift, &m.ff_scale, &m.ff_gate, &m.shift2, &m.scale2, &m.gate2};
    struct tensor all = nn_cast(run, nn_linear(run, layer, emb, ACTIVATION_NONE), DTYPE_F32);
    for (int i = 0; i < parts; i++) *chunks[i] = nn_chunk(run, all, parts, i);
    return m;
}

/* norm(x) * (1 + scale) + shift, where a linear of the conditioning gives scale, then shift (diffusers' AdaLayerNormContinuous). */
static struct tensor norm_continuous(struct run *run, const struct linear *layer, struct tensor x, struct tensor emb) {
    struct tensor both = nn_cast(run, nn_linear(run, layer, emb, ACTIVATION_NONE), DTYPE_F32);
    struct tensor scale = nn_chunk(run, both, 2, 0), shift = nn_chunk(run, both, 2, 1);
    return nn_norm_modulated(run, &plain_norm, x, scale, shift);
}

/* Queries or keys [B, S, C]: a linear, and a norm of each head where the model has one. */
static struct tensor project(const struct sd3_transformer *m, struct run *run, const struct linear *layer, const struct norm *norm,
                             struct tensor x) {
    struct tensor y = nn_linear(run, layer, x, ACTIVATION_NONE);
    if (norm->weight.data == NULL) return y;
    y = nn_norm(run, norm, nn_reshape(y, SHAPE(x.shape[0], x.shape[1], m->my_heads, m->head_dim)));
    return nn_reshape(y, SHAPE(x.shape[0], x.shape[1], m->my_heads * m->head_dim));
}

/* q [B, Sq, C], k and v [B, Sk, C] -> [B, Sq, C] */
static struct tensor attend(const struct sd3_transformer *m, struct run *run, struct tensor q, struct tensor k, struct tensor v,
                            const struct cut *cut, struct text_span text) {
    if (run_failed(run)) return (struct tensor){0};
    int64_t batch = q.shape[0], tokens = q.shape[1];
    q = tensor_reshape(q, SHAPE(batch, tokens, m->my_heads, m->head_dim));
    k = tensor_reshape(k, SHAPE(batch, k.shape[1], m->my_heads, m->head_dim));
    v = tensor_reshape(v, SHAPE(batch, v.shape[1], m->my_heads, m->head_dim));
    struct attention_args args = {.q = &q, .k = &k, .v = &v, .scale = 1.0f / sqrtf((float)m->head_dim)};
    return nn_reshape(nn_joint_attention(run, args, cut, text), SHAPE(batch, tokens, m->my_heads * m->head_dim));
}

/* Attention over picture and text together. *text_out is left empty in the last block. */
static void joint_attention(const struct sd3_transformer *m, struct run *run, const struct sd3_block *block,
                            const struct denoiser_state *state, struct tensor picture, struct tensor text, struct tensor *picture_out,
                            struct tensor *text_out) {
    const struct projections *a = &block->attn, *c = &block->attn_context;
    size_t scope = run_enter(run);
    *text_out = (struct tensor){0};
    struct tensor q = project(m, run, &a->q, &a->norm_q, picture);
    if (!block->last) q = nn_concat_rows(run, q, project(m, run, &c->q, &c->norm_q, text));
    struct tensor k = nn_concat_rows(run, project(m, run, &a->k, &a->norm_k, picture), project(m, run, &c->k, &c->norm_k, text));
    struct tensor v = nn_concat_rows(run, nn_linear(run, &a->v, picture, ACTIVATION_NONE), nn_linear(run, &c->v, text, ACTIVATION_NONE));
    struct text_span span = {.first = picture.shape[1], .count = text.shape[1], .in_queries = !block->last, .whole = state->text_whole};
    struct tensor y = attend(m, run, q, k, v, state->cut, span);
    *picture_out = nn_linear_sum(run, &a->out, nn_slice_rows(run, y, 0, picture.shape[1]));
    if (!block->last) *text_out = nn_linear_sum(run, &c->out, nn_slice_rows(run, y, picture.shape[1], text.shape[1]));
    run_leave_all(run, scope, (struct tensor *[]){picture_out, text_out}, 2);
}

/* SD3.5's second attention: the picture with itself. */
static struct tensor picture_attention(const struct sd3_transformer *m, struct run *run, const struct projections *a, struct tensor x,
                                       const struct cut *cut) {
    size_t scope = run_enter(run);
    struct tensor q = project(m, run, &a->q, &a->norm_q, x), k = project(m, run, &a->k, &a->norm_k, x);
    struct tensor y = attend(m, run, q, k, nn_linear(run, &a->v, x, ACTIVATION_NONE), cut, (struct text_span){0});
    return run_leave(run, scope, nn_linear_sum(run, &a->out, y));
}

/* x + gate * ff(norm(x) modulated) */
static struct tensor feed_forward(struct run *run, const struct feed_forward *ff, struct tensor x, const struct modulation *mod) {
    size_t scope = run_enter(run);
    struct tensor y = nn_norm_modulated(run, &plain_norm, x, mod->ff_scale, mod->ff_shift);
    y = nn_linear_sum(run, &ff->out, nn_linear(run, &ff->in, y, ACTIVATION_GELU_TANH));
    return run_leave(run, scope, nn_gated_add(run, x, y, mod->ff_gate));
}

static struct denoiser_state block(const struct denoiser *base, struct run *run, int index, struct denoiser_state state) {
    const struct sd3_transformer *m = (const struct sd3_transformer *)base;
    const struct sd3_block *b = &m->blocks[index];
    if (run_failed(run)) return (struct denoiser_state){0};
    size_t scope = run_enter(run);
    struct tensor emb = activated_cond(run, state.cond), x = state.picture, text = state.text, x_attn, text_attn;
    struct modulation mod = modulate(run, &b->norm1, emb, b->dual ? 9 : 6), text_mod = {0};
    if (!b->last) text_mod = modulate(run, &b->norm1_context, emb, 6);
    struct tensor text_in = b->last ? norm_continuous(run, &b->norm1_context, text, emb)
                                    : nn_norm_modulated(run, &plain_norm, text, text_mod.scale, text_mod.shift);
    joint_attention(m, run, b, &state, nn_norm_modulated(run, &plain_norm, x, mod.scale, mod.shift), text_in, &x_attn, &text_attn);
    struct tensor y = nn_gated_add(run, x, x_attn, mod.gate);
    if (b->dual) {
        struct tensor again =
            picture_attention(m, run, &b->attn2, nn_norm_modulated(run, &plain_norm, x, mod.scale2, mod.shift2), state.cut);
        y = nn_gated_add(run, y, again, mod.gate2);
    }
    state.picture = feed_forward(run, &b->ff, y, &mod);
    state.text =
        b->last ? (struct tensor){0} : feed_forward(run, &b->ff_context, nn_gated_add(run, text, text_attn, text_mod.gate), &text_mod);
    run_leave_all(run, scope, (struct tensor *[]){&state.picture, &state.text}, 2);
    return state;
}

/* ---- finish ---- */

static struct tensor finish(const struct denoiser *base, struct run *run, struct denoiser_state state) {
    const struct sd3_transformer *m = (const struct sd3_transformer *)base;
    if (run_failed(run)) return (struct tensor){0};
    size_t scope = run_enter(run);
    struct tensor x = norm_continuous(run, &m->norm_out, state.picture, activated_cond(run, state.cond));
    x = exchange_gather(run, nn_linear(run, &m->proj_out, x, ACTIVATION_NONE), state.cut);
    return run_leave(run, scope, nn_unpatch(run, x, base->patch_size, state.rows, state.columns));
}

/* ---- description ---- */

static int64_t size_of(const struct linear *layer) {
    return layer->weight.data == NULL ? 0 : tensor_count(&layer->weight);
}

static int64_t parameters_of(const struct linear *layer) {
    return size_of(layer) + (layer->bias.data == NULL ? 0 : tensor_count(&layer->bias));
}

/* Weights that each token of a stream is multiplied with, and all parameters. */
static void count_stream(const struct projections *a, const struct feed_forward *ff, int64_t *weights, int64_t *parameters) {
    const struct linear *const linears[] = {&a->q, &a->k, &a->v, &a->out, &ff->in, &ff->out};
    for (size_t i = 0; i < sizeof linears / sizeof linears[0]; i++) {
        *weights += size_of(linears[i]);
        *parameters += parameters_of(linears[i]);
    }
    const struct norm *const norms[] = {&a->norm_q, &a->norm_k};
    for (int i = 0; i < 2; i++) *parameters += norms[i]->weight.data == NULL ? 0 : tensor_count(&norms[i]->weight);
}

/* A pair of tokens costs 2 C for its score and 2 C for its value; a second attention is counted as if over all pairs. */
static void describe(const struct denoiser *base, int index, struct denoiser_block_info *info) {
    const struct sd3_block *b = &((const struct sd3_transformer *)base)->blocks[index];
    int64_t picture = 0, text = 0, parameters = parameters_of(&b->norm1) + parameters_of(&b->norm1_context);
    count_stream(&b->attn, &b->ff, &picture, &parameters);
    count_stream(&b->attn2, &(struct feed_forward){0}, &picture, &parameters);
    count_stream(&b->attn_context, &b->ff_context, &text, &parameters);
    *info = (struct denoiser_block_info){
        .parameters = parameters,
        .operations_per_picture_token = 2.0 * (double)picture,
        .operations_per_text_token = 2.0 * (double)text,
        .operations_per_token_pair = 4.0 * (double)((const struct sd3_transformer *)base)->inner_dim * (b->dual ? 2 : 1),
        .carries = DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_COND | (b->last ? 0u : DENOISER_CARRIES_TEXT),
    };
    snprintf(info->name, sizeof info->name, "transformer_blocks.%d", index);
}

const struct denoiser_class sd3_transformer_class = {
    .name = "SD3Transformer2DModel", .open = open, .embed = embed, .block = block, .finish = finish, .describe = describe};
