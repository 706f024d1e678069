/* Layers that are local to a token: products, norms, element by element work, and moving rows.
 *
 * Each is one operator of the backend; what layers add is the result's shape, its place, the count
 * of operations and the sticky error. */
#include <assert.h>
#include <string.h>

#include "nn/layers.h"
#include "backend/memory.h"
#include "nn/small_weights.h"

/* A weight as operators take it: NULL where the layer has none. */
static const struct tensor *or_null(const struct tensor *t) {
    return t->data != NULL ? t : NULL;
}

static struct tensor run_like(struct run *run, const struct tensor *x) {
    if (x->data == NULL) return (struct tensor){0};
    return run_tensor(run, x->dtype, x->ndim, x->shape);
}

/* out += x w^T; `product` is room for it. */
static void add_product(struct run *run, struct tensor *out, struct tensor *product, const struct tensor *x, const struct tensor *w) {
    if (run_failed(run)) return;
    run->operations += 2.0 * (double)tensor_count(x) * (double)w->shape[0];
    run_checked(run, small_weights_linear(run, product, x, w, NULL, ACTIVATION_NONE), *product);
    if (!run_failed(run)) run->backend->ops->add(run->backend, out, out, product);
}

/* What stands beside the weight: a change W' = W + B A is y += B (A x). */
static void add_sides(struct run *run, const struct linear_side *side, struct tensor *out, struct tensor x) {
    for (; side != NULL && !run_failed(run); side = side->next) {
        size_t scope = run_enter(run);
        struct tensor inner = side->down.data != NULL ? nn_linear(run, &(struct linear){.weight = side->down}, x, ACTIVATION_NONE) : x;
        struct tensor product = run_like(run, out);
        add_product(run, out, &product, &inner, &side->up);
        if (!run_failed(run)) arena_release(run->arena, scope);
    }
}

struct tensor nn_linear(struct run *run, const struct linear *layer, struct tensor x, enum activation act) {
    if (run_failed(run) || x.data == NULL) return (struct tensor){0};
    assert(layer->weight.data != NULL && x.shape[x.ndim - 1] == layer->weight.shape[1]);
    struct tensor shape = x;
    shape.shape[x.ndim - 1] = layer->weight.shape[0];
    struct tensor out = run_like(run, &shape);
    if (run_failed(run)) return out;
    run->operations += 2.0 * (double)tensor_count(&x) * (double)layer->weight.shape[0];
    enum activation at_once = layer->side == NULL ? act : ACTIVATION_NONE;
    run_checked(run, small_weights_linear(run, &out, &x, &layer->weight, or_null(&layer->bias), at_once), out);
    add_sides(run, layer->side, &out, x);
    if (at_once != act && !run_failed(run)) run->backend->ops->activate(run->backend, &out, &out, act);
    return run_checked(run, TESSERA_OK, out);
}

struct tensor nn_linear_sum(struct run *run, const struct linear *layer, struct tensor x) {
    return exchange_sum(run, nn_linear(run, layer, x, ACTIVATION_NONE));
}

struct tensor nn_norm(struct run *run, const struct norm *layer, struct tensor x) {
    struct tensor out = run_like(run, &x);
    if (out.data == NULL) return out;
    run->backend->ops->norm(run->backend, &out, &x, layer->kind, or_null(&layer->weight), or_null(&layer->bias), NULL, NULL, layer->eps);
    return out;
}

struct tensor nn_norm_modulated(struct run *run, const struct norm *layer, struct tensor x, struct tensor scale, struct tensor shift) {
    struct tensor out = run_like(run, &x);
    if (out.data == NULL) return out;
    run->backend->ops->norm(run->backend, &out, &x, layer->kind, or_null(&layer->weight), or_null(&layer->bias), &scale, &shift,
                            layer->eps);
    return out;
}

/* The shift becomes a tensor of x's shape: a row of it for each token. */
struct tensor nn_modulate(struct run *run, struct tensor x, struct tensor scale, struct tensor shift) {
    if (run_failed(run) || x.data == NULL) return (struct tensor){0};
    assert(x.ndim == 3 && x.dtype == run->dtype && shift.ndim == 2 && shift.shape[0] == x.shape[0] && shift.shape[1] == x.shape[2]);
    size_t scope = run_enter(run);
    struct tensor rows = run_tensor(run, DTYPE_I32, SHAPE(x.shape[0] * x.shape[1]));
    int32_t *row = run_map(run, &rows, MAP_WRITE);
    for (int64_t i = 0; row != NULL && i < x.shape[0] * x.shape[1]; i++) row[i] = (int32_t)(i / x.shape[1]);
    run_unmap(run, &rows, row, MAP_WRITE);
    struct tensor shifts = nn_embed_rows(run, shift, rows, x.shape[0], x.shape[1]);
    return run_leave(run, scope, nn_add(run, nn_gated_add(run, x, x, scale), shifts));
}

struct tensor nn_activate(struct run *run, struct tensor x, enum activation act) {
    struct tensor out = run_like(run, &x);
    if (out.data != NULL) run->backend->ops->activate(run->backend, &out, &x, act);
    return out;
}

struct tensor nn_add(struct run *run, struct tensor a, struct tensor b) {
    struct tensor out = run_like(run, &a);
    if (out.data != NULL) run->backend->ops->add(run->backend, &out, &a, &b);
    return out;
}

struct tensor nn_multiply(struct run *run, struct tensor a, struct tensor b, enum activation act) {
    struct tensor out = run_like(run, &a);
    if (out.data != NULL) run->backend->ops->multiply(run->backend, &out, &a, &b, act);
    return out;
}

struct tensor nn_gated_add(struct run *run, struct tensor residual, struct tensor x, struct tensor gate) {
    struct tensor out = run_like(run, &residual);
    if (out.data != NULL) run->backend->ops->gated_add(run->backend, &out, &residual, &x, &gate);
    return out;
}

struct tensor nn_rotary(struct run *run, struct tensor x, struct tensor cos, struct tensor sin) {
    struct tensor out = run_like(run, &x);
    if (out.data != NULL) run->backend->ops->rotary(run->backend, &out, &x, &cos, &sin);
    return out;
}

struct tensor nn_upsample(struct run *run, struct tensor x, int64_t rows, int64_t columns) {
    struct tensor out = run_tensor(run, x.dtype, SHAPE(x.shape[0], rows, columns, x.shape[3]));
    if (!run_failed(run)) run->backend->ops->upsample(run->backend, &out, &x);
    return out;
}

struct tensor nn_cast(struct run *run, struct tensor x, enum dtype dtype) {
    if (run_failed(run)) return (struct tensor){0};
    if (x.dtype == dtype || x.data == NULL) return x;
    struct tensor out = run_tensor(run, dtype, x.ndim, x.shape);
    if (!run_failed(run)) run->backend->ops->cast(run->backend, &out, &x);
    return out;
}

struct tensor nn_concat_rows(struct run *run, struct tensor a, struct tensor b) {
    if (run_failed(run)) return (struct tensor){0};
    if (a.data == NULL || b.data == NULL) return a.data == NULL ? b : a;
    assert(a.ndim == 3 && b.ndim == 3 && a.shape[0] == b.shape[0] && a.shape[2] == b.shape[2]);
    struct tensor out = run_tensor(run, a.dtype, SHAPE(a.shape[0], a.shape[1] + b.shape[1], a.shape[2]));
    if (run_failed(run)) return out;
    backend_copy_rows(run->backend, &out, 0, &a, 0, a.shape[1]);
    backend_copy_rows(run->backend, &out, a.shape[1], &b, 0, b.shape[1]);
    return out;
}

/* Channels become rows of width 1, one picture position a batch. */
struct tensor nn_concat_channels(struct run *run, struct tensor a, struct tensor b) {
    if (run_failed(run)) return (struct tensor){0};
    int last = a.ndim - 1;
    int64_t positions = tensor_count(&a) / a.shape[last], shape[TENSOR_MAX_DIMS] = {0};
    for (int i = 0; i < a.ndim; i++) shape[i] = a.shape[i];
    shape[last] += b.shape[last];
    struct tensor both =
        nn_concat_rows(run, tensor_reshape(a, SHAPE(positions, a.shape[last], 1)), tensor_reshape(b, SHAPE(positions, b.shape[last], 1)));
    return nn_reshape(both, a.ndim, shape);
}

struct tensor nn_slice_channels(struct run *run, struct tensor x, int64_t first, int64_t count) {
    if (run_failed(run)) return (struct tensor){0};
    int last = x.ndim - 1;
    if (count == x.shape[last]) return x;
    struct tensor shape = x;
    shape.shape[last] = count;
    int64_t positions = tensor_count(&x) / x.shape[last];
    struct tensor rows = nn_slice_rows(run, tensor_reshape(x, SHAPE(positions, x.shape[last], 1)), first, count);
    return nn_reshape(rows, shape.ndim, shape.shape);
}

struct tensor nn_slice_rows(struct run *run, struct tensor x, int64_t first, int64_t count) {
    if (run_failed(run) || count == 0) return (struct tensor){0};
    assert(x.ndim == 3 && first >= 0 && count >= 0 && first + count <= x.shape[1]);
    struct tensor out = run_tensor(run, x.dtype, SHAPE(x.shape[0], count, x.shape[2]));
    if (!run_failed(run)) backend_copy_rows(run->backend, &out, 0, &x, first, count);
    return out;
}

struct tensor nn_chunk(struct run *run, struct tensor x, int chunks, int index) {
    if (run_failed(run)) return (struct tensor){0};
    int64_t last = x.shape[x.ndim - 1], channels = last / chunks;
    assert(last % chunks == 0 && index >= 0 && index < chunks && last > 0);
    int64_t rows = tensor_count(&x) / last;
    struct tensor shape = x;
    shape.shape[x.ndim - 1] = channels;
    struct tensor out = run_like(run, &shape);
    if (run_failed(run)) return out;
    struct tensor from = tensor_reshape(x, SHAPE(rows, chunks, channels)), to = tensor_reshape(out, SHAPE(rows, 1, channels));
    backend_copy_rows(run->backend, &to, 0, &from, index, 1);
    return out;
}

struct tensor nn_reshape(struct tensor x, int ndim, const int64_t *shape) {
    return x.data == NULL ? x : tensor_reshape(x, ndim, shape);
}
