/* Attention of diffusion transformers: see dit_layers.h.
 *
 * Alone, a rank needs no query before it is its row's turn: keys and values are made of all rows,
 * then some rows at a time become queries, attention and output (nn/by_rows.h; all rows at once
 * unless memory is short). Rows are independent of each other, so the numbers are the same where
 * the products' are (by_rows.h says of which kernels). Where positions are spread over ranks the
 * exchange gets all queries. */
#include <math.h>

#include "models/dit_layers.h"
#include "nn/by_rows.h"

static const struct norm no_norm = {0};

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
    struct rotation rest = *r;
    struct tensor *const tables[] = {&rest.cos, &rest.sin};
    for (int i = 0; i < 2 && r->cos.data != NULL; i++) {
        tables[i]->data = (char *)tables[i]->data + tensor_bytes(tables[i]) / (size_t)tables[i]->shape[0] * (size_t)first;
        tables[i]->shape[0] = tokens;
    }
    return rest;
}

/* ---- some rows of the queries at a time ---- */

/* Steps from a row to its query, attention and output, or to its key. */
enum { QUERY_ARRAYS = 6, KEY_ARRAYS = 4 };

/* What makes keys or values (`layer`), or attention of queries to k and v [B, tokens, N, D]. */
struct projection {
    int64_t head_dim;
    const struct attention *a;
    const struct linear *layer;
    const struct norm *norm;
    const struct rotation *r;
    int64_t turned_from; /* the rotation of the first row */
    struct tensor k, v;
    const struct tensor *mask;
};

static struct tensor project_rows(struct run *run, const void *user, struct tensor x, int64_t first) {
    const struct projection *p = user;
    struct rotation mine = p->r != NULL ? rotation_from(p->r, p->turned_from + first, x.shape[1]) : (struct rotation){0};
    return dit_project(run, p->layer, p->norm, p->r != NULL ? &mine : NULL, p->head_dim, x);
}

static struct tensor attend_rows(struct run *run, const void *user, struct tensor x, int64_t first) {
    const struct projection *p = user;
    struct tensor q = by_head(project_rows(run, p, x, first), p->head_dim);
    if (run_failed(run)) return q;
    struct attention_args args = {.q = &q, .k = &p->k, .v = &p->v, .mask = p->mask, .scale = 1.0f / sqrtf((float)p->head_dim)};
    struct tensor y = nn_attention(run, args);
    y = nn_reshape(y, SHAPE(y.shape[0], y.shape[1], y.shape[2] * p->head_dim));
    return p->a->out.weight.data != NULL ? nn_linear_sum(run, &p->a->out, y) : y;
}

static struct projection keys_of(struct projection p) {
    p.layer = &p.a->k, p.norm = &p.a->norm_k;
    return p;
}

static struct projection values_of(struct projection p) {
    p.layer = &p.a->v, p.norm = &no_norm, p.r = NULL;
    return p;
}

static struct tensor ask(struct run *run, const struct projection *p, struct tensor x) {
    struct projection queries = *p;
    int64_t heads = p->a->q.weight.shape[0], width = p->a->out.weight.data != NULL ? p->a->out.weight.shape[0] : heads;
    queries.layer = &p->a->q, queries.norm = &p->a->norm_q;
    return nn_by_rows(run, x, width, QUERY_ARRAYS, attend_rows, &queries);
}

struct tensor dit_attention(struct run *run, int64_t head_dim, const struct attention *a, const struct rotation *r, struct tensor x,
                            const struct dit_asked *asked) {
    if (run_failed(run) || x.data == NULL) return (struct tensor){0};
    size_t scope = run_enter(run);
    struct projection p = {.head_dim = head_dim, .a = a, .r = r, .mask = asked->mask};
    struct tensor from = asked->text != NULL ? *asked->text : x;
    if (asked->text == NULL && asked->cut != NULL) {
        struct tensor q = dit_project(run, &a->q, &a->norm_q, r, head_dim, x), k = dit_project(run, &a->k, &a->norm_k, r, head_dim, x);
        struct tensor y = dit_attend(run, head_dim, q, k, nn_linear(run, &a->v, x, ACTIVATION_NONE), asked->cut, asked->span);
        return run_leave(run, scope, a->out.weight.data != NULL ? nn_linear_sum(run, &a->out, y) : y);
    }
    struct projection keys = keys_of(p), values = values_of(p);
    if (asked->text != NULL) keys.r = NULL;
    p.k = by_head(nn_by_rows(run, from, a->k.weight.shape[0], KEY_ARRAYS, project_rows, &keys), head_dim);
    p.v = by_head(nn_by_rows(run, from, a->v.weight.shape[0], KEY_ARRAYS, project_rows, &values), head_dim);
    return run_leave(run, scope, ask(run, &p, x));
}

/* dit_joint_attention, alone. */
static void joint_by_rows(struct run *run, int64_t head_dim, const struct attention *const weights[2], const struct rotation *r,
                          struct tensor x[2]) {
    const struct tensor *some = x[0].data != NULL ? &x[0] : &x[1];
    int64_t first[2] = {0, x[0].data != NULL ? x[0].shape[1] : 0}, tokens = first[1] + (x[1].data != NULL ? x[1].shape[1] : 0);
    struct projection p = {.head_dim = head_dim, .r = r};
    struct tensor k = run_tensor(run, run->dtype, SHAPE(some->shape[0], tokens, weights[0]->k.weight.shape[0])), v;
    v = run_tensor(run, run->dtype, k.ndim, k.shape);
    for (int i = 0; i < 2; i++) {
        p.a = weights[i], p.turned_from = first[i];
        struct projection keys = keys_of(p), values = values_of(p);
        nn_by_rows_into(run, k, first[i], x[i], KEY_ARRAYS, project_rows, &keys);
        nn_by_rows_into(run, v, first[i], x[i], KEY_ARRAYS, project_rows, &values);
    }
    p.k = by_head(k, head_dim), p.v = by_head(v, head_dim);
    for (int i = 0; i < 2; i++) {
        p.a = weights[i], p.turned_from = first[i];
        x[i] = x[i].data != NULL && p.a->q.weight.data != NULL ? ask(run, &p, x[i]) : (struct tensor){0};
    }
}

/* ---- two streams ---- */

void dit_joint_attention(struct run *run, int64_t head_dim, const struct attention *const weights[2], const struct rotation *r,
                         struct tensor x[2], const struct cut *cut, struct text_span text) {
    struct attention_streams streams = {.scale = 1.0f / sqrtf((float)head_dim)};
    struct token_span out[2];
    size_t scope = run_enter(run);
    if (run->chunk_bytes > 0 && cut == NULL) {
        joint_by_rows(run, head_dim, weights, r, x);
        run_leave_all(run, scope, (struct tensor *[]){&x[0], &x[1]}, 2);
        return;
    }
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
        struct tensor y = token_span_tensor(run, out[i]);
        x[i] = y.data != NULL ? nn_linear_sum(run, &weights[i]->out, nn_reshape(y, SHAPE(y.shape[0], y.shape[1], y.shape[2] * head_dim)))
                              : (struct tensor){0};
    }
    run_leave_all(run, scope, (struct tensor *[]){&x[0], &x[1]}, 2);
}
