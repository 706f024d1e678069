/* The composite behind weights of another type: a tile of output channels is cast to the
 * activations' type, multiplied, and put in its place among the outputs.
 *
 *     w [O, K], small     -- cast -->  tile [n, K]  -- linear -->  some [M, n]  -- copy_rows -->  out [M, c .. c + n]
 *
 * It is made of the backend's other operators alone, so every backend has it, and no more than a
 * tile of the weights is there in a wide type. Where the backend supports the types the operator is
 * called as it is. */
#include "nn/small_weights.h"
#include "backend/memory.h"

enum { TILE_NUMBERS = 4 << 20, TILE_CHANNELS_MIN = 64 };

/* How many of `channels` outputs with `depth` weights each make a tile. Where blocks cross rows a
 * tile ends between two of them: a block's length is a power of two, and so is the least number of
 * rows that holds whole blocks. */
static int64_t tile_of(int64_t channels, int64_t depth, int64_t block) {
    int64_t most = TILE_NUMBERS / (depth > 0 ? depth : 1), rows = 1;
    if (most < TILE_CHANNELS_MIN) most = TILE_CHANNELS_MIN;
    while (rows * depth % block != 0) rows *= 2;
    most = (most + rows - 1) / rows * rows;
    return most < channels ? most : channels;
}

/* What a product does with one tile of the weights. */
struct product {
    const struct tensor *x, *bias;
    enum activation act;
    bool is_conv;
    struct conv2d_geometry geometry;
};

static tessera_status multiply(struct run *run, const struct product *p, struct tensor *out, const struct tensor *w, int64_t first) {
    const struct backend_ops *ops = run->backend->ops;
    struct tensor bias = p->bias != NULL ? tensor_of((float *)p->bias->data + first, DTYPE_F32, SHAPE(w->shape[0])) : (struct tensor){0};
    const struct tensor *some = p->bias != NULL ? &bias : NULL;
    if (p->is_conv) return ops->conv2d(run->backend, out, p->x, w, some, NULL, p->geometry, &run->error);
    return ops->linear(run->backend, out, p->x, w, some, p->act, &run->error);
}

/* Output channels [first, first + w's rows) of the product. */
static tessera_status multiply_tile(struct run *run, const struct product *p, struct tensor *out, const struct tensor *w, int64_t first) {
    struct tensor tile = run_tensor(run, p->x->dtype, w->ndim, w->shape), some = *out;
    some.shape[out->ndim - 1] = w->shape[0];
    bool whole = w->shape[0] == out->shape[out->ndim - 1];
    if (!whole) some = run_tensor(run, out->dtype, some.ndim, some.shape);
    if (run_failed(run)) return run->error.status;
    run->backend->ops->cast(run->backend, &tile, w);
    TRY(multiply(run, p, &some, &tile, first));
    if (whole) return TESSERA_OK;
    int64_t rows = tensor_count(&some) / w->shape[0];
    struct tensor to = tensor_reshape(*out, SHAPE(rows, out->shape[out->ndim - 1], 1)),
                  from = tensor_reshape(some, SHAPE(rows, w->shape[0], 1));
    backend_copy_rows(run->backend, &to, first, &from, 0, w->shape[0]);
    return TESSERA_OK;
}

static tessera_status multiply_tiles(struct run *run, const struct product *p, struct tensor *out, const struct tensor *w) {
    int64_t channels = w->shape[0], depth = channels > 0 ? tensor_count(w) / channels : 0, step = tile_of(channels, depth, dtype_block(w->dtype));
    size_t scope = run_enter(run);
    for (int64_t first = 0; first < channels; first += step) {
        struct tensor some = *w;
        some.shape[0] = channels - first < step ? channels - first : step;
        some.data = (char *)w->data + dtype_bytes(w->dtype, first * depth);
        TRY(multiply_tile(run, p, out, &some, first));
        arena_release(run->arena, scope);
    }
    return TESSERA_OK;
}

tessera_status small_weights_linear(struct run *run, struct tensor *out, const struct tensor *x, const struct tensor *w,
                                    const struct tensor *bias, enum activation act) {
    if (run->backend->ops->supports(run->backend, PRODUCT_LINEAR, x->dtype, w->dtype))
        return run->backend->ops->linear(run->backend, out, x, w, bias, act, &run->error);
    return multiply_tiles(run, &(struct product){.x = x, .bias = bias, .act = act}, out, w);
}

tessera_status small_weights_conv2d(struct run *run, struct tensor *out, const struct tensor *x, const struct tensor *w,
                                    const struct tensor *bias, const struct tensor *residual, struct conv2d_geometry geometry) {
    const struct backend_ops *ops = run->backend->ops;
    if (ops->supports(run->backend, PRODUCT_CONV2D, x->dtype, w->dtype))
        return ops->conv2d(run->backend, out, x, w, bias, residual, geometry, &run->error);
    TRY(multiply_tiles(run, &(struct product){.x = x, .bias = bias, .is_conv = true, .geometry = geometry}, out, w));
    if (residual != NULL) ops->add(run->backend, out, out, residual);
    return TESSERA_OK;
}
