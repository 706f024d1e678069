/* Attention over tokens that are spread over ranks: what every link of the chain works with, and
 * its end, a rank alone. */
#include <assert.h>

#include "parallel/online_attention.h"
#include "backend/memory.h"
#include "parallel/strategy.h"

/* ---- spans of tokens ---- */

/* Rows first .. first + count of picture b of x [B, S, N, D]: a view [count, N, D]. */
static struct tensor view_of(struct token_span span, int64_t b) {
    struct tensor x = span.x;
    size_t row = tensor_bytes(&x) / (size_t)(x.shape[0] * x.shape[1]);
    x = tensor_reshape(x, SHAPE(x.shape[0] * x.shape[1], x.shape[2], x.shape[3]));
    x.data = (char *)x.data + row * (size_t)(b * span.x.shape[1] + span.first);
    x.shape[0] = span.count;
    return x;
}

static bool is_all(struct token_span span) {
    return span.first == 0 && span.count == span.x.shape[1];
}

void token_span_copy(struct run *run, struct token_span to, struct token_span from) {
    if (run_failed(run) || from.count == 0) return;
    struct tensor out = tensor_reshape(to.x, SHAPE(to.x.shape[0], to.x.shape[1], to.x.shape[2] * to.x.shape[3]));
    struct tensor x = tensor_reshape(from.x, SHAPE(from.x.shape[0], from.x.shape[1], from.x.shape[2] * from.x.shape[3]));
    backend_copy_rows(run->backend, &out, to.first, &x, from.first, from.count);
}

/* Heads are rows of width D. */
void token_span_copy_heads(struct run *run, struct token_span to, int64_t at, struct token_span from, int64_t first, int64_t heads) {
    if (run_failed(run) || from.count == 0 || heads == 0) return;
    bool whole = is_all(to) && is_all(from);
    for (int64_t b = 0; b < (whole ? 1 : from.x.shape[0]); b++) {
        struct tensor out = view_of(to, b), x = view_of(from, b);
        if (whole) out.shape[0] = x.shape[0] = from.x.shape[0] * from.count;
        backend_copy_rows(run->backend, &out, at, &x, first, heads);
    }
}

struct tensor token_span_tensor(struct run *run, struct token_span span) {
    struct tensor x = span.x;
    if (run_failed(run) || span.count == 0) return (struct tensor){0};
    if (is_all(span)) return x;
    if (x.shape[0] == 1) return tensor_reshape(view_of(span, 0), SHAPE(1, span.count, x.shape[2], x.shape[3]));
    struct tensor out = run_tensor(run, x.dtype, SHAPE(x.shape[0], span.count, x.shape[2], x.shape[3]));
    if (!run_failed(run)) token_span_copy(run, (struct token_span){out, 0, span.count}, span);
    return out;
}

/* ---- calls ---- */

int64_t attention_picture_tokens(const struct attention_call *call, struct span members) {
    if (call->cut == NULL) return call->k[STREAM_PICTURE].count;
    return cut_first(call->cut, (int)(members.first + members.count)) - cut_first(call->cut, (int)members.first);
}

int64_t attention_text_tokens(const struct run *run, const struct attention_call *call, struct span members) {
    int total = call->cut->members;
    const double *shares = run->parallel->shares;
    return cut_bound(call->text_total, total, (int)(members.first + members.count), shares) -
           cut_bound(call->text_total, total, (int)members.first, shares);
}

void attention_lay_out(const struct attention_call *call, struct tensor x, struct token_span spans[STREAMS]) {
    spans[STREAM_PICTURE].x = spans[STREAM_TEXT].x = x;
    spans[STREAM_PICTURE].first = call->text_first ? spans[STREAM_TEXT].count : 0;
    spans[STREAM_TEXT].first = call->text_first ? 0 : spans[STREAM_PICTURE].count;
}

/* Does one tensor hold both streams, all of it, in their order? */
static bool is_joined(const struct attention_call *call, const struct token_span spans[STREAMS]) {
    struct token_span wanted[STREAMS] = {spans[0], spans[1]};
    struct tensor x = spans[STREAM_PICTURE].x;
    attention_lay_out(call, x, wanted);
    bool text =
        spans[STREAM_TEXT].count == 0 || (spans[STREAM_TEXT].x.data == x.data && spans[STREAM_TEXT].first == wanted[STREAM_TEXT].first);
    return text && spans[STREAM_PICTURE].first == wanted[STREAM_PICTURE].first && x.shape[1] == spans[0].count + spans[1].count;
}

struct tensor attention_join(struct run *run, const struct attention_call *call, const struct token_span spans[STREAMS]) {
    if (run_failed(run) || is_joined(call, spans)) return run_failed(run) ? (struct tensor){0} : spans[STREAM_PICTURE].x;
    struct token_span out[STREAMS] = {spans[0], spans[1]};
    struct tensor x = run_tensor(run, call->dtype, SHAPE(call->batch, spans[0].count + spans[1].count, call->heads, call->width));
    attention_lay_out(call, x, out);
    for (int s = 0; s < STREAMS; s++) token_span_copy(run, out[s], spans[s]);
    return x;
}

void attention_set_out(struct attention_call *call, struct tensor out) {
    for (int s = 0; s < STREAMS; s++) call->out[s].count = call->q[s].count;
    attention_lay_out(call, out, call->out);
}

void attention_bring(struct run *run, const struct strategy_link *link, struct attention_call *call) {
    struct token_span k[STREAMS] = {call->k[0], call->k[1]}, v[STREAMS] = {call->v[0], call->v[1]};
    if (run_failed(run) || call->placed) return;
    link->strategy->place(run, link, call);
    for (int s = 0; s < STREAMS; s++) {
        token_span_copy(run, call->k[s], k[s]);
        token_span_copy(run, call->v[s], v[s]);
    }
    call->placed = true;
}

/* ---- the chain ---- */

/* The first link behind `link` (NULL: of all) with `attend`; NULL: there is none. */
static const struct strategy_link *next_with_attention(const struct run *run, const struct strategy_link *link) {
    const struct parallel *p = run->parallel;
    if (p == NULL) return NULL;
    const struct strategy_link *end = p->links + p->num_links;
    for (link = link == NULL ? p->links : link + 1; link < end; link++)
        if (link->strategy->attend != NULL) return link;
    return NULL;
}

/* Both streams in one tensor each: as the operator reads them. */
static void place_alone(struct run *run, struct attention_call *call) {
    int64_t tokens = call->k[STREAM_PICTURE].count + call->k[STREAM_TEXT].count;
    attention_lay_out(call, run_tensor(run, call->dtype, SHAPE(call->batch, tokens, call->heads, call->width)), call->k);
    attention_lay_out(call, run_tensor(run, call->dtype, SHAPE(call->batch, tokens, call->heads, call->width)), call->v);
}

static void attend_alone(struct run *run, struct attention_call *call) {
    struct tensor q = attention_join(run, call, call->q), k = attention_join(run, call, call->k), v = attention_join(run, call, call->v);
    if (!run_failed(run)) attention_set_out(call, attention_to_block(run, q, k, v, call->scale, NULL));
}

void attention_place_next(struct run *run, const struct strategy_link *link, struct attention_call *call) {
    const struct strategy_link *next = next_with_attention(run, link);
    call->placed = next != NULL && next->strategy->place != NULL;
    if (call->placed)
        next->strategy->place(run, next, call);
    else
        place_alone(run, call);
}

void attention_next(struct run *run, const struct strategy_link *link, struct attention_call *call) {
    const struct strategy_link *next = next_with_attention(run, link);
    if (run_failed(run)) return;
    if (next != NULL && call->cut != NULL)
        next->strategy->attend(run, next, call);
    else
        attend_alone(run, call);
}

/* ---- for layers ---- */

/* Of streams[2], in the order of tokens, those of the picture and of the text; where the second is
 * empty, both are spans of the first. */
static void split_streams(const struct tensor *streams, struct text_span text, int64_t words, struct token_span spans[STREAMS]) {
    bool text_first = text.total > 0 && text.first == 0, joined = streams[1].data == NULL;
    int64_t tokens = streams[0].shape[1];
    if (!joined || words == 0) {
        int picture = joined || !text_first ? 0 : 1;
        spans[STREAM_PICTURE] = (struct token_span){streams[picture], 0, streams[picture].shape[1]};
        if (!joined) spans[STREAM_TEXT] = (struct token_span){streams[1 - picture], 0, streams[1 - picture].shape[1]};
        return;
    }
    spans[STREAM_PICTURE] = (struct token_span){streams[0], text_first ? words : 0, tokens - words};
    spans[STREAM_TEXT] = (struct token_span){streams[0], text_first ? 0 : tokens - words, words};
}

static struct attention_call call_of(const struct attention_streams *in, const struct cut *cut, struct text_span text) {
    const struct tensor *q = in->q[0].data != NULL ? &in->q[0] : &in->q[1];
    struct attention_call call = {.cut = cut,
                                  .members = {cut != NULL ? cut->me : 0, 1},
                                  .batch = q->shape[0],
                                  .heads = q->shape[2],
                                  .width = q->shape[3],
                                  .dtype = q->dtype,
                                  .scale = in->scale,
                                  .text_total = text.total,
                                  .text_first = text.total > 0 && text.first == 0,
                                  .text_whole = text.count > 0 && text.count == text.total};
    split_streams(in->q, text, text.in_queries ? text.count : 0, call.q);
    split_streams(in->k, text, text.count, call.k);
    split_streams(in->v, text, text.count, call.v);
    return call;
}

void exchange_attention(struct run *run, const struct attention_streams *in, const struct cut *cut, struct text_span text,
                        struct token_span out[2]) {
    out[0] = out[1] = (struct token_span){0};
    if (run_failed(run)) return;
    struct attention_call call = call_of(in, cut, text);
    if (cut != NULL) comm_label(run->parallel->cut_group, "attention");
    size_t scope = run_enter(run);
    attention_next(run, NULL, &call);
    if (run_failed(run)) return;
    bool one = call.out[STREAM_TEXT].count == 0 || call.out[STREAM_TEXT].x.data == call.out[STREAM_PICTURE].x.data;
    if (cut != NULL) /* alone there is little else in the scope: moving the result would cost more than leaving it */
        run_leave_all(run, scope, (struct tensor *[]){&call.out[STREAM_PICTURE].x, &call.out[STREAM_TEXT].x}, one ? 1 : 2);
    if (one) call.out[STREAM_TEXT].x = call.out[STREAM_PICTURE].x;
    int picture = call.text_first ? 1 : 0;
    out[picture] = call.out[STREAM_PICTURE];
    out[1 - picture] = call.out[STREAM_TEXT];
}
