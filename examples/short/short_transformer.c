/* A whole denoiser: a diffusion transformer with one set of weights for picture and text (after
 * Peebles and Xie 2023, "DiT"; without the pooled prompt and positions). It reads SD3's config.json
 * and the weights that SD3 has for the picture, so it runs in SD3's pipeline. */
#include <stdio.h>
#include <tessera_model.h>

enum { MAX_BLOCKS = 64 };
struct block { struct linear modulation; struct attention attention; struct mlp ff; };
struct model {
    struct denoiser base;
    int64_t head_dim, width;
    struct conv patches;
    struct linear text, norm_out, out;
    struct mlp time;
    struct block blocks[MAX_BLOCKS];
};
extern const struct denoiser_class short_class;

static struct denoiser *open(const struct json *config, struct loader *l) {
    struct model *m = load_alloc(l, sizeof *m);
    if (m == NULL) return NULL;
    struct denoiser *base = &m->base;
    int64_t blocks = 0, head_dim = 0;
    struct { const char *name; int64_t *value; } sizes[] = {
        {"patch_size", &base->patch_size}, {"in_channels", &base->in_channels}, {"num_layers", &blocks}, {"num_attention_heads", &base->num_heads},
        {"attention_head_dim", &head_dim}, {"sample_size", &base->sample_size}, {"joint_attention_dim", &base->text_channels}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (json_int(config, sizes[i].name, 1, 1, i == 2 ? MAX_BLOCKS : 65536, sizes[i].value, load_error(l)) != TESSERA_OK) return NULL;
    m->head_dim = head_dim, m->width = base->num_heads * head_dim;
    base->class = &short_class, base->num_blocks = (int)blocks, base->out_channels = base->in_channels, base->text_stream = true;
    base->form = (struct denoiser_form){.width = m->width, .text_width = m->width, .cond_width = m->width};
    return load_units(l, base->num_heads) > 0 && !load_failed(l) ? base : NULL;
}
static void load_embed(struct denoiser *base, struct loader *l) {
    struct model *m = (struct model *)base;
    load_set_prefix(l, "%s", "");
    m->patches = load_conv(l, base->in_channels, m->width, (int)base->patch_size, "pos_embed.proj");
    m->text = load_linear(l, base->text_channels, m->width, true, "context_embedder");
    m->time = dit_load_embedder(l, DIT_TIMESTEP_CHANNELS, m->width, m->width, "time_text_embed.timestep_embedder");
}
static void load_block(struct denoiser *base, int i, struct loader *l) {
    struct model *m = (struct model *)base;
    load_set_prefix(l, "transformer_blocks.%d.", i);
    m->blocks[i] = (struct block){load_linear(l, m->width, 6 * m->width, true, "norm1.linear"),
                                  dit_load_attention(l, base->num_heads, m->head_dim, &dit_picture_names, true, false),
                                  dit_load_feed_forward(l, m->width, 4 * m->width, "ff")};
}
static void load_finish(struct denoiser *base, struct loader *l) {
    struct model *m = (struct model *)base;
    load_set_prefix(l, "%s", "");
    m->norm_out = load_linear(l, m->width, 2 * m->width, true, "norm_out.linear");
    m->out = load_linear(l, m->width, base->patch_size * base->patch_size * base->out_channels, true, "proj_out");
}
static struct denoiser_state embed(const struct denoiser *base, struct run *run, const struct denoiser_inputs *in, unsigned carries) {
    const struct model *m = (const struct model *)base;
    struct denoiser_state s = {0};
    if (run_failed(run) || denoiser_check_latents(base, &in->latents, run_error(run)) != TESSERA_OK) return s;
    s.rows = in->latents.shape[1] / base->patch_size, s.columns = in->latents.shape[2] / base->patch_size;
    s.cut = exchange_cut_tokens(run, s.rows, s.columns), s.text_tokens = in->text.shape[1];
    if (carries & DENOISER_CARRIES_PICTURE) s.picture = dit_embed_picture(run, &m->patches, in->latents, s.cut);
    if (carries & DENOISER_CARRIES_TEXT) s.text = dit_embed_text(run, &m->text, in->text);
    s.cond = nn_cast(run, dit_embed_values(run, &m->time, in->timesteps, in->latents.shape[0]), DTYPE_F32);
    return s;
}
static struct denoiser_state block(const struct denoiser *base, struct run *run, int i, struct denoiser_state s) {
    const struct model *m = (const struct model *)base;
    const struct block *b = &m->blocks[i];
    size_t scope = run_enter(run);
    struct modulation mod = dit_modulation(run, &b->modulation, dit_activated_cond(run, s.cond), 6);
    struct tensor x[] = {nn_norm_modulated(run, &dit_plain_norm, s.text, mod.scale, mod.shift),
                         nn_norm_modulated(run, &dit_plain_norm, s.picture, mod.scale, mod.shift)};
    dit_joint_attention(run, m->head_dim, (const struct attention *const[]){&b->attention, &b->attention}, NULL, x, s.cut,
                        (struct text_span){0, s.text.shape[1], s.text_tokens, true});
    s.text = i + 1 < base->num_blocks ? dit_feed_forward(run, &b->ff, nn_gated_add(run, s.text, x[0], mod.gate), &mod) : (struct tensor){0};
    s.picture = dit_feed_forward(run, &b->ff, nn_gated_add(run, s.picture, x[1], mod.gate), &mod);
    run_leave_all(run, scope, (struct tensor *[]){&s.picture, &s.text}, 2);
    return s;
}
static struct tensor finish(const struct denoiser *base, struct run *run, struct denoiser_state s) {
    const struct model *m = (const struct model *)base;
    struct tensor x = dit_norm_continuous(run, &m->norm_out, s.picture, dit_activated_cond(run, s.cond));
    x = exchange_gather(run, nn_linear(run, &m->out, x, ACTIVATION_NONE), s.cut);
    return nn_unpatchify(run, x, base->patch_size, x.shape[1] / s.columns, s.columns);
}
static void describe(const struct denoiser *base, int i, struct denoiser_block_info *info) {
    const struct model *m = (const struct model *)base;
    bool last = i + 1 == base->num_blocks;
    *info = (struct denoiser_block_info){.operations_per_token_pair = 4.0 * (double)m->width, .carries = DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_COND};
    double work = 2.0 * (double)(dit_count_attention(&m->blocks[i].attention, &info->parameters) + dit_count_mlp(&m->blocks[i].ff, &info->parameters));
    info->operations_per_picture_token = info->operations_per_text_token = work, info->carries |= last ? 0u : DENOISER_CARRIES_TEXT;
    snprintf(info->name, sizeof info->name, "transformer_blocks.%d", i);
    meeting_add(&info->meetings, (struct meeting){MEETING_ATTENTION, 1, MEETING_PICTURE | MEETING_TEXT, true, true, .units = base->num_heads, .width = m->head_dim});
    meeting_add(&info->meetings, (struct meeting){MEETING_SUM, 2, MEETING_PICTURE, .units = m->width, .width = 1});
    meeting_add(&info->meetings, (struct meeting){MEETING_SUM, last ? 0 : 2, MEETING_TEXT, .units = m->width, .width = 1});
}
const struct denoiser_class short_class = {"ShortTransformer2DModel", open, load_embed, load_block, load_finish, embed, block, finish, .describe = describe};
