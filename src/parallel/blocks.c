/* See blocks.h. */
#include "parallel/blocks.h"

#include "parallel/exchange.h"

bool blocks_text_is_whole(struct text_span text) {
    return text.count > 0 && text.count == text.total;
}

/* x [B, S, N, D] as [B, S, N D]. */
static struct tensor flat(struct tensor x) {
    return tensor_reshape(x, SHAPE(x.shape[0], x.shape[1], x.shape[2] * x.shape[3]));
}

struct tensor blocks_rows(struct run *run, struct tensor x, int64_t first, int64_t count) {
    if (run_failed(run)) return (struct tensor){0};
    if (first == 0 && count == x.shape[1]) return x;
    struct tensor out = run_tensor(run, x.dtype, SHAPE(x.shape[0], count, x.shape[2], x.shape[3]));
    if (run_failed(run)) return out;
    struct tensor to = flat(out), from = flat(x);
    run->backend->ops->copy_rows(run->backend, &to, 0, &from, first, count);
    return out;
}

struct tensor blocks_shared_rows(struct run *run, struct tensor x, struct text_span text) {
    if (!blocks_text_is_whole(text)) return x;
    return blocks_rows(run, x, text.first == 0 ? text.count : 0, x.shape[1] - text.count);
}

struct tensor blocks_half(void *block, int half, struct tensor like, int64_t tokens) {
    struct tensor t = tensor_of(block, like.dtype, SHAPE(like.shape[0], tokens, like.shape[2], like.shape[3]));
    t.data = (char *)block + (size_t)half * tensor_bytes(&t);
    return t;
}
