/* See by_rows.h. */
#include "nn/by_rows.h"

#include <assert.h>

#include "backend/memory.h"

enum { EVEN_ROWS = 64 /* products are fastest in multiples of their tiles */ };

/* How many rows a piece has; the same on ranks that hold different shares of the weights, so only
 * x's own width counts. */
static int64_t rows_at_once(const struct run *run, const struct tensor *x, int arrays) {
    size_t row = tensor_bytes(x) / (size_t)x->shape[1] * (size_t)arrays;
    int64_t rows = row > 0 ? (int64_t)(run->chunk_bytes / row) : x->shape[1];
    if (run->chunk_bytes == 0 || rows >= x->shape[1]) return x->shape[1];
    if (rows > EVEN_ROWS) return rows / EVEN_ROWS * EVEN_ROWS;
    return rows > 0 ? rows : 1;
}

struct tensor nn_some_rows(struct run *run, struct tensor x, int64_t first, int64_t count) {
    if (run_failed(run) || (first == 0 && count == x.shape[1])) return run_failed(run) ? (struct tensor){0} : x;
    if (x.shape[0] > 1) return nn_slice_rows(run, x, first, count);
    x.data = (char *)x.data + tensor_bytes(&x) / (size_t)x.shape[1] * (size_t)first;
    x.shape[1] = count;
    return x;
}

void nn_by_rows_into(struct run *run, struct tensor out, int64_t at, struct tensor x, int arrays, rows_function *f, const void *user) {
    if (run_failed(run) || x.data == NULL) return;
    assert(x.ndim == 3 && out.ndim == 3 && out.shape[0] == x.shape[0] && at + x.shape[1] <= out.shape[1]);
    int64_t step = rows_at_once(run, &x, arrays);
    size_t scope = run_enter(run);
    for (int64_t first = 0; first < x.shape[1]; first += step) {
        int64_t count = x.shape[1] - first < step ? x.shape[1] - first : step;
        struct tensor y = f(run, user, nn_some_rows(run, x, first, count), first);
        if (run_failed(run)) return;
        backend_copy_rows(run->backend, &out, at + first, &y, 0, count);
        arena_release(run->arena, scope);
    }
}

struct tensor nn_by_rows(struct run *run, struct tensor x, int64_t width, int arrays, rows_function *f, const void *user) {
    if (run_failed(run) || x.data == NULL) return (struct tensor){0};
    if (rows_at_once(run, &x, arrays) >= x.shape[1]) return f(run, user, x, 0);
    struct tensor out = run_tensor(run, run->dtype, SHAPE(x.shape[0], x.shape[1], width));
    nn_by_rows_into(run, out, 0, x, arrays, f, user);
    return run_failed(run) ? (struct tensor){0} : out;
}

/* ---- a feed-forward network ---- */

struct network {
    const struct linear *in, *gates, *out;
    enum activation act;
};

static struct tensor network_rows(struct run *run, const void *user, struct tensor x, int64_t first) {
    const struct network *n = user;
    (void)first;
    struct tensor values = nn_linear(run, n->in, x, n->gates == NULL ? n->act : ACTIVATION_NONE);
    if (n->gates != NULL) values = nn_multiply(run, nn_linear(run, n->gates, x, ACTIVATION_NONE), values, n->act);
    return nn_linear_sum(run, n->out, values);
}

struct tensor nn_feed_forward(struct run *run, const struct linear *in, const struct linear *gates, const struct linear *out,
                              enum activation act, struct tensor x) {
    enum { ARRAYS = 8, GATED_ARRAYS = 14 }; /* of hidden channels there are usually 4 times as many */
    size_t scope = run_enter(run);
    struct network n = {in, gates, out, act};
    return run_leave(run, scope, nn_by_rows(run, x, out->weight.shape[0], gates != NULL ? GATED_ARRAYS : ARRAYS, network_rows, &n));
}
