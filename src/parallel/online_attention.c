/* See online_attention.h. */
#include "parallel/online_attention.h"

#include "parallel/exchange.h"

struct tensor attention_to_block(struct run *run, struct tensor q, struct tensor k, struct tensor v, float scale, struct tensor *lse) {
    struct attention_args args = {.q = &q, .k = &k, .v = &v, .scale = scale};
    struct tensor out = run_tensor(run, q.dtype, q.ndim, q.shape);
    if (run_failed(run)) return out;
    run->operations += 4.0 * (double)tensor_count(&q) * (double)k.shape[1];
    return run_checked(run, run->backend->ops->attention(run->backend, &out, lse, &args, &run->error), out);
}

struct online_attention online_attention_begin(struct run *run, struct tensor q, float scale) {
    struct online_attention a = {.run = run, .q = q, .scale = scale};
    if (run_failed(run)) return a;
    a.sum = run_tensor(run, DTYPE_F32, q.ndim, q.shape);
    a.lse = run_tensor(run, DTYPE_F32, SHAPE(q.shape[0], q.shape[2], q.shape[1]));
    a.more_lse = run_tensor(run, DTYPE_F32, a.lse.ndim, a.lse.shape);
    return a;
}

void online_attention_add(struct online_attention *a, struct tensor k, struct tensor v) {
    struct run *run = a->run;
    size_t scope = run_enter(run);
    bool first = a->blocks++ == 0;
    struct tensor out = attention_to_block(run, a->q, k, v, a->scale, first ? &a->lse : &a->more_lse);
    if (run_failed(run)) return;
    if (first)
        run->backend->ops->cast(run->backend, &a->sum, &out);
    else
        run->backend->ops->merge_attention(run->backend, &a->sum, &a->lse, &out, &a->more_lse);
    arena_release(run->arena, scope);
}

struct tensor online_attention_end(const struct online_attention *a) {
    struct run *run = a->run;
    if (run_failed(run)) return (struct tensor){0};
    struct tensor out = run_tensor(run, a->q.dtype, a->q.ndim, a->q.shape);
    if (!run_failed(run)) run->backend->ops->cast(run->backend, &out, &a->sum);
    return out;
}
