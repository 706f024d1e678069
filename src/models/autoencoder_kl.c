/* AutoencoderKL: resnets between convolutions, with one attention in the middle (Rombach et al.
 * 2022, appendix; diffusers' layout).
 *
 *     encoder   conv_in -> [resnets, halve]* -> resnet, attention, resnet -> norm, silu, conv_out -> quant_conv -> moments
 *     decoder   post_quant_conv -> conv_in -> resnet, attention, resnet -> [resnets, double]* -> norm, silu, conv_out -> picture
 *
 * A layer takes the arena's mark from before its input and leaves only its output above it, so a
 * map is gone as soon as it has been used. A resnet writes its second convolution over its first
 * one's output: input and one map of the output's width, no more.
 *
 * Over ranks, one cut of the latent's rows serves every level: this rank's rows of a map are those
 * of its latent rows, times the level's scale. Stages fetch their neighbours' rows, norms merge
 * their statistics, the attention's keys and values go round. Left out: other block types, spatial
 * norms, latents_mean and latents_std. */
#include "models/autoencoder_kl.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/memory.h"
#include "models/autoencoder_stage.h"

enum { MAX_BLOCKS = 8, MAX_RESNETS = 8 };

static const float norm_eps = 1e-6f; /* diffusers' resnet_eps and group norm of Encoder and Decoder */

struct resnet {
    struct norm norm1, norm2;
    struct conv conv1, conv2, shortcut;
};
struct middle {
    struct resnet resnets[2];
    struct norm norm;
    struct linear q, k, v, out;
    bool attention;
};
struct block {
    struct resnet resnets[MAX_RESNETS];
    int count;
    struct conv resample;
    bool resamples;
};
struct half {
    struct conv conv_in, conv_out, quant;
    struct norm norm_out;
    struct block blocks[MAX_BLOCKS];
    struct middle middle;
    bool has_quant;
};

/* What the config says of the layers. */
struct sizes {
    int64_t channels[MAX_BLOCKS], resnets, latent, groups;
    int blocks;
    bool quant, post_quant, attention;
};

struct autoencoder_kl {
    struct autoencoder base;
    struct sizes sizes;
    int blocks, groups;
    int64_t sample_size;
    struct half encoder, decoder;
};

/* ---- Loading ---- */

static bool config_failed(struct loader *loader, tessera_status status) {
    if (status != TESSERA_OK && !load_failed(loader)) loader->error.status = status;
    return load_failed(loader);
}

static tessera_status check_channels(const struct json *json, const struct sizes *l, tessera_error *error) {
    if (l->blocks < 1) return error_set(error, TESSERA_ERROR_FORMAT, "%s: field block_out_channels is missing or empty", json_path(json));
    for (int i = 0; i < l->blocks; i++) {
        if (l->channels[i] % l->groups != 0) {
            return error_set(error, TESSERA_ERROR_FORMAT, "%s: field block_out_channels: %lld is no multiple of norm_num_groups %lld",
                             json_path(json), (long long)l->channels[i], (long long)l->groups);
        }
    }
    return TESSERA_OK;
}

/* Resnets have SiLU (swish by another name); diffusers can build others, which no published model
 * has. */
static tessera_status check_activation(const struct json *json, tessera_error *error) {
    const char *name;
    TRY(json_string(json, "act_fn", "silu", &name, error));
    if (strcmp(name, "silu") == 0 || strcmp(name, "swish") == 0) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: field act_fn is \"%.60s\"; only silu is supported", json_path(json), name);
}

static tessera_status read_sizes(const struct json *json, struct sizes *l, struct autoencoder_kl *vae, tessera_error *error) {
    int64_t in, out;
    double scaling, shift;
    TRY(json_ints(json, "block_out_channels", 1, 1 << 16, l->channels, MAX_BLOCKS, &l->blocks, error));
    TRY(json_int(json, "layers_per_block", 1, 1, MAX_RESNETS - 1, &l->resnets, error));
    TRY(json_int(json, "latent_channels", 4, 1, 4096, &l->latent, error));
    TRY(json_int(json, "norm_num_groups", 32, 1, 1 << 16, &l->groups, error));
    TRY(json_int(json, "in_channels", 3, 1, 4096, &in, error));
    TRY(json_int(json, "out_channels", 3, 1, 4096, &out, error));
    TRY(json_int(json, "sample_size", 32, 1, 1 << 16, &vae->sample_size, error));
    TRY(json_bool(json, "use_quant_conv", true, &l->quant, error));
    TRY(json_bool(json, "use_post_quant_conv", true, &l->post_quant, error));
    TRY(json_bool(json, "mid_block_add_attention", true, &l->attention, error));
    TRY(check_activation(json, error));
    if (json_find(json, "latents_mean") != NULL || json_find(json, "latents_std") != NULL)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                         "%s: field latents_mean or latents_std is set; only scaling_factor and shift_factor are supported",
                         json_path(json));
    TRY(json_double(json, "scaling_factor", 0.18215, &scaling, error));
    TRY(json_double(json, "shift_factor", 0.0, &shift, error));
    if (in != 3 || out != 3)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: fields in_channels and out_channels must be 3", json_path(json));
    if (!(isfinite(scaling) && scaling != 0.0 && isfinite(shift))) {
        return error_set(error, TESSERA_ERROR_FORMAT,
                         "%s: field scaling_factor is %g and shift_factor %g; give finite ones, the first not 0", json_path(json), scaling,
                         shift);
    }
    TRY(check_channels(json, l, error));
    vae->base.scaling_factor = (float)scaling;
    vae->base.shift_factor = (float)shift;
    return TESSERA_OK;
}

/* Every block must be of the one type that is built. */
static tessera_status check_types(const struct json *json, const char *field, const char *wanted, int count, tessera_error *error) {
    const struct cJSON *list = json_find(json, field);
    if (list == NULL)
        return count == 1 ? TESSERA_OK : error_set(error, TESSERA_ERROR_FORMAT, "%s: field %s is missing", json_path(json), field);
    for (int i = 0; i < count; i++) {
        const char *type = cJSON_GetStringValue(cJSON_GetArrayItem(list, i));
        if (type == NULL)
            return error_set(error, TESSERA_ERROR_FORMAT, "%s: field %s must list %d block types", json_path(json), field, count);
        if (strcmp(type, wanted) != 0) {
            return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: field %s: block type \"%s\" is not supported, only %s is",
                             json_path(json), field, type, wanted);
        }
    }
    return TESSERA_OK;
}

static struct resnet load_resnet(struct loader *loader, int64_t in, int64_t out, const char *name) {
    struct resnet r = {0};
    r.norm1 = load_norm(loader, NORM_LAYER, in, norm_eps, true, "%s.norm1", name);
    r.conv1 = load_conv(loader, in, out, 3, "%s.conv1", name);
    r.norm2 = load_norm(loader, NORM_LAYER, out, norm_eps, true, "%s.norm2", name);
    r.conv2 = load_conv(loader, out, out, 3, "%s.conv2", name);
    if (in != out) r.shortcut = load_conv(loader, in, out, 1, "%s.conv_shortcut", name);
    return r;
}

/* A projection of the attention under its new or its old name. */
static struct linear load_projection(struct loader *loader, int64_t channels, const char *half, const char *name, const char *old_name) {
    char base[128];
    snprintf(base, sizeof base, "%s.mid_block.attentions.0.%s", half,
             load_has(loader, "%s.mid_block.attentions.0.%s.weight", half, name) ? name : old_name);
    return load_linear(loader, channels, channels, true, "%s", base);
}

static struct middle load_middle(struct loader *loader, const struct sizes *l, const char *half) {
    struct middle m = {.attention = l->attention};
    int64_t channels = l->channels[l->blocks - 1];
    char name[96];
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "%s.mid_block.resnets.%d", half, i);
        m.resnets[i] = load_resnet(loader, channels, channels, name);
    }
    if (!l->attention) return m;
    m.norm = load_norm(loader, NORM_LAYER, channels, norm_eps, true, "%s.mid_block.attentions.0.group_norm", half);
    m.q = load_projection(loader, channels, half, "to_q", "query");
    m.k = load_projection(loader, channels, half, "to_k", "key");
    m.v = load_projection(loader, channels, half, "to_v", "value");
    m.out = load_projection(loader, channels, half, "to_out.0", "proj_attn");
    return m;
}

/* `side` is "encoder.down" or "decoder.up". */
static struct block load_block(struct loader *loader, int64_t in, int64_t out, int index, int resnets, bool resamples, const char *side) {
    struct block b = {.count = resnets, .resamples = resamples};
    char name[96];
    for (int i = 0; i < resnets; i++) {
        snprintf(name, sizeof name, "%s_blocks.%d.resnets.%d", side, index, i);
        b.resnets[i] = load_resnet(loader, i == 0 ? in : out, out, name);
    }
    if (resamples) b.resample = load_conv(loader, out, out, 3, "%s_blocks.%d.%ssamplers.0.conv", side, index, strrchr(side, '.') + 1);
    return b;
}

static void load_encoder(struct loader *loader, const struct sizes *l, struct half *e) {
    int last = l->blocks - 1;
    e->conv_in = load_conv(loader, 3, l->channels[0], 3, "encoder.conv_in");
    for (int i = 0; i <= last; i++) {
        e->blocks[i] = load_block(loader, l->channels[i > 0 ? i - 1 : 0], l->channels[i], i, (int)l->resnets, i < last, "encoder.down");
    }
    e->middle = load_middle(loader, l, "encoder");
    e->norm_out = load_norm(loader, NORM_LAYER, l->channels[last], norm_eps, true, "encoder.conv_norm_out");
    e->conv_out = load_conv(loader, l->channels[last], 2 * l->latent, 3, "encoder.conv_out");
    e->has_quant = l->quant;
    if (l->quant) e->quant = load_conv(loader, 2 * l->latent, 2 * l->latent, 1, "quant_conv");
}

static void load_decoder(struct loader *loader, const struct sizes *l, struct half *d) {
    int last = l->blocks - 1;
    d->has_quant = l->post_quant;
    if (l->post_quant) d->quant = load_conv(loader, l->latent, l->latent, 1, "post_quant_conv");
    d->conv_in = load_conv(loader, l->latent, l->channels[last], 3, "decoder.conv_in");
    d->middle = load_middle(loader, l, "decoder");
    for (int i = 0; i <= last; i++) {
        d->blocks[i] = load_block(loader, l->channels[i > 0 ? last - i + 1 : last], l->channels[last - i], i, (int)l->resnets + 1, i < last,
                                  "decoder.up");
    }
    d->norm_out = load_norm(loader, NORM_LAYER, l->channels[0], norm_eps, true, "decoder.conv_norm_out");
    d->conv_out = load_conv(loader, l->channels[0], 3, 3, "decoder.conv_out");
}

static struct autoencoder *open(const struct json *config, struct loader *loader) {
    struct autoencoder_kl *vae = load_alloc(loader, sizeof *vae);
    if (vae == NULL) return NULL;
    struct sizes *l = &vae->sizes;
    if (config_failed(loader, read_sizes(config, l, vae, &loader->error))) return NULL;
    if (config_failed(loader, check_types(config, "down_block_types", "DownEncoderBlock2D", l->blocks, &loader->error))) return NULL;
    if (config_failed(loader, check_types(config, "up_block_types", "UpDecoderBlock2D", l->blocks, &loader->error))) return NULL;
    vae->blocks = l->blocks;
    vae->groups = (int)l->groups;
    vae->base.class = &autoencoder_kl_class;
    vae->base.latent_channels = l->latent;
    vae->base.scale = (int64_t)1 << (l->blocks - 1);
    vae->base.has_encoder = load_has(loader, "encoder.conv_in.weight");
    return &vae->base;
}

static void load_segment(struct autoencoder *base, enum autoencoder_segment segment, struct loader *loader) {
    struct autoencoder_kl *vae = (struct autoencoder_kl *)base;
    load_set_prefix(loader, "%s", "");
    if (segment == AUTOENCODER_DECODER)
        load_decoder(loader, &vae->sizes, &vae->decoder);
    else if (base->has_encoder)
        load_encoder(loader, &vae->sizes, &vae->encoder);
}

/* ---- Computing: `scope` is the arena's mark from before x; only the result stays above it. ---- */

static const struct conv2d_geometry same3 = {1, 1, 1, 1, 1};

static struct tensor convolve(struct run *run, size_t scope, const struct conv *conv, struct tensor x, struct conv2d_geometry g,
                              bool upsample) {
    struct autoencoder_stage stage = {.conv = conv, .geometry = g, .upsample = upsample};
    return run_leave(run, scope, autoencoder_stage_run(run, &stage, x));
}

static struct tensor resnet(struct run *run, size_t scope, const struct resnet *r, int groups, struct tensor x) {
    struct autoencoder_stage first = {.norm = &r->norm1, .groups = groups, .conv = &r->conv1, .geometry = same3};
    struct autoencoder_stage second = {
        .norm = &r->norm2, .groups = groups, .conv = &r->conv2, .geometry = same3, .residual = &x, .in_place = true};
    if (r->shortcut.weight.data != NULL) second.shortcut = &r->shortcut;
    struct tensor h = autoencoder_stage_run(run, &first, x);
    return run_leave(run, scope, autoencoder_stage_run(run, &second, h));
}

/* One head as wide as the map: [B, H, W, C] as B sequences of H * W tokens. */
static struct tensor attend(struct run *run, size_t scope, const struct middle *m, int groups, const struct cut *cut, struct tensor x) {
    size_t inside = run_enter(run);
    struct tensor h = nn_group_norm(run, &m->norm, groups, x, ACTIVATION_NONE);
    if (run_failed(run)) return h;
    int64_t tokens = x.shape[1] * x.shape[2], channels = x.shape[3];
    struct tensor q = nn_linear(run, &m->q, h, ACTIVATION_NONE), k = nn_linear(run, &m->k, h, ACTIVATION_NONE),
                  v = nn_linear(run, &m->v, h, ACTIVATION_NONE);
    run_leave_all(run, inside, (struct tensor *[]){&q, &k, &v}, 3);
    q = nn_reshape(q, SHAPE(x.shape[0], tokens, 1, channels));
    k = nn_reshape(k, SHAPE(x.shape[0], tokens, 1, channels));
    v = nn_reshape(v, SHAPE(x.shape[0], tokens, 1, channels));
    struct attention_args args = {.q = &q, .k = &k, .v = &v, .scale = 1.0f / sqrtf((float)channels)};
    h = run_leave(run, inside, nn_joint_attention(run, args, cut, (struct text_span){0}));
    h = nn_linear(run, &m->out, nn_reshape(h, x.ndim, x.shape), ACTIVATION_NONE);
    return run_leave(run, scope, nn_add(run, x, h));
}

static struct tensor middle(struct run *run, size_t scope, const struct middle *m, int groups, const struct cut *cut, struct tensor x) {
    x = resnet(run, scope, &m->resnets[0], groups, x);
    if (m->attention) x = attend(run, scope, m, groups, cut, x);
    return resnet(run, scope, &m->resnets[1], groups, x);
}

static struct tensor finish(struct run *run, size_t scope, const struct half *half, int groups, struct tensor x) {
    struct autoencoder_stage stage = {.norm = &half->norm_out, .groups = groups, .conv = &half->conv_out, .geometry = same3};
    return run_leave(run, scope, autoencoder_stage_run(run, &stage, x));
}

/* The cut of a latent of rows x columns; NULL where the run is alone. */
static const struct cut *latent_cut(struct run *run, int64_t rows, int64_t columns) {
    return exchange_cut_rows(run, rows, columns, 1, 1);
}

/* This rank's latent rows. */
static struct span latent_rows(const struct cut *cut, int64_t rows) {
    if (cut == NULL) return (struct span){0, rows};
    return (struct span){cut_first(cut, cut->me) / cut->columns, cut_count(cut, cut->me) / cut->columns};
}

/* Pixel rows beyond the last whole latent row belong to the last rank, as they do to the last strip. */
static struct span pixel_rows(const struct autoencoder *base, const struct cut *cut, int64_t height) {
    struct span rows = latent_rows(cut, height / base->scale);
    bool last = cut == NULL || cut->me == cut->members - 1;
    int64_t first = rows.first * base->scale, end = last ? height : (rows.first + rows.count) * base->scale;
    return (struct span){first, end - first};
}

struct span autoencoder_kl_rows(const struct autoencoder *base, struct run *run, int64_t height, int64_t width) {
    const struct cut *cut = latent_cut(run, height / base->scale, width / base->scale);
    return run_failed(run) ? (struct span){0} : pixel_rows(base, cut, height);
}

/* Latent rows of all ranks' moments, log-variances clamped. */
static struct tensor gather_moments(const struct autoencoder *base, struct run *run, const struct cut *cut, struct tensor x) {
    if (run_failed(run)) return x;
    int64_t latent = base->latent_channels, positions = tensor_count(&x) / (2 * latent);
    float *moments = run_map(run, &x, MAP_READ | MAP_WRITE);
    for (int64_t p = 0; moments != NULL && p < positions; p++) {
        float *logvar = moments + p * 2 * latent + latent;
        for (int64_t c = 0; c < latent; c++) logvar[c] = fminf(fmaxf(logvar[c], -30.0f), 20.0f);
    }
    run_unmap(run, &x, moments, MAP_READ | MAP_WRITE);
    if (cut == NULL) return x;
    struct tensor all = exchange_gather(run, tensor_reshape(x, SHAPE(x.shape[0], positions / x.shape[0], 2 * latent)), cut);
    return nn_reshape(all, SHAPE(x.shape[0], cut->rows, cut->columns, 2 * latent));
}

struct tensor autoencoder_kl_encode(const struct autoencoder *base, struct run *run, struct tensor image) {
    const struct autoencoder_kl *vae = (const struct autoencoder_kl *)base;
    const struct half *e = &vae->encoder;
    const struct conv2d_geometry halve = {.stride = 2, .pad_bottom = 1, .pad_right = 1};
    if (!base->has_encoder)
        return run_checked(run, error_set(&run->error, TESSERA_ERROR_UNSUPPORTED, "this autoencoder's file holds no encoder"), image);
    if (run_failed(run)) return (struct tensor){0};
    size_t scope = run_enter(run);
    int64_t height = exchange_total(run, image.shape[1]);
    const struct cut *cut = latent_cut(run, height / base->scale, image.shape[2] / base->scale);
    if (run_failed(run)) return (struct tensor){0};
    assert(image.shape[1] == pixel_rows(base, cut, height).count);
    struct tensor x = convolve(run, scope, &e->conv_in, nn_cast(run, run_upload(run, image), run->dtype), same3, false);
    for (int i = 0; i < vae->blocks; i++) {
        for (int r = 0; r < e->blocks[i].count; r++) x = resnet(run, scope, &e->blocks[i].resnets[r], vae->groups, x);
        if (e->blocks[i].resamples) x = convolve(run, scope, &e->blocks[i].resample, x, halve, false);
    }
    x = middle(run, scope, &e->middle, vae->groups, cut, x);
    x = finish(run, scope, e, vae->groups, x);
    if (e->has_quant) x = convolve(run, scope, &e->quant, x, (struct conv2d_geometry){.stride = 1}, false);
    x = run_leave(run, scope, nn_cast(run, x, DTYPE_F32));
    return run_leave(run, scope, gather_moments(base, run, cut, x));
}

/* This rank's rows of z [B, h, w, C]. */
static struct tensor my_latents(struct run *run, const struct cut *cut, struct tensor z) {
    if (cut == NULL) return z;
    int64_t first = cut_first(cut, cut->me), count = cut_count(cut, cut->me);
    struct tensor mine = nn_slice_rows(run, tensor_reshape(z, SHAPE(z.shape[0], z.shape[1] * z.shape[2], z.shape[3])), first, count);
    return nn_reshape(mine, SHAPE(z.shape[0], count / cut->columns, cut->columns, z.shape[3]));
}

struct tensor autoencoder_kl_decode(const struct autoencoder *base, struct run *run, struct tensor z) {
    const struct autoencoder_kl *vae = (const struct autoencoder_kl *)base;
    const struct half *d = &vae->decoder;
    if (run_failed(run)) return (struct tensor){0};
    size_t scope = run_enter(run);
    const struct cut *cut = latent_cut(run, z.shape[1], z.shape[2]);
    if (run_failed(run)) return (struct tensor){0};
    struct tensor x = nn_cast(run, my_latents(run, cut, run_upload(run, z)), run->dtype);
    if (d->has_quant) x = convolve(run, scope, &d->quant, x, (struct conv2d_geometry){.stride = 1}, false);
    x = convolve(run, scope, &d->conv_in, x, same3, false);
    x = middle(run, scope, &d->middle, vae->groups, cut, x);
    for (int i = 0; i < vae->blocks; i++) {
        for (int r = 0; r < d->blocks[i].count; r++) x = resnet(run, scope, &d->blocks[i].resnets[r], vae->groups, x);
        if (d->blocks[i].resamples) x = convolve(run, scope, &d->blocks[i].resample, x, same3, true);
    }
    x = finish(run, scope, d, vae->groups, x);
    return run_leave(run, scope, nn_cast(run, x, DTYPE_F32));
}

/* ---- Tiles ---- */

/* A decoded tile [1, rows, columns, 3] and the host's view of it: tiles are blended where pixels
 * are wanted, and a row of tiles at a time is all that waits. */
struct tile {
    struct tensor picture;
    float *pixels;
};

/* The first `extent` rows of b become a mixture of a's last and b's own: diffusers' blend_v and, by
 * columns, blend_h. */
static void blend(const struct tile *a, const struct tile *b, bool columns, int64_t extent) {
    const int64_t *a_shape = a->picture.shape, *b_shape = b->picture.shape;
    int axis = columns ? 2 : 1;
    if (extent > a_shape[axis]) extent = a_shape[axis];
    if (extent > b_shape[axis]) extent = b_shape[axis];
    int64_t lines = columns ? b_shape[1] : extent, width = columns ? extent : b_shape[2];
    for (int64_t y = 0; y < lines; y++) {
        for (int64_t x = 0; x < width; x++) {
            int64_t from_y = columns ? y : a_shape[1] - extent + y, from_x = columns ? a_shape[2] - extent + x : x;
            float share = (float)(columns ? x : y) / (float)extent;
            const float *from = a->pixels + (from_y * a_shape[2] + from_x) * 3;
            float *to = b->pixels + (y * b_shape[2] + x) * 3;
            for (int c = 0; c < 3; c++) to[c] = from[c] * (1.0f - share) + to[c] * share;
        }
    }
}

/* Decodes latent rows top .. and columns left .. of picture b, at most `side` of each. */
static struct tile decode_tile(const struct autoencoder *base, struct run *run, struct tensor z, int64_t b, int64_t top, int64_t left,
                               int64_t side) {
    int64_t rows = z.shape[1] - top < side ? z.shape[1] - top : side, columns = z.shape[2] - left < side ? z.shape[2] - left : side;
    size_t scope = run_enter(run), pixel = (size_t)z.shape[3] * sizeof(float), row = (size_t)columns * pixel;
    struct tensor latents = run_tensor(run, DTYPE_F32, SHAPE(1, rows, columns, z.shape[3]));
    for (int64_t r = 0; r < rows && !run_failed(run); r++) {
        const char *from = (const char *)z.data + (size_t)((b * z.shape[1] + top + r) * z.shape[2] + left) * pixel;
        backend_copy_bytes(run->backend, (char *)latents.data + (size_t)r * row, from, row);
    }
    struct tile tile = {.picture = run_leave(run, scope, autoencoder_kl_decode(base, run, latents))};
    tile.pixels = run_map(run, &tile.picture, MAP_READ);
    return tile;
}

static void close_tiles(struct run *run, struct tile *tiles, int64_t count) {
    for (int64_t j = 0; j < count; j++) run_unmap(run, &tiles[j].picture, tiles[j].pixels, MAP_READ);
    memset(tiles, 0, (size_t)count * sizeof *tiles);
}

/* Rows and columns of a tile below `limit` go to (top, left) of the picture at `to`, `width` wide. */
static void place_tile(float *to, int64_t width, const struct tile *tile, int64_t top, int64_t left, int64_t limit) {
    const int64_t *shape = tile->picture.shape;
    int64_t rows = shape[1] < limit ? shape[1] : limit, columns = shape[2] < limit ? shape[2] : limit;
    for (int64_t r = 0; r < rows; r++)
        memcpy(to + ((top + r) * width + left) * 3, tile->pixels + r * shape[2] * 3, (size_t)(columns * 3) * sizeof *to);
}

/* One row of tiles; `above` is the one above it, or NULL. */
static void decode_row(const struct autoencoder *base, struct run *run, struct tensor z, int64_t b, int64_t i, int64_t side,
                       struct tile *tiles, const struct tile *above, float *pixels) {
    int64_t step = side * 3 / 4, extent = side * base->scale / 4, limit = side * base->scale - extent;
    for (int64_t j = 0; j * step < z.shape[2]; j++) {
        tiles[j] = decode_tile(base, run, z, b, i * step, j * step, side);
        if (run_failed(run)) return;
        if (above != NULL) blend(&above[j], &tiles[j], false, extent);
        if (j > 0) blend(&tiles[j - 1], &tiles[j], true, extent);
        place_tile(pixels, z.shape[2] * base->scale, &tiles[j], i * limit, j * limit, limit);
    }
}

/* Picture b into `pixels`; all its decoded tiles are held, beside the picture. */
static void decode_tiles(const struct autoencoder *base, struct run *run, struct tensor z, float *pixels, int64_t b, int64_t side) {
    int64_t step = side * 3 / 4, across = (z.shape[2] + step - 1) / step, down = (z.shape[1] + step - 1) / step;
    struct tile *tiles = calloc((size_t)(across * down), sizeof *tiles);
    size_t scope = run_enter(run);
    if (tiles == NULL) {
        error_set(&run->error, TESSERA_ERROR_MEMORY, "no memory for %lld tiles", (long long)(across * down));
        return;
    }
    for (int64_t i = 0; i < down && !run_failed(run); i++)
        decode_row(base, run, z, b, i, side, tiles + i * across, i > 0 ? tiles + (i - 1) * across : NULL, pixels);
    close_tiles(run, tiles, across * down);
    free(tiles);
    run_leave_all(run, scope, NULL, 0);
}

static struct tensor decode_tiled(const struct autoencoder *base, struct run *run, struct tensor z) {
    const struct autoencoder_kl *vae = (const struct autoencoder_kl *)base;
    int64_t side = vae->sample_size / base->scale;
    if (z.shape[1] <= side && z.shape[2] <= side) return autoencoder_kl_decode(base, run, z);
    if (side < 4 || side % 4 != 0) {
        return run_checked(run,
                           error_set(&run->error, TESSERA_ERROR_UNSUPPORTED,
                                     "tiles of sample_size %lld have sides of %lld latents; a multiple of 4 is needed",
                                     (long long)vae->sample_size, (long long)side),
                           z);
    }
    struct tensor picture = run_tensor(run, DTYPE_F32, SHAPE(z.shape[0], z.shape[1] * base->scale, z.shape[2] * base->scale, 3));
    float *pixels = run_map(run, &picture, MAP_WRITE);
    size_t each = (size_t)(picture.shape[1] * picture.shape[2] * picture.shape[3]);
    z = run_upload(run, z);
    for (int64_t b = 0; b < z.shape[0] && !run_failed(run); b++) decode_tiles(base, run, z, pixels + (size_t)b * each, b, side);
    run_unmap(run, &picture, pixels, MAP_WRITE);
    return run_checked(run, TESSERA_OK, picture);
}

struct tensor autoencoder_kl_decode_tiled(const struct autoencoder *base, struct run *run, struct tensor z) {
    if (run_failed(run)) return (struct tensor){0};
    struct parallel *others = run->parallel;
    run->parallel = NULL;
    struct tensor picture = decode_tiled(base, run, z);
    run->parallel = others;
    return picture;
}

const struct autoencoder_class autoencoder_kl_class = {.name = "AutoencoderKL",
                                                       .open = open,
                                                       .load_segment = load_segment,
                                                       .rows = autoencoder_kl_rows,
                                                       .encode = autoencoder_kl_encode,
                                                       .decode = autoencoder_kl_decode,
                                                       .decode_tiled = autoencoder_kl_decode_tiled};
