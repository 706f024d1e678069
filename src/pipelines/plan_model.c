/* See plan_model.h. Weights are counted from descriptions: of the whole denoiser, of one of two
 * slices (which tells what tensor parallelism slices), and of the first, a middle and the last
 * block alone (which tell what all stages have). Operations of text encoders and the autoencoder
 * follow from their weights: 2 for each weight and token, and the decoder's convolutions. */
#include "pipelines/plan_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "pipelines/pipeline.h"
#include "pipelines/source.h"
#include "pipelines/stages.h"

enum { CLIP_TOKENS = 77, TEXT_ARRAYS = 12, TEXT_HIDDEN_ARRAYS = 3 };
/* The strips in which the autoencoder works through large maps; its widest map counts one and a
 * half times (models/autoencoder_kl.h). */
#define DECODER_STRIPS 3.0
#define DECODER_MAPS 1.5

/* ---- components ---- */

static tessera_status describe(const struct pipeline *p, const char *name, struct load_scope scope, struct component *out,
                               tessera_error *error) {
    const struct pipeline_slot *slot;
    TRY(pipeline_need_slot(p, name, &slot, error));
    return source_weigh(p, slot, scope, out, error);
}

/* Bytes of the weights that layers hold with this share. */
static tessera_status count_bytes(const struct pipeline *p, struct load_scope scope, double *bytes, tessera_error *error) {
    struct component component = {0};
    TRY(describe(p, p->denoiser, scope, &component, error));
    *bytes = (double)component.weight_bytes;
    component_close(&component);
    return TESSERA_OK;
}

/* ---- the denoiser ---- */

static bool copy_block(const struct component *c, int index, struct plan_block *out) {
    const struct denoiser *d = c->denoiser;
    struct denoiser_block_info info;
    d->class->describe(d, index, &info);
    *out = (struct plan_block){.picture_operations = info.operations_per_picture_token,
                               .text_operations = info.operations_per_text_token,
                               .pair_operations = info.operations_per_token_pair,
                               .weight_bytes = (double)c->segments[index + 1].bytes,
                               .work = stages_work(d, index),
                               .carries_text = (info.carries & DENOISER_CARRIES_TEXT) != 0,
                               .out = info.out,
                               .pushes = info.pushes,
                               .pops = info.pops,
                               .num_meetings = info.meetings.count};
    memcpy(out->pushed, info.pushed, sizeof out->pushed);
    if (info.meetings.count == 0) return true;
    size_t bytes = (size_t)info.meetings.count * sizeof *out->meetings;
    out->meetings = malloc(bytes);
    if (out->meetings != NULL) memcpy(out->meetings, info.meetings.items, bytes);
    return out->meetings != NULL;
}

/* Embedding and last projection: patches as vectors; of models without patches 3x3 convolutions. */
static double end_operations(const struct plan_model *m, int64_t in_channels) {
    double patch = (double)(m->patch_size * m->patch_size), both = (double)(in_channels + m->out_channels) * (double)m->width;
    return m->row_unit > 0 ? 18.0 * both : 2.0 * patch * both;
}

static tessera_status copy_denoiser(const struct component *c, int64_t channels, struct plan_model *m, tessera_error *error) {
    const struct denoiser *d = c->denoiser;
    if (d->num_blocks > PLAN_MAX_BLOCKS)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: %d blocks; a plan has at most %d", d->class->name, d->num_blocks,
                         PLAN_MAX_BLOCKS);
    snprintf(m->name, sizeof m->name, "%s", d->class->name);
    m->channels = channels, m->out_channels = d->out_channels;
    m->patch_size = d->patch_size, m->row_unit = d->row_unit;
    m->heads = d->num_heads, m->max_tensor = d->max_tensor;
    m->text_stream = d->text_stream;
    m->num_blocks = d->num_blocks;
    m->blocks = calloc((size_t)d->num_blocks, sizeof *m->blocks);
    if (m->blocks == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    for (int i = 0; i < d->num_blocks; i++)
        if (!copy_block(c, i, &m->blocks[i])) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    m->width = d->form.width, m->cond_width = d->form.cond_width;
    m->constants = (d->text_stream ? 0 : 1) + d->form.text_mask;
    for (int i = 0; i < m->num_blocks; i++) {
        struct plan_block *b = &m->blocks[i];
        if (b->out.channels == 0) b->out.channels = m->width;
        for (int k = 0; k < b->pushes; k++)
            if (b->pushed[k].channels == 0) b->pushed[k].channels = m->width;
    }
    m->end_operations = end_operations(m, d->in_channels);
    return TESSERA_OK;
}

/* What tensor cuts of each block's weights, from the first of two shares. */
static tessera_status count_cut(const struct pipeline *p, double whole, struct plan_model *m, tessera_error *error) {
    int64_t units = m->max_tensor > 0 && m->max_tensor < m->heads ? m->max_tensor : m->heads;
    struct component half = {0};
    if (units < 2) return TESSERA_OK;
    TRY(describe(p, p->denoiser, (struct load_scope){.index = 0, .count = 2}, &half, error));
    double kept = floor((double)m->heads / 2) / (double)m->heads;
    m->shared_cut_bytes = (whole - (double)half.weight_bytes) / (1.0 - kept);
    for (int i = 0; i < m->num_blocks; i++) {
        double gone = m->blocks[i].weight_bytes - (double)half.segments[i + 1].bytes;
        m->blocks[i].cut_bytes = fmin(gone / (1.0 - kept), m->blocks[i].weight_bytes);
        m->shared_cut_bytes -= m->blocks[i].cut_bytes;
    }
    m->shared_cut_bytes = fmax(m->shared_cut_bytes, 0);
    component_close(&half);
    return TESSERA_OK;
}

/* What stages hold beside their blocks. */
static tessera_status count_ends(const struct pipeline *p, double whole, struct plan_model *m, tessera_error *error) {
    int last = m->num_blocks - 1, middle = last / 2;
    double first_bytes = 0, middle_bytes = 0, last_bytes = 0;
    m->shared_bytes = whole;
    for (int i = 0; i <= last; i++) m->shared_bytes -= m->blocks[i].weight_bytes;
    if (last < 2) return TESSERA_OK;
    TRY(count_bytes(p, (struct load_scope){.blocks = {0, 1}}, &first_bytes, error));
    TRY(count_bytes(p, (struct load_scope){.blocks = {middle, 1}}, &middle_bytes, error));
    TRY(count_bytes(p, (struct load_scope){.blocks = {last, 1}}, &last_bytes, error));
    m->shared_bytes = middle_bytes - m->blocks[middle].weight_bytes;
    m->first_bytes = first_bytes - m->blocks[0].weight_bytes - m->shared_bytes;
    m->last_bytes = last_bytes - m->blocks[last].weight_bytes - m->shared_bytes;
    return TESSERA_OK;
}

static tessera_status add_denoiser(const struct pipeline *p, struct plan_model *m, tessera_error *error) {
    struct component whole = {0};
    TRY(describe(p, p->denoiser, (struct load_scope){0}, &whole, error));
    double bytes = (double)whole.weight_bytes;
    tessera_status status = whole.denoiser != NULL ? copy_denoiser(&whole, pipeline_latent_channels(p, whole.denoiser), m, error)
                                                   : error_set(error, TESSERA_ERROR_FORMAT, "%s/%s: no denoiser", p->name, p->denoiser);
    component_close(&whole);
    if (status == TESSERA_OK) status = count_cut(p, bytes, m, error);
    return status == TESSERA_OK ? count_ends(p, bytes, m, error) : status;
}

/* ---- text and decoding ---- */

/* The length that the first tokenizer pads to. */
static int64_t clip_tokens(const struct pipeline *p) {
    char *folder = NULL, *path = NULL;
    struct json *config = NULL;
    int64_t tokens = CLIP_TOKENS;
    if (pipeline_folder_of(p, "tokenizer", &folder, NULL) == TESSERA_OK) path = file_join(folder, "tokenizer_config.json");
    if (path != NULL && json_open(path, 0, &config, NULL) == TESSERA_OK &&
        json_int(config, "model_max_length", CLIP_TOKENS, 1, 1 << 20, &tokens, NULL) != TESSERA_OK)
        tokens = CLIP_TOKENS;
    json_free(config);
    free(path);
    free(folder);
    return tokens;
}

static int64_t text_tokens(const struct pipeline *p, int max_sequence_length) {
    int64_t tokens = p->class->text_tokens;
    if (p->class->text & TEXT_CLIP) tokens += clip_tokens(p);
    if (p->class->text & TEXT_T5) tokens += max_sequence_length >= 0 ? max_sequence_length : p->defaults.max_sequence_length;
    return tokens;
}

/* Numbers in the weights of a component, whatever their types. */
static tessera_status count_parameters(const struct pipeline *p, const struct pipeline_slot *slot, double *count, tessera_error *error) {
    struct component component = {0};
    TRY(source_describe(p, slot, (struct load_scope){0}, &component, error));
    *count = (double)component.weight_bytes / (double)dtype_size(p->dtype);
    component_close(&component);
    return TESSERA_OK;
}

/* What an encoder holds of its tokens: arrays of its own width and of its feed-forward's, for T5
 * the bias of each pair of tokens, twice while it is made, and the states that it gives, in
 * float32. */
static tessera_status encoder_memory(const struct json *config, const struct plan_model *m, double *out, tessera_error *error) {
    int64_t width = m->width, hidden = 4 * width, heads = 0; /* num_heads is T5's name alone */
    TRY(json_int(config, "hidden_size", width, 1, 1 << 20, &width, error));
    TRY(json_int(config, "d_model", width, 1, 1 << 20, &width, error));
    TRY(json_int(config, "intermediate_size", 4 * width, 1, 1 << 20, &hidden, error));
    TRY(json_int(config, "d_ff", hidden, 1, 1 << 20, &hidden, error));
    TRY(json_int(config, "num_heads", 0, 0, 1 << 12, &heads, error));
    double tokens = (double)m->text_tokens, rows = tokens * m->predictions, bias = 2 * (double)heads * tokens * tokens * sizeof(float);
    *out = rows * (TEXT_ARRAYS * (double)width + TEXT_HIDDEN_ARRAYS * (double)hidden) * m->element_bytes + bias;
    *out += 3 * rows * (double)width * sizeof(float);
    return TESSERA_OK;
}

static bool is_encoder(const struct pipeline_slot *slot) {
    return strncmp(slot->name, "text_encoder", 12) == 0;
}

static tessera_status add_encoder_memory(const struct component *encoder, struct plan_model *m, tessera_error *error) {
    double memory = 0;
    TRY(encoder_memory(encoder->config, m, &memory, error));
    m->text_memory = fmax(m->text_memory, memory);
    return TESSERA_OK;
}

static tessera_status add_encoders(const struct pipeline *p, struct plan_model *m, tessera_error *error) {
    for (int i = 0; i < p->num_slots; i++) {
        struct component encoder = {0};
        if (!is_encoder(&p->slots[i])) continue;
        double parameters;
        TRY(count_parameters(p, &p->slots[i], &parameters, error));
        TRY(describe(p, p->slots[i].name, (struct load_scope){0}, &encoder, error));
        double bytes = (double)encoder.weight_bytes, operations = 2.0 * parameters * (double)m->text_tokens * m->predictions;
        tessera_status status = add_encoder_memory(&encoder, m, error);
        component_close(&encoder);
        TRY(status);
        m->encoder_bytes = fmax(m->encoder_bytes, bytes);
        m->text_operations += operations;
        m->longest_text_operations = fmax(m->longest_text_operations, operations);
    }
    return TESSERA_OK;
}

/* 3x3 convolutions of a decoder: the middle's two resnets, then a level's resnets, each twice as
 * large as the one before. */
static double decode_operations(const int64_t *channels, int levels, int64_t resnets, double positions) {
    double in = (double)channels[levels - 1], weights = 4 * in * in * positions;
    for (int l = levels - 1; l >= 0; l--) {
        double out = (double)channels[l];
        for (int64_t i = 0; i <= resnets; i++, in = out) weights += (in * out + out * out) * positions;
        if (l > 0) positions *= 4, weights += out * out * positions;
    }
    return 18.0 * weights;
}

static tessera_status copy_decoder(const struct pipeline *p, const struct component *vae, double width, double height, struct plan_model *m,
                                   tessera_error *error) {
    int64_t channels[16] = {0}, resnets = 1;
    int levels = 0;
    m->decoder_bytes = (double)vae->weight_bytes;
    TRY(json_ints(vae->config, "block_out_channels", 1, 1 << 16, channels, 16, &levels, error));
    TRY(json_int(vae->config, "layers_per_block", 1, 1, 64, &resnets, error));
    int64_t scale = vae->autoencoder != NULL ? vae->autoencoder->scale : 0;
    if (levels == 0 || scale == 0) return error_set(error, TESSERA_ERROR_FORMAT, "%s/vae: no autoencoder", p->name);
    double unit = (double)(scale * m->patch_size);
    if (fmod(width, unit) != 0 || fmod(height, unit) != 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "size %.0fx%.0f: width and height must be multiples of %.0f for this model", width,
                         height, unit);
    m->rows = (int64_t)height / scale, m->columns = (int64_t)width / scale;
    m->decode_operations = decode_operations(channels, levels, resnets, (double)(m->rows * m->columns));
    double maps = DECODER_MAPS * width * height * (double)channels[levels > 1 ? 1 : 0] * m->element_bytes;
    m->decoder_memory = maps + fmin(2 * maps, DECODER_STRIPS * (double)PIPELINE_STRIP_BYTES);
    m->decoder_memory_narrow = maps + fmin(2 * maps, DECODER_STRIPS * (double)PIPELINE_NARROW_STRIP_BYTES);
    return TESSERA_OK;
}

static tessera_status add_decoder(const struct pipeline *p, double width, double height, struct plan_model *m, tessera_error *error) {
    struct component vae = {0};
    TRY(describe(p, p->autoencoder, (struct load_scope){0}, &vae, error));
    tessera_status status = copy_decoder(p, &vae, width, height, m, error);
    component_close(&vae);
    return status;
}

/* ---- all of it ---- */

static bool is_guided(const struct pipeline *p, const struct plan_request *request) {
    double scale = request->guidance_scale >= 0 ? request->guidance_scale : (double)p->defaults.guidance_scale;
    return p->class->distilled ? request->has_negative_prompt : scale > 1.0;
}

/* What the request says, and the size that is worked at. */
static tessera_status fill_request(const struct pipeline *p, const struct plan_request *request, struct plan_model *m, int *width, int *height,
                                   tessera_error *error) {
    *width = request->width > 0 ? request->width : p->defaults.width, *height = request->height > 0 ? request->height : p->defaults.height;
    TRY(pipeline_working_size(p, p->defaults.use_resolution_binning && !request->no_binning, width, height, error));
    m->element_bytes = (int)dtype_size(p->dtype);
    m->divides_no_sum = p->divides_no_sum;
    m->predictions = is_guided(p, request) ? 2 : 1;
    m->steps = request->steps > 0 ? request->steps : p->defaults.num_inference_steps;
    m->pictures = request->pictures > 0 ? request->pictures : 1;
    m->text_tokens = text_tokens(p, request->max_sequence_length);
    return TESSERA_OK;
}

static tessera_status fill(const struct pipeline *p, const struct plan_request *request, struct plan_model *m, tessera_error *error) {
    int width, height;
    TRY(fill_request(p, request, m, &width, &height, error));
    TRY(add_denoiser(p, m, error));
    TRY(add_encoders(p, m, error));
    return add_decoder(p, width, height, m, error);
}

tessera_status plan_model_of(const struct pipeline *p, const struct plan_request *request, struct plan_model *out, tessera_error *error) {
    *out = (struct plan_model){0};
    tessera_status status = fill(p, request, out, error);
    if (status != TESSERA_OK) plan_model_free(out);
    return status;
}

static tessera_status fill_activations(struct pipeline *p, const struct plan_request *request, struct plan_model *m, tessera_error *error) {
    const struct component *c;
    int width, height;
    TRY(fill_request(p, request, m, &width, &height, error));
    TRY(pipeline_describe(p, p->denoiser, &c, error));
    if (c->denoiser == NULL) return error_set(error, TESSERA_ERROR_FORMAT, "%s/%s: no denoiser", p->name, p->denoiser);
    TRY(copy_denoiser(c, pipeline_latent_channels(p, c->denoiser), m, error));
    for (int i = 0; i < p->num_slots; i++) {
        if (!is_encoder(&p->slots[i])) continue;
        TRY(pipeline_describe(p, p->slots[i].name, &c, error));
        TRY(add_encoder_memory(c, m, error));
    }
    TRY(pipeline_describe(p, p->autoencoder, &c, error));
    return copy_decoder(p, c, width, height, m, error);
}

tessera_status plan_model_of_activations(struct pipeline *p, const struct plan_request *request, struct plan_model *out, tessera_error *error) {
    *out = (struct plan_model){0};
    tessera_status status = fill_activations(p, request, out, error);
    if (status != TESSERA_OK) plan_model_free(out);
    return status;
}
