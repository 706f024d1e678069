/* BERT's encoder (Devlin et al. 2018; transformers' BertModel), the first text encoder of HunyuanDiT.
 *
 *     ids -> token + position + segment embedding -> norm -> N x [ x = norm(x + attention(x)); x = norm(x + mlp(x)) ] -> states
 *
 * Norms come after each sum, so the stream never grows and may have the run's type throughout. All
 * tokens are of segment 0. Left out: the pooler, which no diffusion model asks for, decoders, and
 * relative positions. */
#include <math.h>
#include <string.h>

#include "models/activation_name.h"
#include "models/text_encoder.h"

struct bert_layer {
    struct linear q, k, v, out, mlp_in, mlp_out;
    struct norm attention_norm, mlp_norm;
};

struct bert {
    struct text_encoder base;
    const char *prefix; /* of the names of its weights */
    int64_t num_layers, num_heads, intermediate_size, num_segments;
    float layer_norm_eps;
    enum activation act;
    struct tensor token_embedding, position_embedding, segment_embedding;
    struct norm embedding_norm;
    struct bert_layer *layers;
};

static tessera_status read_config(const struct json *config, struct bert *m, tessera_error *error) {
    struct text_encoder *base = &m->base;
    double eps;
    const char *act, *positions;
    bool decoder;
    TRY(json_int(config, "vocab_size", 30522, 1, 1 << 24, &base->vocab_size, error));
    TRY(json_int(config, "hidden_size", 768, 1, 1 << 16, &base->hidden_size, error));
    TRY(json_int(config, "intermediate_size", 3072, 1, 1 << 20, &m->intermediate_size, error));
    TRY(json_int(config, "num_hidden_layers", 12, 1, 1024, &m->num_layers, error));
    TRY(json_int(config, "num_attention_heads", 12, 1, 1024, &m->num_heads, error));
    TRY(json_int(config, "max_position_embeddings", 512, 1, 1 << 20, &base->max_positions, error));
    TRY(json_int(config, "type_vocab_size", 2, 1, 1 << 10, &m->num_segments, error));
    TRY(json_double(config, "layer_norm_eps", 1e-12, &eps, error));
    TRY(json_string(config, "hidden_act", "gelu", &act, error));
    TRY(json_string(config, "position_embedding_type", "absolute", &positions, error));
    TRY(json_bool(config, "is_decoder", false, &decoder, error));
    m->layer_norm_eps = (float)eps;
    if (base->hidden_size % m->num_heads != 0) {
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: hidden_size %lld must be a multiple of num_attention_heads %lld",
                         json_path(config), (long long)base->hidden_size, (long long)m->num_heads);
    }
    if (strcmp(positions, "absolute") != 0 || decoder) {
        return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                         "%s: position_embedding_type is \"%.60s\", is_decoder %s; only encoders with \"absolute\" positions are known",
                         json_path(config), positions, decoder ? "true" : "false");
    }
    return activation_from_name(config, "hidden_act", act, &m->act, error);
}

static struct bert_layer load_layer(struct loader *loader, const struct bert *m) {
    int64_t c = m->base.hidden_size, inner = m->intermediate_size;
    return (struct bert_layer){
        .q = load_linear(loader, c, c, true, "attention.self.query"),
        .k = load_linear(loader, c, c, true, "attention.self.key"),
        .v = load_linear(loader, c, c, true, "attention.self.value"),
        .out = load_linear(loader, c, c, true, "attention.output.dense"),
        .attention_norm = load_norm(loader, NORM_LAYER, c, m->layer_norm_eps, true, "attention.output.LayerNorm"),
        .mlp_in = load_linear(loader, c, inner, true, "intermediate.dense"),
        .mlp_out = load_linear(loader, inner, c, true, "output.dense"),
        .mlp_norm = load_norm(loader, NORM_LAYER, c, m->layer_norm_eps, true, "output.LayerNorm"),
    };
}

static void load_embed(struct text_encoder *base, struct loader *loader) {
    struct bert *m = (struct bert *)base;
    int64_t c = base->hidden_size;
    load_set_prefix(loader, "%sembeddings.", m->prefix);
    m->token_embedding = load_table(loader, base->vocab_size, c, "word_embeddings.weight");
    m->position_embedding = load_table(loader, base->max_positions, c, "position_embeddings.weight");
    m->segment_embedding = load_table(loader, m->num_segments, c, "token_type_embeddings.weight");
    m->embedding_norm = load_norm(loader, NORM_LAYER, c, m->layer_norm_eps, true, "LayerNorm");
}

static void load_block(struct text_encoder *base, int index, struct loader *loader) {
    struct bert *m = (struct bert *)base;
    load_set_prefix(loader, "%sencoder.layer.%d.", m->prefix, index);
    m->layers[index] = load_layer(loader, m);
}

static void load_finish(struct text_encoder *base, struct loader *loader) {
    int64_t c = base->hidden_size;
    load_set_prefix(loader, "%s", ((struct bert *)base)->prefix);
    load_unused(loader, SHAPE(c, c), "pooler.dense.weight");
    load_unused(loader, SHAPE(c), "pooler.dense.bias");
}

/* Files of models with a head on top have all names below "bert.". */
static const char *find_prefix(struct loader *loader) {
    load_set_prefix(loader, "%s", "");
    bool headless = load_has(loader, "embeddings.word_embeddings.weight") || !load_has(loader, "bert.embeddings.word_embeddings.weight");
    return headless ? "" : "bert.";
}

static struct text_encoder *open(const struct json *config, struct loader *loader) {
    struct bert read = {.base.class = &bert_class};
    if (read_config(config, &read, &loader->error) != TESSERA_OK) return NULL;
    struct bert *m = load_alloc(loader, sizeof *m);
    read.layers = load_alloc(loader, (size_t)read.num_layers * sizeof *read.layers);
    if (load_failed(loader)) return NULL;
    *m = read;
    m->base.num_blocks = (int)m->num_layers;
    m->base.states = TEXT_STATE_LAST;
    m->prefix = find_prefix(loader);
    return load_failed(loader) ? NULL : &m->base;
}

static tessera_status check_ids(const struct bert *m, const int32_t *ids, int64_t batch, int64_t tokens, tessera_error *error) {
    if (batch < 1 || tokens < 1 || tokens > m->base.max_positions) {
        return error_set(error, TESSERA_ERROR_ARGUMENT, "BERT: %lld prompts of %lld tokens; at least one of each, and at most %lld tokens",
                         (long long)batch, (long long)tokens, (long long)m->base.max_positions);
    }
    for (int64_t i = 0; i < batch * tokens; i++) {
        if (ids[i] >= 0 && ids[i] < m->base.vocab_size) continue;
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "BERT: token id %d at position %lld is outside the vocabulary of %lld; is the tokenizer this model's?",
                         (int)ids[i], (long long)(i % tokens), (long long)m->base.vocab_size);
    }
    return TESSERA_OK;
}

/* norm(token + segment 0 + position): [B, S, C]. */
static struct tensor embed_tokens(const struct bert *m, struct run *run, const int32_t *ids, int64_t batch, int64_t tokens) {
    size_t scope = run_enter(run);
    struct tensor positions = run_tensor(run, DTYPE_I32, SHAPE(batch * tokens));
    struct tensor segments = run_tensor(run, DTYPE_I32, SHAPE(batch * tokens));
    if (run_failed(run)) return (struct tensor){0};
    int32_t *position = run_map(run, &positions, MAP_WRITE);
    for (int64_t i = 0; position != NULL && i < batch * tokens; i++) position[i] = (int32_t)(i % tokens);
    run_unmap(run, &positions, position, MAP_WRITE);
    run->backend->ops->zero(run->backend, segments.data, tensor_bytes(&segments));
    struct tensor x = nn_add(run, nn_embed(run, m->token_embedding, ids, batch, tokens),
                             nn_embed_rows(run, m->segment_embedding, segments, batch, tokens));
    x = nn_add(run, x, nn_embed_rows(run, m->position_embedding, positions, batch, tokens));
    return run_leave(run, scope, nn_norm(run, &m->embedding_norm, x));
}

static struct tensor apply_layer(const struct bert *m, struct run *run, const struct bert_layer *layer, struct tensor x,
                                 const struct tensor *mask) {
    int64_t batch = x.shape[0], tokens = x.shape[1], d = m->base.hidden_size / m->num_heads, heads[] = {batch, tokens, m->num_heads, d};
    size_t scope = run_enter(run);
    struct tensor q = nn_reshape(nn_linear(run, &layer->q, x, ACTIVATION_NONE), 4, heads);
    struct tensor k = nn_reshape(nn_linear(run, &layer->k, x, ACTIVATION_NONE), 4, heads);
    struct tensor v = nn_reshape(nn_linear(run, &layer->v, x, ACTIVATION_NONE), 4, heads);
    struct attention_args args = {.q = &q, .k = &k, .v = &v, .mask = mask, .scale = 1.0f / sqrtf((float)d)};
    struct tensor y = nn_reshape(nn_attention(run, args), SHAPE(batch, tokens, m->base.hidden_size));
    x = nn_norm(run, &layer->attention_norm, nn_add(run, x, nn_linear(run, &layer->out, y, ACTIVATION_NONE)));
    y = nn_linear(run, &layer->mlp_out, nn_linear(run, &layer->mlp_in, x, m->act), ACTIVATION_NONE);
    return run_leave(run, scope, nn_norm(run, &layer->mlp_norm, nn_add(run, x, y)));
}

static struct text_encoder_state embed(const struct text_encoder *base, struct run *run, const int32_t *ids, int64_t batch,
                                       int64_t tokens) {
    const struct bert *m = (const struct bert *)base;
    if (check_ids(m, ids, batch, tokens, &run->error) != TESSERA_OK) return (struct text_encoder_state){0};
    return (struct text_encoder_state){.x = embed_tokens(m, run, ids, batch, tokens)};
}

static struct tensor block(const struct text_encoder *base, struct run *run, int index, const struct text_encoder_state *state) {
    const struct bert *m = (const struct bert *)base;
    return apply_layer(m, run, &m->layers[index], state->x, state->mask.data != NULL ? &state->mask : NULL);
}

static struct text_encoder_output finish(const struct text_encoder *base, struct run *run, struct tensor last, struct tensor x,
                                         const int32_t *ids) {
    (void)base, (void)x, (void)ids;
    return (struct text_encoder_output){.last_hidden_state = nn_cast(run, last, DTYPE_F32)};
}

const struct text_encoder_class bert_class = {.name = "BertModel",
                                              .open = open,
                                              .load_embed = load_embed,
                                              .load_block = load_block,
                                              .load_finish = load_finish,
                                              .embed = embed,
                                              .block = block,
                                              .finish = finish};
