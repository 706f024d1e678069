/* See dit_parts.h. */
#include "models/dit_parts.h"

#include <math.h>

#include "nn/patch.h"

const struct norm dit_plain_norm = {.kind = NORM_LAYER, .eps = DIT_NORM_EPS};

/* ---- embeddings ---- */

struct mlp dit_load_embedder(struct loader *loader, int64_t in, int64_t hidden, int64_t out, const char *name) {
    return (struct mlp){.in = load_linear(loader, in, hidden, true, "%s.linear_1", name),
                        .out = load_linear(loader, hidden, out, true, "%s.linear_2", name)};
}

struct tensor dit_mlp(struct run *run, const struct mlp *mlp, struct tensor x, enum activation act) {
    return nn_linear(run, &mlp->out, nn_linear(run, &mlp->in, nn_cast(run, x, run->dtype), act), ACTIVATION_NONE);
}

struct tensor dit_embed_values(struct run *run, const struct mlp *embedder, const float *values, int64_t count) {
    return dit_mlp(run, embedder, nn_timestep_embedding(run, values, count, DIT_TIMESTEP_CHANNELS), ACTIVATION_SILU);
}

struct tensor dit_embed_patches(struct run *run, const struct conv *proj, struct tensor picture, const struct cut *cut) {
    const struct tensor *w = &proj->weight;
    struct linear flat = {.weight = nn_reshape(*w, SHAPE(w->shape[0], w->shape[1] * w->shape[2] * w->shape[3])), .bias = proj->bias};
    return nn_linear(run, &flat, nn_patches(run, picture, w->shape[1], cut), ACTIVATION_NONE);
}

struct tensor dit_embed_text(struct run *run, const struct linear *layer, struct tensor text) {
    size_t scope = run_enter(run);
    text = nn_cast(run, exchange_text(run, text), run->dtype);
    return run_leave(run, scope, nn_linear(run, layer, text, ACTIVATION_NONE));
}

/* ---- modulation ---- */

struct tensor dit_activated_cond(struct run *run, struct tensor cond) {
    return nn_cast(run, nn_activate(run, cond, ACTIVATION_SILU), run->dtype);
}

struct modulation dit_modulation(struct run *run, const struct linear *layer, struct tensor emb, int parts) {
    struct modulation m = {0};
    struct tensor *const chunks[] = {&m.shift, &m.scale, &m.gate, &m.ff_shift, &m.ff_scale, &m.ff_gate, &m.shift2, &m.scale2, &m.gate2};
    struct tensor all = nn_cast(run, nn_linear(run, layer, emb, ACTIVATION_NONE), DTYPE_F32);
    for (int i = 0; i < parts; i++) *chunks[i] = nn_chunk(run, all, parts, i);
    return m;
}

struct tensor dit_norm_continuous(struct run *run, const struct linear *layer, struct tensor x, struct tensor emb) {
    struct tensor both = nn_cast(run, nn_linear(run, layer, emb, ACTIVATION_NONE), DTYPE_F32);
    struct tensor scale = nn_chunk(run, both, 2, 0), shift = nn_chunk(run, both, 2, 1);
    return nn_norm_modulated(run, &dit_plain_norm, x, scale, shift);
}

/* ---- attention ---- */

const struct attention_names dit_picture_names = {"attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.norm_q", "attn.norm_k"};
const struct attention_names dit_text_names = {"attn.add_q_proj", "attn.add_k_proj",   "attn.add_v_proj",
                                               "attn.to_add_out", "attn.norm_added_q", "attn.norm_added_k"};

struct attention dit_load_attention(struct loader *loader, int64_t heads, int64_t head_dim, const struct attention_names *names, bool bias,
                                    bool norms) {
    struct attention a = {0};
    struct linear *const linears[] = {&a.q, &a.k, &a.v};
    struct norm *const head_norms[] = {&a.norm_q, &a.norm_k};
    const char *const linear_names[] = {names->q, names->k, names->v}, *const norm_names[] = {names->norm_q, names->norm_k};
    int64_t c = heads * head_dim;
    for (int i = 0; i < 3; i++) {
        if (linear_names[i][0] != '\0') *linears[i] = load_linear_outputs(loader, c, heads, head_dim, bias, "%s", linear_names[i]);
    }
    if (names->out[0] != '\0') a.out = load_linear_inputs(loader, heads, head_dim, c, bias, "%s", names->out);
    for (int i = 0; i < 2 && norms; i++) {
        if (norm_names[i][0] != '\0') *head_norms[i] = load_norm(loader, NORM_RMS, head_dim, DIT_NORM_EPS, false, "%s", norm_names[i]);
    }
    return a;
}

/* [B, S, C] -> [B, S, heads, head_dim] */
static struct tensor by_head(struct tensor x, int64_t head_dim) {
    return nn_reshape(x, SHAPE(x.shape[0], x.shape[1], x.shape[2] / head_dim, head_dim));
}

struct tensor dit_rotate(struct run *run, const struct rotation *r, int64_t head_dim, struct tensor x) {
    if (r == NULL || run_failed(run)) return run_failed(run) ? (struct tensor){0} : x;
    return nn_reshape(nn_rotary(run, by_head(x, head_dim), r->cos, r->sin), x.ndim, x.shape);
}

struct tensor dit_project(struct run *run, const struct linear *layer, const struct norm *norm, const struct rotation *r, int64_t head_dim,
                          struct tensor x) {
    struct tensor y = nn_linear(run, layer, x, ACTIVATION_NONE);
    if (norm->eps > 0.0f) y = nn_reshape(nn_norm(run, norm, by_head(y, head_dim)), y.ndim, y.shape);
    return dit_rotate(run, r, head_dim, y);
}

struct tensor dit_attend(struct run *run, int64_t head_dim, struct tensor q, struct tensor k, struct tensor v, const struct cut *cut,
                         struct text_span text) {
    if (run_failed(run)) return (struct tensor){0};
    struct tensor heads[] = {by_head(q, head_dim), by_head(k, head_dim), by_head(v, head_dim)};
    struct attention_args args = {.q = &heads[0], .k = &heads[1], .v = &heads[2], .scale = 1.0f / sqrtf((float)head_dim)};
    return nn_reshape(nn_joint_attention(run, args, cut, text), q.ndim, q.shape);
}

/* The rows of a rotation from `first` on, for so many tokens. */
static struct rotation rotation_from(const struct rotation *r, int64_t first, int64_t tokens) {
    struct rotation part = *r;
    struct tensor *const tables[] = {&part.cos, &part.sin};
    for (int i = 0; i < 2 && r->cos.data != NULL; i++) {
        tables[i]->data = (char *)tables[i]->data + tensor_bytes(tables[i]) / (size_t)tables[i]->shape[0] * (size_t)first;
        tables[i]->shape[0] = tokens;
    }
    return part;
}

void dit_joint_attention(struct run *run, int64_t head_dim, const struct attention *const weights[2], const struct rotation *r,
                         struct tensor x[2], const struct cut *cut, struct text_span text) {
    struct attention_streams streams = {.scale = 1.0f / sqrtf((float)head_dim)};
    struct token_rows out[2];
    size_t scope = run_enter(run);
    for (int i = 0, first = 0; i < 2; first += (int)x[i++].shape[1]) {
        const struct attention *a = weights[i];
        struct rotation mine = r != NULL ? rotation_from(r, first, x[i].shape[1]) : (struct rotation){0};
        const struct rotation *turn = r != NULL ? &mine : NULL;
        bool asks = a->q.weight.data != NULL;
        if (x[i].data == NULL) continue;
        if (asks) streams.q[i] = by_head(dit_project(run, &a->q, &a->norm_q, turn, head_dim, x[i]), head_dim);
        streams.k[i] = by_head(dit_project(run, &a->k, &a->norm_k, turn, head_dim, x[i]), head_dim);
        streams.v[i] = by_head(nn_linear(run, &a->v, x[i], ACTIVATION_NONE), head_dim);
    }
    exchange_attention(run, &streams, cut, text, out);
    for (int i = 0; i < 2; i++) {
        struct tensor y = token_rows_tensor(run, out[i]);
        x[i] = y.data != NULL ? nn_linear_sum(run, &weights[i]->out, nn_reshape(y, SHAPE(y.shape[0], y.shape[1], y.shape[2] * head_dim)))
                              : (struct tensor){0};
    }
    run_leave_all(run, scope, (struct tensor *[]){&x[0], &x[1]}, 2);
}

/* ---- feed-forward ---- */

struct mlp dit_load_feed_forward(struct loader *loader, int64_t channels, int64_t hidden, const char *name) {
    return (struct mlp){.in = load_linear_outputs(loader, channels, hidden, 1, true, "%s.net.0.proj", name),
                        .out = load_linear_inputs(loader, hidden, 1, channels, true, "%s.net.2", name)};
}

struct tensor dit_feed_forward(struct run *run, const struct mlp *ff, struct tensor x, const struct modulation *mod) {
    size_t scope = run_enter(run);
    struct tensor y = nn_norm_modulated(run, &dit_plain_norm, x, mod->ff_scale, mod->ff_shift);
    y = nn_linear_sum(run, &ff->out, nn_linear(run, &ff->in, y, ACTIVATION_GELU_TANH));
    return run_leave(run, scope, nn_gated_add(run, x, y, mod->ff_gate));
}

/* ---- description ---- */

static int64_t size_of(const struct tensor *t) {
    return t->ndim == 0 ? 0 : tensor_count(t);
}

int64_t dit_count_linear(const struct linear *layer, int64_t *parameters) {
    *parameters += size_of(&layer->weight) + size_of(&layer->bias);
    return size_of(&layer->weight);
}

int64_t dit_count_attention(const struct attention *attention, int64_t *parameters) {
    const struct linear *const linears[] = {&attention->q, &attention->k, &attention->v, &attention->out};
    const struct norm *const norms[] = {&attention->norm_q, &attention->norm_k};
    int64_t weights = 0;
    for (int i = 0; i < 4; i++) weights += dit_count_linear(linears[i], parameters);
    for (int i = 0; i < 2; i++) *parameters += size_of(&norms[i]->weight) + size_of(&norms[i]->bias);
    return weights;
}

int64_t dit_count_mlp(const struct mlp *mlp, int64_t *parameters) {
    return dit_count_linear(&mlp->in, parameters) + dit_count_linear(&mlp->out, parameters);
}

void dit_list_meetings(int64_t heads, int64_t head_dim, int sums, struct meeting_list *list) {
    meeting_add(list,
                (struct meeting){
                    .kind = MEETING_ATTENTION, .count = 1, .of = MEETING_PICTURE, .is_share = true, .units = heads, .width = head_dim});
    meeting_add(list, (struct meeting){.kind = MEETING_SUM, .count = sums, .of = MEETING_PICTURE, .units = heads * head_dim, .width = 1});
}
