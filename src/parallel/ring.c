/* Ring attention (Liu et al. 2023): keys and values go round, and each block is attended to while
 * the next one arrives.
 *
 *     R times { attend to the block of keys and values that is here, while the next one arrives }          (online_attention.h)
 *
 * Sent per rank, in elements, for S tokens over n = R U ranks, all spans equal, C channels, B
 * pictures:
 *
 *     2 (R - 1)  B S / n  C          k and v of the group, a U-th of the heads each
 *
 * A block is [2, B, tokens, heads, D], keys first, as it is sent and as it is read. A text that
 * every rank has whole is not in it, but joins the keys of the first round. Reproducible kernels
 * gather all keys first, and then attend once. */
#include "parallel/online_attention.h"
#include "parallel/strategy.h"

static bool applies(const struct strategy_choice *choice) {
    return choice->degrees[MESH_RING] > 1;
}

/* Whose tokens ring member `round` has. */
static struct span members_of(const struct attention_call *call, int round) {
    return (struct span){round * call->members.count, call->members.count};
}

static bool cuts_text(const struct attention_call *call) {
    return call->k[STREAM_TEXT].count > 0 && !call->text_whole;
}

/* Tokens of ring member `round`'s block. */
static int64_t block_tokens(const struct run *run, const struct attention_call *call, int round) {
    struct span members = members_of(call, round);
    return attention_picture_tokens(call, members) + (cuts_text(call) ? attention_text_tokens(run, call, members) : 0);
}

static struct tensor new_block(struct run *run, const struct attention_call *call, int64_t tokens) {
    return run_tensor(run, call->dtype, SHAPE(2, call->batch * tokens, call->heads, call->width));
}

/* Keys (half 0) or values (half 1) of a block: [B, tokens, N, D]. */
static struct tensor half_of(const struct attention_call *call, struct tensor block, int half, int64_t tokens) {
    struct tensor x = tensor_reshape(block, SHAPE(block.shape[0] * block.shape[1], block.shape[2], block.shape[3]));
    size_t row = tensor_bytes(&x) / (size_t)x.shape[0];
    x.shape[0] = call->batch * tokens;
    x.data = (char *)x.data + row * (size_t)(half * x.shape[0]);
    return tensor_reshape(x, SHAPE(call->batch, tokens, call->heads, call->width));
}

/* The block that begins with these keys, as one message. */
static struct token_span whole_block(struct tensor k) {
    k.shape[0] *= 2;
    return token_span_all(k);
}

static void place(struct run *run, const struct strategy_link *link, struct attention_call *call) {
    int64_t tokens = block_tokens(run, call, comm_rank(link->group));
    struct tensor block = new_block(run, call, tokens);
    struct token_span *streams[] = {call->k, call->v};
    if (run_failed(run)) return;
    for (int half = 0; half < 2; half++) {
        struct token_span *spans = streams[half], text = spans[STREAM_TEXT];
        if (call->text_whole) spans[STREAM_TEXT].count = 0;
        attention_lay_out(call, half_of(call, block, half, tokens), spans);
        if (!call->text_whole) continue;
        text.first = 0;
        text.x = run_tensor(run, call->dtype, SHAPE(call->batch, text.count, call->heads, call->width));
        spans[STREAM_TEXT] = text;
    }
}

/* Keys or values of the first round: the block's, with those of a text that is in no block. */
static struct tensor first_round(struct run *run, const struct attention_call *call, const struct token_span spans[STREAMS],
                                 struct tensor half) {
    return call->text_whole ? attention_join(run, call, spans) : half;
}

/* Tokens of a stream on some members of the ring. */
static int64_t stream_tokens(const struct run *run, const struct attention_call *call, int stream, struct span members) {
    members.first *= call->members.count, members.count *= call->members.count;
    return stream == STREAM_PICTURE ? attention_picture_tokens(call, members) : attention_text_tokens(run, call, members);
}

/* One stream's keys or values: mine to all members, theirs to their places in `all`. */
static void gather_stream(struct run *run, const struct strategy_link *link, struct transfer *t, const struct attention_call *call,
                          int stream, struct token_span mine, struct token_span all) {
    int rounds = comm_size(link->group), me = comm_rank(link->group);
    struct token_span spans[rounds];
    for (int i = 0; i < rounds; i++) {
        spans[i] = (struct token_span){all.x, all.first + stream_tokens(run, call, stream, (struct span){0, i}), 0};
        spans[i].count = stream_tokens(run, call, stream, (struct span){i, 1});
    }
    token_span_copy(run, spans[me], mine);
    for (int step = 1; step < rounds; step++) {
        int to = (me + step) % rounds, from = (me - step + rounds) % rounds;
        transfer_receive(run, t, from, spans[from]);
        transfer_send(run, t, to, spans[me]);
    }
}

/* Reproducible attention keeps one order of keys, so it waits until all of them are here: as many
 * bytes are sent, but each rank holds all. */
static void attend_gathered(struct run *run, const struct strategy_link *link, struct attention_call *call) {
    struct span everyone = {0, comm_size(link->group)};
    struct attention_call all = *call;
    bool gathers[STREAMS] = {true, cuts_text(call)};
    for (int s = 0; s < STREAMS; s++)
        if (gathers[s]) all.k[s].count = all.v[s].count = stream_tokens(run, call, s, everyone);
    int64_t tokens = all.k[STREAM_PICTURE].count + all.k[STREAM_TEXT].count;
    attention_lay_out(&all, run_tensor(run, call->dtype, SHAPE(call->batch, tokens, call->heads, call->width)), all.k);
    attention_lay_out(&all, run_tensor(run, call->dtype, SHAPE(call->batch, tokens, call->heads, call->width)), all.v);
    struct transfer t = {.group = link->group};
    for (int s = 0; s < STREAMS && !run_failed(run); s++) {
        if (!gathers[s]) token_span_copy(run, all.k[s], call->k[s]);
        if (!gathers[s]) token_span_copy(run, all.v[s], call->v[s]);
        if (gathers[s]) gather_stream(run, link, &t, call, s, call->k[s], all.k[s]);
        if (gathers[s]) gather_stream(run, link, &t, call, s, call->v[s], all.v[s]);
    }
    transfer_wait(run, &t);
    struct tensor q = attention_join(run, call, call->q);
    if (!run_failed(run))
        attention_set_out(call, attention_to_block(run, q, all.k[STREAM_PICTURE].x, all.v[STREAM_PICTURE].x, call->scale, NULL));
}

static void attend(struct run *run, const struct strategy_link *link, struct attention_call *call) {
    if (run->backend->reproducible) {
        attend_gathered(run, link, call);
        return;
    }
    int rounds = comm_size(link->group), me = comm_rank(link->group);
    attention_bring(run, link, call);
    struct tensor q = attention_join(run, call, call->q), buffers[2];
    struct online_attention attention = online_attention_begin(run, q, call->scale);
    int64_t longest = 0;
    for (int i = 0; i < rounds; i++) longest = block_tokens(run, call, i) > longest ? block_tokens(run, call, i) : longest;
    for (int i = 0; i < 2; i++) buffers[i] = new_block(run, call, longest);
    struct tensor k = call->k[STREAM_PICTURE].x, v = call->v[STREAM_PICTURE].x;
    for (int t = 0; t < rounds && !run_failed(run); t++) {
        size_t scope = run_enter(run);
        int64_t next = block_tokens(run, call, (me - t - 1 + 2 * rounds) % rounds);
        struct tensor next_k = half_of(call, buffers[t % 2], 0, next), next_v = half_of(call, buffers[t % 2], 1, next);
        struct transfer shift = {.group = link->group};
        if (t + 1 < rounds) {
            transfer_receive(run, &shift, (me - 1 + rounds) % rounds, whole_block(next_k));
            transfer_send(run, &shift, (me + 1) % rounds, whole_block(k));
        }
        if (t == 0)
            online_attention_add(&attention, first_round(run, call, call->k, k), first_round(run, call, call->v, v));
        else
            online_attention_add(&attention, k, v);
        transfer_wait(run, &shift);
        k = next_k, v = next_v;
        arena_release(run->arena, scope);
    }
    if (!run_failed(run)) attention_set_out(call, online_attention_end(&attention));
}

/* For a link that keeps all keys: every member's go to all others at once, into their places. */
static void collect(struct run *run, const struct strategy_link *link, const struct attention_call *call, struct tensor k, struct tensor v,
                    int64_t origin) {
    int rounds = comm_size(link->group), me = comm_rank(link->group);
    struct token_span spans[rounds];
    for (int i = 0; i < rounds; i++) {
        struct span members = members_of(call, i);
        spans[i] = (struct token_span){k, origin + cut_first(call->cut, (int)members.first), attention_picture_tokens(call, members)};
    }
    struct transfer t = {.group = link->group};
    for (int step = 1; step < rounds; step++) {
        int to = (me + step) % rounds, from = (me - step + rounds) % rounds;
        for (int half = 0; half < 2; half++) {
            struct tensor x = half == 0 ? k : v;
            transfer_receive(run, &t, from, (struct token_span){x, spans[from].first, spans[from].count});
            transfer_send(run, &t, to, (struct token_span){x, spans[me].first, spans[me].count});
        }
    }
    transfer_wait(run, &t);
}

/* Keys and values of all groups but the one ahead pass through this rank; where they are collected,
 * this group's go to all others. */
static void meeting_bytes(struct plan_pass *p, const struct meeting *a) {
    int ring = p->degrees[MESH_RING], u = p->degrees[MESH_ULYSSES], at = p->at[MESH_RING];
    if (a->kind != MEETING_ATTENTION) return;
    int64_t mine = cut_evenly(plan_pass_units(p, a), u, p->at[MESH_ULYSSES]).count, tokens = 0;
    for (int i = 0; i < ring; i++)
        if (i != (at + 1) % ring) tokens += plan_pass_tokens(p, a, (p->collects ? at : i) * u, u, true);
    plan_pass_add(p, MESH_RING, a->count * 2 * tokens * mine * p->batch * a->width, p->m->element_bytes);
}

/* Rounds that a block's arrival takes longer than attention to the one that is here; in patches all are
 * gathered before they are computed with. */
static void meeting_wait(const struct plan_estimate *e, const struct meeting *a, double attention, struct plan_cost *cost) {
    if (a->kind != MEETING_ATTENTION) return;
    struct plan_group group = plan_axis_group(e->mesh, MESH_RING);
    double r = group.degree;
    struct plan_wait shift = plan_wait_to_next(e, group, plan_estimate_token(e, a) * 2 * plan_estimate_keys(e, a));
    double seen = e->mesh->patches > 1 ? 1.0 : plan_wait_not_behind(shift, attention / r);
    plan_wait_add(&cost->wait, a->count * (r - 1) * seen, shift);
}

const struct strategy ring_strategy = {.name = "ring",
                                       .group = MESH_RING,
                                       .applies = applies,
                                       .attend = attend,
                                       .place = place,
                                       .collect = collect,
                                       .meeting_bytes = meeting_bytes,
                                       .meeting_wait = meeting_wait};
