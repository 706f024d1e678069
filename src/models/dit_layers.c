/* See dit_layers.h. */
#include "models/dit_layers.h"

#include "nn/by_rows.h"
#include "nn/patchify.h"

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

struct tensor dit_embed_picture(struct run *run, const struct conv *proj, struct tensor picture, const struct cut *cut) {
    const struct tensor *w = &proj->weight;
    struct linear flat = {.weight = nn_reshape(*w, SHAPE(w->shape[0], w->shape[1] * w->shape[2] * w->shape[3])), .bias = proj->bias};
    return nn_linear(run, &flat, nn_patchify(run, picture, w->shape[1], cut), ACTIVATION_NONE);
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

struct modulation dit_modulation(struct run *run, const struct linear *layer, struct tensor emb, int chunks) {
    struct modulation m = {0};
    struct tensor *const fields[] = {&m.shift, &m.scale, &m.gate, &m.ff_shift, &m.ff_scale, &m.ff_gate, &m.shift2, &m.scale2, &m.gate2};
    struct tensor all = nn_cast(run, nn_linear(run, layer, emb, ACTIVATION_NONE), DTYPE_F32);
    for (int i = 0; i < chunks; i++) *fields[i] = nn_chunk(run, all, chunks, i);
    return m;
}

struct tensor dit_norm_continuous(struct run *run, const struct linear *layer, struct tensor x, struct tensor emb) {
    struct tensor both = nn_cast(run, nn_linear(run, layer, emb, ACTIVATION_NONE), DTYPE_F32);
    struct tensor scale = nn_chunk(run, both, 2, 0), shift = nn_chunk(run, both, 2, 1);
    return nn_norm_modulated(run, &dit_plain_norm, x, scale, shift);
}

/* ---- feed-forward ---- */

struct mlp dit_load_feed_forward(struct loader *loader, int64_t channels, int64_t hidden, const char *name) {
    return (struct mlp){.in = load_linear_outputs(loader, channels, hidden, 1, true, "%s.net.0.proj", name),
                        .out = load_linear_inputs(loader, hidden, 1, channels, true, "%s.net.2", name)};
}

struct feed_forward {
    const struct mlp *ff;
    const struct modulation *mod;
};

static struct tensor feed_forward_rows(struct run *run, const void *user, struct tensor x, int64_t first) {
    const struct feed_forward *f = user;
    (void)first;
    struct tensor y = nn_norm_modulated(run, &dit_plain_norm, x, f->mod->ff_scale, f->mod->ff_shift);
    y = nn_linear_sum(run, &f->ff->out, nn_linear(run, &f->ff->in, y, ACTIVATION_GELU_TANH));
    return nn_gated_add(run, x, y, f->mod->ff_gate);
}

struct tensor dit_feed_forward(struct run *run, const struct mlp *ff, struct tensor x, const struct modulation *mod) {
    enum { ARRAYS = 8 }; /* hidden channels, usually 4 times as many, and the steps before and after */
    size_t scope = run_enter(run);
    struct feed_forward f = {ff, mod};
    return run_leave(run, scope, nn_by_rows(run, x, x.shape[x.ndim > 0 ? x.ndim - 1 : 0], ARRAYS, feed_forward_rows, &f));
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
                    .kind = MEETING_ATTENTION, .count = 1, .of = MEETING_PICTURE, .is_sliced = true, .units = heads, .width = head_dim});
    meeting_add(list, (struct meeting){.kind = MEETING_SUM, .count = sums, .of = MEETING_PICTURE, .units = heads * head_dim, .width = 1});
}
