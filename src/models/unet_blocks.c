/* Resnets, transformers and resampling of a U-Net; the drawing is in the header (Ho et al. 2020;
 * Rombach et al. 2022; diffusers' ResnetBlock2D, Transformer2DModel, Downsample2D and Upsample2D).
 *
 * Each step takes the arena's mark before its temporaries and leaves only its result.
 * Left out: scale-shift time embeddings, resnets that resize, gated and image-prompt attention. */
#include "models/unet_blocks.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>

static const float transformer_norm_eps = 1e-6f, layer_norm_eps = 1e-5f; /* diffusers writes them in the code, not in the config */

/* ---- loading ---- */

static struct unet_resnet load_resnet(struct loader *loader, const struct unet_settings *s, int64_t in, int64_t out, int index) {
    int64_t groups = s->groups, width = out / groups;
    struct unet_resnet r = {
        .norm1 = load_norm(loader, NORM_LAYER, in, s->norm_eps, true, "resnets.%d.norm1", index),
        .conv1 = load_conv_outputs(loader, in, groups, width, 3, "resnets.%d.conv1", index),
        .time = load_linear_outputs(loader, s->time_channels, groups, width, true, "resnets.%d.time_emb_proj", index),
        .norm2 = load_norm_slice(loader, NORM_LAYER, groups, width, s->norm_eps, true, "resnets.%d.norm2", index),
        .conv2 = load_conv_inputs(loader, groups, width, out, 3, "resnets.%d.conv2", index),
    };
    if (in != out) r.shortcut = load_conv_inputs(loader, in, 1, out, 1, "resnets.%d.conv_shortcut", index);
    return r;
}

static struct attention load_attention(struct loader *loader, const struct unet_block_shape *shape, int64_t from, const char *name,
                                            int which) {
    int64_t channels = shape->out, heads = shape->heads, width = channels / heads;
    return (struct attention){
        .q = load_linear_outputs(loader, channels, heads, width, false, "%s.attn%d.to_q", name, which),
        .k = load_linear_outputs(loader, from, heads, width, false, "%s.attn%d.to_k", name, which),
        .v = load_linear_outputs(loader, from, heads, width, false, "%s.attn%d.to_v", name, which),
        .out = load_linear_inputs(loader, heads, width, channels, true, "%s.attn%d.to_out.0", name, which),
    };
}

/* The feed-forward network's first matrix gives values, then gates. */
static struct unet_layer load_layer(struct loader *loader, const struct unet_settings *s, const struct unet_block_shape *shape,
                                    int transformer, int index) {
    int64_t channels = shape->out, hidden = 4 * channels;
    char name[64];
    snprintf(name, sizeof name, "attentions.%d.transformer_blocks.%d", transformer, index);
    return (struct unet_layer){
        .norm1 = load_norm(loader, NORM_LAYER, channels, layer_norm_eps, true, "%s.norm1", name),
        .self = load_attention(loader, shape, channels, name, 1),
        .norm2 = load_norm(loader, NORM_LAYER, channels, layer_norm_eps, true, "%s.norm2", name),
        .cross = load_attention(loader, shape, s->text_channels, name, 2),
        .norm3 = load_norm(loader, NORM_LAYER, channels, layer_norm_eps, true, "%s.norm3", name),
        .ff_values = load_linear_chunk(loader, channels, 0, 2, hidden, 1, true, "%s.ff.net.0.proj", name),
        .ff_gates = load_linear_chunk(loader, channels, 1, 2, hidden, 1, true, "%s.ff.net.0.proj", name),
        .ff_out = load_linear_inputs(loader, hidden, 1, channels, true, "%s.ff.net.2", name),
    };
}

/* A matrix, or a 1x1 convolution read as one. */
static struct linear load_projection(struct loader *loader, const struct unet_settings *s, int64_t channels, int index, const char *name) {
    if (s->linear_projection) return load_linear_outputs(loader, channels, channels, 1, true, "attentions.%d.%s", index, name);
    struct conv conv = load_conv_outputs(loader, channels, channels, 1, 1, "attentions.%d.%s", index, name);
    return (struct linear){.weight = nn_reshape(conv.weight, SHAPE(conv.weight.shape[0], channels)), .bias = conv.bias};
}

static struct unet_transformer load_transformer(struct loader *loader, const struct unet_settings *s, const struct unet_block_shape *shape,
                                                int index) {
    int64_t channels = shape->out;
    struct unet_transformer t = {0};
    if (shape->opens) {
        t.norm = load_norm(loader, NORM_LAYER, channels, transformer_norm_eps, true, "attentions.%d.norm", index);
        t.proj_in = load_projection(loader, s, channels, index, "proj_in");
    }
    if (shape->closes) t.proj_out = load_projection(loader, s, channels, index, "proj_out");
    if (load_failed(loader)) return t;
    assert(shape->layers <= UNET_MAX_LAYERS);
    for (int i = 0; i < shape->layers; i++) t.layers[i] = load_layer(loader, s, shape, index, shape->first_layer + i);
    return t;
}

/* The first resnet is the opening block's, a second one the closing block's. */
static bool has_resnet(const struct unet_block_shape *shape, int index) {
    return index == 0 ? shape->opens : shape->closes;
}

struct unet_block unet_block_load(struct loader *loader, const struct unet_settings *settings, const struct unet_block_shape *shape) {
    struct unet_block block = {.shape = *shape, .groups = settings->groups, .my_groups = (int)load_units(loader, settings->groups)};
    if (shape->transformers > 0) block.my_heads = load_units(loader, shape->heads);
    for (int i = 0; i < shape->resnets; i++)
        if (has_resnet(shape, i)) block.resnets[i] = load_resnet(loader, settings, shape->in[i], shape->out, shape->first + i);
    if (shape->transformers > 0 && !load_failed(loader)) block.transformer = load_transformer(loader, settings, shape, shape->first);
    if (shape->resample != NULL && shape->closes)
        block.resample = load_conv_outputs(loader, shape->out, shape->out, 1, 3, "%s.0.conv", shape->resample);
    return block;
}

/* ---- resnets ---- */

/* x + bias[b]: x [B, H, W, C], bias [B, C] in the run's type. */
static struct tensor add_to_positions(struct run *run, struct tensor x, struct tensor bias) {
    if (run_failed(run)) return (struct tensor){0};
    size_t scope = run_enter(run);
    int64_t positions = x.shape[1] * x.shape[2];
    struct tensor index = run_tensor(run, DTYPE_I32, SHAPE(x.shape[0] * positions));
    int32_t *ids = run_map(run, &index, MAP_WRITE), *next = ids;
    for (int64_t b = 0; ids != NULL && b < x.shape[0]; b++) {
        for (int64_t p = 0; p < positions; p++) *next++ = (int32_t)b;
    }
    run_unmap(run, &index, ids, MAP_WRITE);
    struct tensor spread = nn_reshape(nn_embed_rows(run, bias, index, x.shape[0], positions), x.ndim, x.shape);
    return run_leave(run, scope, nn_add(run, x, spread));
}

struct tensor unet_resnet_run(struct run *run, const struct unet_block *block, int index, struct tensor x, struct tensor emb) {
    const struct unet_resnet *r = &block->resnets[index];
    size_t scope = run_enter(run);
    struct tensor time = nn_linear(run, &r->time, emb, ACTIVATION_NONE);
    struct tensor h = nn_conv(run, &r->conv1, nn_group_norm(run, &r->norm1, block->groups, x, ACTIVATION_SILU), NULL);
    h = run_leave(run, scope, add_to_positions(run, h, time));
    h = run_leave(run, scope, nn_group_norm(run, &r->norm2, block->my_groups, h, ACTIVATION_SILU));
    if (r->shortcut.weight.data == NULL) return run_leave(run, scope, nn_conv_sum(run, &r->conv2, h, exchange_once(run, &x)));
    struct tensor residual = nn_conv(run, &r->shortcut, nn_conv_inputs(run, &r->shortcut, x), NULL);
    return run_leave(run, scope, nn_conv_sum(run, &r->conv2, h, &residual));
}

/* ---- transformers ---- */

/* x + attention from norm(x) to `text`, or to norm(x) of the whole picture where text is NULL. */
static struct tensor attend(struct run *run, const struct attention *a, const struct norm *norm, int64_t heads, struct tensor x,
                            const struct tensor *text, const struct cut *cut) {
    size_t scope = run_enter(run);
    const struct dit_asked asked = {.cut = cut, .text = text};
    return run_leave(run, scope, nn_add(run, x, dit_attention(run, a->q.weight.shape[0] / heads, a, NULL, nn_norm(run, norm, x), &asked)));
}

/* x + out(values * gelu(gates)) of norm(x) */
static struct tensor feed_forward(struct run *run, const struct unet_layer *layer, struct tensor x) {
    size_t scope = run_enter(run);
    struct tensor y = nn_norm(run, &layer->norm3, x);
    y = nn_feed_forward(run, &layer->ff_values, &layer->ff_gates, &layer->ff_out, ACTIVATION_GELU, y);
    return run_leave(run, scope, nn_add(run, x, y));
}

struct tensor unet_transformer_open(struct run *run, const struct unet_block *block, struct tensor x) {
    const struct unet_transformer *t = &block->transformer;
    if (run_failed(run)) return (struct tensor){0};
    size_t scope = run_enter(run);
    struct tensor h = nn_group_norm(run, &t->norm, block->groups, x, ACTIVATION_NONE);
    h = nn_linear(run, &t->proj_in, nn_reshape(h, SHAPE(x.shape[0], x.shape[1] * x.shape[2], x.shape[3])), ACTIVATION_NONE);
    return nn_reshape(run_leave(run, scope, exchange_join(run, h, x.shape[3])), x.ndim, x.shape);
}

struct tensor unet_transformer_layers(struct run *run, const struct unet_block *block, struct tensor h, struct tensor text,
                                      const struct cut *cut) {
    if (run_failed(run)) return (struct tensor){0};
    struct tensor map = h;
    size_t scope = run_enter(run);
    h = nn_reshape(h, SHAPE(map.shape[0], map.shape[1] * map.shape[2], map.shape[3]));
    for (int i = 0; i < block->shape.layers; i++) {
        const struct unet_layer *layer = &block->transformer.layers[i];
        h = attend(run, &layer->self, &layer->norm1, block->my_heads, h, NULL, cut);
        h = attend(run, &layer->cross, &layer->norm2, block->my_heads, h, &text, cut);
        h = run_leave(run, scope, feed_forward(run, layer, h));
    }
    return nn_reshape(h, map.ndim, map.shape);
}

struct tensor unet_transformer_close(struct run *run, const struct unet_block *block, struct tensor h, struct tensor x) {
    if (run_failed(run)) return (struct tensor){0};
    size_t scope = run_enter(run);
    h = nn_reshape(h, SHAPE(x.shape[0], x.shape[1] * x.shape[2], x.shape[3]));
    h = exchange_join(run, nn_linear(run, &block->transformer.proj_out, h, ACTIVATION_NONE), x.shape[3]);
    return run_leave(run, scope, nn_add(run, x, nn_reshape(h, x.ndim, x.shape)));
}

/* ---- sizes ---- */

struct tensor unet_halve(struct run *run, const struct unet_block *block, struct tensor x) {
    size_t scope = run_enter(run);
    struct tensor half = nn_conv_strided(run, &block->resample, x, (struct conv2d_geometry){2, 1, 1, 1, 1});
    return run_leave(run, scope, exchange_join(run, half, block->shape.out));
}

struct tensor unet_double(struct run *run, const struct unet_block *block, struct tensor x, int64_t rows, int64_t columns) {
    size_t scope = run_enter(run);
    struct tensor both = nn_conv(run, &block->resample, nn_upsample(run, x, rows, columns), NULL);
    return run_leave(run, scope, exchange_join(run, both, block->shape.out));
}

/* ---- measures ---- */

static int64_t count_of(const struct tensor *t) {
    return t->ndim == 0 ? 0 : tensor_count(t);
}

static void add_layer(struct unet_block_size *size, int64_t *weights, const struct tensor *weight, const struct tensor *bias) {
    *weights += count_of(weight);
    size->parameters += count_of(weight) + count_of(bias);
}

static void add_norm(struct unet_block_size *size, const struct norm *norm) {
    size->parameters += count_of(&norm->weight) + count_of(&norm->bias);
}

static void measure_layer(struct unet_block_size *size, const struct unet_layer *layer) {
    const struct linear *const picture[] = {&layer->self.q,    &layer->self.k,    &layer->self.v,   &layer->self.out, &layer->cross.q,
                                            &layer->cross.out, &layer->ff_values, &layer->ff_gates, &layer->ff_out};
    for (size_t i = 0; i < sizeof picture / sizeof picture[0]; i++)
        add_layer(size, &size->per_position, &picture[i]->weight, &picture[i]->bias);
    add_layer(size, &size->per_text_token, &layer->cross.k.weight, &layer->cross.k.bias);
    add_layer(size, &size->per_text_token, &layer->cross.v.weight, &layer->cross.v.bias);
    add_norm(size, &layer->norm1);
    add_norm(size, &layer->norm2);
    add_norm(size, &layer->norm3);
}

struct unet_block_size unet_block_measure(const struct unet_block *block) {
    struct unet_block_size size = {0};
    for (int i = 0; i < block->shape.resnets; i++) {
        const struct unet_resnet *r = &block->resnets[i];
        const struct conv *const convs[] = {&r->conv1, &r->conv2, &r->shortcut};
        for (int c = 0; c < 3; c++) add_layer(&size, &size.per_position, &convs[c]->weight, &convs[c]->bias);
        size.parameters += count_of(&r->time.weight) + count_of(&r->time.bias);
        add_norm(&size, &r->norm1);
        add_norm(&size, &r->norm2);
    }
    const struct unet_transformer *t = &block->transformer;
    add_layer(&size, &size.per_position, &t->proj_in.weight, &t->proj_in.bias);
    add_layer(&size, &size.per_position, &t->proj_out.weight, &t->proj_out.bias);
    add_norm(&size, &t->norm);
    for (int l = 0; l < block->shape.transformers * block->shape.layers; l++) measure_layer(&size, &t->layers[l]);
    add_layer(&size, &size.per_resized_position, &block->resample.weight, &block->resample.bias);
    return size;
}

/* ---- meetings ---- */

static void add_resnet_meetings(struct meeting_list *list, const struct unet_block *block, int level, int64_t in) {
    int64_t out = block->shape.out, groups = block->groups;
    struct meeting norm = {.kind = MEETING_NORM, .count = 1, .level = level, .units = groups, .width = in / groups};
    struct meeting halo = {.kind = MEETING_HALO, .count = 1, .level = level, .above = 1, .below = 1, .units = groups, .width = in / groups};
    meeting_add(list, norm);
    meeting_add(list, halo);
    norm.width = halo.width = out / groups, norm.is_sliced = halo.is_sliced = true; /* the second half has a rank's groups */
    meeting_add(list, norm);
    meeting_add(list, halo);
    meeting_add(list, (struct meeting){.kind = MEETING_SUM, .count = 1, .of = MEETING_PICTURE, .level = level, .units = out, .width = 1});
}

static void add_transformer_meetings(struct meeting_list *list, const struct unet_block *block, int level) {
    int64_t out = block->shape.out, heads = block->shape.heads, groups = block->groups;
    int layers = block->shape.layers, ends = block->shape.opens + block->shape.closes;
    struct meeting sum = {.kind = MEETING_SUM, .count = 3 * layers, .of = MEETING_PICTURE, .level = level, .units = out, .width = 1};
    struct meeting join = {.kind = MEETING_JOIN, .count = ends, .of = MEETING_PICTURE, .level = level, .units = out, .width = 1};
    meeting_add(
        list, (struct meeting){.kind = MEETING_NORM, .count = block->shape.opens, .level = level, .units = groups, .width = out / groups});
    meeting_add(list, join);
    meeting_add(list, (struct meeting){.kind = MEETING_ATTENTION,
                                       .count = layers,
                                       .of = MEETING_PICTURE,
                                       .is_sliced = true,
                                       .level = level,
                                       .units = heads,
                                       .width = out / heads});
    meeting_add(list, sum);
}

void unet_block_meetings(const struct unet_block *block, int level, int resized, struct meeting_list *list) {
    const struct unet_block_shape *shape = &block->shape;
    bool halves = resized > level; /* with stride 2, and the kernel reaches up only */
    struct meeting halo = {.kind = MEETING_HALO, .count = 1, .above = 1, .below = halves ? 0 : 1, .units = shape->out, .width = 1};
    struct meeting join = {.kind = MEETING_JOIN, .count = 1, .of = MEETING_PICTURE, .level = resized, .units = shape->out, .width = 1};
    if (shape->opens) add_resnet_meetings(list, block, level, shape->in[0]);
    if (shape->transformers > 0) add_transformer_meetings(list, block, level);
    if (shape->closes && shape->resnets > 1) add_resnet_meetings(list, block, level, shape->in[1]);
    if (shape->resample == NULL || !shape->closes) return;
    halo.level = halves ? level : resized;
    meeting_add(list, halo);
    meeting_add(list, join);
}
