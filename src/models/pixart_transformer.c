/* PixArt's denoiser: a diffusion transformer with cross attention to T5's text (Chen et al. 2023,
 * PixArt-alpha, figure 4; 2024, PixArt-sigma; diffusers' PixArtTransformer2DModel).
 *
 *     latents -> patchify -> linear + sinusoidal positions -> picture --> blocks --> norm, modulate, linear -> unpatchify
 *     text states -> mlp ----------------------------------> text ---------^
 *     timestep [, resolution, aspect ratio] -> mlps --> e --> linear(silu(e)) -> cond
 *
 * One linear for the whole model makes the six modulations of a block (adaLN-single); a block adds
 * its own table to them. cond therefore holds seven chunks of C channels: the six modulations, then
 * e, which the end of the model is modulated with.
 *
 * The picture attends to itself and then, without a norm or gate, to the text; masked text is
 * dropped (diffusers adds -10000). The output has all of out_channels: the second half is the
 * learned variance, which samplers leave out. Modulations, cond and norms are F32; products and the
 * residual stream have the run's type. Left out: GLIGEN attention, norms with weights, models
 * without a caption projection. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "models/denoiser.h"
#include "models/dit_layers.h"
#include "nn/patchify.h"
#include "nn/position.h"

enum { MAX_LAYERS = 256, MAX_SIDE = 4096, NUM_MODULATIONS = 6, NUM_COND_CHUNKS = 7, NUM_SIZES = 3 };

struct pixart_block {
    struct tensor scale_shift_table; /* F32 [6, C] */
    struct attention self, cross;
    struct mlp ff;
};

struct pixart_transformer {
    struct denoiser base;
    int64_t num_heads, head_dim, inner_dim;
    double interpolation_scale;
    float norm_eps;
    bool attention_bias, use_sizes;
    struct conv patch_proj; /* [C, p, p, in] */
    struct mlp timestep, resolution, aspect_ratio, caption;
    struct linear modulations, proj_out;
    struct tensor scale_shift_table; /* F32 [2, C] */
    struct pixart_block *blocks;
};

/* ---- loading ---- */

static tessera_status expect_string(const struct json *config, const char *field, const char *known, tessera_error *error) {
    const char *value;
    TRY(json_string(config, field, known, &value, error));
    if (strcmp(value, known) == 0) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: %s is \"%.60s\"; only \"%s\" is known", json_path(config), field, value, known);
}

/* Variants that no published model has. */
static tessera_status refuse_variants(const struct json *config, tessera_error *error) {
    bool affine;
    TRY(expect_string(config, "norm_type", "ada_norm_single", error));
    TRY(expect_string(config, "activation_fn", "gelu-approximate", error));
    TRY(expect_string(config, "attention_type", "default", error));
    TRY(json_bool(config, "norm_elementwise_affine", false, &affine, error));
    if (affine) {
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: norm_elementwise_affine is true; only norms without weights are known",
                         json_path(config));
    }
    return TESSERA_OK;
}

static tessera_status check_sizes(const struct json *config, const struct pixart_transformer *m, int64_t cross, tessera_error *error) {
    if (cross != m->inner_dim) {
        return error_set(error, TESSERA_ERROR_FORMAT,
                         "%s: cross_attention_dim %lld must be num_attention_heads * attention_head_dim = %lld", json_path(config),
                         (long long)cross, (long long)m->inner_dim);
    }
    if (m->inner_dim % 4 != 0 || (m->use_sizes && m->inner_dim % NUM_SIZES != 0)) {
        return error_set(error, TESSERA_ERROR_FORMAT,
                         "%s: num_attention_heads * attention_head_dim = %lld must be a multiple of 4, and of 3 for size conditions",
                         json_path(config), (long long)m->inner_dim);
    }
    if (m->base.patch_size > m->base.sample_size || !(m->interpolation_scale > 0) || !isfinite(m->interpolation_scale)) {
        return error_set(error, TESSERA_ERROR_FORMAT,
                         "%s: no positions can be made of sample_size %lld, patch_size %lld, interpolation_scale %g", json_path(config),
                         (long long)m->base.sample_size, (long long)m->base.patch_size, m->interpolation_scale);
    }
    return TESSERA_OK;
}

static tessera_status read_config(const struct json *config, struct pixart_transformer *m, tessera_error *error) {
    struct denoiser *base = &m->base;
    int64_t layers, cross;
    double eps;
    TRY(json_int(config, "sample_size", 128, 1, 1 << 16, &base->sample_size, error));
    TRY(json_int(config, "patch_size", 2, 1, 64, &base->patch_size, error));
    TRY(json_int(config, "in_channels", 4, 1, 1 << 12, &base->in_channels, error));
    TRY(json_int(config, "out_channels", 8, 1, 1 << 12, &base->out_channels, error));
    TRY(json_int(config, "num_layers", 28, 1, MAX_LAYERS, &layers, error));
    TRY(json_int(config, "attention_head_dim", 72, 1, 1 << 12, &m->head_dim, error));
    TRY(json_int(config, "num_attention_heads", 16, 1, 1 << 10, &m->num_heads, error));
    TRY(json_int(config, "cross_attention_dim", 1152, 1, 1 << 22, &cross, error));
    TRY(json_int(config, "caption_channels", 4096, 1, 1 << 16, &base->text_channels, error));
    TRY(json_bool(config, "attention_bias", true, &m->attention_bias, error));
    TRY(json_bool(config, "use_additional_conditions", base->sample_size == 128, &m->use_sizes, error));
    TRY(json_double(config, "norm_eps", 1e-6, &eps, error));
    TRY(json_double(config, "interpolation_scale", base->sample_size < 64 ? 1.0 : (double)(base->sample_size / 64), &m->interpolation_scale,
                    error));
    base->num_blocks = (int)layers;
    base->num_heads = m->num_heads;
    base->max_side = MAX_SIDE;
    m->inner_dim = m->num_heads * m->head_dim;
    m->norm_eps = (float)eps;
    base->form = (struct denoiser_form){
        .width = m->inner_dim, .text_width = m->inner_dim, .cond_width = NUM_COND_CHUNKS * m->inner_dim, .text_mask = true};
    TRY(check_sizes(config, m, cross, error));
    return refuse_variants(config, error);
}

static struct attention load_attention(struct loader *loader, const struct pixart_transformer *m, const char *name) {
    int64_t c = m->inner_dim, n = m->num_heads, d = m->head_dim;
    return (struct attention){.q = load_linear_outputs(loader, c, n, d, m->attention_bias, "%s.to_q", name),
                              .k = load_linear_outputs(loader, c, n, d, m->attention_bias, "%s.to_k", name),
                              .v = load_linear_outputs(loader, c, n, d, m->attention_bias, "%s.to_v", name),
                              .out = load_linear_inputs(loader, n, d, c, true, "%s.to_out.0", name)};
}

static struct pixart_block read_block(struct loader *loader, const struct pixart_transformer *m) {
    int64_t c = m->inner_dim;
    return (struct pixart_block){
        .scale_shift_table = load_tensor(loader, DTYPE_F32, SHAPE(NUM_MODULATIONS, c), "scale_shift_table"),
        .self = load_attention(loader, m, "attn1"),
        .cross = load_attention(loader, m, "attn2"),
        .ff = dit_load_feed_forward(loader, c, 4 * c, "ff"),
    };
}

static void load_embed(struct denoiser *base, struct loader *loader) {
    struct pixart_transformer *m = (struct pixart_transformer *)base;
    int64_t c = m->inner_dim, third = c / NUM_SIZES;
    load_set_prefix(loader, "%s", "");
    m->patch_proj = load_conv(loader, base->in_channels, c, (int)base->patch_size, "pos_embed.proj");
    m->timestep = dit_load_embedder(loader, DIT_TIMESTEP_CHANNELS, c, c, "adaln_single.emb.timestep_embedder");
    if (m->use_sizes) {
        m->resolution = dit_load_embedder(loader, DIT_TIMESTEP_CHANNELS, third, third, "adaln_single.emb.resolution_embedder");
        m->aspect_ratio = dit_load_embedder(loader, DIT_TIMESTEP_CHANNELS, third, third, "adaln_single.emb.aspect_ratio_embedder");
    }
    m->modulations = load_linear(loader, c, NUM_MODULATIONS * c, true, "adaln_single.linear");
    m->caption = dit_load_embedder(loader, base->text_channels, c, c, "caption_projection");
}

static void load_block(struct denoiser *base, int index, struct loader *loader) {
    struct pixart_transformer *m = (struct pixart_transformer *)base;
    load_set_prefix(loader, "transformer_blocks.%d.", index);
    m->blocks[index] = read_block(loader, m);
}

static void load_finish(struct denoiser *base, struct loader *loader) {
    struct pixart_transformer *m = (struct pixart_transformer *)base;
    int64_t c = m->inner_dim, p = base->patch_size;
    load_set_prefix(loader, "%s", "");
    m->scale_shift_table = load_tensor(loader, DTYPE_F32, SHAPE(2, c), "scale_shift_table");
    m->proj_out = load_linear(loader, c, p * p * base->out_channels, true, "proj_out");
}

static struct denoiser *open(const struct json *config, struct loader *loader) {
    struct pixart_transformer read = {.base.class = &pixart_transformer_class};
    if (read_config(config, &read, &loader->error) != TESSERA_OK) return NULL;
    struct pixart_transformer *m = load_alloc(loader, sizeof *m);
    read.blocks = load_alloc(loader, (size_t)read.base.num_blocks * sizeof *read.blocks);
    if (load_failed(loader)) return NULL;
    *m = read;
    load_units(loader, m->num_heads);
    return load_failed(loader) ? NULL : &m->base;
}

/* ---- embed ---- */

static tessera_status check_inputs(const struct pixart_transformer *m, const struct denoiser_inputs *in, tessera_error *error) {
    TRY(denoiser_check_latents(&m->base, &in->latents, error));
    int64_t batch = in->latents.shape[0], tokens = in->text.shape[1];
    TRY(denoiser_check_shape(&m->base, "text", &in->text, SHAPE(batch, -1, m->base.text_channels), error));
    if (in->text_mask.data != NULL) TRY(denoiser_check_shape(&m->base, "text mask", &in->text_mask, SHAPE(batch, tokens), error));
    if (!m->use_sizes) return TESSERA_OK;
    return denoiser_check_shape(&m->base, "size conditions (height, width, aspect ratio)", &in->size_conditions, SHAPE(batch, NUM_SIZES),
                                error);
}

/* The positions of this rank's tokens of an h x w picture, F32 [S, C]. Half of the channels tell
 * the column, half the row: one row's and one column's are made and put together. */
static struct tensor position_table(const struct pixart_transformer *m, struct run *run, int64_t h, int64_t w, struct span mine) {
    int64_t c = m->inner_dim, half = c / 2;
    struct tensor table = run_tensor(run, DTYPE_F32, SHAPE(mine.count, c));
    struct tensor columns = run_tensor(run, DTYPE_F32, SHAPE(w, c)), rows = run_tensor(run, DTYPE_F32, SHAPE(h, c));
    float *along = run_map(run, &columns, MAP_ROOM), *down = run_map(run, &rows, MAP_ROOM), *values = run_map(run, &table, MAP_WRITE);
    double base_size = (double)(m->base.sample_size / m->base.patch_size);
    if (!run_failed(run)) {
        position_sincos_2d(along, 1, w, c, base_size, m->interpolation_scale);
        position_sincos_2d(down, h, 1, c, base_size, m->interpolation_scale);
        float *out = values;
        for (int64_t i = mine.first; i < mine.first + mine.count; i++, out += c) {
            memcpy(out, along + i % w * c, (size_t)half * sizeof *out);
            memcpy(out + half, down + i / w * c + half, (size_t)half * sizeof *out);
        }
    }
    run_unmap(run, &columns, along, MAP_ROOM);
    run_unmap(run, &rows, down, MAP_ROOM);
    run_unmap(run, &table, values, MAP_WRITE);
    return table;
}

/* The same for each of the batch: [B, S, C]. */
static struct tensor positions_of(const struct pixart_transformer *m, struct run *run, int64_t batch, int64_t h, int64_t w,
                                  const struct cut *cut) {
    struct span mine = cut_mine(cut, h * w);
    struct tensor table = position_table(m, run, h, w, mine), index = run_tensor(run, DTYPE_I32, SHAPE(batch * mine.count));
    int32_t *ids = run_map(run, &index, MAP_WRITE);
    for (int64_t i = 0; ids != NULL && i < batch * mine.count; i++) ids[i] = (int32_t)(i % mine.count);
    run_unmap(run, &index, ids, MAP_WRITE);
    return nn_embed_rows(run, table, index, batch, mine.count);
}

static struct tensor embed_picture(const struct pixart_transformer *m, struct run *run, struct tensor latents, const struct cut *cut) {
    int64_t batch = latents.shape[0], p = m->base.patch_size;
    size_t scope = run_enter(run);
    struct tensor x = dit_embed_picture(run, &m->patch_proj, latents, cut);
    return run_leave(run, scope, nn_add(run, x, positions_of(m, run, batch, latents.shape[1] / p, latents.shape[2] / p, cut)));
}

/* Height, width and aspect ratio give a third of the channels each: F32 [B, C]. */
static struct tensor embed_sizes(const struct pixart_transformer *m, struct run *run, struct tensor sizes) {
    int64_t batch = sizes.shape[0], third = m->inner_dim / NUM_SIZES;
    struct tensor values = run_tensor(run, DTYPE_F32, SHAPE(NUM_SIZES * batch));
    float *given = run_map(run, &sizes, MAP_READ), *resolution = run_map(run, &values, MAP_ROOM), *aspect_ratio = resolution;
    const float *next = given;
    if (resolution != NULL) aspect_ratio += 2 * batch;
    for (int64_t b = 0; b < batch && !run_failed(run); b++) {
        resolution[2 * b] = *next++;
        resolution[2 * b + 1] = *next++;
        aspect_ratio[b] = *next++;
    }
    run_unmap(run, &sizes, given, MAP_READ);
    struct tensor two = nn_reshape(dit_embed_values(run, &m->resolution, resolution, 2 * batch), SHAPE(batch, 2, third));
    struct tensor one = nn_reshape(dit_embed_values(run, &m->aspect_ratio, aspect_ratio, batch), SHAPE(batch, 1, third));
    run_unmap(run, &values, resolution, MAP_ROOM);
    return nn_cast(run, nn_reshape(nn_concat_rows(run, two, one), SHAPE(batch, m->inner_dim)), DTYPE_F32);
}

/* The six modulations and e, side by side: F32 [B, 7 C]. */
static struct tensor embed_cond(const struct pixart_transformer *m, struct run *run, const struct denoiser_inputs *in) {
    int64_t batch = in->latents.shape[0], c = m->inner_dim;
    size_t scope = run_enter(run);
    struct tensor e = nn_cast(run, dit_embed_values(run, &m->timestep, in->timesteps, batch), DTYPE_F32);
    if (m->use_sizes) e = nn_add(run, e, embed_sizes(m, run, in->size_conditions));
    struct tensor mod = nn_cast(run, nn_linear(run, &m->modulations, dit_activated_cond(run, e), ACTIVATION_NONE), DTYPE_F32);
    struct tensor both = nn_concat_rows(run, nn_reshape(mod, SHAPE(batch, NUM_MODULATIONS, c)), nn_reshape(e, SHAPE(batch, 1, c)));
    return run_leave(run, scope, nn_reshape(both, SHAPE(batch, NUM_COND_CHUNKS * c)));
}

static struct denoiser_state embed(const struct denoiser *base, struct run *run, const struct denoiser_inputs *in, unsigned carries) {
    const struct pixart_transformer *m = (const struct pixart_transformer *)base;
    struct denoiser_state state = {0};
    if (run_failed(run) || check_inputs(m, in, &run->error) != TESSERA_OK) return state;
    state.rows = in->latents.shape[1] / base->patch_size;
    state.columns = in->latents.shape[2] / base->patch_size;
    state.cut = exchange_cut_tokens(run, state.rows, state.columns);
    if (carries & DENOISER_CARRIES_PICTURE) state.picture = embed_picture(m, run, in->latents, state.cut);
    size_t scope = run_enter(run);
    if (carries & DENOISER_CARRIES_TEXT) state.text = run_leave(run, scope, dit_mlp(run, &m->caption, in->text, ACTIVATION_GELU_TANH));
    state.text_mask = in->text_mask;
    state.cond = embed_cond(m, run, in);
    return state;
}

/* ---- blocks ---- */

/* Row `index` of t [rows, C]: a view. */
static struct tensor row_of(struct tensor t, int64_t index) {
    t.data = (char *)t.data + (size_t)(index * t.shape[1]) * dtype_size(t.dtype);
    t.shape[0] = 1;
    return t;
}

/* cond's chunk + the table's row: F32 [B, C]. */
static struct tensor modulation(struct run *run, struct tensor cond, int chunk, const struct tensor *table, int row) {
    struct tensor m = nn_chunk(run, cond, NUM_COND_CHUNKS, chunk);
    if (run_failed(run)) return m;
    for (int64_t b = 0; b < m.shape[0]; b++) {
        struct tensor sum = row_of(m, b), add = row_of(*table, row);
        run->backend->ops->add(run->backend, &sum, &sum, &add);
    }
    return m;
}

/* Modulations 0 .. 2 are the attention's shift, scale and gate, 3 .. 5 the feed-forward's. */
static struct denoiser_state block(const struct denoiser *base, struct run *run, int index, struct denoiser_state state) {
    const struct pixart_transformer *m = (const struct pixart_transformer *)base;
    const struct pixart_block *b = &m->blocks[index];
    if (run_failed(run)) return (struct denoiser_state){0};
    const struct norm plain_norm = {.kind = NORM_LAYER, .eps = m->norm_eps};
    size_t scope = run_enter(run);
    struct tensor mod[NUM_MODULATIONS], x = state.picture;
    for (int i = 0; i < NUM_MODULATIONS; i++) mod[i] = modulation(run, state.cond, i, &b->scale_shift_table, i);
    const struct dit_asked picture = {.cut = state.cut},
                           text = {.text = &state.text, .mask = state.text_mask.data != NULL ? &state.text_mask : NULL};
    size_t inside = run_enter(run);
    struct tensor y = nn_norm_modulated(run, &plain_norm, x, mod[1], mod[0]);
    x = run_leave(run, inside, nn_gated_add(run, x, dit_attention(run, m->head_dim, &b->self, NULL, y, &picture), mod[2]));
    x = run_leave(run, inside, nn_add(run, x, dit_attention(run, m->head_dim, &b->cross, NULL, x, &text)));
    y = nn_norm_modulated(run, &plain_norm, x, mod[4], mod[3]);
    y = nn_feed_forward(run, &b->ff.in, NULL, &b->ff.out, ACTIVATION_GELU_TANH, y);
    state.picture = run_leave(run, scope, nn_gated_add(run, x, y, mod[5]));
    if (index == base->num_blocks - 1) state.text = state.text_mask = (struct tensor){0};
    return state;
}

static struct tensor first_input(const struct denoiser *base, struct run *run, const struct denoiser_state *state) {
    const struct pixart_transformer *m = (const struct pixart_transformer *)base;
    const struct norm plain_norm = {.kind = NORM_LAYER, .eps = m->norm_eps};
    size_t scope = run_enter(run);
    struct tensor shift = modulation(run, state->cond, 0, &m->blocks[0].scale_shift_table, 0);
    struct tensor scale = modulation(run, state->cond, 1, &m->blocks[0].scale_shift_table, 1);
    return run_leave(run, scope, nn_norm_modulated(run, &plain_norm, state->picture, scale, shift));
}

/* ---- finish ---- */

static struct tensor finish(const struct denoiser *base, struct run *run, struct denoiser_state state) {
    const struct pixart_transformer *m = (const struct pixart_transformer *)base;
    if (run_failed(run)) return (struct tensor){0};
    size_t scope = run_enter(run);
    struct tensor shift = modulation(run, state.cond, NUM_COND_CHUNKS - 1, &m->scale_shift_table, 0);
    struct tensor scale = modulation(run, state.cond, NUM_COND_CHUNKS - 1, &m->scale_shift_table, 1);
    struct tensor x = nn_linear(run, &m->proj_out, nn_norm_modulated(run, &dit_plain_norm, state.picture, scale, shift), ACTIVATION_NONE);
    x = exchange_gather(run, x, state.cut);
    return run_leave(run, scope, nn_unpatchify(run, x, base->patch_size, x.shape[1] / state.columns, state.columns));
}

/* ---- description ---- */

/* A pair of tokens costs 2 C for its score and 2 C for its value. */
static void describe(const struct denoiser *base, int index, struct denoiser_block_info *info) {
    const struct pixart_transformer *m = (const struct pixart_transformer *)base;
    const struct pixart_block *b = &m->blocks[index];
    const struct linear *const picture[] = {&b->cross.q, &b->cross.out}, *const text[] = {&b->cross.k, &b->cross.v};
    int64_t parameters = tensor_count(&b->scale_shift_table), text_weights = 0;
    int64_t picture_weights = dit_count_attention(&b->self, &parameters) + dit_count_mlp(&b->ff, &parameters);
    for (int i = 0; i < 2; i++) {
        picture_weights += dit_count_linear(picture[i], &parameters);
        text_weights += dit_count_linear(text[i], &parameters);
    }
    *info = (struct denoiser_block_info){
        .parameters = parameters,
        .operations_per_picture_token = 2.0 * (double)picture_weights,
        .operations_per_text_token = 2.0 * (double)text_weights,
        .operations_per_token_pair = 4.0 * (double)m->inner_dim,
        .carries = DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_COND | (index == base->num_blocks - 1 ? 0u : DENOISER_CARRIES_TEXT),
    };
    dit_list_meetings(m->num_heads, m->head_dim, 3, &info->meetings);
    snprintf(info->name, sizeof info->name, "transformer_blocks.%d", index);
}

const struct denoiser_class pixart_transformer_class = {.name = "PixArtTransformer2DModel",
                                                        .open = open,
                                                        .load_embed = load_embed,
                                                        .load_block = load_block,
                                                        .load_finish = load_finish,
                                                        .embed = embed,
                                                        .block = block,
                                                        .finish = finish,
                                                        .first_input = first_input,
                                                        .describe = describe};
