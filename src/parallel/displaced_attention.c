/* Attention of a part of a picture to the whole of it, the others' keys and values being those of one step before (displaced.h).
 *
 *     keys and values   [ this rank's, fresh | the others', of step t - 1 | this rank's own text, fresh ]
 *     queries           this rank's positions and its own text
 *
 * Text never travels: each rank carries its own stream of it. Sent per rank and step: 2 B S / n C to each of the n - 1 others, behind the
 * computing of a whole step. */
#include <assert.h>
#include <string.h>

#include "parallel/exchange.h"

/* x [B, S, N, D] as [B, S, N D]. */
static struct tensor flat(struct tensor x) {
    return tensor_reshape(x, SHAPE(x.shape[0], x.shape[1], x.shape[2] * x.shape[3]));
}

/* The rows of x that are the picture's. */
static struct tensor picture_rows(struct run *run, struct tensor x, struct text_span text) {
    if (text.count == 0) return x;
    struct tensor out = run_tensor(run, x.dtype, SHAPE(x.shape[0], x.shape[1] - text.count, x.shape[2], x.shape[3]));
    if (run_failed(run)) return out;
    struct tensor to = flat(out), from = flat(x);
    run->backend->ops->copy_rows(run->backend, &to, 0, &from, text.first == 0 ? text.count : 0, out.shape[1]);
    return out;
}

/* Keys (half 0) or values (half 1) of all members' blocks [2, B, tokens, N, D], then the text's rows of x. */
static struct tensor join_blocks(struct run *run, char *const *all, int half, struct tensor x, const struct cut *cut,
                                 struct text_span text) {
    int64_t batch = x.shape[0], total = cut->rows * cut->columns;
    struct tensor out = run_tensor(run, x.dtype, SHAPE(batch, total + text.count, x.shape[2], x.shape[3]));
    if (run_failed(run)) return out;
    struct tensor to = flat(out), own = flat(x);
    for (int i = 0; i < cut->members; i++) {
        size_t bytes = (size_t)(batch * cut_count(cut, i) * to.shape[2]) * dtype_size(x.dtype);
        struct tensor block = tensor_of(all[i] + (size_t)half * bytes, x.dtype, SHAPE(batch, cut_count(cut, i), to.shape[2]));
        run->backend->ops->copy_rows(run->backend, &to, cut_first(cut, i), &block, 0, cut_count(cut, i));
    }
    run->backend->ops->copy_rows(run->backend, &to, total, &own, text.first, text.count);
    return out;
}

/* The others' keys and values beside this rank's: *data, and this rank's on their way for the next step. */
static tessera_status exchange_blocks(struct run *run, struct tensor k, struct tensor v, const struct cut *cut,
                                      struct displaced_data *data) {
    struct displaced *d = run->parallel->displaced;
    size_t bytes[cut->members], token = 2 * tensor_bytes(&k) / (size_t)k.shape[1];
    for (int i = 0; i < cut->members; i++) bytes[i] = token * (size_t)cut_count(cut, i);
    comm_label(d->group, "attention");
    TRY(displaced_receive(d, &(struct displaced_sizes){.all = bytes}, data, &run->error));
    memcpy(data->all[cut->me], k.data, tensor_bytes(&k));
    memcpy(data->all[cut->me] + tensor_bytes(&k), v.data, tensor_bytes(&v));
    return displaced_send(d, &run->error);
}

struct tensor displaced_attention(struct run *run, const struct attention_args *args, const struct cut *cut, struct text_span text) {
    assert(text.count == 0 || text.count == text.total);
    struct displaced_data data;
    size_t scope = run_enter(run);
    struct tensor k = picture_rows(run, *args->k, text), v = picture_rows(run, *args->v, text), out = {0};
    if (run_failed(run) || exchange_blocks(run, k, v, cut, &data) != TESSERA_OK) return out;
    struct tensor keys = join_blocks(run, data.all, 0, *args->k, cut, text), values = join_blocks(run, data.all, 1, *args->v, cut, text);
    out = run_tensor(run, args->q->dtype, args->q->ndim, args->q->shape);
    if (run_failed(run)) return out;
    struct attention_args joined = {.q = args->q, .k = &keys, .v = &values, .scale = args->scale};
    run->operations += 4.0 * (double)tensor_count(args->q) * (double)keys.shape[1];
    tessera_status status = run->backend->ops->attention(run->backend, &out, NULL, &joined, &run->error);
    return run_leave(run, scope, run_checked(run, status, out));
}
