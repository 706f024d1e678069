/* The U-Net of Stable Diffusion 1 and 2 and of SDXL (Ronneberger et al. 2015; Rombach et al. 2022;
 * Podell et al. 2023; diffusers' UNet2DConditionModel).
 *
 *     latents -> conv_in -> down 0 -> down 1 -> ... -> mid -> ... -> up n-2 -> up n-1 -> norm, silu, conv_out
 *                              \--------\------- skips -------/---------/
 *
 * A denoiser block is a piece of a level (unet_blocks.h). What enters a resnet, a downsampler or
 * the middle is pushed onto the state's skips, and each resnet of the way up pops one; what enters
 * a transformer lies there until its last piece. So the picture itself is never among the skips at
 * a boundary. The timestep's embedding, for SDXL with those of the pooled text and of six size
 * numbers, is the conditioning. The config's attention_head_dim is the number of heads (diffusers
 * keeps the wrong name for old files). upcast_attention is a matter of precision only: scores are
 * F32 here always. Over several ranks the picture is cut by rows; the state's cut is the finest
 * level's. See unet_blocks.h. An odd side is halved upwards, and a level's size follows from the
 * latents', so latents of any size will do. Distilled models (SSD-1B, Segmind-Vega, tiny-sd) leave
 * blocks out: fewer resnets or layers on a level, a middle of one resnet or none. Without a middle
 * the first resnet of the way up gets what leaves the way down twice, as the map and as the skip.
 * Left out: class embeddings, other conditionings and block types. */
#include <assert.h>
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/elementary.h"
#include "models/denoiser.h"
#include "models/unet_blocks.h"

enum { MAX_LEVELS = 8, MAX_RESNETS = 7 /* of a level, down */, SIZE_NUMBERS = 6 };

struct unet {
    struct denoiser base;
    struct unet_settings settings;
    int levels;
    bool text_time; /* SDXL's conditioning */
    bool flip_sin_to_cos;
    double freq_shift;
    int64_t reach;                   /* of the last convolution, in rows */
    int64_t channels, size_channels; /* of the timestep's sinusoid and of each size number's */
    int conv_in_kernel, conv_out_kernel;
    struct conv conv_in, conv_out;
    struct norm norm_out;
    int out_groups; /* of the last norm, on this rank */
    struct linear time_1, time_2, add_1, add_2;
    struct unet_block *blocks; /* [num_blocks] */
};

/* What the config says of the levels, from the finest. */
struct plan {
    int64_t channels[MAX_LEVELS], resnets[MAX_LEVELS], heads[MAX_LEVELS];
    bool down_attends[MAX_LEVELS], up_attends[MAX_LEVELS]; /* up: in the order of running, from the coarsest */
    /* Layers of each resnet's transformer; up: again in the order of running, and one resnet more. */
    int64_t down_layers[MAX_LEVELS][MAX_RESNETS + 1], up_layers[MAX_LEVELS][MAX_RESNETS + 1], mid_layers;
    enum { MID_NONE, MID_RESNET, MID_ATTENDS } mid; /* models with blocks left out: none, or its first resnet alone */
    int64_t conv_in_kernel, conv_out_kernel;
};

/* ---- config ---- */

/* Fields that change what is computed and are known in one value only (JSON; NULL: absent or null). */
static const struct {
    const char *name, *value;
} fixed_fields[] = {
    {"act_fn", "\"silu\""},
    {"attention_type", "\"default\""},
    {"center_input_sample", "false"},
    {"class_embed_type", NULL},
    {"class_embeddings_concat", "false"},
    {"cross_attention_norm", NULL},
    {"downsample_padding", "1"},
    {"dual_cross_attention", "false"},
    {"encoder_hid_dim", NULL},
    {"encoder_hid_dim_type", NULL},
    {"mid_block_only_cross_attention", "false"},
    {"mid_block_scale_factor", "1"},
    {"num_attention_heads", NULL},
    {"num_class_embeds", NULL},
    {"only_cross_attention", "false"},
    {"resnet_out_scale_factor", "1"},
    {"resnet_skip_time_act", "false"},
    {"resnet_time_scale_shift", "\"default\""},
    {"time_cond_proj_dim", NULL},
    {"time_embedding_act_fn", NULL},
    {"time_embedding_type", "\"positional\""},
    {"timestep_post_act", NULL},
};

static tessera_status check_fixed_fields(const struct json *config, tessera_error *error) {
    for (size_t i = 0; i < sizeof fixed_fields / sizeof fixed_fields[0]; i++) {
        const char *name = fixed_fields[i].name, *wanted = fixed_fields[i].value;
        const struct cJSON *value = json_find(config, name);
        if (value == NULL) continue;
        char *text = cJSON_PrintUnformatted(value);
        bool equal = text != NULL && wanted != NULL && strcmp(text, wanted) == 0;
        if (!equal) {
            error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: %s is %.60s; only %s is supported", json_path(config), name,
                      text != NULL ? text : "too long", wanted != NULL ? wanted : "null");
        }
        cJSON_free(text);
        if (!equal) return error->status;
    }
    return TESSERA_OK;
}

/* One integer for all levels, or a list with one for each. */
static tessera_status read_levels(const struct json *config, const char *field, int64_t fallback, int64_t high, int levels, int64_t *out,
                                  tessera_error *error) {
    if (!cJSON_IsArray(json_find(config, field))) {
        TRY(json_int(config, field, fallback, 1, high, &out[0], error));
        for (int i = 1; i < levels; i++) out[i] = out[0];
        return TESSERA_OK;
    }
    int count = 0;
    TRY(json_ints(config, field, 1, high, out, MAX_LEVELS, &count, error));
    if (count == levels) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: %s has %d numbers; block_out_channels has %d", json_path(config), field, count,
                     levels);
}

/* Which blocks have transformers. */
static tessera_status read_types(const struct json *config, const char *field, const char *plain, const char *attending, int levels,
                                 bool *attends, tessera_error *error) {
    const struct cJSON *list = json_find(config, field);
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != levels) {
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: %s must list %d block types, as many as block_out_channels", json_path(config),
                         field, levels);
    }
    for (int i = 0; i < levels; i++) {
        const char *type = cJSON_GetStringValue(cJSON_GetArrayItem(list, i));
        attends[i] = type != NULL && strcmp(type, attending) == 0;
        if (attends[i] || (type != NULL && strcmp(type, plain) == 0)) continue;
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: %s[%d] is \"%.60s\"; only %s and %s are supported", json_path(config),
                         field, i, type != NULL ? type : "no string", plain, attending);
    }
    return TESSERA_OK;
}

/* A level's layers: one number for all of its resnets, or a list. */
static tessera_status read_layer_list(const struct json *config, const char *field, int level, const cJSON *item, int64_t resnets,
                                      int64_t out[MAX_RESNETS + 1], tessera_error *error) {
    bool list = cJSON_IsArray(item), good = !list || cJSON_GetArraySize(item) == resnets;
    for (int i = 0; i < resnets && good; i++) {
        const cJSON *number = list ? cJSON_GetArrayItem(item, i) : item;
        good = cJSON_IsNumber(number) && number->valuedouble >= 1 && number->valuedouble <= 256 &&
               number->valuedouble == floor(number->valuedouble);
        if (good) out[i] = (int64_t)number->valuedouble;
    }
    if (good) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: %s[%d] must be a number from 1 to 256, or a list of %lld of them", json_path(config),
                     field, level, (long long)resnets);
}

/* transformer_layers_per_block, in the order of running; levels without transformers may have any
 * number. */
static tessera_status read_layers(const struct json *config, const char *field, int levels, const bool *attends, const int64_t *resnets,
                                  int64_t out[][MAX_RESNETS + 1], tessera_error *error) {
    static const cJSON one = {.type = cJSON_Number, .valueint = 1, .valuedouble = 1};
    const cJSON *value = json_find(config, field);
    if (value == NULL) value = &one;
    if (cJSON_IsArray(value) && cJSON_GetArraySize(value) != levels)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: %s has %d numbers; block_out_channels has %d", json_path(config), field,
                         cJSON_GetArraySize(value), levels);
    for (int i = 0; i < levels; i++) {
        const cJSON *item = cJSON_IsArray(value) ? cJSON_GetArrayItem(value, i) : value;
        TRY(read_layer_list(config, field, i, attends[i] ? item : &one, resnets[i], out[i], error));
    }
    return TESSERA_OK;
}

/* The way up has the layers of the way down in reverse, unless reverse_transformer_layers_per_block
 * says them. */
static tessera_status read_all_layers(const struct json *config, const struct unet *m, struct plan *plan, tessera_error *error) {
    static const char down[] = "transformer_layers_per_block", up[] = "reverse_transformer_layers_per_block";
    int64_t up_resnets[MAX_LEVELS], reversed[MAX_LEVELS][MAX_RESNETS + 1], mid[1][MAX_RESNETS + 1] = {{1}};
    bool up_attends[MAX_LEVELS];
    int last = m->levels - 1;
    const cJSON *value = json_find(config, down), *deepest = cJSON_IsArray(value) ? cJSON_GetArrayItem(value, last) : value;
    TRY(read_layers(config, down, m->levels, plan->down_attends, plan->resnets, plan->down_layers, error));
    for (int i = 0; i <= last; i++) up_resnets[i] = plan->resnets[last - i] + 1;
    if (cJSON_IsArray(deepest)) deepest = cJSON_GetArrayItem(deepest, 0);
    if (plan->mid == MID_ATTENDS && deepest != NULL) TRY(read_layer_list(config, down, last, deepest, 1, mid[0], error));
    plan->mid_layers = mid[0][0];
    if (json_find(config, up) != NULL) return read_layers(config, up, m->levels, plan->up_attends, up_resnets, plan->up_layers, error);
    for (int i = 0; i <= last; i++) up_attends[i] = plan->up_attends[last - i], up_resnets[i] = plan->resnets[i] + 1;
    TRY(read_layers(config, down, m->levels, up_attends, up_resnets, reversed, error));
    for (int i = 0; i <= last; i++) memcpy(plan->up_layers[i], reversed[last - i], sizeof reversed[0]);
    return TESSERA_OK;
}

/* diffusers' default is the whole middle; null leaves it out. */
static tessera_status read_mid(const struct json *config, struct plan *plan, tessera_error *error) {
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(json_root(config), "mid_block_type");
    const char *type = value == NULL ? "UNetMidBlock2DCrossAttn" : cJSON_GetStringValue(value);
    plan->mid = MID_NONE;
    if (cJSON_IsNull(value)) return TESSERA_OK;
    if (type != NULL && strcmp(type, "UNetMidBlock2DCrossAttn") == 0) plan->mid = MID_ATTENDS;
    if (type != NULL && strcmp(type, "UNetMidBlock2D") == 0) plan->mid = MID_RESNET;
    if (plan->mid != MID_NONE) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                     "%s: mid_block_type is \"%.60s\"; only UNetMidBlock2DCrossAttn, UNetMidBlock2D and null are supported",
                     json_path(config), type != NULL ? type : "no string");
}

static tessera_status check_plan(const struct json *config, const struct unet *m, const struct plan *plan, tessera_error *error) {
    int64_t skips = plan->mid_layers > 1; /* the middle's transformer, cut by layers, adds one to the full stack */
    for (int i = 0; i < m->levels; i++) {
        if (plan->channels[i] % m->settings.groups != 0 || plan->channels[i] % plan->heads[i] != 0) {
            return error_set(error, TESSERA_ERROR_FORMAT,
                             "%s: block_out_channels[%d] is %lld, no multiple of norm_num_groups %d and of attention_head_dim %lld",
                             json_path(config), i, (long long)plan->channels[i], m->settings.groups, (long long)plan->heads[i]);
        }
        skips += plan->resnets[i] + 1;
    }
    if (skips > DENOISER_MAX_SKIPS) {
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: layers_per_block and block_out_channels make %lld skips; at most %d",
                         json_path(config), (long long)skips, DENOISER_MAX_SKIPS);
    }
    if (plan->conv_in_kernel % 2 == 0 || plan->conv_out_kernel % 2 == 0) {
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: conv_in_kernel is %lld and conv_out_kernel %lld; both must be odd",
                         json_path(config), (long long)plan->conv_in_kernel, (long long)plan->conv_out_kernel);
    }
    return TESSERA_OK;
}

/* Of the levels that attend; those of the coarsest where none does. */
static int64_t fewest_heads(const struct unet *m, const struct plan *plan) {
    int64_t fewest = plan->heads[m->levels - 1];
    for (int i = 0; i < m->levels; i++) {
        bool attends = plan->down_attends[i] || plan->up_attends[m->levels - 1 - i];
        if (attends && plan->heads[i] < fewest) fewest = plan->heads[i];
    }
    return fewest;
}

static tessera_status read_plan(const struct json *config, struct unet *m, struct plan *plan, tessera_error *error) {
    int64_t text[MAX_LEVELS];
    TRY(json_ints(config, "block_out_channels", 1, 1 << 16, plan->channels, MAX_LEVELS, &m->levels, error));
    if (m->levels == 0) return error_set(error, TESSERA_ERROR_FORMAT, "%s: block_out_channels is missing or empty", json_path(config));
    TRY(read_levels(config, "layers_per_block", 2, MAX_RESNETS, m->levels, plan->resnets, error));
    TRY(read_levels(config, "attention_head_dim", 8, 1 << 10, m->levels, plan->heads, error));
    TRY(read_levels(config, "cross_attention_dim", 1280, 1 << 16, m->levels, text, error));
    TRY(read_types(config, "down_block_types", "DownBlock2D", "CrossAttnDownBlock2D", m->levels, plan->down_attends, error));
    TRY(read_types(config, "up_block_types", "UpBlock2D", "CrossAttnUpBlock2D", m->levels, plan->up_attends, error));
    TRY(read_mid(config, plan, error));
    TRY(read_all_layers(config, m, plan, error));
    TRY(json_int(config, "conv_in_kernel", 3, 1, 15, &plan->conv_in_kernel, error));
    TRY(json_int(config, "conv_out_kernel", 3, 1, 15, &plan->conv_out_kernel, error));
    for (int i = 1; i < m->levels; i++) {
        if (text[i] != text[0])
            return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: cross_attention_dim differs between blocks", json_path(config));
    }
    m->settings.text_channels = m->base.text_channels = text[0];
    m->channels = plan->channels[0];
    m->base.patch_size = 1;
    m->base.row_unit = (int64_t)1 << (m->levels - 1);
    m->base.max_tensor = m->settings.groups;
    m->base.num_heads = fewest_heads(m, plan);
    return check_plan(config, m, plan, error);
}

/* SDXL's second conditioning: pooled text and sinusoids of six numbers side by side. */
static tessera_status read_addition(const struct json *config, struct unet *m, tessera_error *error) {
    const char *type;
    int64_t width;
    TRY(json_string(config, "addition_embed_type", NULL, &type, error));
    m->text_time = type != NULL;
    if (type == NULL) return TESSERA_OK;
    if (strcmp(type, "text_time") != 0) {
        return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                         "%s: addition_embed_type is \"%.60s\"; only \"text_time\" and null are supported", json_path(config), type);
    }
    TRY(json_int(config, "addition_time_embed_dim", 256, 2, 1 << 12, &m->size_channels, error));
    TRY(json_int(config, "projection_class_embeddings_input_dim", 2816, 1, 1 << 20, &width, error));
    m->base.pooled_channels = width - SIZE_NUMBERS * m->size_channels;
    if (m->base.pooled_channels >= 1) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT,
                     "%s: projection_class_embeddings_input_dim %lld leaves no room for text beside %d * addition_time_embed_dim %lld",
                     json_path(config), (long long)width, SIZE_NUMBERS, (long long)m->size_channels);
}

static tessera_status read_config(const struct json *config, struct unet *m, struct plan *plan, tessera_error *error) {
    int64_t groups;
    double eps;
    TRY(check_fixed_fields(config, error));
    TRY(json_int(config, "in_channels", 4, 1, 1 << 12, &m->base.in_channels, error));
    TRY(json_int(config, "out_channels", 4, 1, 1 << 12, &m->base.out_channels, error));
    TRY(json_int(config, "sample_size", 0, 0, 1 << 16, &m->base.sample_size, error));
    TRY(json_int(config, "norm_num_groups", 32, 1, 1 << 16, &groups, error));
    TRY(json_double(config, "norm_eps", 1e-5, &eps, error));
    TRY(json_double(config, "freq_shift", 0.0, &m->freq_shift, error));
    TRY(json_bool(config, "flip_sin_to_cos", true, &m->flip_sin_to_cos, error));
    TRY(json_bool(config, "use_linear_projection", false, &m->settings.linear_projection, error));
    m->settings.groups = (int)groups;
    m->settings.norm_eps = (float)eps;
    TRY(read_plan(config, m, plan, error));
    TRY(json_int(config, "time_embedding_dim", 4 * m->channels, 1, 1 << 20, &m->settings.time_channels, error));
    m->base.form =
        (struct denoiser_form){.width = m->channels, .text_width = m->base.text_channels, .cond_width = m->settings.time_channels};
    if (!(eps > 0.0 && eps < 1.0) || !(m->freq_shift >= 0.0 && m->freq_shift <= 1.0)) {
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: norm_eps %g or freq_shift %g is out of range", json_path(config), eps,
                         m->freq_shift);
    }
    return read_addition(config, m, error);
}

/* ---- loading ---- */

/* Resnet i of a level on the way down. */
static struct unet_block_shape down_shape(const struct unet *m, const struct plan *plan, int level, int i) {
    bool last = i == plan->resnets[level] - 1;
    return (struct unet_block_shape){.way = UNET_DOWN,
                                     .level = level,
                                     .first = i,
                                     .resnets = 1,
                                     .in = {plan->channels[i == 0 && level > 0 ? level - 1 : level]},
                                     .out = plan->channels[level],
                                     .transformers = plan->down_attends[level] ? 1 : 0,
                                     .layers = (int)plan->down_layers[level][i],
                                     .heads = plan->heads[level],
                                     .resample = last && level < m->levels - 1 ? "downsamplers" : NULL};
}

static struct unet_block_shape mid_shape(const struct unet *m, const struct plan *plan) {
    int last = m->levels - 1;
    return (struct unet_block_shape){.way = UNET_MID,
                                     .level = last,
                                     .resnets = plan->mid == MID_ATTENDS ? 2 : 1,
                                     .in = {plan->channels[last], plan->channels[last]},
                                     .out = plan->channels[last],
                                     .transformers = plan->mid == MID_ATTENDS ? 1 : 0,
                                     .layers = (int)plan->mid_layers,
                                     .heads = plan->heads[last]};
}

/* Resnet i of a level on the way up, of one more than on the way down. Into it go the map and a
 * skip; the level's last skip is what entered it on the way down. */
static struct unet_block_shape up_shape(const struct unet *m, const struct plan *plan, int level, int i) {
    int64_t last = plan->resnets[level], index = m->levels - 1 - level;
    int64_t map = plan->channels[i == 0 && index > 0 ? level + 1 : level],
            skip = plan->channels[i == last && level > 0 ? level - 1 : level];
    return (struct unet_block_shape){.way = UNET_UP,
                                     .level = level,
                                     .first = i,
                                     .resnets = 1,
                                     .in = {map + skip},
                                     .out = plan->channels[level],
                                     .transformers = plan->up_attends[index] ? 1 : 0,
                                     .layers = (int)plan->up_layers[index][i],
                                     .skip_is_map = plan->mid == MID_NONE && index == 0 && i == 0,
                                     .heads = plan->heads[level],
                                     .resample = i == last && level > 0 ? "upsamplers" : NULL};
}

/* The blocks that a resnet with its transformer is cut into, one a layer, from blocks[at] on; NULL:
 * they are only counted. */
static int add_pieces(struct unet_block *blocks, int at, struct unet_block_shape shape) {
    int pieces = shape.transformers > 0 ? shape.layers : 1;
    for (int i = 0; i < pieces && blocks != NULL; i++) {
        shape.first_layer = i;
        shape.layers = 1;
        shape.opens = i == 0;
        shape.closes = i == pieces - 1;
        blocks[at + i].shape = shape;
    }
    return at + pieces;
}

/* All blocks, in their order; returns how many. */
static int list_shapes(const struct unet *m, const struct plan *plan, struct unet_block *blocks) {
    int count = 0;
    for (int level = 0; level < m->levels; level++)
        for (int i = 0; i < plan->resnets[level]; i++) count = add_pieces(blocks, count, down_shape(m, plan, level, i));
    if (plan->mid != MID_NONE) count = add_pieces(blocks, count, mid_shape(m, plan));
    for (int level = m->levels - 1; level >= 0; level--)
        for (int i = 0; i <= plan->resnets[level]; i++) count = add_pieces(blocks, count, up_shape(m, plan, level, i));
    return count;
}

/* The prefix of a block's level in the weights, without the last dot. */
static void level_name(const struct unet *m, const struct unet_block_shape *shape, char *name, size_t capacity) {
    if (shape->way == UNET_DOWN)
        snprintf(name, capacity, "down_blocks.%d", shape->level);
    else if (shape->way == UNET_MID)
        snprintf(name, capacity, "mid_block");
    else
        snprintf(name, capacity, "up_blocks.%d", m->levels - 1 - shape->level);
}

static void load_embed(struct denoiser *base, struct loader *loader) {
    struct unet *m = (struct unet *)base;
    int64_t time = m->settings.time_channels;
    load_set_prefix(loader, "%s", "");
    m->conv_in = load_conv_outputs(loader, base->in_channels, m->channels, 1, m->conv_in_kernel, "conv_in");
    m->time_1 = load_linear_outputs(loader, m->channels, time, 1, true, "time_embedding.linear_1");
    m->time_2 = load_linear_inputs(loader, time, 1, time, true, "time_embedding.linear_2");
    if (!m->text_time) return;
    int64_t width = base->pooled_channels + SIZE_NUMBERS * m->size_channels;
    m->add_1 = load_linear_outputs(loader, width, time, 1, true, "add_embedding.linear_1");
    m->add_2 = load_linear_inputs(loader, time, 1, time, true, "add_embedding.linear_2");
}

static void load_block(struct denoiser *base, int index, struct loader *loader) {
    struct unet *m = (struct unet *)base;
    struct unet_block_shape shape = m->blocks[index].shape;
    char name[64];
    level_name(m, &shape, name, sizeof name);
    load_set_prefix(loader, "%s.", name);
    m->blocks[index] = unet_block_load(loader, &m->settings, &shape);
}

static void load_finish(struct denoiser *base, struct loader *loader) {
    struct unet *m = (struct unet *)base;
    int64_t groups = m->settings.groups, width = m->channels / groups;
    load_set_prefix(loader, "%s", "");
    m->norm_out = load_norm_slice(loader, NORM_LAYER, groups, width, m->settings.norm_eps, true, "conv_norm_out");
    m->conv_out = load_conv_inputs(loader, groups, width, base->out_channels, m->conv_out_kernel, "conv_out");
}

static struct denoiser *open(const struct json *config, struct loader *loader) {
    struct plan plan = {0};
    struct unet *m = load_alloc(loader, sizeof *m);
    if (load_failed(loader)) return NULL;
    m->base.class = &unet_2d_condition_class;
    if (read_config(config, m, &plan, &loader->error) != TESSERA_OK) return NULL;
    m->base.num_blocks = list_shapes(m, &plan, NULL);
    m->blocks = load_alloc(loader, (size_t)m->base.num_blocks * sizeof *m->blocks);
    if (load_failed(loader)) return NULL;
    list_shapes(m, &plan, m->blocks);
    load_units(loader, m->settings.time_channels); /* enough for all ranks? */
    m->out_groups = (int)load_units(loader, m->settings.groups);
    m->conv_in_kernel = (int)plan.conv_in_kernel;
    m->conv_out_kernel = (int)plan.conv_out_kernel;
    m->reach = plan.conv_out_kernel / 2;
    return load_failed(loader) ? NULL : &m->base;
}

/* ---- embed ---- */

static tessera_status check_inputs(const struct unet *m, const struct denoiser_inputs *in, tessera_error *error) {
    TRY(denoiser_check_latents(&m->base, &in->latents, error));
    int64_t batch = in->latents.shape[0];
    TRY(denoiser_check_shape(&m->base, "text", &in->text, SHAPE(batch, -1, m->base.text_channels), error));
    if (!m->text_time) return TESSERA_OK;
    TRY(denoiser_check_shape(&m->base, "pooled text", &in->pooled, SHAPE(batch, m->base.pooled_channels), error));
    return denoiser_check_shape(&m->base, "size conditions (time_ids)", &in->size_conditions, SHAPE(batch, SIZE_NUMBERS), error);
}

/* diffusers' get_timestep_embedding with the config's order and shift: F32 [count, channels]. */
static struct tensor sinusoids(const struct unet *m, struct run *run, const float *values, int64_t count, int64_t channels) {
    struct tensor out = run_tensor(run, DTYPE_F32, SHAPE(count, channels));
    float *host = run_map(run, &out, MAP_WRITE);
    if (host == NULL) return (struct tensor){0};
    const struct elementary *f = elementary_of(run->backend->reproducible);
    int64_t half = channels / 2, cosines = m->flip_sin_to_cos ? 0 : half, sines = half - cosines;
    for (int64_t i = 0; i < count; i++) {
        float *row = host + i * channels;
        row[channels - 1] = 0.0f; /* stays where channels are odd */
        for (int64_t c = 0; c < half; c++) {
            float angle = values[i] * f->expf(-f->logf(10000.0f) * (float)c / ((float)half - (float)m->freq_shift));
            row[cosines + c] = f->cosf(angle);
            row[sines + c] = f->sinf(angle);
        }
    }
    run_unmap(run, &out, host, MAP_WRITE);
    return out;
}

/* second(silu(first(x))), F32. */
static struct tensor mlp(struct run *run, const struct linear *first, const struct linear *second, struct tensor x) {
    struct tensor y = nn_linear(run, first, nn_cast(run, x, run->dtype), ACTIVATION_SILU);
    return nn_cast(run, nn_linear_sum(run, second, y), DTYPE_F32);
}

static struct tensor embed_cond(const struct unet *m, struct run *run, const struct denoiser_inputs *in) {
    size_t scope = run_enter(run);
    int64_t batch = in->latents.shape[0];
    struct tensor cond = mlp(run, &m->time_1, &m->time_2, sinusoids(m, run, in->timesteps, batch, m->channels));
    if (m->text_time) {
        float *given = run_map(run, &in->size_conditions, MAP_READ);
        struct tensor sizes = sinusoids(m, run, given, batch * SIZE_NUMBERS, m->size_channels);
        run_unmap(run, &in->size_conditions, given, MAP_READ);
        sizes = nn_reshape(sizes, SHAPE(batch, SIZE_NUMBERS * m->size_channels));
        cond = nn_add(run, cond, mlp(run, &m->add_1, &m->add_2, nn_concat_channels(run, in->pooled, sizes)));
    }
    return run_leave(run, scope, cond);
}

/* Are the rows of each rank as many as the rows that the last convolution asks of a neighbour? */
static tessera_status check_cut(const struct unet *m, const struct cut *cut, tessera_error *error) {
    for (int i = 0; cut != NULL && i < cut->members; i++) {
        int64_t rows = cut_count(cut, i) / cut->columns;
        if (rows < m->reach)
            return error_set(
                error, TESSERA_ERROR_ARGUMENT,
                "%s: cut over %d ranks, a rank has %lld rows of the latents, but convolutions reach over %lld: use fewer ranks",
                m->base.class->name, cut->members, (long long)rows, (long long)m->reach);
    }
    return TESSERA_OK;
}

/* conv_in of this rank's rows of the latents, which every rank holds whole. */
static struct tensor embed_picture(const struct unet *m, struct run *run, struct tensor latents, const struct cut *cut) {
    if (run_failed(run) || check_cut(m, cut, &run->error) != TESSERA_OK) return (struct tensor){0};
    size_t scope = run_enter(run);
    int64_t columns = latents.shape[2];
    struct span mine = cut_mine(cut, latents.shape[1] * columns);
    struct tensor x = nn_cast(run, latents, run->dtype);
    x = nn_conv_of_whole(run, &m->conv_in, x, mine.first / columns, mine.count / columns);
    return run_leave(run, scope, exchange_join(run, x, m->channels));
}

static struct denoiser_state embed(const struct denoiser *base, struct run *run, const struct denoiser_inputs *in, unsigned carries) {
    const struct unet *m = (const struct unet *)base;
    struct denoiser_state state = {0};
    if (run_failed(run) || check_inputs(m, in, &run->error) != TESSERA_OK) return state;
    size_t scope = run_enter(run);
    state.rows = in->latents.shape[1];
    state.columns = in->latents.shape[2];
    if (carries & DENOISER_CARRIES_TEXT) state.text = run_leave(run, scope, nn_cast(run, in->text, run->dtype));
    state.cond = embed_cond(m, run, in);
    state.cut = exchange_cut_rows(run, state.rows, state.columns, m->base.row_unit, m->levels);
    if (carries & DENOISER_CARRIES_PICTURE) state.picture = embed_picture(m, run, in->latents, state.cut);
    return state;
}

/* ---- blocks ---- */

static void push(struct denoiser_state *state, struct tensor x) {
    assert(state->num_skips < DENOISER_MAX_SKIPS);
    state->skips[state->num_skips++] = x;
}

static struct tensor pop(struct denoiser_state *state) {
    assert(state->num_skips > 0);
    struct tensor top = state->skips[--state->num_skips];
    state->skips[state->num_skips] = (struct tensor){0};
    return top;
}

/* A resnet, and what this block has of its transformer: from x, the input of the resnet, or in
 * later pieces of the transformer. */
static struct tensor run_piece(struct run *run, const struct unet_block *b, struct denoiser_state *state, struct tensor x,
                               struct tensor emb) {
    const struct unet_block_shape *shape = &b->shape;
    size_t all = run_enter(run);
    if (shape->opens) x = run_leave(run, all, unet_resnet_run(run, b, 0, x, emb));
    if (shape->transformers == 0) return x;
    struct tensor input = shape->opens ? x : shape->closes ? pop(state) : (struct tensor){0};
    if (shape->opens && !shape->closes) push(state, input);
    size_t scope = run_enter(run); /* above the input */
    struct tensor h = shape->opens ? unet_transformer_open(run, b, x) : x;
    h = run_leave(run, scope, unet_transformer_layers(run, b, h, state->text, cut_at_level(state->cut, shape->level)));
    return shape->closes ? run_leave(run, all, unet_transformer_close(run, b, h, input)) : h;
}

static struct tensor run_down(struct run *run, const struct unet_block *b, struct denoiser_state *state, struct tensor emb) {
    if (b->shape.opens) push(state, state->picture);
    struct tensor x = run_piece(run, b, state, state->picture, emb);
    if (b->shape.resample == NULL || !b->shape.closes) return x;
    push(state, x);
    return unet_halve(run, b, x);
}

static struct tensor run_mid(struct run *run, const struct unet_block *b, struct denoiser_state *state, struct tensor emb) {
    if (b->shape.opens) push(state, state->picture);
    struct tensor x = run_piece(run, b, state, state->picture, emb);
    return b->shape.closes && b->shape.resnets > 1 ? unet_resnet_run(run, b, 1, x, emb) : x;
}

static struct tensor run_up(struct run *run, const struct unet_block *b, struct denoiser_state *state, struct tensor emb) {
    int next = b->shape.level - 1;
    size_t scope = run_enter(run);
    struct tensor x = state->picture;
    if (b->shape.opens) x = nn_concat_channels(run, x, b->shape.skip_is_map ? x : pop(state));
    x = run_piece(run, b, state, x, emb);
    if (b->shape.resample == NULL || !b->shape.closes) return x;
    return unet_double(run, b, run_leave(run, scope, x), denoiser_state_rows(state, next), denoiser_state_columns(state, next));
}

static struct denoiser_state block(const struct denoiser *base, struct run *run, int index, struct denoiser_state state) {
    const struct unet *m = (const struct unet *)base;
    const struct unet_block *b = &m->blocks[index];
    if (run_failed(run)) return (struct denoiser_state){0};
    size_t scope = run_enter(run);
    struct tensor emb = nn_cast(run, nn_activate(run, state.cond, ACTIVATION_SILU), run->dtype);
    state.picture = b->shape.way == UNET_DOWN  ? run_down(run, b, &state, emb)
                    : b->shape.way == UNET_MID ? run_mid(run, b, &state, emb)
                                               : run_up(run, b, &state, emb);
    struct tensor *kept[1 + DENOISER_MAX_SKIPS] = {&state.picture};
    for (int i = 0; i < state.num_skips; i++) kept[1 + i] = &state.skips[i];
    run_leave_all(run, scope, kept, 1 + state.num_skips);
    return state;
}

static struct tensor finish(const struct denoiser *base, struct run *run, struct denoiser_state state) {
    const struct unet *m = (const struct unet *)base;
    if (run_failed(run)) return (struct tensor){0};
    size_t scope = run_enter(run);
    struct tensor x = nn_group_norm(run, &m->norm_out, m->out_groups, nn_conv_inputs(run, &m->conv_out, state.picture), ACTIVATION_SILU);
    x = nn_conv_sum(run, &m->conv_out, x, NULL);
    if (run_failed(run)) return x;
    int64_t batch = x.shape[0], channels = x.shape[3];
    x = exchange_gather(run, tensor_reshape(x, SHAPE(batch, x.shape[1] * x.shape[2], channels)), state.cut);
    x = nn_reshape(x, SHAPE(batch, state.rows, state.columns, channels));
    return run_leave(run, scope, nn_cast(run, x, DTYPE_F32));
}

/* ---- description ---- */

/* What meets before the first block and behind the last one. */
static void list_end_meetings(const struct unet *m, int index, struct meeting_list *list) {
    int64_t groups = m->settings.groups, width = m->channels / groups, time = m->settings.time_channels;
    int reach = (int)(m->conv_out.weight.shape[1] / 2);
    struct meeting picture = {.kind = MEETING_JOIN, .count = 1, .of = MEETING_PICTURE, .units = m->channels, .width = 1};
    struct meeting norm = {.kind = MEETING_NORM, .count = 1, .is_sliced = true, .units = groups, .width = width}, halo = norm;
    if (index == 0) {
        meeting_add(list, picture);
        meeting_add(list,
                    (struct meeting){.kind = MEETING_SUM, .count = m->text_time ? 2 : 1, .of = MEETING_ONCE, .units = time, .width = 1});
    }
    if (index < m->base.num_blocks - 1) return;
    halo.kind = MEETING_HALO, halo.above = halo.below = reach;
    picture.kind = MEETING_SUM, picture.units = m->base.out_channels;
    meeting_add(list, norm);
    meeting_add(list, halo);
    meeting_add(list, picture);
}

/* What a block leaves on the stack: what enters a resnet but on the way up, a transformer's input
 * for a later piece of it, what is halved. */
static void list_pushes(const struct unet *m, int index, struct denoiser_block_info *info) {
    const struct unet_block_shape *shape = &m->blocks[index].shape;
    struct denoiser_map inside = {shape->level, shape->out}, in = {shape->level, shape->in[0]};
    if (shape->opens && shape->way != UNET_UP) info->pushed[info->pushes++] = in;
    if (shape->opens && !shape->closes) info->pushed[info->pushes++] = inside;
    if (shape->closes && shape->way == UNET_DOWN && shape->resample != NULL) info->pushed[info->pushes++] = inside;
}

/* A token is a position of the latents; a level sees a quarter of the positions of the level before. */
static void describe(const struct denoiser *base, int index, struct denoiser_block_info *info) {
    const struct unet *m = (const struct unet *)base;
    const struct unet_block *b = &m->blocks[index];
    bool down = b->shape.way == UNET_DOWN, resizes = b->shape.resample != NULL && b->shape.closes;
    int level = b->shape.level;
    double share = pow(0.25, level), resized = share * (down ? 0.25 : 4.0);
    struct unet_block_size size = unet_block_measure(b);
    *info = (struct denoiser_block_info){
        .parameters = size.parameters,
        .operations_per_picture_token = 2.0 * ((double)size.per_position * share + (double)size.per_resized_position * resized),
        .operations_per_text_token = 2.0 * (double)size.per_text_token,
        .operations_per_token_pair = 4.0 * (double)(b->shape.out * b->shape.transformers * b->shape.layers) * share * share,
        .carries = DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_TEXT | DENOISER_CARRIES_COND,
        .out = {!resizes ? level
                : down   ? level + 1
                         : level - 1,
                b->shape.out},
        .pops = (b->shape.opens && b->shape.way == UNET_UP && !b->shape.skip_is_map) + (b->shape.closes && !b->shape.opens),
    };
    list_pushes(m, index, info);
    unet_block_meetings(b, level, down ? level + 1 : level - 1, &info->meetings);
    list_end_meetings(m, index, &info->meetings);
    level_name(m, &b->shape, info->name, sizeof info->name);
    size_t used = strlen(info->name);
    if (!b->shape.opens)
        snprintf(info->name + used, sizeof info->name - used, ".attentions.%d.transformer_blocks.%d", b->shape.first, b->shape.first_layer);
    else if (b->shape.way != UNET_MID)
        snprintf(info->name + used, sizeof info->name - used, ".resnets.%d", b->shape.first);
}

const struct denoiser_class unet_2d_condition_class = {
    .name = "UNet2DConditionModel",
    .open = open,
    .load_embed = load_embed,
    .load_block = load_block,
    .load_finish = load_finish,
    .embed = embed,
    .block = block,
    .finish = finish,
    .describe = describe,
};
