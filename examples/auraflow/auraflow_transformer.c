/* AuraFlow's denoiser (fal 2024; diffusers' AuraFlowTransformer2DModel), written outside the
 * engine: tessera_model.h is all that it knows.
 *
 *     latents -> patches -> linear + position table ---------> picture --+ joint  +--> ... --+ single +--> modulate, linear -> unpatchify
 *     text states -> linear, behind 8 learned registers -----> text -----+ blocks +--> ... --+ blocks +--> ends
 *     sinusoid of the timestep -> MLP -> cond
 *
 * A joint block gives each stream its own weights, a single block has one set for both; in each,
 * text and picture meet in one attention whose queries and keys are normed by head, without
 * weights. A block is x + gate_ff * ff(norm(x + gate * attention(x)) modulated): what the attention
 * adds reaches the result through the feed-forward alone, which is linear(silu(a) * b). The last
 * modulation has no norm. No linear of a block has a bias, and the text has no pooled form.
 *
 * The table is of a square of positions, of which a picture takes the middle.
 * Left out: gradient checkpoints, fused projections. */
#include <math.h>
#include <stdio.h>

#include <tessera_model.h>

enum { MAX_LAYERS = 256, REGISTERS = 8, FF_UNIT = 256 };
#define NORM_EPS 1e-5f /* torch's, which diffusers leaves as it is */

static const struct norm plain_norm = {.kind = NORM_LAYER, .eps = NORM_EPS};

/* out(silu(gate x) * in x) */
struct feed_forward {
    struct linear gate, in, out;
};

struct stream {
    struct linear modulation;
    struct attention attention;
    struct feed_forward ff;
};

/* single: `picture` serves both streams. */
struct aura_block {
    bool single;
    struct stream picture, text;
};

struct auraflow {
    struct denoiser base;
    int64_t head_dim, inner_dim, hidden, joint_blocks;
    struct conv patch_proj;      /* [C, p, p, in] */
    struct tensor pos_embed;     /* [max_side^2, C] */
    struct tensor registers;     /* [REGISTERS, C] */
    struct linear text_embedder; /* [C, Ct] */
    struct mlp timestep;
    struct linear norm_out, proj_out;
    struct aura_block *blocks;
};

/* ---- loading ---- */

static tessera_status read_sizes(const struct json *config, struct auraflow *m, tessera_error *error) {
    struct denoiser *base = &m->base;
    int64_t positions, single, caption, channels;
    TRY(json_int(config, "sample_size", 64, 1, 1 << 16, &base->sample_size, error));
    TRY(json_int(config, "patch_size", 2, 1, 64, &base->patch_size, error));
    TRY(json_int(config, "in_channels", 4, 1, 1 << 12, &base->in_channels, error));
    TRY(json_int(config, "out_channels", 4, 1, 1 << 12, &base->out_channels, error));
    TRY(json_int(config, "num_mmdit_layers", 4, 0, MAX_LAYERS, &m->joint_blocks, error));
    TRY(json_int(config, "num_single_dit_layers", 32, 0, MAX_LAYERS, &single, error));
    TRY(json_int(config, "attention_head_dim", 256, 1, 1 << 12, &m->head_dim, error));
    TRY(json_int(config, "num_attention_heads", 12, 1, 1 << 10, &base->num_heads, error));
    TRY(json_int(config, "joint_attention_dim", 2048, 1, 1 << 16, &base->text_channels, error));
    TRY(json_int(config, "caption_projection_dim", 3072, 1, 1 << 22, &caption, error));
    TRY(json_int(config, "pos_embed_max_size", 1024, 1, 1 << 24, &positions, error));
    channels = base->num_heads * m->head_dim;
    base->num_blocks = (int)(m->joint_blocks + single);
    base->max_side = (int64_t)sqrt((double)positions);
    base->text_stream = true;
    m->inner_dim = channels;
    base->form = (struct denoiser_form){.width = channels, .text_width = channels, .text_added = REGISTERS, .cond_width = channels};
    m->hidden = (4 * channels * 2 / 3 + FF_UNIT - 1) / FF_UNIT * FF_UNIT;
    if (base->num_blocks > 0 && caption == channels && base->max_side * base->max_side == positions) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT,
                     "%s: there must be blocks, caption_projection_dim %lld must be num_attention_heads * attention_head_dim = %lld, and "
                     "pos_embed_max_size %lld a square",
                     json_path(config), (long long)caption, (long long)channels, (long long)positions);
}

/* The prefix of a block's weights, without a dot at the end. */
static void block_name(const struct auraflow *m, int index, char *out, size_t size) {
    int joint = (int)m->joint_blocks;
    if (index < joint)
        snprintf(out, size, "joint_transformer_blocks.%d", index);
    else
        snprintf(out, size, "single_transformer_blocks.%d", index - joint);
}

static struct feed_forward load_feed_forward(struct loader *loader, const struct auraflow *m, const char *name) {
    return (struct feed_forward){.gate = load_linear_outputs(loader, m->inner_dim, m->hidden, 1, false, "%s.linear_1", name),
                                 .in = load_linear_outputs(loader, m->inner_dim, m->hidden, 1, false, "%s.linear_2", name),
                                 .out = load_linear_inputs(loader, m->hidden, 1, m->inner_dim, false, "%s.out_projection", name)};
}

static struct stream load_stream(struct loader *loader, const struct auraflow *m, const struct attention_names *names, const char *norm,
                                 const char *ff) {
    struct stream s = {.modulation = load_linear(loader, m->inner_dim, 6 * m->inner_dim, false, "%s.linear", norm),
                       .attention = dit_load_attention(loader, m->base.num_heads, m->head_dim, names, false, false),
                       .ff = load_feed_forward(loader, m, ff)};
    s.attention.norm_q = s.attention.norm_k = plain_norm;
    return s;
}

static void load_embed(struct denoiser *base, struct loader *loader) {
    struct auraflow *m = (struct auraflow *)base;
    int64_t c = m->inner_dim, p = base->patch_size, positions = base->max_side * base->max_side;
    load_set_prefix(loader, "%s", "");
    m->timestep = dit_load_embedder(loader, DIT_TIMESTEP_CHANNELS, c, c, "time_step_proj");
    m->patch_proj = load_conv_flat(loader, base->in_channels, c, (int)p, "pos_embed.proj");
    m->pos_embed = load_tensor(loader, DTYPE_F32, SHAPE(1, positions, c), "pos_embed.pos_embed");
    m->text_embedder = load_linear(loader, base->text_channels, c, false, "context_embedder");
    m->registers = load_tensor(loader, DTYPE_F32, SHAPE(1, REGISTERS, c), "register_tokens");
    m->pos_embed = nn_reshape(m->pos_embed, SHAPE(positions, c));
    m->registers = nn_reshape(m->registers, SHAPE(REGISTERS, c));
}

static void load_block(struct denoiser *base, int index, struct loader *loader) {
    struct auraflow *m = (struct auraflow *)base;
    struct aura_block *b = &m->blocks[index];
    char name[64];
    block_name(m, index, name, sizeof name);
    load_set_prefix(loader, "%s.", name);
    *b = (struct aura_block){.single = index >= m->joint_blocks, .picture = load_stream(loader, m, &dit_picture_names, "norm1", "ff")};
    if (!b->single) b->text = load_stream(loader, m, &dit_text_names, "norm1_context", "ff_context");
}

static void load_finish(struct denoiser *base, struct loader *loader) {
    struct auraflow *m = (struct auraflow *)base;
    int64_t c = m->inner_dim, p = base->patch_size;
    load_set_prefix(loader, "%s", "");
    m->norm_out = load_linear(loader, c, 2 * c, false, "norm_out.linear");
    m->proj_out = load_linear(loader, c, p * p * base->out_channels, false, "proj_out");
}

extern const struct denoiser_class auraflow_class;

static struct denoiser *open(const struct json *config, struct loader *loader) {
    struct auraflow read = {.base.class = &auraflow_class};
    if (read_sizes(config, &read, load_error(loader)) != TESSERA_OK) return NULL;
    struct auraflow *m = load_alloc(loader, sizeof *m);
    read.blocks = load_alloc(loader, (size_t)read.base.num_blocks * sizeof *read.blocks);
    if (load_failed(loader)) return NULL;
    *m = read;
    load_units(loader, m->base.num_heads); /* at least one head of each layer is held here */
    return load_failed(loader) ? NULL : &m->base;
}

/* ---- embed ---- */

/* The table's rows for the tokens held here of an h x w picture in its middle, for each
 * of the batch: [B, S, C]. */
static struct tensor positions_of(const struct auraflow *m, struct run *run, int64_t batch, int64_t h, int64_t w, const struct cut *cut) {
    int64_t side = m->base.max_side, top = side / 2 - h / 2, left = side / 2 - w / 2;
    struct span mine = cut_mine(cut, h * w);
    struct tensor index = run_tensor(run, DTYPE_I32, SHAPE(batch * mine.count));
    int32_t *ids = run_map(run, &index, MAP_WRITE);
    for (int64_t i = 0; ids != NULL && i < batch * mine.count; i++) {
        int64_t at = mine.first + i % mine.count;
        ids[i] = (int32_t)((top + at / w) * side + left + at % w);
    }
    run_unmap(run, &index, ids, MAP_WRITE);
    return nn_embed_rows(run, m->pos_embed, index, batch, mine.count);
}

static struct tensor embed_picture(const struct auraflow *m, struct run *run, struct tensor latents, const struct denoiser_state *state) {
    size_t scope = run_enter(run);
    struct tensor x = dit_embed_picture(run, &m->patch_proj, latents, state->cut);
    return run_leave(run, scope, nn_add(run, x, positions_of(m, run, latents.shape[0], state->rows, state->columns, state->cut)));
}

/* Registers, then text: those held here. */
static struct tensor embed_text(const struct auraflow *m, struct run *run, struct tensor text) {
    size_t scope = run_enter(run);
    struct tensor index = run_tensor(run, DTYPE_I32, SHAPE(text.shape[0] * REGISTERS));
    int32_t *ids = run_map(run, &index, MAP_WRITE);
    for (int64_t i = 0; ids != NULL && i < text.shape[0] * REGISTERS; i++) ids[i] = (int32_t)(i % REGISTERS);
    run_unmap(run, &index, ids, MAP_WRITE);
    struct tensor registers = nn_embed_rows(run, m->registers, index, text.shape[0], REGISTERS);
    text = nn_linear(run, &m->text_embedder, nn_cast(run, text, run_dtype(run)), ACTIVATION_NONE);
    return run_leave(run, scope, exchange_text(run, nn_concat_rows(run, registers, text)));
}

static struct denoiser_state embed(const struct denoiser *base, struct run *run, const struct denoiser_inputs *in, unsigned carries) {
    const struct auraflow *m = (const struct auraflow *)base;
    struct denoiser_state state = {0};
    int64_t batch = in->latents.shape[0];
    if (run_failed(run) || denoiser_check_latents(base, &in->latents, run_error(run)) != TESSERA_OK) return state;
    if (denoiser_check_shape(base, "text", &in->text, SHAPE(batch, -1, base->text_channels), run_error(run)) != TESSERA_OK) return state;
    state.rows = in->latents.shape[1] / base->patch_size;
    state.columns = in->latents.shape[2] / base->patch_size;
    state.cut = exchange_cut_tokens(run, state.rows, state.columns);
    state.text_tokens = REGISTERS + in->text.shape[1];
    if (carries & DENOISER_CARRIES_PICTURE) state.picture = embed_picture(m, run, in->latents, &state);
    if (carries & DENOISER_CARRIES_TEXT) state.text = embed_text(m, run, in->text);
    state.cond = nn_cast(run, dit_embed_values(run, &m->timestep, in->timesteps, batch), DTYPE_F32);
    return state;
}

/* ---- blocks ---- */

static struct tensor modulated(struct run *run, struct tensor x, const struct modulation *mod) {
    return nn_norm_modulated(run, &plain_norm, x, mod->scale, mod->shift);
}

/* x + gate_ff * ff(norm(x + gate * attended) modulated) */
static struct tensor feed_forward(struct run *run, const struct feed_forward *ff, struct tensor x, struct tensor attended,
                                  const struct modulation *mod) {
    size_t scope = run_enter(run);
    struct tensor y = nn_gated_add(run, x, attended, mod->gate);
    y = nn_norm_modulated(run, &plain_norm, y, mod->ff_scale, mod->ff_shift);
    struct tensor gate = nn_linear(run, &ff->gate, y, ACTIVATION_NONE), in = nn_linear(run, &ff->in, y, ACTIVATION_NONE);
    y = nn_linear_sum(run, &ff->out, nn_multiply(run, gate, in, ACTIVATION_SILU));
    return run_leave(run, scope, nn_gated_add(run, x, y, mod->ff_gate));
}

/* The text's rows come first. */
static struct text_span text_of(const struct denoiser_state *state) {
    return (struct text_span){.first = 0, .count = state->text.shape[1], .total = state->text_tokens, .in_queries = true};
}

static void joint_block(const struct auraflow *m, struct run *run, const struct aura_block *b, struct tensor emb,
                        struct denoiser_state *state) {
    struct modulation mod = dit_modulation(run, &b->picture.modulation, emb, 6), text_mod = {0};
    if (state->text.data != NULL) text_mod = dit_modulation(run, &b->text.modulation, emb, 6);
    struct tensor both[] = {modulated(run, state->text, &text_mod), modulated(run, state->picture, &mod)};
    const struct attention *const weights[] = {&b->text.attention, &b->picture.attention};
    dit_joint_attention(run, m->head_dim, weights, NULL, both, state->cut, text_of(state));
    state->text = feed_forward(run, &b->text.ff, state->text, both[0], &text_mod);
    state->picture = feed_forward(run, &b->picture.ff, state->picture, both[1], &mod);
}

static void single_block(const struct auraflow *m, struct run *run, const struct aura_block *b, struct tensor emb,
                         struct denoiser_state *state) {
    const struct attention *a = &b->picture.attention;
    int64_t text = state->text.shape[1], picture = state->picture.shape[1];
    struct modulation mod = dit_modulation(run, &b->picture.modulation, emb, 6);
    struct tensor x = nn_concat_rows(run, state->text, state->picture), y = modulated(run, x, &mod);
    struct tensor q = dit_project(run, &a->q, &a->norm_q, NULL, m->head_dim, y),
                  k = dit_project(run, &a->k, &a->norm_k, NULL, m->head_dim, y);
    struct tensor v = nn_linear(run, &a->v, y, ACTIVATION_NONE);
    y = nn_linear_sum(run, &a->out, dit_attend(run, m->head_dim, q, k, v, state->cut, text_of(state)));
    x = feed_forward(run, &b->picture.ff, x, y, &mod);
    state->text = nn_slice_rows(run, x, 0, text);
    state->picture = nn_slice_rows(run, x, text, picture);
}

static struct denoiser_state block(const struct denoiser *base, struct run *run, int index, struct denoiser_state state) {
    const struct auraflow *m = (const struct auraflow *)base;
    const struct aura_block *b = &m->blocks[index];
    if (run_failed(run)) return (struct denoiser_state){0};
    size_t scope = run_enter(run);
    struct tensor emb = dit_activated_cond(run, state.cond);
    if (b->single)
        single_block(m, run, b, emb, &state);
    else
        joint_block(m, run, b, emb, &state);
    if (index == base->num_blocks - 1) state.text = (struct tensor){0};
    run_leave_all(run, scope, (struct tensor *[]){&state.picture, &state.text}, 2);
    return state;
}

static struct tensor first_input(const struct denoiser *base, struct run *run, const struct denoiser_state *state) {
    const struct aura_block *b = &((const struct auraflow *)base)->blocks[0];
    size_t scope = run_enter(run);
    struct modulation mod = dit_modulation(run, &b->picture.modulation, dit_activated_cond(run, state->cond), 6);
    return run_leave(run, scope, modulated(run, state->picture, &mod));
}

/* ---- finish ---- */

static struct tensor finish(const struct denoiser *base, struct run *run, struct denoiser_state state) {
    const struct auraflow *m = (const struct auraflow *)base;
    if (run_failed(run)) return (struct tensor){0};
    size_t scope = run_enter(run);
    struct tensor both = nn_linear(run, &m->norm_out, dit_activated_cond(run, state.cond), ACTIVATION_NONE);
    both = nn_cast(run, both, DTYPE_F32);
    struct tensor x = nn_modulate(run, state.picture, nn_chunk(run, both, 2, 0), nn_chunk(run, both, 2, 1));
    x = exchange_gather(run, nn_linear(run, &m->proj_out, x, ACTIVATION_NONE), state.cut);
    return run_leave(run, scope, nn_unpatchify(run, x, base->patch_size, x.shape[1] / state.columns, state.columns));
}

/* ---- description ---- */

/* Weights that each token of a stream is multiplied with. */
static int64_t count_stream(const struct stream *s, int64_t *parameters) {
    dit_count_linear(&s->modulation, parameters);
    return dit_count_attention(&s->attention, parameters) + dit_count_linear(&s->ff.gate, parameters) +
           dit_count_linear(&s->ff.in, parameters) + dit_count_linear(&s->ff.out, parameters);
}

/* Attention and feed-forward end in a sum each; a single block's are of both streams at once. */
static void list_meetings(const struct auraflow *m, bool single, struct meeting_list *list) {
    struct meeting sum = {.kind = MEETING_SUM, .count = 2, .units = m->inner_dim, .width = 1};
    meeting_add(list, (struct meeting){.kind = MEETING_ATTENTION,
                                       .count = 1,
                                       .of = MEETING_PICTURE | MEETING_TEXT,
                                       .text_asks = true,
                                       .is_sliced = true,
                                       .units = m->base.num_heads,
                                       .width = m->head_dim});
    sum.of = single ? MEETING_PICTURE | MEETING_TEXT : MEETING_PICTURE;
    meeting_add(list, sum);
    sum.of = MEETING_TEXT, sum.count = single ? 0 : 2;
    meeting_add(list, sum);
}

/* A pair of tokens costs 2 C for its score and 2 C for its value. */
static void describe(const struct denoiser *base, int index, struct denoiser_block_info *info) {
    const struct auraflow *m = (const struct auraflow *)base;
    const struct aura_block *b = &m->blocks[index];
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

const struct denoiser_class auraflow_class = {.name = "AuraFlowTransformer2DModel",
                                              .open = open,
                                              .load_embed = load_embed,
                                              .load_block = load_block,
                                              .load_finish = load_finish,
                                              .embed = embed,
                                              .block = block,
                                              .finish = finish,
                                              .first_input = first_input,
                                              .describe = describe};
