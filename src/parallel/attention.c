/* Attention over tokens that are spread over ranks, exactly: DeepSpeed-Ulysses (Jacobs et al. 2023) inside, ring attention (Liu et al.
 * 2023) outside, together "USP" (Fang and Zhao 2024).
 *
 *     rank holds   q k v [B, my tokens, N heads, D]
 *       | Ulysses: all-to-all, heads for tokens
 *     q k v [B, tokens of my Ulysses group, my heads, D]
 *       | ring: R times { attend to the block of keys and values at hand, while the next one arrives } (online_attention.h)
 *     out [B, tokens of my Ulysses group, my heads, D]
 *       | all-to-all back
 *     out [B, my tokens, N heads, D]
 *
 * Sent per rank, in elements, for S tokens over n = R U ranks, all parts equal, C = N D, B pictures:
 *
 *     Ulysses   4 (U - 1) / U  B S / n  C          q, k, v and out
 *     ring      2 (R - 1)      B S / n  C          k and v of the group, a U-th of the heads each
 *
 * Tokens and heads need not divide: member i has what its cut says, such a part of the text, and heads N j / U to N (j + 1) / U. Text that
 * every rank holds whole takes no part in the exchange of tokens: each rank adds the keys and values of its heads to its first block,
 * computes the text's queries for its heads, and the heads' outputs are gathered: T (U - 1) / U B C more elements. */
#include <assert.h>
#include <string.h>

#include "parallel/blocks.h"
#include "parallel/exchange.h"
#include "parallel/online_attention.h"

struct sequence {
    struct run *run;
    struct comm *ring, *ulysses;
    const struct cut *cut;
    struct text_span text;
    enum dtype dtype;
    float scale;
    int64_t batch, heads, width, my_heads;
    int members, me, rounds, round; /* of Ulysses; of the ring */
};

enum part { QUERIES, KEYS };

static struct span heads_of(const struct sequence *s, int member) {
    return cut_span(s->heads, s->members, member, s->run->parallel->head_shares);
}

/* Of the text's tokens those that member i of the cut exchanges. */
static int64_t text_tokens_of(const struct sequence *s, int i, enum part part) {
    bool takes_part = s->text.count > 0 && !blocks_text_is_whole(s->text) && (part == KEYS || s->text.in_queries);
    return takes_part ? cut_span(s->text.total, s->cut->members, i, s->run->parallel->shares).count : 0;
}

/* Tokens that member (round, member) of the cut exchanges. */
static int64_t tokens_of(const struct sequence *s, int round, int member, enum part part) {
    int i = round * s->members + member;
    return cut_count(s->cut, i) + text_tokens_of(s, i, part);
}

static int64_t group_tokens(const struct sequence *s, int round, enum part part) {
    int64_t sum = 0;
    for (int i = 0; i < s->members; i++) sum += tokens_of(s, round, i, part);
    return sum;
}

static size_t bytes_of(const struct sequence *s, int64_t tokens, int64_t heads) {
    return (size_t)(s->batch * tokens * heads * s->width) * dtype_size(s->dtype);
}

/* Heads first .. first + count of x [B, S, N, D] to heads `at`.. of out [B, S, N', D]. */
static void copy_heads(const struct sequence *s, struct tensor out, int64_t at, struct tensor x, int64_t first, int64_t count) {
    int64_t rows = x.shape[0] * x.shape[1];
    if (rows == 0 || count == 0) return;
    out = tensor_reshape(out, SHAPE(rows, out.shape[2], s->width));
    x = tensor_reshape(x, SHAPE(rows, x.shape[2], s->width));
    s->run->backend->ops->copy_rows(s->run->backend, &out, at, &x, first, count);
}

/* Picture and text b [B, Sb, N, D] after a, or a alone where b is empty. */
static struct tensor join_rows(const struct sequence *s, struct tensor a, struct tensor b) {
    if (b.data == NULL || run_failed(s->run)) return a;
    struct tensor out = run_tensor(s->run, a.dtype, SHAPE(a.shape[0], a.shape[1] + b.shape[1], a.shape[2], a.shape[3]));
    if (run_failed(s->run)) return out;
    int64_t width = a.shape[2] * a.shape[3];
    struct tensor to = tensor_reshape(out, SHAPE(a.shape[0], out.shape[1], width));
    struct tensor first = tensor_reshape(a, SHAPE(a.shape[0], a.shape[1], width));
    struct tensor second = tensor_reshape(b, SHAPE(b.shape[0], b.shape[1], width));
    s->run->backend->ops->copy_rows(s->run->backend, &to, 0, &first, 0, a.shape[1]);
    s->run->backend->ops->copy_rows(s->run->backend, &to, a.shape[1], &second, 0, b.shape[1]);
    return out;
}

/* ---- Ulysses ---- */

/* An all-to-all under way. */
struct transfer {
    struct tensor out, in;
    struct comm_operation *operation;
};

/* Starts sending each member its heads of my tokens x [B, S, N, D]. */
static struct transfer send_heads(const struct sequence *s, struct tensor x, enum part part) {
    struct transfer t = {0};
    size_t out_bytes[s->members], in_bytes[s->members], at = 0;
    t.out = run_tensor(s->run, s->dtype, SHAPE(s->batch * x.shape[1], s->heads, s->width));
    t.in = run_tensor(s->run, s->dtype, SHAPE(s->batch * group_tokens(s, s->round, part), s->my_heads, s->width));
    if (run_failed(s->run)) return t;
    for (int i = 0; i < s->members; i++) {
        out_bytes[i] = bytes_of(s, x.shape[1], heads_of(s, i).count);
        in_bytes[i] = bytes_of(s, tokens_of(s, s->round, i, part), s->my_heads);
        struct tensor block = tensor_of((char *)t.out.data + at, s->dtype, SHAPE(s->batch, x.shape[1], heads_of(s, i).count, s->width));
        copy_heads(s, block, 0, x, heads_of(s, i).first, heads_of(s, i).count);
        at += out_bytes[i];
    }
    t.operation = comm_all_to_all_start(s->ulysses, t.out.data, out_bytes, t.in.data, in_bytes);
    return t;
}

/* [B, tokens of the group, my heads, D] from a transfer. */
static struct tensor receive_heads(const struct sequence *s, struct transfer t, enum part part) {
    int64_t total = group_tokens(s, s->round, part), first = 0;
    if (run_failed(s->run) || comm_operation_wait(s->ulysses, t.operation, &s->run->error) != TESSERA_OK) return (struct tensor){0};
    if (s->batch == 1) return tensor_reshape(t.in, SHAPE(1, total, s->my_heads, s->width));
    struct tensor out = run_tensor(s->run, s->dtype, SHAPE(s->batch, total, s->my_heads * s->width));
    if (run_failed(s->run)) return out;
    char *from = t.in.data;
    for (int i = 0; i < s->members; i++) {
        int64_t count = tokens_of(s, s->round, i, part);
        struct tensor block = tensor_of(from, s->dtype, SHAPE(s->batch, count, s->my_heads * s->width));
        s->run->backend->ops->copy_rows(s->run->backend, &out, first, &block, 0, count);
        first += count;
        from += bytes_of(s, count, s->my_heads);
    }
    return tensor_reshape(out, SHAPE(s->batch, total, s->my_heads, s->width));
}

/* The members' heads side by side: from `in`, blocks [B, tokens, their heads, D], to [B, tokens, N, D]. */
static struct tensor join_heads(const struct sequence *s, struct tensor in, int64_t tokens) {
    struct tensor out = run_tensor(s->run, s->dtype, SHAPE(s->batch, tokens, s->heads, s->width));
    if (run_failed(s->run)) return out;
    char *from = in.data;
    for (int i = 0; i < s->members; i++) {
        struct tensor block = tensor_of(from, s->dtype, SHAPE(s->batch, tokens, heads_of(s, i).count, s->width));
        copy_heads(s, out, heads_of(s, i).first, block, 0, heads_of(s, i).count);
        from += bytes_of(s, tokens, heads_of(s, i).count);
    }
    return out;
}

/* The way back: x [B, tokens of the group, my heads, D] -> [B, my tokens, N, D]. */
static struct tensor return_tokens(const struct sequence *s, struct tensor x) {
    if (s->members == 1 || run_failed(s->run)) return x;
    int64_t mine = tokens_of(s, s->round, s->me, QUERIES), first = 0;
    size_t out_bytes[s->members], in_bytes[s->members], at = 0;
    struct tensor out = run_tensor(s->run, s->dtype, SHAPE(s->batch * x.shape[1], s->my_heads * s->width));
    struct tensor in = run_tensor(s->run, s->dtype, SHAPE(s->batch * mine, s->heads * s->width));
    if (run_failed(s->run)) return in;
    struct tensor from = tensor_reshape(x, SHAPE(s->batch, x.shape[1], s->my_heads * s->width));
    for (int i = 0; i < s->members; i++) {
        int64_t count = tokens_of(s, s->round, i, QUERIES);
        struct tensor block = tensor_of((char *)out.data + at, s->dtype, SHAPE(s->batch, count, s->my_heads * s->width));
        s->run->backend->ops->copy_rows(s->run->backend, &block, 0, &from, first, count);
        out_bytes[i] = bytes_of(s, count, s->my_heads);
        in_bytes[i] = bytes_of(s, mine, heads_of(s, i).count);
        first += count;
        at += out_bytes[i];
    }
    tessera_status status = comm_all_to_all(s->ulysses, out.data, out_bytes, in.data, in_bytes, &s->run->error);
    return status == TESSERA_OK ? join_heads(s, in, mine) : (struct tensor){0};
}

/* The whole text's outputs x [B, T, my heads, D] -> [B, T, N, D]. */
static struct tensor gather_text(const struct sequence *s, struct tensor x) {
    if (s->members == 1 || run_failed(s->run)) return x;
    size_t bytes[s->members];
    struct tensor all = run_tensor(s->run, s->dtype, SHAPE(s->batch * x.shape[1], s->heads * s->width));
    if (run_failed(s->run)) return all;
    for (int i = 0; i < s->members; i++) bytes[i] = bytes_of(s, x.shape[1], heads_of(s, i).count);
    tessera_status status = comm_all_gather(s->ulysses, x.data, all.data, bytes, &s->run->error);
    return status == TESSERA_OK ? join_heads(s, all, x.shape[1]) : (struct tensor){0};
}

/* ---- ring ---- */

/* Keys and values of one round's tokens in one buffer, keys first: [2, B, tokens, heads, D]. */
struct block {
    struct tensor memory;
    int64_t tokens;
};

/* q against the keys and values of all rounds: out in q's type. */
static struct tensor attend_ring(const struct sequence *s, struct tensor q, struct block mine, struct tensor text_k, struct tensor text_v) {
    struct run *run = s->run;
    struct online_attention attention = online_attention_begin(run, q, s->scale);
    struct block at_hand = mine, next = {0};
    int64_t longest = 0;
    for (int i = 0; i < s->rounds; i++) longest = group_tokens(s, i, KEYS) > longest ? group_tokens(s, i, KEYS) : longest;
    struct tensor buffers[2];
    for (int i = 0; i < 2; i++) buffers[i] = run_tensor(run, s->dtype, SHAPE(2 * s->batch * longest, s->my_heads * s->width));
    for (int t = 0; t < s->rounds && !run_failed(run); t++) {
        size_t scope = run_enter(run);
        struct comm_operation *shift = NULL;
        if (t + 1 < s->rounds) {
            next = (struct block){buffers[t % 2], group_tokens(s, (s->round - t - 1 + 2 * s->rounds) % s->rounds, KEYS)};
            shift = comm_ring_shift_start(s->ring, at_hand.memory.data, 2 * bytes_of(s, at_hand.tokens, s->my_heads), next.memory.data,
                                          2 * bytes_of(s, next.tokens, s->my_heads));
        }
        struct tensor k = blocks_half(at_hand.memory.data, 0, q, at_hand.tokens),
                      v = blocks_half(at_hand.memory.data, 1, q, at_hand.tokens);
        if (t == 0) k = join_rows(s, k, text_k), v = join_rows(s, v, text_v);
        online_attention_add(&attention, k, v);
        if (shift != NULL) run_checked(run, comm_operation_wait(s->ring, shift, &run->error), q);
        at_hand = next;
        arena_release(run->arena, scope);
    }
    return online_attention_end(&attention);
}

/* ---- both ---- */

/* Copies keys and values into one buffer, as the ring sends them. */
static struct block block_of(const struct sequence *s, struct tensor k, struct tensor v) {
    struct block block = {run_tensor(s->run, s->dtype, SHAPE(2 * s->batch * k.shape[1], s->my_heads * s->width)), k.shape[1]};
    if (run_failed(s->run)) return block;
    memcpy(block.memory.data, k.data, tensor_bytes(&k));
    memcpy((char *)block.memory.data + tensor_bytes(&k), v.data, tensor_bytes(&v));
    return block;
}

/* My heads of the whole text's rows of x [B, S, N, D]; empty where the text is cut. */
static struct tensor text_of(const struct sequence *s, struct tensor x) {
    if (!blocks_text_is_whole(s->text) || run_failed(s->run)) return (struct tensor){0};
    struct tensor rows = blocks_rows(s->run, x, s->text.first, s->text.count);
    if (s->members == 1 || run_failed(s->run)) return rows;
    struct tensor out = run_tensor(s->run, s->dtype, SHAPE(s->batch, s->text.count, s->my_heads, s->width));
    if (!run_failed(s->run)) copy_heads(s, out, 0, rows, heads_of(s, s->me).first, s->my_heads);
    return out;
}

static struct tensor attend_all(const struct sequence *s, const struct attention_args *args) {
    struct run *run = s->run;
    bool asks = s->text.in_queries;
    struct tensor shared_q = asks ? blocks_shared_rows(run, *args->q, s->text) : *args->q;
    struct tensor x[3] = {shared_q, blocks_shared_rows(run, *args->k, s->text), blocks_shared_rows(run, *args->v, s->text)};
    if (s->members > 1) {
        struct transfer transfers[3];
        for (int i = 0; i < 3; i++) transfers[i] = send_heads(s, x[i], i == 0 ? QUERIES : KEYS);
        for (int i = 0; i < 3; i++) x[i] = receive_heads(s, transfers[i], i == 0 ? QUERIES : KEYS);
    }
    struct tensor text_q = asks ? text_of(s, *args->q) : (struct tensor){0}, text_k = text_of(s, *args->k), text_v = text_of(s, *args->v);
    if (run_failed(run)) return (struct tensor){0};
    int64_t shared = x[0].shape[1];
    struct tensor q = join_rows(s, x[0], text_q), out;
    if (run->parallel->patches != NULL)
        out = patches_attention(run, &(struct patches_input){q, x[1], x[2], text_k, text_v, s->scale}, s->cut);
    else if (s->rounds == 1)
        out = attention_to_block(run, q, join_rows(s, x[1], text_k), join_rows(s, x[2], text_v), s->scale, NULL);
    else
        out = attend_ring(s, q, block_of(s, x[1], x[2]), text_k, text_v);
    struct tensor mine = return_tokens(s, blocks_rows(run, out, 0, shared));
    if (text_q.data == NULL || run_failed(run)) return mine;
    struct tensor text = gather_text(s, blocks_rows(run, out, shared, s->text.count));
    return s->text.first == 0 ? join_rows(s, text, mine) : join_rows(s, mine, text);
}

struct tensor exchange_attention(struct run *run, const struct attention_args *args, const struct cut *cut, struct text_span text) {
    if (run_failed(run)) return (struct tensor){0};
    assert(cut != NULL && args->bias == NULL && args->mask == NULL && !args->causal);
    const struct parallel *p = run->parallel;
    if (p->displaced != NULL) return displaced_attention(run, args, cut, text);
    struct sequence s = {.run = run,
                         .ring = p->ring,
                         .ulysses = p->ulysses,
                         .cut = cut,
                         .text = text,
                         .dtype = args->q->dtype,
                         .scale = args->scale,
                         .batch = args->q->shape[0],
                         .heads = args->q->shape[2],
                         .width = args->q->shape[3],
                         .members = comm_size(p->ulysses),
                         .me = comm_rank(p->ulysses),
                         .rounds = comm_size(p->ring),
                         .round = comm_rank(p->ring)};
    assert(s.members * s.rounds == cut->members && s.round * s.members + s.me == cut->me);
    if (s.members > s.heads) {
        error_set(
            &run->error, TESSERA_ERROR_ARGUMENT,
            "ulysses degree %d: this model has %lld attention heads on a rank, so at most %lld are possible; use the ring for the rest",
            s.members, (long long)s.heads, (long long)s.heads);
        return (struct tensor){0};
    }
    s.my_heads = heads_of(&s, s.me).count;
    comm_label(p->rows, "attention");
    size_t scope = run_enter(run);
    return run_leave(run, scope, attend_all(&s, args));
}
