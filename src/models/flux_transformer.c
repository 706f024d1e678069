/* Flux's denoiser (Black Forest Labs 2024; diffusers' FluxTransformer2DModel): a transformer of two
 * kinds of block.
 *
 *     latents -> patchify by 2 -> linear ------------> picture --+ double +-----> ... --+ single +--> norm, linear -> unpatchify
 *     text states -> linear -------------------------> text -----+ blocks +-----> ... --+ blocks +--> ends
 *     sinusoids of timestep and guidance, pooled text -> MLPs, added -> cond
 *
 * A double block gives each stream its own weights and lets both meet in one attention; a single
 * block has one set of weights for text and picture as one sequence, and computes attention and MLP
 * side by side. In every attention the text comes first, and queries and keys are normed per head
 * and rotated by their token's row and column (Su et al. 2021); text has position 0.
 *
 * The state keeps picture and text apart at every boundary, so that each cut looks the same. The
 * files count a packed token as in_channels of patch_size 1; here patches are packed inside, so
 * latents are [B, H, W, in_channels / 4] and patch_size is 2. Timesteps are the scheduler's,
 * 0..1000, and guidance is the plain scale, which is multiplied by 1000 here.
 *
 * Modulations, cond, rotation tables and norms are F32; products and the residual streams have the
 * run's type. Left out: ControlNet residuals, image prompts, positions other than the token grid's
 * (Kontext), gradient checkpoints. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/elementary.h"
#include "models/denoiser.h"
#include "models/dit_layers.h"
#include "nn/by_rows.h"

enum { MAX_LAYERS = 256, PATCH = 2, MLP_RATIO = 4, AXES = 3 };
#define ROTARY_THETA 10000.0
#define EMBEDDED_SCALE 1000.0f

/* One stream's weights in a block. In a single block attention.out is empty: ff.out takes attention
 * and MLP together. */
struct stream {
    struct linear modulation;
    struct attention attention;
    struct mlp ff;
};

/* single: `picture` serves both streams. */
struct flux_block {
    bool single;
    struct stream picture, text;
};

struct flux_transformer {
    struct denoiser base;
    int64_t num_heads, head_dim, inner_dim, double_blocks;
    int64_t axes[AXES]; /* of a head's channels, how many turn with: nothing here (always position 0), the row, the column */
    bool guidance_embeds;
    struct mlp timestep, guidance, pooled;
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
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: patch_size is %lld; only 1 (packed tokens of 2 x 2) is known",
                         json_path(config), (long long)patch_size);
    }
    if (in % (PATCH * PATCH) != 0 || out % (PATCH * PATCH) != 0) {
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: in_channels %lld and out_channels %lld must be multiples of 4: tokens of 2 x 2",
                         json_path(config), (long long)in, (long long)out);
    }
    if (m->double_blocks + single < 1)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: num_layers and num_single_layers are both 0", json_path(config));
    base->num_blocks = (int)(m->double_blocks + single);
    base->num_heads = m->num_heads;
    base->patch_size = PATCH;
    base->in_channels = in / (PATCH * PATCH);
    base->out_channels = out / (PATCH * PATCH);
    m->inner_dim = m->num_heads * m->head_dim;
    base->form = (struct denoiser_form){.width = m->inner_dim, .text_width = m->inner_dim, .cond_width = m->inner_dim};
    return TESSERA_OK;
}

static const struct attention_names single_names = {"attn.to_q", "attn.to_k", "attn.to_v", "", "attn.norm_q", "attn.norm_k"};

/* A stream of a double block: its norm's name is `norm`, its feed-forward's `ff`. */
static struct stream load_stream(struct loader *loader, const struct flux_transformer *m, const struct attention_names *names,
                                 const char *norm, const char *ff) {
    int64_t c = m->inner_dim;
    return (struct stream){.modulation = load_linear(loader, c, 6 * c, true, "%s.linear", norm),
                           .attention = dit_load_attention(loader, m->num_heads, m->head_dim, names, true, true),
                           .ff = dit_load_feed_forward(loader, c, MLP_RATIO * c, ff)};
}

static struct stream load_single(struct loader *loader, const struct flux_transformer *m) {
    int64_t c = m->inner_dim, hidden = MLP_RATIO * c;
    return (struct stream){.modulation = load_linear(loader, c, 3 * c, true, "norm.linear"),
                           .attention = dit_load_attention(loader, m->num_heads, m->head_dim, &single_names, true, true),
                           .ff = {.in = load_linear_outputs(loader, c, hidden, 1, true, "proj_mlp"),
                                  .out = load_linear_joined_inputs(loader, m->num_heads, m->head_dim, hidden, c, true, "proj_out")}};
}

static struct flux_block read_block(struct loader *loader, const struct flux_transformer *m, bool single) {
    if (single) return (struct flux_block){.single = true, .picture = load_single(loader, m)};
    return (struct flux_block){.picture = load_stream(loader, m, &dit_picture_names, "norm1", "ff"),
                               .text = load_stream(loader, m, &dit_text_names, "norm1_context", "ff_context")};
}

/* The prefix of a block's weights, without a dot at the end. */
static void block_name(const struct flux_transformer *m, int index, char *out, size_t size) {
    int doubles = (int)m->double_blocks;
    if (index < doubles)
        snprintf(out, size, "transformer_blocks.%d", index);
    else
        snprintf(out, size, "single_transformer_blocks.%d", index - doubles);
}

static void load_embed(struct denoiser *base, struct loader *loader) {
    struct flux_transformer *m = (struct flux_transformer *)base;
    int64_t c = m->inner_dim;
    load_set_prefix(loader, "%s", "");
    m->x_embedder = load_linear(loader, PATCH * PATCH * base->in_channels, c, true, "x_embedder");
    m->context_embedder = load_linear(loader, base->text_channels, c, true, "context_embedder");
    m->timestep = dit_load_embedder(loader, DIT_TIMESTEP_CHANNELS, c, c, "time_text_embed.timestep_embedder");
    if (m->guidance_embeds) m->guidance = dit_load_embedder(loader, DIT_TIMESTEP_CHANNELS, c, c, "time_text_embed.guidance_embedder");
    m->pooled = dit_load_embedder(loader, base->pooled_channels, c, c, "time_text_embed.text_embedder");
}

static void load_block(struct denoiser *base, int index, struct loader *loader) {
    struct flux_transformer *m = (struct flux_transformer *)base;
    char name[64];
    block_name(m, index, name, sizeof name);
    load_set_prefix(loader, "%s.", name);
    m->blocks[index] = read_block(loader, m, index >= m->double_blocks);
}

static void load_finish(struct denoiser *base, struct loader *loader) {
    struct flux_transformer *m = (struct flux_transformer *)base;
    int64_t c = m->inner_dim;
    load_set_prefix(loader, "%s", "");
    m->norm_out = load_linear(loader, c, 2 * c, true, "norm_out.linear");
    m->proj_out = load_linear(loader, c, PATCH * PATCH * base->out_channels, true, "proj_out");
}

static struct denoiser *open(const struct json *config, struct loader *loader) {
    struct flux_transformer read = {.base.class = &flux_transformer_class};
    if (read_config(config, &read, &loader->error) != TESSERA_OK) return NULL;
    struct flux_transformer *m = load_alloc(loader, sizeof *m);
    read.blocks = load_alloc(loader, (size_t)read.base.num_blocks * sizeof *read.blocks);
    if (load_failed(loader)) return NULL;
    *m = read;
    m->base.text_stream = true;
    load_units(loader, m->num_heads);
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

/* The order of a gather between a picture [B, 2 h, 2 w, C] and those of its tokens that `cut`
 * leaves to this rank, [B, S, C 2 2] (channel, row, column within the token): for each element of
 * the tokens its place in the picture if `to_packed`, else (for all tokens) the inverse. */
static struct tensor packing(struct run *run, int64_t batch, int64_t h, int64_t w, int64_t channels, const struct cut *cut,
                             bool to_packed) {
    struct span mine = cut_mine(cut, h * w);
    int64_t width = PATCH * PATCH * channels, count = batch * mine.count * width;
    struct tensor index = run_tensor(run, DTYPE_I32, SHAPE(count));
    int32_t *ids = run_map(run, &index, MAP_WRITE);
    for (int64_t packed = 0; ids != NULL && packed < count; packed++) {
        int64_t b = packed / width / mine.count, token = mine.first + packed / width % mine.count;
        int64_t c = packed % width / (PATCH * PATCH), corner = packed % (PATCH * PATCH);
        int64_t y = (b * h + token / w) * PATCH + corner / PATCH, x = token % w * PATCH + corner % PATCH;
        int64_t picture = (y * w * PATCH + x) * channels + c;
        ids[to_packed ? packed : picture] = (int32_t)(to_packed ? picture : packed);
    }
    run_unmap(run, &index, ids, MAP_WRITE);
    return index;
}

/* Elements of x in the order of `index`, in the run's type: [count, 1]. */
static struct tensor reorder(struct run *run, struct tensor x, struct tensor index) {
    if (run_failed(run)) return (struct tensor){0};
    return nn_embed_rows(run, tensor_reshape(x, SHAPE(tensor_count(&x), 1)), index, 1, tensor_count(&index));
}

static struct tensor embed_picture(const struct flux_transformer *m, struct run *run, struct tensor latents, const struct cut *cut) {
    int64_t batch = latents.shape[0], h = latents.shape[1] / PATCH, w = latents.shape[2] / PATCH, channels = m->base.in_channels;
    size_t scope = run_enter(run);
    struct tensor x = reorder(run, latents, packing(run, batch, h, w, channels, cut, true));
    x = nn_reshape(x, SHAPE(batch, cut_mine(cut, h * w).count, PATCH * PATCH * channels));
    return run_leave(run, scope, nn_linear(run, &m->x_embedder, x, ACTIVATION_NONE));
}

static struct tensor embed_guidance(const struct flux_transformer *m, struct run *run, struct tensor guidance) {
    int64_t batch = guidance.shape[0];
    struct tensor scaled = run_tensor(run, DTYPE_F32, SHAPE(batch));
    float *given = run_map(run, &guidance, MAP_READ), *values = run_map(run, &scaled, MAP_ROOM);
    for (int64_t b = 0; b < batch && !run_failed(run); b++) values[b] = EMBEDDED_SCALE * given[b];
    struct tensor out = nn_cast(run, dit_embed_values(run, &m->guidance, values, batch), DTYPE_F32);
    run_unmap(run, &guidance, given, MAP_READ);
    run_unmap(run, &scaled, values, MAP_ROOM);
    return out;
}

/* The MLPs of timestep, guidance where the model has it, and pooled text, added: F32 [B, C]. */
static struct tensor embed_cond(const struct flux_transformer *m, struct run *run, const struct denoiser_inputs *in) {
    size_t scope = run_enter(run);
    struct tensor cond = nn_cast(run, dit_embed_values(run, &m->timestep, in->timesteps, in->latents.shape[0]), DTYPE_F32);
    if (m->guidance_embeds) cond = nn_add(run, cond, embed_guidance(m, run, in->guidance));
    struct tensor pooled = nn_cast(run, dit_mlp(run, &m->pooled, in->pooled, ACTIVATION_SILU), DTYPE_F32);
    return run_leave(run, scope, nn_add(run, cond, pooled));
}

static struct denoiser_state embed(const struct denoiser *base, struct run *run, const struct denoiser_inputs *in, unsigned carries) {
    const struct flux_transformer *m = (const struct flux_transformer *)base;
    struct denoiser_state state = {0};
    if (run_failed(run) || check_inputs(m, in, &run->error) != TESSERA_OK) return state;
    state.rows = in->latents.shape[1] / PATCH;
    state.columns = in->latents.shape[2] / PATCH;
    state.cut = exchange_cut_tokens(run, state.rows, state.columns);
    if (carries & DENOISER_CARRIES_PICTURE) state.picture = embed_picture(m, run, in->latents, state.cut);
    state.text_tokens = in->text.shape[1];
    if (carries & DENOISER_CARRIES_TEXT) state.text = dit_embed_text(run, &m->context_embedder, in->text);
    state.cond = embed_cond(m, run, in);
    return state;
}

/* ---- positions ---- */

/* One axis: `turn` F32 [2, positions, channels], cosines then sines, of position / theta^(2 i /
 * channels), each twice. */
static void fill_axis(float *turn, int64_t positions, int64_t channels) {
    for (int64_t p = 0; p < positions; p++) {
        for (int64_t i = 0; i < channels; i++) {
            double angle = (double)p / elementary_pow(ROTARY_THETA, (double)(i / 2 * 2) / (double)channels);
            turn[p * channels + i] = (float)elementary_cos(angle);
            turn[(positions + p) * channels + i] = (float)elementary_sin(angle);
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

/* Of this rank's tokens: text, then picture. The host writes the tables and nothing waits for it:
 * they go to the device, and are small beside what a block reads. */
static struct rotation rotation_of(const struct flux_transformer *m, struct run *run, const struct denoiser_state *state) {
    int64_t h = state->rows, w = state->columns, text = state->text.shape[1];
    struct span mine = cut_mine(state->cut, h * w);
    int64_t tokens = text + mine.count;
    struct rotation r = {run_tensor(run, DTYPE_F32, SHAPE(tokens, m->head_dim)), run_tensor(run, DTYPE_F32, SHAPE(tokens, m->head_dim))};
    size_t scope = run_enter(run);
    struct tensor rows = run_tensor(run, DTYPE_F32, SHAPE(2, h, m->axes[1])), columns = run_tensor(run, DTYPE_F32, SHAPE(2, w, m->axes[2]));
    float *down = run_map(run, &rows, MAP_ROOM), *along = run_map(run, &columns, MAP_ROOM);
    if (!run_failed(run)) {
        fill_axis(down, h, m->axes[1]);
        fill_axis(along, w, m->axes[2]);
    }
    for (int sine = 0; sine < 2; sine++) {
        struct tensor *table = sine == 0 ? &r.cos : &r.sin;
        float *values = run_map(run, table, MAP_WRITE), *out = values;
        for (int64_t t = 0; values != NULL && t < tokens; t++, out += m->head_dim) {
            int64_t at = t < text ? 0 : mine.first + t - text;
            const float *const axes[] = {down + sine * h * m->axes[1], along + sine * w * m->axes[2]};
            fill_rotation(m, out, axes, at / w, at % w, sine == 1);
        }
        run_unmap(run, table, values, MAP_WRITE);
    }
    run_unmap(run, &rows, down, MAP_ROOM);
    run_unmap(run, &columns, along, MAP_ROOM);
    run_leave_all(run, scope, NULL, 0);
    return r;
}

/* ---- blocks ---- */

/* Where the text is among the rows of queries, keys and values. */
static struct text_span text_of(const struct denoiser_state *state) {
    return (struct text_span){.first = 0, .count = state->text.shape[1], .total = state->text_tokens, .in_queries = true};
}

static void double_block(const struct flux_transformer *m, struct run *run, const struct flux_block *b, const struct rotation *r,
                         struct denoiser_state *state) {
    struct tensor emb = dit_activated_cond(run, state->cond), picture = state->picture, text = state->text;
    struct modulation mod = dit_modulation(run, &b->picture.modulation, emb, 6);
    struct modulation text_mod = text.data != NULL ? dit_modulation(run, &b->text.modulation, emb, 6) : (struct modulation){0};
    struct tensor both[] = {nn_norm_modulated(run, &dit_plain_norm, text, text_mod.scale, text_mod.shift),
                            nn_norm_modulated(run, &dit_plain_norm, picture, mod.scale, mod.shift)};
    const struct attention *const weights[] = {&b->text.attention, &b->picture.attention};
    dit_joint_attention(run, m->head_dim, weights, r, both, state->cut, text_of(state));
    state->text = dit_feed_forward(run, &b->text.ff, nn_gated_add(run, text, both[0], text_mod.gate), &text_mod);
    state->picture = dit_feed_forward(run, &b->picture.ff, nn_gated_add(run, picture, both[1], mod.gate), &mod);
}

/* Attention of the rows of x, text then picture, before its output projection. */
static struct tensor self_attention(const struct flux_transformer *m, struct run *run, const struct attention *a, const struct rotation *r,
                                    struct tensor x, const struct denoiser_state *state) {
    return dit_attention(run, m->head_dim, a, r, x, &(struct dit_asked){.cut = state->cut, .span = text_of(state)});
}

/* What a row of a single block becomes, from its norm. */
struct single_rows {
    const struct stream *weights;
    struct tensor x, attention, gate;
};

static struct tensor finish_rows(struct run *run, const void *user, struct tensor y, int64_t first) {
    const struct single_rows *s = user;
    int64_t count = y.shape[1];
    struct tensor hidden = nn_linear(run, &s->weights->ff.in, y, ACTIVATION_GELU_TANH);
    hidden = nn_concat_channels(run, nn_some_rows(run, s->attention, first, count), hidden);
    return nn_gated_add(run, nn_some_rows(run, s->x, first, count), nn_linear_sum(run, &s->weights->ff.out, hidden), s->gate);
}

static void single_block(const struct flux_transformer *m, struct run *run, const struct flux_block *b, const struct rotation *r,
                         struct denoiser_state *state) {
    const struct stream *s = &b->picture;
    int64_t text_tokens = state->text.shape[1], picture_tokens = state->picture.shape[1];
    struct modulation mod = dit_modulation(run, &s->modulation, dit_activated_cond(run, state->cond), 3);
    struct tensor x = nn_concat_rows(run, state->text, state->picture);
    struct tensor y = nn_norm_modulated(run, &dit_plain_norm, x, mod.scale, mod.shift);
    struct single_rows rows = {.weights = s, .x = x, .gate = mod.gate, .attention = self_attention(m, run, &s->attention, r, y, state)};
    x = nn_by_rows(run, y, m->inner_dim, 2 * MLP_RATIO + 4, finish_rows, &rows);
    state->text = nn_slice_rows(run, x, 0, text_tokens);
    state->picture = nn_slice_rows(run, x, text_tokens, picture_tokens);
}

static struct denoiser_state block(const struct denoiser *base, struct run *run, int index, struct denoiser_state state) {
    const struct flux_transformer *m = (const struct flux_transformer *)base;
    const struct flux_block *b = &m->blocks[index];
    if (run_failed(run)) return (struct denoiser_state){0};
    size_t scope = run_enter(run);
    struct rotation r = rotation_of(m, run, &state);
    if (b->single)
        single_block(m, run, b, &r, &state);
    else
        double_block(m, run, b, &r, &state);
    if (index == base->num_blocks - 1) state.text = (struct tensor){0};
    run_leave_all(run, scope, (struct tensor *[]){&state.picture, &state.text}, 2);
    return state;
}

static struct tensor first_input(const struct denoiser *base, struct run *run, const struct denoiser_state *state) {
    const struct flux_block *b = &((const struct flux_transformer *)base)->blocks[0];
    size_t scope = run_enter(run);
    struct modulation mod = dit_modulation(run, &b->picture.modulation, dit_activated_cond(run, state->cond), b->single ? 3 : 6);
    return run_leave(run, scope, nn_norm_modulated(run, &dit_plain_norm, state->picture, mod.scale, mod.shift));
}

/* Fitted by TeaCache's authors on Flux.1-dev (Liu et al. 2025, section 3.3; their TeaCache4FLUX). */
static const double change_polynomial[DENOISER_CHANGE_POWERS] = {498.651651, -283.781631, 55.8554382, -3.82021401, 0.264230861};

/* ---- finish ---- */

static struct tensor finish(const struct denoiser *base, struct run *run, struct denoiser_state state) {
    const struct flux_transformer *m = (const struct flux_transformer *)base;
    if (run_failed(run)) return (struct tensor){0};
    int64_t batch = state.picture.shape[0], w = state.columns, channels = base->out_channels;
    size_t scope = run_enter(run);
    struct tensor x = dit_norm_continuous(run, &m->norm_out, state.picture, dit_activated_cond(run, state.cond));
    x = exchange_gather(run, nn_linear(run, &m->proj_out, x, ACTIVATION_NONE), state.cut);
    int64_t h = x.shape[1] / w;
    x = reorder(run, x, packing(run, batch, h, w, channels, NULL, false));
    return run_leave(run, scope, nn_cast(run, nn_reshape(x, SHAPE(batch, h * PATCH, w * PATCH, channels)), DTYPE_F32));
}

/* ---- description ---- */

/* Weights that each token of a stream is multiplied with. */
static int64_t count_stream(const struct stream *s, int64_t *parameters) {
    dit_count_linear(&s->modulation, parameters);
    return dit_count_attention(&s->attention, parameters) + dit_count_mlp(&s->ff, parameters);
}

/* A single block adds attention and MLP of both streams at once. */
static void list_meetings(const struct flux_transformer *m, bool single, struct meeting_list *list) {
    int64_t heads = m->base.num_heads;
    struct meeting sum = {.kind = MEETING_SUM, .count = single ? 1 : 2, .units = m->inner_dim, .width = 1};
    meeting_add(list, (struct meeting){.kind = MEETING_ATTENTION,
                                       .count = 1,
                                       .of = MEETING_PICTURE | MEETING_TEXT,
                                       .text_asks = true,
                                       .is_sliced = true,
                                       .units = heads,
                                       .width = m->inner_dim / heads});
    sum.of = single ? MEETING_PICTURE | MEETING_TEXT : MEETING_PICTURE;
    meeting_add(list, sum);
    sum.of = MEETING_TEXT, sum.count = single ? 0 : 2;
    meeting_add(list, sum);
}

/* A pair of tokens costs 2 C for its score and 2 C for its value. */
static void describe(const struct denoiser *base, int index, struct denoiser_block_info *info) {
    const struct flux_transformer *m = (const struct flux_transformer *)base;
    const struct flux_block *b = &m->blocks[index];
    bool last = index == base->num_blocks - 1;
    int64_t parameters = 0, picture = count_stream(&b->picture, &parameters), text = count_stream(&b->text, &parameters);
    *info = (struct denoiser_block_info){
        .parameters = parameters,
        .operations_per_picture_token = 2.0 * (double)picture,
        .operations_per_text_token = 2.0 * (double)(b->single ? picture : text),
        .operations_per_token_pair = 4.0 * (double)m->inner_dim,
        .carries = DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_COND | (last ? 0u : DENOISER_CARRIES_TEXT),
    };
    list_meetings(m, b->single, &info->meetings);
    block_name(m, index, info->name, sizeof info->name);
}

const struct denoiser_class flux_transformer_class = {.name = "FluxTransformer2DModel",
                                                      .open = open,
                                                      .load_embed = load_embed,
                                                      .load_block = load_block,
                                                      .load_finish = load_finish,
                                                      .embed = embed,
                                                      .block = block,
                                                      .finish = finish,
                                                      .first_input = first_input,
                                                      .change_polynomial = change_polynomial,
                                                      .describe = describe};
