/* Group normalisation (Wu and He 2018): statistics over a whole picture, so parts of a picture must agree on them first. */
#include <assert.h>

#include "nn/layers.h"

struct tensor nn_group_norm(struct run *run, const struct norm *layer, int groups, struct tensor x, enum activation act) {
    if (run_failed(run)) return (struct tensor){0};
    assert(x.ndim == 4 && groups > 0 && x.shape[3] % groups == 0);
    struct tensor out = run_tensor(run, x.dtype, x.ndim, x.shape);
    size_t scope = run_enter(run);
    struct tensor stats = run_tensor(run, DTYPE_F32, SHAPE(x.shape[0], groups, 2));
    if (run_failed(run)) return (struct tensor){0};
    const struct backend_ops *ops = run->backend->ops;
    ops->group_stats(run->backend, &stats, &x);
    double positions = (double)(x.shape[1] * x.shape[2]);
    exchange_group_stats(run, &stats, positions, positions * (double)(x.shape[3] / groups));
    if (run_failed(run)) return (struct tensor){0};
    ops->group_norm(run->backend, &out, &x, &stats, &layer->weight, &layer->bias, layer->eps, act);
    arena_release(run->arena, scope);
    return out;
}
