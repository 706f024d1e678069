/* T5's encoder (Raffel et al. 2020; transformers' T5EncoderModel).
 *
 *     ids -> embedding -> N x [ x + attention(norm(x)); x + ff(norm(x)) ] -> norm -> states
 *
 * Norms divide by the root mean square and have no bias; scores are not scaled; positions enter as
 * a bias that depends on the distance between key and query (section 2.1), the same in every layer.
 * The feed-forward is act(x wi) wo, or gated: (act(x wi_0) * x wi_1) wo.
 *
 * The residual stream stays F32 whatever the run's type: in trained models it grows past what BF16
 * resolves. Only what goes into a product is cast. */
#include <math.h>
#include <string.h>

#include "base/elementary.h"
#include "models/activation_name.h"
#include "models/text_encoder.h"

struct t5_layer {
    struct norm attention_norm, ff_norm;
    struct linear q, k, v, o, wi, wi_1, wo; /* wi_1 only where gated */
};

struct t5_encoder {
    struct text_encoder base;
    int64_t num_layers, num_heads, d_kv, d_ff, num_buckets, max_distance;
    float layer_norm_epsilon;
    bool gated;
    enum activation act;
    struct tensor shared, relative_attention_bias; /* [V, C]; F32 [buckets, N] */
    struct t5_layer *layers;
    struct norm final_layer_norm;
};

/* "gated-gelu" is gated and means gelu_new, "gated-X" is gated with X, "X" is plain. */
static tessera_status read_feed_forward(const struct json *config, struct t5_encoder *m, tessera_error *error) {
    const char *text, gated[] = "gated-";
    TRY(json_string(config, "feed_forward_proj", "relu", &text, error));
    m->gated = strncmp(text, gated, strlen(gated)) == 0;
    const char *name = m->gated ? text + strlen(gated) : text;
    if (strcmp(text, "gated-gelu") == 0) name = "gelu_new";
    return activation_from_name(config, "feed_forward_proj", name, &m->act, error);
}

static tessera_status read_config(const struct json *config, struct t5_encoder *m, tessera_error *error) {
    double eps;
    TRY(json_int(config, "vocab_size", 32128, 1, 1 << 24, &m->base.vocab_size, error));
    TRY(json_int(config, "d_model", 512, 1, 1 << 16, &m->base.hidden_size, error));
    TRY(json_int(config, "d_kv", 64, 1, 1 << 12, &m->d_kv, error));
    TRY(json_int(config, "d_ff", 2048, 1, 1 << 20, &m->d_ff, error));
    TRY(json_int(config, "num_layers", 6, 1, 1024, &m->num_layers, error));
    TRY(json_int(config, "num_heads", 8, 1, 1024, &m->num_heads, error));
    TRY(json_int(config, "relative_attention_num_buckets", 32, 4, 1 << 16, &m->num_buckets, error));
    TRY(json_int(config, "relative_attention_max_distance", 128, 2, 1 << 20, &m->max_distance, error));
    TRY(json_double(config, "layer_norm_epsilon", 1e-6, &eps, error));
    m->layer_norm_epsilon = (float)eps;
    if (m->max_distance <= m->num_buckets / 4) {
        return error_set(error, TESSERA_ERROR_FORMAT,
                         "%s: relative_attention_max_distance %lld must be more than a quarter of relative_attention_num_buckets %lld",
                         json_path(config), (long long)m->max_distance, (long long)m->num_buckets);
    }
    return read_feed_forward(config, m, error);
}

static struct t5_layer load_layer(struct loader *loader, const struct t5_encoder *m) {
    int64_t c = m->base.hidden_size, inner = m->num_heads * m->d_kv, f = m->d_ff;
    struct t5_layer layer = {
        .attention_norm = load_norm(loader, NORM_RMS, c, m->layer_norm_epsilon, false, "layer.0.layer_norm"),
        .ff_norm = load_norm(loader, NORM_RMS, c, m->layer_norm_epsilon, false, "layer.1.layer_norm"),
        .q = load_linear(loader, c, inner, false, "layer.0.SelfAttention.q"),
        .k = load_linear(loader, c, inner, false, "layer.0.SelfAttention.k"),
        .v = load_linear(loader, c, inner, false, "layer.0.SelfAttention.v"),
        .o = load_linear(loader, inner, c, false, "layer.0.SelfAttention.o"),
        .wi = load_linear(loader, c, f, false, m->gated ? "layer.1.DenseReluDense.wi_0" : "layer.1.DenseReluDense.wi"),
        .wo = load_linear(loader, f, c, false, "layer.1.DenseReluDense.wo"),
    };
    if (m->gated) layer.wi_1 = load_linear(loader, c, f, false, "layer.1.DenseReluDense.wi_1");
    return layer;
}

static void load_embed(struct text_encoder *base, struct loader *loader) {
    struct t5_encoder *m = (struct t5_encoder *)base;
    load_set_prefix(loader, "%s", "");
    const char *table = load_has(loader, "shared.weight") ? "shared.weight" : "encoder.embed_tokens.weight";
    m->shared = load_table(loader, base->vocab_size, base->hidden_size, "%s", table);
    m->relative_attention_bias = load_tensor(loader, DTYPE_F32, SHAPE(m->num_buckets, m->num_heads),
                                             "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
}

static void load_block(struct text_encoder *base, int index, struct loader *loader) {
    struct t5_encoder *m = (struct t5_encoder *)base;
    load_set_prefix(loader, "encoder.block.%d.", index);
    m->layers[index] = load_layer(loader, m);
}

static void load_finish(struct text_encoder *base, struct loader *loader) {
    struct t5_encoder *m = (struct t5_encoder *)base;
    load_set_prefix(loader, "encoder.");
    m->final_layer_norm = load_norm(loader, NORM_RMS, base->hidden_size, m->layer_norm_epsilon, false, "final_layer_norm");
}

static struct text_encoder *open(const struct json *config, struct loader *loader) {
    struct t5_encoder read = {.base.class = &t5_encoder_class};
    if (read_config(config, &read, &loader->error) != TESSERA_OK) return NULL;
    struct t5_encoder *m = load_alloc(loader, sizeof *m);
    read.layers = load_alloc(loader, (size_t)read.num_layers * sizeof *read.layers);
    if (load_failed(loader)) return NULL;
    *m = read;
    m->base.num_blocks = (int)m->num_layers;
    m->base.states = TEXT_STATE_LAST;
    return load_failed(loader) ? NULL : &m->base;
}

static tessera_status check_ids(const struct t5_encoder *m, const int32_t *ids, int64_t batch, int64_t tokens, tessera_error *error) {
    if (batch < 1 || tokens < 1) {
        return error_set(error, TESSERA_ERROR_ARGUMENT, "T5 encoder: %lld prompts of %lld tokens; at least one of each is needed",
                         (long long)batch, (long long)tokens);
    }
    for (int64_t i = 0; i < batch * tokens; i++) {
        if (ids[i] >= 0 && ids[i] < m->base.vocab_size) continue;
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "T5 encoder: token id %d at position %lld is outside the vocabulary of %lld; is the tokenizer this model's?",
                         (int)ids[i], (long long)(i % tokens), (long long)m->base.vocab_size);
    }
    return TESSERA_OK;
}

/* The bucket of a distance key - query: half of the buckets for keys behind, half for keys ahead;
 * in each half, the first half one per distance, the rest logarithmically up to max_distance
 * (float32, as transformers computes it). */
static int64_t bucket_of(const struct t5_encoder *m, int64_t distance) {
    int64_t half = m->num_buckets / 2, exact = half / 2, first = distance > 0 ? half : 0;
    int64_t d = distance < 0 ? -distance : distance;
    if (d < exact) return first + d;
    float ratio = (float)elementary_log((double)((float)d / (float)exact)) / (float)elementary_log((double)m->max_distance / (double)exact);
    int64_t bucket = exact + (int64_t)(ratio * (float)(half - exact));
    return first + (bucket < half ? bucket : half - 1);
}

/* F32 [N, S, S], added to the scores. */
static struct tensor position_bias(const struct t5_encoder *m, struct run *run, int64_t tokens) {
    struct tensor bias = run_tensor(run, DTYPE_F32, SHAPE(m->num_heads, tokens, tokens));
    float *table = run_map(run, &m->relative_attention_bias, MAP_READ), *out = run_map(run, &bias, MAP_WRITE);
    for (int64_t query = 0; query < tokens && !run_failed(run); query++) {
        for (int64_t key = 0; key < tokens; key++) {
            const float *row = table + bucket_of(m, key - query) * m->num_heads;
            for (int64_t n = 0; n < m->num_heads; n++) out[(n * tokens + query) * tokens + key] = row[n];
        }
    }
    run_unmap(run, &m->relative_attention_bias, table, MAP_READ);
    run_unmap(run, &bias, out, MAP_WRITE);
    return bias;
}

/* x + attention(norm(x)) */
static struct tensor attend(const struct t5_encoder *m, struct run *run, const struct t5_layer *layer, struct tensor x,
                            const struct tensor *bias, const struct tensor *mask) {
    int64_t batch = x.shape[0], tokens = x.shape[1], heads[] = {batch, tokens, m->num_heads, m->d_kv};
    struct tensor y = nn_cast(run, nn_norm(run, &layer->attention_norm, x), run->dtype);
    struct tensor q = nn_reshape(nn_linear(run, &layer->q, y, ACTIVATION_NONE), 4, heads);
    struct tensor k = nn_reshape(nn_linear(run, &layer->k, y, ACTIVATION_NONE), 4, heads);
    struct tensor v = nn_reshape(nn_linear(run, &layer->v, y, ACTIVATION_NONE), 4, heads);
    struct attention_args args = {.q = &q, .k = &k, .v = &v, .bias = bias, .mask = mask, .scale = 1.0f};
    y = nn_reshape(nn_attention(run, args), SHAPE(batch, tokens, m->num_heads * m->d_kv));
    return nn_add(run, x, nn_cast(run, nn_linear(run, &layer->o, y, ACTIVATION_NONE), DTYPE_F32));
}

/* x + ff(norm(x)) */
static struct tensor feed_forward(const struct t5_encoder *m, struct run *run, const struct t5_layer *layer, struct tensor x) {
    struct tensor y = nn_cast(run, nn_norm(run, &layer->ff_norm, x), run->dtype);
    struct tensor inner;
    if (m->gated) {
        struct tensor gate = nn_linear(run, &layer->wi, y, ACTIVATION_NONE);
        inner = nn_multiply(run, gate, nn_linear(run, &layer->wi_1, y, ACTIVATION_NONE), m->act);
    } else {
        inner = nn_linear(run, &layer->wi, y, m->act);
    }
    return nn_add(run, x, nn_cast(run, nn_linear(run, &layer->wo, inner, ACTIVATION_NONE), DTYPE_F32));
}

static struct text_encoder_state embed(const struct text_encoder *base, struct run *run, const int32_t *ids, int64_t batch,
                                       int64_t tokens) {
    const struct t5_encoder *m = (const struct t5_encoder *)base;
    struct text_encoder_state state = {0};
    if (check_ids(m, ids, batch, tokens, &run->error) != TESSERA_OK) return state;
    state.bias = position_bias(m, run, tokens);
    state.x = nn_cast(run, nn_embed(run, m->shared, ids, batch, tokens), DTYPE_F32);
    return state;
}

static struct tensor block(const struct text_encoder *base, struct run *run, int index, const struct text_encoder_state *state) {
    const struct t5_encoder *m = (const struct t5_encoder *)base;
    const struct t5_layer *layer = &m->layers[index];
    struct tensor y = attend(m, run, layer, state->x, &state->bias, state->mask.data != NULL ? &state->mask : NULL);
    return feed_forward(m, run, layer, y);
}

static struct text_encoder_output finish(const struct text_encoder *base, struct run *run, struct tensor last, struct tensor x,
                                         const int32_t *ids) {
    (void)x, (void)ids;
    return (struct text_encoder_output){.last_hidden_state = nn_norm(run, &((const struct t5_encoder *)base)->final_layer_norm, last)};
}

const struct text_encoder_class t5_encoder_class = {.name = "T5EncoderModel",
                                                    .open = open,
                                                    .load_embed = load_embed,
                                                    .load_block = load_block,
                                                    .load_finish = load_finish,
                                                    .embed = embed,
                                                    .block = block,
                                                    .finish = finish};
