/* Bytes that a rank sends for a UNet's prediction: the walk over its levels, from the config alone.
 *
 *     layer                          exchanged where rows are cut         exchanged where weights are cut
 *     resnet, first half             group norm, halo of its input        none: its outputs are this rank's groups of channels
 *     resnet, second half            group norm, halo of these channels   sum of its outputs
 *     transformer                    group norm                           proj_in and proj_out side by side
 *       self attention               Ulysses, ring                        sum
 *       attention to text, MLP       none                                 sum, sum
 *     conv_in                        none: every rank has the latents     side by side
 *     change of size                 halo                                 side by side
 *     last norm and conv_out         group norm, halo                     sum
 *     timestep, sizes                none                                 sum of each MLP's output */
#include "formula.h"

#include <cjson/cJSON.h>
#include <string.h>

enum { MAX_LEVELS = 8, MAX_RESNETS = 8 };

/* One level of the picture. */
struct level {
    int64_t bounds[65]; /* of positions, by rank */
    int64_t columns, channels, resnets, heads;
    int64_t down_layers[MAX_RESNETS], up_layers[MAX_RESNETS]; /* of each resnet's transformer */
    bool down_attends, up_attends;
};

struct walk {
    const struct formula *f;
    int levels;
    int64_t groups;
    uint64_t sum;
    struct level level[MAX_LEVELS];
};

/* Item i of a list, or the one number for all. */
static int64_t item(const struct formula *f, const char *field, int i, int64_t fallback) {
    const cJSON *value = json_find(f->config, field);
    if (cJSON_IsArray(value)) value = cJSON_GetArrayItem(value, i);
    return cJSON_IsNumber(value) ? (int64_t)value->valuedouble : fallback;
}

/* Layers of the transformers on a level: a number for all, or a list with one for each. */
static void read_layers(const struct formula *f, const char *field, int i, int64_t *layers) {
    const cJSON *value = json_find(f->config, field);
    if (cJSON_IsArray(value)) value = cJSON_GetArrayItem(value, i);
    for (int r = 0; r < MAX_RESNETS; r++) {
        const cJSON *number = cJSON_IsArray(value) ? cJSON_GetArrayItem(value, r) : value;
        layers[r] = cJSON_IsNumber(number) ? (int64_t)number->valuedouble : 1;
    }
}

static bool attends(const struct formula *f, const char *field, int i) {
    const char *type = cJSON_GetStringValue(cJSON_GetArrayItem(json_find(f->config, field), i));
    return type != NULL && strstr(type, "CrossAttn") != NULL;
}

/* The levels' sizes; rows are cut at multiples of a row of the coarsest. */
static void set_levels(struct walk *w) {
    const struct formula *f = w->f;
    int n = formula_members(f);
    int64_t unit = (int64_t)1 << (w->levels - 1), units = (f->rows + unit - 1) / unit, columns = f->columns;
    int64_t rows[n + 1];
    for (int i = 0; i <= n; i++) rows[i] = i == n ? f->rows : units * i / n * unit;
    for (int l = 0; l < w->levels; l++) {
        struct level *level = &w->level[l];
        *level = (struct level){.columns = columns,
                                .channels = item(f, "block_out_channels", l, 0),
                                .resnets = item(f, "layers_per_block", l, 2),
                                .heads = item(f, "attention_head_dim", l, 8),
                                .down_attends = attends(f, "down_block_types", l),
                                .up_attends = attends(f, "up_block_types", w->levels - 1 - l)};
        read_layers(f, "transformer_layers_per_block", l, level->down_layers);
        bool reversed = json_find(f->config, "reverse_transformer_layers_per_block") != NULL;
        if (reversed) read_layers(f, "reverse_transformer_layers_per_block", w->levels - 1 - l, level->up_layers);
        if (!reversed) memcpy(level->up_layers, level->down_layers, sizeof level->up_layers);
        for (int i = 0; i <= n; i++) level->bounds[i] = rows[i] * columns;
        for (int i = 0; i <= n; i++) rows[i] = (rows[i] + 1) / 2;
        columns = (columns + 1) / 2;
    }
}

static int64_t positions(const struct walk *w, const struct level *level) {
    int me = formula_me(w->f);
    return w->f->batch * (level->bounds[me + 1] - level->bounds[me]);
}

static void add_halo(struct walk *w, const struct level *level, int above, int below, int64_t channels) {
    int me = formula_me(w->f), last = formula_members(w->f) - 1, rows = (me < last ? above : 0) + (me > 0 ? below : 0);
    w->sum += (uint64_t)(w->f->batch * rows * level->columns * channels) * dtype_size(w->f->dtype);
}

static void add_group_norm(struct walk *w, int64_t groups) {
    w->sum += (uint64_t)((formula_members(w->f) - 1) * (1 + 2 * w->f->batch * groups)) * sizeof(float);
}

static void add_resnet(struct walk *w, const struct level *level, int64_t in) {
    int64_t mine = formula_units(w->f, w->groups);
    add_group_norm(w, w->groups);
    add_halo(w, level, 1, 1, in);
    add_group_norm(w, mine);
    add_halo(w, level, 1, 1, mine * (level->channels / w->groups));
    w->sum += formula_sum_bytes(w->f, positions(w, level) * level->channels);
}

static void add_transformer(struct walk *w, const struct level *level, int64_t layers) {
    struct formula_sequence s = {w->f, level->bounds};
    struct formula_attention self = {.heads = formula_units(w->f, level->heads), .width = level->channels / level->heads};
    uint64_t sum = formula_sum_bytes(w->f, positions(w, level) * level->channels);
    add_group_norm(w, w->groups);
    w->sum += 2 * formula_join_bytes(w->f, positions(w, level), level->channels);
    w->sum += (uint64_t)layers * (formula_attention_bytes(&s, &self) + 3 * sum);
}

static void add_down(struct walk *w, int l) {
    const struct level *level = &w->level[l];
    for (int64_t i = 0; i < level->resnets; i++) {
        add_resnet(w, level, i == 0 && l > 0 ? w->level[l - 1].channels : level->channels);
        if (level->down_attends) add_transformer(w, level, level->down_layers[i]);
    }
    if (l == w->levels - 1) return;
    add_halo(w, level, 1, 0, level->channels); /* stride 2: the kernel reaches up only */
    w->sum += formula_join_bytes(w->f, positions(w, &w->level[l + 1]), level->channels);
}

static void add_up(struct walk *w, int l) {
    const struct level *level = &w->level[l];
    for (int64_t i = 0; i <= level->resnets; i++) {
        int64_t map = i == 0 && l < w->levels - 1 ? w->level[l + 1].channels : level->channels;
        int64_t skip = i == level->resnets && l > 0 ? w->level[l - 1].channels : level->channels;
        add_resnet(w, level, map + skip);
        if (level->up_attends) add_transformer(w, level, level->up_layers[i]);
    }
    if (l == 0) return;
    add_halo(w, &w->level[l - 1], 1, 1, level->channels);
    w->sum += formula_join_bytes(w->f, positions(w, &w->level[l - 1]), level->channels);
}

/* diffusers' default is the whole middle; distilled models have its first resnet alone, or none of
 * it. */
static void add_middle(struct walk *w, const struct level *level) {
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(json_root(w->f->config), "mid_block_type");
    if (cJSON_IsNull(type)) return;
    add_resnet(w, level, level->channels);
    if (type != NULL && strcmp(cJSON_GetStringValue(type), "UNetMidBlock2D") == 0) return;
    add_transformer(w, level, level->down_layers[0]);
    add_resnet(w, level, level->channels);
}

/* Timestep and sizes: [B, time channels] each. */
static void add_conditioning(struct walk *w) {
    int64_t time = item(w->f, "time_embedding_dim", 0, 4 * w->level[0].channels);
    bool has_sizes = json_find(w->f->config, "addition_embed_type") != NULL;
    w->sum += (has_sizes ? 2 : 1) * formula_sum_bytes(w->f, w->f->batch * time);
}

static void add_ends(struct walk *w) {
    const struct level *finest = &w->level[0];
    int64_t out = w->f->denoiser->out_channels, mine = formula_units(w->f, w->groups);
    struct formula_sequence s = {w->f, finest->bounds};
    int reach_out = (int)(item(w->f, "conv_out_kernel", 0, 3) / 2);
    w->sum += formula_join_bytes(w->f, positions(w, finest), finest->channels);
    add_group_norm(w, mine);
    add_halo(w, finest, reach_out, reach_out, mine * (finest->channels / w->groups));
    w->sum += formula_sum_bytes(w->f, positions(w, finest) * out) + formula_gather_bytes(&s, out);
}

uint64_t formula_unet_bytes(const struct formula *f) {
    struct walk w = {
        .f = f, .levels = cJSON_GetArraySize(json_find(f->config, "block_out_channels")), .groups = item(f, "norm_num_groups", 0, 32)};
    if (w.levels < 1 || w.levels > MAX_LEVELS || formula_members(f) > 64) return 0;
    set_levels(&w);
    for (int l = 0; l < w.levels; l++) add_down(&w, l);
    const struct level *coarsest = &w.level[w.levels - 1];
    add_middle(&w, coarsest);
    for (int l = w.levels - 1; l >= 0; l--) add_up(&w, l);
    add_conditioning(&w);
    add_ends(&w);
    return w.sum;
}
