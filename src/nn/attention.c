/* Attention: where every position of a picture meets every other. */
#include <assert.h>

#include "nn/layers.h"

struct tensor nn_attention(struct run *run, struct attention_args args) {
    if (run_failed(run)) return (struct tensor){0};
    const struct tensor *q = args.q, *k = args.k;
    assert(q->ndim == 4 && k->ndim == 4 && q->shape[0] == k->shape[0] && q->shape[2] == k->shape[2] && q->shape[3] == k->shape[3]);
    struct tensor out = run_tensor(run, q->dtype, q->ndim, q->shape);
    if (run_failed(run)) return out;
    run->operations += 4.0 * (double)tensor_count(q) * (double)k->shape[1];
    return run_checked(run, run->backend->ops->attention(run->backend, &out, NULL, &args, &run->error), out);
}

struct tensor nn_joint_attention(struct run *run, struct attention_args args, const struct cut *cut, struct text_span text) {
    if (cut == NULL || run_failed(run)) return nn_attention(run, args);
    assert(args.bias == NULL && args.mask == NULL && !args.causal);
    struct attention_streams streams = {.q = {*args.q}, .k = {*args.k}, .v = {*args.v}, .scale = args.scale};
    struct token_span out[2];
    exchange_attention(run, &streams, cut, text, out);
    return out[0].x.data != NULL ? out[0].x : out[1].x; /* one tensor, as the queries are */
}
