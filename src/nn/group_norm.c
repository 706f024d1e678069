/* Group normalisation (Wu and He 2018): statistics over a whole picture, so the ranks of a picture must
 * agree on them first. */
#include <assert.h>

#include "nn/layers.h"

void nn_group_stats_by_rows(struct run *run, struct tensor stats, struct tensor x) {
    int64_t lines = x.shape[0] * x.shape[1], groups = stats.shape[1];
    size_t scope = run_enter(run);
    struct tensor rows = run_tensor(run, DTYPE_F32, SHAPE(lines, groups, 2));
    if (run_failed(run)) return;
    struct tensor line = tensor_reshape(x, SHAPE(lines, 1, x.shape[2], x.shape[3]));
    run->backend->ops->group_stats(run->backend, &rows, &line);
    exchange_row_stats(run, stats, tensor_reshape(rows, SHAPE(x.shape[0], x.shape[1], groups, 2)));
    arena_release(run->arena, scope);
}

/* The statistics of the whole picture, as the backend and the strategies have it. */
static void whole_stats(struct run *run, struct tensor stats, struct tensor x) {
    if (run->backend->reproducible) {
        nn_group_stats_by_rows(run, stats, x);
        return;
    }
    double positions = (double)(x.shape[1] * x.shape[2]);
    run->backend->ops->group_stats(run->backend, &stats, &x);
    exchange_group_stats(run, &stats, positions, positions * (double)(x.shape[3] / stats.shape[1]));
}

struct tensor nn_group_norm(struct run *run, const struct norm *layer, int groups, struct tensor x, enum activation act) {
    if (run_failed(run)) return (struct tensor){0};
    assert(x.ndim == 4 && groups > 0 && x.shape[3] % groups == 0);
    struct tensor out = run_tensor(run, x.dtype, x.ndim, x.shape);
    size_t scope = run_enter(run);
    struct tensor stats = run_tensor(run, DTYPE_F32, SHAPE(x.shape[0], groups, 2));
    if (run_failed(run)) return (struct tensor){0};
    whole_stats(run, stats, x);
    if (run_failed(run)) return (struct tensor){0};
    run->backend->ops->group_norm(run->backend, &out, &x, &stats, &layer->weight, &layer->bias, layer->eps, act);
    arena_release(run->arena, scope);
    return out;
}
