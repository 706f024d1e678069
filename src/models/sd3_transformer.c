/* SD3's denoiser: a multimodal diffusion transformer (Esser et al. 2024, figure 2; diffusers'
 * SD3Transformer2DModel).
 *
 *     latents -> patchify -> linear + position table ----> picture --+        +--> ... --> norm, linear -> unpatchify
 *     text states -> linear ----------------------------> text -----+ blocks +--> ends in the last block
 *     timestep sinusoid, pooled text -> two MLPs, added -> cond ----+        +
 *
 * A block gives each stream its own weights and lets both meet in one attention (picture tokens
 * first, then text). cond modulates: of a linear of silu(cond) come a shift, a scale and a gate
 * before and after each half of a block. SD3.5's blocks also have a second attention of the picture
 * with itself (dual_attention_layers) and norms of queries and keys (qk_norm).
 *
 * Modulations, cond and norms are F32; products and the residual streams have the run's type.
 * Left out: ControlNet residuals, skipped layers, image prompts, gradient checkpoints. */
#include <stdio.h>
#include <string.h>

#include "models/denoiser.h"
#include "models/dit_layers.h"
#include "nn/patchify.h"
#include "nn/position.h"

enum { MAX_LAYERS = 256 };

struct sd3_block {
    bool dual, last; /* last: the text gives keys and values only, and its stream ends */
    struct linear norm1, norm1_context;
    struct attention attn, attn_context, attn2;
    struct mlp ff, ff_context;
};

struct sd3_transformer {
    struct denoiser base;
    int64_t num_heads, head_dim, inner_dim;
    bool qk_norm, makes_table; /* makes_table: older files leave the position table out */
    struct conv patch_proj;    /* [C, p, p, in] */
    struct tensor pos_embed;   /* [max_side^2, C] */
    struct mlp timestep, pooled;
    struct linear context_embedder, norm_out, proj_out;
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
    TRY(json_int(config, "pos_embed_max_size", 96, 1, 1 << 12, &base->max_side, error));
    TRY(json_string(config, "qk_norm", NULL, &qk_norm, error));
    base->num_blocks = (int)layers;
    base->num_heads = m->num_heads;
    m->inner_dim = m->num_heads * m->head_dim;
    base->form = (struct denoiser_form){.width = m->inner_dim, .text_width = m->inner_dim, .cond_width = m->inner_dim};
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

static const struct attention_names dual_names = {"attn2.to_q",     "attn2.to_k",   "attn2.to_v",
                                                  "attn2.to_out.0", "attn2.norm_q", "attn2.norm_k"};
static const struct attention_names last_text_names = {"", "attn.add_k_proj", "attn.add_v_proj", "", "", "attn.norm_added_k"};

static struct attention load_attention(struct loader *loader, const struct sd3_transformer *m, const struct attention_names *names) {
    return dit_load_attention(loader, m->num_heads, m->head_dim, names, true, m->qk_norm);
}

static struct sd3_block read_block(struct loader *loader, const struct sd3_transformer *m, bool dual, bool last) {
    int64_t c = m->inner_dim;
    struct sd3_block block = {
        .dual = dual,
        .last = last,
        .norm1 = load_linear(loader, c, (dual ? 9 : 6) * c, true, "norm1.linear"),
        .norm1_context = load_linear(loader, c, (last ? 2 : 6) * c, true, "norm1_context.linear"),
        .attn = load_attention(loader, m, &dit_picture_names),
        .attn_context = load_attention(loader, m, last ? &last_text_names : &dit_text_names),
        .ff = dit_load_feed_forward(loader, c, 4 * c, "ff"),
    };
    if (dual) block.attn2 = load_attention(loader, m, &dual_names);
    if (!last) block.ff_context = dit_load_feed_forward(loader, c, 4 * c, "ff_context");
    if (last) { /* queries of a text stream that ends here */
        load_unused(loader, SHAPE(c, c), "attn.add_q_proj.weight");
        load_unused(loader, SHAPE(c), "attn.add_q_proj.bias");
        if (m->qk_norm) load_unused(loader, SHAPE(m->head_dim), "attn.norm_added_q.weight");
    }
    return block;
}

/* The position table as the file stores it, or made. */
static struct tensor load_pos_embed(struct loader *loader, const struct sd3_transformer *m) {
    int64_t side = m->base.max_side, c = m->inner_dim, base_size = m->base.sample_size / m->base.patch_size;
    if (!m->makes_table) {
        struct tensor t = load_tensor(loader, DTYPE_F32, SHAPE(1, side * side, c), "pos_embed.pos_embed");
        return nn_reshape(t, SHAPE(side * side, c));
    }
    struct tensor t = load_made(loader, DTYPE_F32, SHAPE(side * side, c));
    if (t.data != NULL) position_sincos_2d(t.data, side, side, c, (double)base_size, 1.0);
    return load_place(loader, t);
}

static void load_embed(struct denoiser *base, struct loader *loader) {
    struct sd3_transformer *m = (struct sd3_transformer *)base;
    int64_t c = m->inner_dim;
    load_set_prefix(loader, "%s", "");
    m->patch_proj = load_conv(loader, base->in_channels, c, (int)base->patch_size, "pos_embed.proj");
    m->pos_embed = load_pos_embed(loader, m);
    m->context_embedder = load_linear(loader, base->text_channels, c, true, "context_embedder");
    m->timestep = dit_load_embedder(loader, DIT_TIMESTEP_CHANNELS, c, c, "time_text_embed.timestep_embedder");
    m->pooled = dit_load_embedder(loader, base->pooled_channels, c, c, "time_text_embed.text_embedder");
}

static void load_block(struct denoiser *base, int index, struct loader *loader) {
    struct sd3_transformer *m = (struct sd3_transformer *)base;
    load_set_prefix(loader, "transformer_blocks.%d.", index);
    m->blocks[index] = read_block(loader, m, m->blocks[index].dual, index == base->num_blocks - 1);
}

static void load_finish(struct denoiser *base, struct loader *loader) {
    struct sd3_transformer *m = (struct sd3_transformer *)base;
    int64_t c = m->inner_dim, p = base->patch_size;
    load_set_prefix(loader, "%s", "");
    m->norm_out = load_linear(loader, c, 2 * c, true, "norm_out.linear");
    m->proj_out = load_linear(loader, c, p * p * base->out_channels, true, "proj_out");
}

/* Can a position table be made, if the file has none? */
static void check_table(struct loader *loader, struct sd3_transformer *m, const struct json *config) {
    load_set_prefix(loader, "%s", "");
    m->makes_table = !load_has(loader, "pos_embed.pos_embed");
    if (m->makes_table && (m->inner_dim % 4 != 0 || m->base.sample_size < m->base.patch_size))
        error_set(&loader->error, TESSERA_ERROR_FORMAT, "%s: no position table can be made for %lld channels and sample_size %lld",
                  json_path(config), (long long)m->inner_dim, (long long)m->base.sample_size);
}

static struct denoiser *open(const struct json *config, struct loader *loader) {
    struct sd3_transformer read = {.base.class = &sd3_transformer_class};
    bool dual[MAX_LAYERS] = {0};
    if (read_config(config, &read, dual, &loader->error) != TESSERA_OK) return NULL;
    struct sd3_transformer *m = load_alloc(loader, sizeof *m);
    read.blocks = load_alloc(loader, (size_t)read.base.num_blocks * sizeof *read.blocks);
    if (load_failed(loader)) return NULL;
    *m = read;
    m->base.text_stream = true;
    for (int i = 0; i < m->base.num_blocks; i++) m->blocks[i].dual = dual[i];
    load_units(loader, m->num_heads);
    check_table(loader, m, config);
    return load_failed(loader) ? NULL : &m->base;
}

/* ---- embed ---- */

static tessera_status check_inputs(const struct denoiser *m, const struct denoiser_inputs *in, tessera_error *error) {
    TRY(denoiser_check_latents(m, &in->latents, error));
    int64_t batch = in->latents.shape[0];
    TRY(denoiser_check_shape(m, "text", &in->text, SHAPE(batch, -1, m->text_channels), error));
    return denoiser_check_shape(m, "pooled text", &in->pooled, SHAPE(batch, m->pooled_channels), error);
}

/* The table's rows for this rank's tokens of an h x w picture in the middle of the largest one, for
 * each of the batch: [B, S, C]. */
static struct tensor positions_of(const struct sd3_transformer *m, struct run *run, int64_t batch, int64_t h, int64_t w,
                                  const struct cut *cut) {
    int64_t side = m->base.max_side, top = (side - h) / 2, left = (side - w) / 2;
    struct span mine = cut_mine(cut, h * w);
    struct tensor index = run_tensor(run, DTYPE_I32, SHAPE(batch * mine.count));
    int32_t *ids = run_map(run, &index, MAP_WRITE), *next = ids;
    for (int64_t b = 0; ids != NULL && b < batch; b++) {
        for (int64_t i = mine.first; i < mine.first + mine.count; i++) *next++ = (int32_t)((top + i / w) * side + left + i % w);
    }
    run_unmap(run, &index, ids, MAP_WRITE);
    return nn_embed_rows(run, m->pos_embed, index, batch, mine.count);
}

static struct tensor embed_picture(const struct sd3_transformer *m, struct run *run, struct tensor latents, const struct cut *cut) {
    int64_t batch = latents.shape[0], p = m->base.patch_size, h = latents.shape[1] / p, w = latents.shape[2] / p;
    size_t scope = run_enter(run);
    struct tensor x = dit_embed_picture(run, &m->patch_proj, latents, cut);
    return run_leave(run, scope, nn_add(run, x, positions_of(m, run, batch, h, w, cut)));
}

/* mlp(sinusoid(timestep)) + mlp(pooled): F32 [B, C]. */
static struct tensor embed_cond(const struct sd3_transformer *m, struct run *run, const struct denoiser_inputs *in) {
    size_t scope = run_enter(run);
    struct tensor time = dit_embed_values(run, &m->timestep, in->timesteps, in->latents.shape[0]);
    struct tensor pooled = dit_mlp(run, &m->pooled, in->pooled, ACTIVATION_SILU);
    return run_leave(run, scope, nn_add(run, nn_cast(run, time, DTYPE_F32), nn_cast(run, pooled, DTYPE_F32)));
}

static struct denoiser_state embed(const struct denoiser *base, struct run *run, const struct denoiser_inputs *in, unsigned carries) {
    const struct sd3_transformer *m = (const struct sd3_transformer *)base;
    struct denoiser_state state = {0};
    if (run_failed(run) || check_inputs(base, in, &run->error) != TESSERA_OK) return state;
    state.rows = in->latents.shape[1] / base->patch_size;
    state.columns = in->latents.shape[2] / base->patch_size;
    state.cut = exchange_cut_tokens(run, state.rows, state.columns);
    if (carries & DENOISER_CARRIES_PICTURE) state.picture = embed_picture(m, run, in->latents, state.cut);
    state.text_tokens = in->text.shape[1];
    if (carries & DENOISER_CARRIES_TEXT) state.text = dit_embed_text(run, &m->context_embedder, in->text);
    state.cond = embed_cond(m, run, in);
    return state;
}

/* ---- blocks ---- */

/* SD3.5's second attention: the picture with itself. */
static struct tensor picture_attention(const struct sd3_transformer *m, struct run *run, const struct attention *a, struct tensor x,
                                       const struct cut *cut) {
    return dit_attention(run, m->head_dim, a, NULL, x, &(struct dit_asked){.cut = cut});
}

static struct denoiser_state block(const struct denoiser *base, struct run *run, int index, struct denoiser_state state) {
    const struct sd3_transformer *m = (const struct sd3_transformer *)base;
    const struct sd3_block *b = &m->blocks[index];
    if (run_failed(run)) return (struct denoiser_state){0};
    size_t scope = run_enter(run);
    struct tensor emb = dit_activated_cond(run, state.cond), x = state.picture, text = state.text;
    struct modulation mod = dit_modulation(run, &b->norm1, emb, b->dual ? 9 : 6), text_mod = {0};
    if (!b->last && text.data != NULL) text_mod = dit_modulation(run, &b->norm1_context, emb, 6);
    struct tensor both[] = {nn_norm_modulated(run, &dit_plain_norm, x, mod.scale, mod.shift),
                            b->last ? dit_norm_continuous(run, &b->norm1_context, text, emb)
                                    : nn_norm_modulated(run, &dit_plain_norm, text, text_mod.scale, text_mod.shift)};
    struct text_span span = {.first = x.shape[1], .count = text.shape[1], .total = state.text_tokens, .in_queries = !b->last};
    dit_joint_attention(run, m->head_dim, (const struct attention *const[]){&b->attn, &b->attn_context}, NULL, both, state.cut, span);
    struct tensor y = nn_gated_add(run, x, both[0], mod.gate);
    if (b->dual) {
        struct tensor again =
            picture_attention(m, run, &b->attn2, nn_norm_modulated(run, &dit_plain_norm, x, mod.scale2, mod.shift2), state.cut);
        y = nn_gated_add(run, y, again, mod.gate2);
    }
    state.picture = dit_feed_forward(run, &b->ff, y, &mod);
    state.text =
        b->last ? (struct tensor){0} : dit_feed_forward(run, &b->ff_context, nn_gated_add(run, text, both[1], text_mod.gate), &text_mod);
    run_leave_all(run, scope, (struct tensor *[]){&state.picture, &state.text}, 2);
    return state;
}

static struct tensor first_input(const struct denoiser *base, struct run *run, const struct denoiser_state *state) {
    const struct sd3_block *b = &((const struct sd3_transformer *)base)->blocks[0];
    size_t scope = run_enter(run);
    struct modulation mod = dit_modulation(run, &b->norm1, dit_activated_cond(run, state->cond), b->dual ? 9 : 6);
    return run_leave(run, scope, nn_norm_modulated(run, &dit_plain_norm, state->picture, mod.scale, mod.shift));
}

/* ---- finish ---- */

static struct tensor finish(const struct denoiser *base, struct run *run, struct denoiser_state state) {
    const struct sd3_transformer *m = (const struct sd3_transformer *)base;
    if (run_failed(run)) return (struct tensor){0};
    size_t scope = run_enter(run);
    struct tensor x = dit_norm_continuous(run, &m->norm_out, state.picture, dit_activated_cond(run, state.cond));
    x = exchange_gather(run, nn_linear(run, &m->proj_out, x, ACTIVATION_NONE), state.cut);
    return run_leave(run, scope, nn_unpatchify(run, x, base->patch_size, x.shape[1] / state.columns, state.columns));
}

/* ---- description ---- */

static void list_meetings(const struct sd3_transformer *m, const struct sd3_block *b, struct meeting_list *list) {
    struct meeting attention = {.kind = MEETING_ATTENTION, .count = 1, .is_sliced = true, .units = m->num_heads, .width = m->head_dim};
    struct meeting sum = {.kind = MEETING_SUM, .count = b->dual ? 3 : 2, .of = MEETING_PICTURE, .units = m->inner_dim, .width = 1};
    attention.of = MEETING_PICTURE | MEETING_TEXT, attention.text_asks = !b->last;
    meeting_add(list, attention);
    attention.of = MEETING_PICTURE, attention.text_asks = false, attention.count = b->dual;
    meeting_add(list, attention);
    meeting_add(list, sum);
    sum.of = MEETING_TEXT, sum.count = b->last ? 0 : 2;
    meeting_add(list, sum);
}

/* A pair of tokens costs 2 C for its score and 2 C for its value; a second attention is counted as
 * if over all pairs. */
static void describe(const struct denoiser *base, int index, struct denoiser_block_info *info) {
    const struct sd3_block *b = &((const struct sd3_transformer *)base)->blocks[index];
    int64_t parameters = 0;
    int64_t picture =
        dit_count_attention(&b->attn, &parameters) + dit_count_attention(&b->attn2, &parameters) + dit_count_mlp(&b->ff, &parameters);
    int64_t text = dit_count_attention(&b->attn_context, &parameters) + dit_count_mlp(&b->ff_context, &parameters);
    dit_count_linear(&b->norm1, &parameters);
    dit_count_linear(&b->norm1_context, &parameters);
    *info = (struct denoiser_block_info){
        .parameters = parameters,
        .operations_per_picture_token = 2.0 * (double)picture,
        .operations_per_text_token = 2.0 * (double)text,
        .operations_per_token_pair = 4.0 * (double)((const struct sd3_transformer *)base)->inner_dim * (b->dual ? 2 : 1),
        .carries = DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_COND | (b->last ? 0u : DENOISER_CARRIES_TEXT),
    };
    list_meetings((const struct sd3_transformer *)base, b, &info->meetings);
    snprintf(info->name, sizeof info->name, "transformer_blocks.%d", index);
}

const struct denoiser_class sd3_transformer_class = {.name = "SD3Transformer2DModel",
                                                     .open = open,
                                                     .load_embed = load_embed,
                                                     .load_block = load_block,
                                                     .load_finish = load_finish,
                                                     .embed = embed,
                                                     .block = block,
                                                     .finish = finish,
                                                     .first_input = first_input,
                                                     .describe = describe};
