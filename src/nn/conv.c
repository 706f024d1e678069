/* Convolutions: wider than 1x1, they need rows of a picture that the neighbouring ranks hold. */
#include <assert.h>

#include "nn/layers.h"
#include "backend/memory.h"
#include "nn/small_weights.h"

void nn_conv_into(struct run *run, struct tensor *out, const struct conv *layer, const struct tensor *x, const struct tensor *residual,
                  struct conv2d_geometry geometry) {
    if (run_failed(run)) return;
    const int64_t *w = layer->weight.shape;
    const struct tensor *bias = layer->bias.data != NULL ? &layer->bias : NULL;
    run->operations += 2.0 * (double)tensor_count(out) * (double)(w[1] * w[2] * w[3]);
    run_checked(run, small_weights_conv2d(run, out, x, &layer->weight, bias, residual, geometry), *out);
}

static struct tensor convolve(struct run *run, const struct conv *layer, struct tensor x, const struct tensor *residual,
                              struct conv2d_geometry g) {
    if (run_failed(run)) return (struct tensor){0};
    const int64_t *w = layer->weight.shape;
    assert(x.ndim == 4 && x.shape[3] == w[3] && g.stride > 0);
    int64_t rows = (x.shape[1] + g.pad_top + g.pad_bottom - w[1]) / g.stride + 1;
    int64_t columns = (x.shape[2] + g.pad_left + g.pad_right - w[2]) / g.stride + 1;
    struct tensor out = run_tensor(run, x.dtype, SHAPE(x.shape[0], rows, columns, w[0]));
    nn_conv_into(run, &out, layer, &x, residual, g);
    return run_failed(run) ? (struct tensor){0} : out;
}

/* Rows of the neighbours above and below x, in one tensor. */
static struct tensor with_halo(struct run *run, struct tensor x, const struct halo *halo) {
    int64_t above = halo->above.data != NULL ? halo->above.shape[1] : 0, below = halo->below.data != NULL ? halo->below.shape[1] : 0;
    if (above + below == 0 || run_failed(run)) return x;
    int64_t width = x.shape[2] * x.shape[3], at = 0;
    struct tensor joined = run_tensor(run, x.dtype, SHAPE(x.shape[0], above + x.shape[1] + below, x.shape[2], x.shape[3]));
    if (run_failed(run)) return joined;
    struct tensor to = tensor_reshape(joined, SHAPE(x.shape[0], joined.shape[1], width)), pieces[] = {halo->above, x, halo->below};
    for (int i = 0; i < 3; i++) {
        if (pieces[i].data == NULL) continue;
        struct tensor piece = tensor_reshape(pieces[i], SHAPE(x.shape[0], pieces[i].shape[1], width));
        backend_copy_rows(run->backend, &to, at, &piece, 0, piece.shape[1]);
        at += piece.shape[1];
    }
    return joined;
}

/* Of a picture cut by rows, the rows that the kernel reaches beyond this rank's come from the
 * neighbours and replace the padding there. */
static struct tensor convolve_cut(struct run *run, const struct conv *layer, struct tensor x, const struct tensor *residual,
                                  struct conv2d_geometry g) {
    int64_t kernel = layer->weight.shape[1], below = kernel - g.stride - g.pad_top;
    if (kernel == 1 || !parallel_cuts_positions(run->parallel) || run_failed(run)) return convolve(run, layer, x, residual, g);
    size_t scope = run_enter(run);
    struct halo halo = exchange_halo_start(run, x, g.pad_top, below > 0 ? below : 0);
    exchange_halo_wait(run, &halo);
    if (halo.above.data != NULL) g.pad_top = 0;
    if (halo.below.data != NULL) g.pad_bottom = 0;
    return run_leave(run, scope, convolve(run, layer, with_halo(run, x, &halo), residual, g));
}

struct tensor nn_conv(struct run *run, const struct conv *layer, struct tensor x, const struct tensor *residual) {
    if (run_failed(run)) return (struct tensor){0};
    int rows = (int)(layer->weight.shape[1] / 2), columns = (int)(layer->weight.shape[2] / 2);
    return convolve_cut(run, layer, x, residual, (struct conv2d_geometry){1, rows, rows, columns, columns});
}

struct tensor nn_conv_sum(struct run *run, const struct conv *layer, struct tensor x, const struct tensor *residual) {
    return exchange_sum(run, nn_conv(run, layer, x, residual));
}

struct tensor nn_conv_inputs(struct run *run, const struct conv *layer, struct tensor x) {
    return nn_slice_channels(run, x, layer->first_input, layer->weight.shape[3]);
}

struct tensor nn_conv_strided(struct run *run, const struct conv *layer, struct tensor x, struct conv2d_geometry geometry) {
    return convolve_cut(run, layer, x, NULL, geometry);
}

struct tensor nn_conv_of_whole(struct run *run, const struct conv *layer, struct tensor x, int64_t first, int64_t rows) {
    if (run_failed(run)) return (struct tensor){0};
    int64_t height = x.shape[1], width = x.shape[2] * x.shape[3], reach = layer->weight.shape[1] / 2;
    int64_t low = first - reach > 0 ? first - reach : 0, high = first + rows + reach < height ? first + rows + reach : height;
    int columns = (int)(layer->weight.shape[2] / 2), top = (int)(reach - (first - low)), bottom = (int)(reach - (high - first - rows));
    size_t scope = run_enter(run);
    struct tensor strip = nn_slice_rows(run, nn_reshape(x, SHAPE(x.shape[0], height, width)), low, high - low);
    strip = nn_reshape(strip, SHAPE(x.shape[0], high - low, x.shape[2], x.shape[3]));
    return run_leave(run, scope, convolve(run, layer, strip, NULL, (struct conv2d_geometry){1, top, bottom, columns, columns}));
}
