/* CLIP's text encoder (Radford et al. 2021; transformers' CLIPTextModel and
 * CLIPTextModelWithProjection).
 *
 *     ids -> token + position embedding -> N x [ x + attention(norm(x)); x + mlp(norm(x)) ], causal -> norm -> states
 *                                                                          state at the end token -> pooled (-> projection)
 *
 * Weight names stand with or without "text_model." before them, by the transformers version that
 * saved them. */
#include <math.h>
#include <string.h>

#include "models/activation_name.h"
#include "models/text_encoder.h"

/* The id that old folders name as the end token although their tokenizer's is the largest id of the
 * vocabulary. */
enum { LEGACY_EOS_ID = 2 };

struct clip_layer {
    struct norm layer_norm1, layer_norm2;
    struct linear q_proj, k_proj, v_proj, out_proj, fc1, fc2;
};

struct clip_text {
    struct text_encoder base;
    const char *prefix; /* of the names of its weights */
    int64_t num_layers, num_heads, intermediate_size, eos_token_id, projection_dim;
    float layer_norm_eps;
    enum activation hidden_act;
    struct tensor token_embedding, position_embedding;
    struct clip_layer *layers;
    struct norm final_layer_norm;
    struct linear text_projection; /* empty where the class does not project */
};

static tessera_status read_config(const struct json *config, struct clip_text *m, tessera_error *error) {
    struct text_encoder *base = &m->base;
    double eps;
    const char *act;
    TRY(json_int(config, "vocab_size", 49408, 1, 1 << 24, &base->vocab_size, error));
    TRY(json_int(config, "hidden_size", 512, 1, 1 << 16, &base->hidden_size, error));
    TRY(json_int(config, "intermediate_size", 2048, 1, 1 << 20, &m->intermediate_size, error));
    TRY(json_int(config, "num_hidden_layers", 12, 1, 1024, &m->num_layers, error));
    TRY(json_int(config, "num_attention_heads", 8, 1, 1024, &m->num_heads, error));
    TRY(json_int(config, "max_position_embeddings", 77, 1, 1 << 20, &base->max_positions, error));
    TRY(json_int(config, "projection_dim", 512, 1, 1 << 16, &m->projection_dim, error));
    TRY(json_int(config, "eos_token_id", 49407, 0, INT32_MAX, &m->eos_token_id, error));
    TRY(json_double(config, "layer_norm_eps", 1e-5, &eps, error));
    TRY(json_string(config, "hidden_act", "quick_gelu", &act, error));
    TRY(activation_from_name(config, "hidden_act", act, &m->hidden_act, error));
    m->layer_norm_eps = (float)eps;
    if (base->hidden_size % m->num_heads != 0) {
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: hidden_size %lld is no multiple of num_attention_heads %lld", json_path(config),
                         (long long)base->hidden_size, (long long)m->num_heads);
    }
    return TESSERA_OK;
}

static struct clip_layer load_layer(struct loader *loader, const struct clip_text *m) {
    int64_t c = m->base.hidden_size, f = m->intermediate_size;
    return (struct clip_layer){
        .layer_norm1 = load_norm(loader, NORM_LAYER, c, m->layer_norm_eps, true, "layer_norm1"),
        .layer_norm2 = load_norm(loader, NORM_LAYER, c, m->layer_norm_eps, true, "layer_norm2"),
        .q_proj = load_linear(loader, c, c, true, "self_attn.q_proj"),
        .k_proj = load_linear(loader, c, c, true, "self_attn.k_proj"),
        .v_proj = load_linear(loader, c, c, true, "self_attn.v_proj"),
        .out_proj = load_linear(loader, c, c, true, "self_attn.out_proj"),
        .fc1 = load_linear(loader, c, f, true, "mlp.fc1"),
        .fc2 = load_linear(loader, f, c, true, "mlp.fc2"),
    };
}

static void load_embed(struct text_encoder *base, struct loader *loader) {
    struct clip_text *m = (struct clip_text *)base;
    load_set_prefix(loader, "%sembeddings.", m->prefix);
    m->token_embedding = load_table(loader, base->vocab_size, base->hidden_size, "token_embedding.weight");
    m->position_embedding = load_table(loader, base->max_positions, base->hidden_size, "position_embedding.weight");
}

static void load_block(struct text_encoder *base, int index, struct loader *loader) {
    struct clip_text *m = (struct clip_text *)base;
    load_set_prefix(loader, "%sencoder.layers.%d.", m->prefix, index);
    m->layers[index] = load_layer(loader, m);
}

static void load_finish(struct text_encoder *base, struct loader *loader) {
    struct clip_text *m = (struct clip_text *)base;
    int64_t c = base->hidden_size;
    load_set_prefix(loader, "%s", m->prefix);
    m->final_layer_norm = load_norm(loader, NORM_LAYER, c, m->layer_norm_eps, true, "final_layer_norm");
    load_set_prefix(loader, "%s", "");
    if (base->class == &clip_text_with_projection_class)
        m->text_projection = load_linear(loader, c, m->projection_dim, false, "text_projection");
}

static struct text_encoder *open_class(const struct json *config, struct loader *loader, const struct text_encoder_class *class) {
    struct clip_text read = {.base.class = class};
    if (read_config(config, &read, &loader->error) != TESSERA_OK) return NULL;
    bool projected = class == &clip_text_with_projection_class;
    read.base.pooled_size = projected ? read.projection_dim : read.base.hidden_size;
    struct clip_text *m = load_alloc(loader, sizeof *m);
    read.layers = load_alloc(loader, (size_t)read.num_layers * sizeof *read.layers);
    if (load_failed(loader)) return NULL;
    *m = read;
    m->base.num_blocks = (int)m->num_layers;
    m->base.states = TEXT_STATE_LAST | TEXT_STATE_PENULTIMATE | TEXT_STATE_POOLED;
    load_set_prefix(loader, "%s", "");
    m->prefix = load_has(loader, "text_model.embeddings.token_embedding.weight") ? "text_model." : "";
    return load_failed(loader) ? NULL : &m->base;
}

static struct text_encoder *open_text(const struct json *config, struct loader *loader) {
    return open_class(config, loader, &clip_text_class);
}

static struct text_encoder *open_text_with_projection(const struct json *config, struct loader *loader) {
    return open_class(config, loader, &clip_text_with_projection_class);
}

static tessera_status check_arguments(const struct clip_text *m, const int32_t *ids, int64_t batch, int64_t tokens, tessera_error *error) {
    if (batch < 1 || tokens < 1 || tokens > m->base.max_positions) {
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "CLIP text encoder: %lld prompts of %lld tokens; at least one prompt, and 1 to %lld tokens, are possible",
                         (long long)batch, (long long)tokens, (long long)m->base.max_positions);
    }
    for (int64_t i = 0; i < batch * tokens; i++) {
        if (ids[i] >= 0 && ids[i] < m->base.vocab_size) continue;
        return error_set(
            error, TESSERA_ERROR_ARGUMENT,
            "CLIP text encoder: token id %d at position %lld is outside the vocabulary of %lld; is the tokenizer this model's?",
            (int)ids[i], (long long)(i % tokens), (long long)m->base.vocab_size);
    }
    return TESSERA_OK;
}

/* Token plus position embedding: [B, S, C]. */
static struct tensor embed_tokens(const struct clip_text *m, struct run *run, const int32_t *ids, int64_t batch, int64_t tokens) {
    size_t scope = run_enter(run);
    struct tensor positions = run_tensor(run, DTYPE_I32, SHAPE(batch * tokens));
    int32_t *place = run_map(run, &positions, MAP_WRITE);
    for (int64_t i = 0; place != NULL && i < batch * tokens; i++) place[i] = (int32_t)(i % tokens);
    run_unmap(run, &positions, place, MAP_WRITE);
    struct tensor token = nn_embed(run, m->token_embedding, ids, batch, tokens);
    struct tensor position = nn_embed_rows(run, m->position_embedding, positions, batch, tokens);
    return run_leave(run, scope, nn_add(run, token, position));
}

static struct tensor self_attention(const struct clip_text *m, struct run *run, const struct clip_layer *layer, struct tensor x,
                                    const struct tensor *mask) {
    int64_t batch = x.shape[0], tokens = x.shape[1], width = m->base.hidden_size / m->num_heads;
    int64_t heads[] = {batch, tokens, m->num_heads, width};
    struct tensor q = nn_reshape(nn_linear(run, &layer->q_proj, x, ACTIVATION_NONE), 4, heads);
    struct tensor k = nn_reshape(nn_linear(run, &layer->k_proj, x, ACTIVATION_NONE), 4, heads);
    struct tensor v = nn_reshape(nn_linear(run, &layer->v_proj, x, ACTIVATION_NONE), 4, heads);
    struct attention_args args = {.q = &q, .k = &k, .v = &v, .mask = mask, .causal = true, .scale = 1.0f / sqrtf((float)width)};
    struct tensor y = nn_reshape(nn_attention(run, args), SHAPE(batch, tokens, m->base.hidden_size));
    return nn_linear(run, &layer->out_proj, y, ACTIVATION_NONE);
}

static struct tensor encode_layer(const struct clip_text *m, struct run *run, const struct clip_layer *layer, struct tensor x,
                                  const struct tensor *mask) {
    size_t scope = run_enter(run);
    x = nn_add(run, x, self_attention(m, run, layer, nn_norm(run, &layer->layer_norm1, x), mask));
    struct tensor y = nn_linear(run, &layer->fc1, nn_norm(run, &layer->layer_norm2, x), m->hidden_act);
    return run_leave(run, scope, nn_add(run, x, nn_linear(run, &layer->fc2, y, ACTIVATION_NONE)));
}

/* Where the pooled state is taken: the first end token, in legacy folders the first of the largest
 * ids; 0 if there is none. */
static int64_t eos_position(const struct clip_text *m, const int32_t *ids, int64_t tokens) {
    int64_t largest = 0;
    for (int64_t i = 1; i < tokens; i++) {
        if (ids[i] > ids[largest]) largest = i;
    }
    if (m->eos_token_id == LEGACY_EOS_ID) return largest;
    for (int64_t i = 0; i < tokens; i++) {
        if (ids[i] == m->eos_token_id) return i;
    }
    return 0;
}

/* states [B, S, C] -> F32 [B, pooled_size] */
static struct tensor pool(const struct clip_text *m, struct run *run, struct tensor states, const int32_t *ids) {
    int64_t batch = states.shape[0], tokens = states.shape[1], c = m->base.hidden_size;
    size_t scope = run_enter(run);
    struct tensor rows = run_tensor(run, DTYPE_I32, SHAPE(batch));
    int32_t *row = run_map(run, &rows, MAP_WRITE);
    for (int64_t b = 0; row != NULL && b < batch; b++) row[b] = (int32_t)(b * tokens + eos_position(m, ids + b * tokens, tokens));
    run_unmap(run, &rows, row, MAP_WRITE);
    struct tensor pooled = nn_embed_rows(run, nn_reshape(states, SHAPE(batch * tokens, c)), rows, batch, 1);
    pooled = nn_reshape(pooled, SHAPE(batch, c));
    if (m->text_projection.weight.data != NULL) pooled = nn_linear(run, &m->text_projection, pooled, ACTIVATION_NONE);
    return run_leave(run, scope, nn_cast(run, pooled, DTYPE_F32));
}

static struct text_encoder_state embed(const struct text_encoder *base, struct run *run, const int32_t *ids, int64_t batch,
                                       int64_t tokens) {
    const struct clip_text *m = (const struct clip_text *)base;
    if (check_arguments(m, ids, batch, tokens, &run->error) != TESSERA_OK) return (struct text_encoder_state){0};
    return (struct text_encoder_state){.x = embed_tokens(m, run, ids, batch, tokens)};
}

static struct tensor block(const struct text_encoder *base, struct run *run, int index, const struct text_encoder_state *state) {
    const struct clip_text *m = (const struct clip_text *)base;
    return encode_layer(m, run, &m->layers[index], state->x, state->mask.data != NULL ? &state->mask : NULL);
}

static struct text_encoder_output finish(const struct text_encoder *base, struct run *run, struct tensor last, struct tensor x,
                                         const int32_t *ids) {
    const struct clip_text *m = (const struct clip_text *)base;
    return (struct text_encoder_output){.last_hidden_state = nn_cast(run, nn_norm(run, &m->final_layer_norm, last), DTYPE_F32),
                                        .pooled = pool(m, run, nn_norm(run, &m->final_layer_norm, x), ids)};
}

const struct text_encoder_class clip_text_class = {
    .name = "CLIPTextModel",
    .open = open_text,
    .load_embed = load_embed,
    .load_block = load_block,
    .load_finish = load_finish,
    .embed = embed,
    .block = block,
    .finish = finish,
};
const struct text_encoder_class clip_text_with_projection_class = {
    .name = "CLIPTextModelWithProjection",
    .open = open_text_with_projection,
    .load_embed = load_embed,
    .load_block = load_block,
    .load_finish = load_finish,
    .embed = embed,
    .block = block,
    .finish = finish,
};
