/* Convolutions: wider than 1x1, they need rows of the neighbouring part of a picture. */
#include <assert.h>

#include "nn/layers.h"

static struct tensor convolve(struct run *run, const struct conv *layer, struct tensor x, const struct tensor *residual,
                              struct conv2d_geometry g) {
    if (run_failed(run)) return (struct tensor){0};
    const int64_t *w = layer->weight.shape;
    assert(x.ndim == 4 && x.shape[3] == w[3] && g.stride > 0);
    int64_t rows = (x.shape[1] + g.pad_top + g.pad_bottom - w[1]) / g.stride + 1;
    int64_t columns = (x.shape[2] + g.pad_left + g.pad_right - w[2]) / g.stride + 1;
    struct tensor out = run_tensor(run, x.dtype, SHAPE(x.shape[0], rows, columns, w[0]));
    if (run_failed(run)) return out;
    run->operations += 2.0 * (double)tensor_count(&out) * (double)(w[1] * w[2] * w[3]);
    const struct tensor *bias = layer->bias.data != NULL ? &layer->bias : NULL;
    return run_checked(run, run->backend->ops->conv2d(run->backend, &out, &x, &layer->weight, bias, residual, g, &run->error), out);
}

struct tensor nn_conv(struct run *run, const struct conv *layer, struct tensor x, const struct tensor *residual) {
    if (run_failed(run)) return (struct tensor){0};
    int rows = (int)(layer->weight.shape[1] / 2), columns = (int)(layer->weight.shape[2] / 2);
    return convolve(run, layer, x, residual, (struct conv2d_geometry){1, rows, rows, columns, columns});
}

struct tensor nn_conv_strided(struct run *run, const struct conv *layer, struct tensor x, struct conv2d_geometry geometry) {
    return convolve(run, layer, x, NULL, geometry);
}
