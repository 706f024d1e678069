/* DeepSpeed-Ulysses (Jacobs et al. 2023, section 3): heads for tokens, and back.
 *
 *     rank holds   q k v [B, my tokens, N heads, D]
 *       | each member gets its heads of my tokens, where the next link reads them
 *     q k v [B, tokens of the group, my heads, D]
 *       | the next link: PipeFusion's store, a ring (both: "USP", Fang and Zhao 2024), or attention on this rank
 *     out [B, tokens of the group, my heads, D]
 *       | the way back
 *     out [B, my tokens, N heads, D]
 *
 * Sent per rank, in elements, for S tokens over n = R U ranks, all spans equal, C = N D, B
 * pictures:
 *
 *     4 (U - 1) / U  B S / n  C          q, k, v and out
 *
 * Tokens and heads need not divide: member i has what its cut says, such a span of the text, and
 * heads N j / U to N (j + 1) / U. A text that every rank has whole is not exchanged: each takes its
 * heads of it, and the heads' outputs are gathered: T (U - 1) / U B C more elements.
 *
 * Copies: queries, keys and values once, into messages, as a rank's heads lie between others'; the
 * outputs once, out of them. */
#include "parallel/strategy.h"

static bool applies(const struct strategy_choice *choice) {
    return choice->degrees[MESH_ULYSSES] > 1;
}

static struct span heads_of(const struct run *run, const struct strategy_link *link, int64_t heads, int member) {
    return cut_span(heads, comm_size(link->group), member, run->parallel->head_shares);
}

/* What a member exchanges of a stream: its tokens, and where they begin among the group's. */
static struct span tokens_of(const struct run *run, const struct attention_call *group, int stream, int member) {
    struct span before = {group->members.first, member}, own = {group->members.first + member, 1};
    if (stream == STREAM_PICTURE) return (struct span){attention_picture_tokens(group, before), attention_picture_tokens(group, own)};
    if (group->text_whole) return (struct span){0, group->text_total};
    return (struct span){attention_text_tokens(run, group, before), attention_text_tokens(run, group, own)};
}

static struct token_span span_among(struct token_span all, struct span span) {
    return (struct token_span){all.x, all.first + span.first, span.count};
}

/* The call for the next link: all of the group's tokens, my heads. */
static struct attention_call group_call(struct run *run, const struct strategy_link *link, const struct attention_call *call) {
    int members = comm_size(link->group), me = comm_rank(link->group);
    struct attention_call group = *call;
    group.members = (struct span){call->members.first - me, members};
    group.heads = heads_of(run, link, call->heads, me).count;
    for (int s = 0; s < STREAMS; s++) {
        struct span last = tokens_of(run, &group, s, members - 1);
        int64_t all = s == STREAM_PICTURE || !call->text_whole ? last.first + last.count : call->text_total;
        if (call->q[s].count > 0) group.q[s].count = all;
        if (call->k[s].count > 0) group.k[s].count = group.v[s].count = all;
    }
    int64_t queries = group.q[STREAM_PICTURE].count + group.q[STREAM_TEXT].count;
    attention_lay_out(&group, run_tensor(run, call->dtype, SHAPE(call->batch, queries, group.heads, call->width)), group.q);
    attention_place_next(run, link, &group);
    return group;
}

/* `member`'s heads of my tokens, packed: its message. */
static struct token_span pack_heads(struct run *run, const struct strategy_link *link, struct token_span mine, int member) {
    struct span heads = heads_of(run, link, mine.x.shape[2], member);
    struct token_span out = {.count = mine.count};
    out.x = run_tensor(run, mine.x.dtype, SHAPE(mine.x.shape[0], mine.count, heads.count, mine.x.shape[3]));
    token_span_copy_heads(run, out, 0, mine, heads.first, heads.count);
    return out;
}

/* One stream of queries, keys or values: my tokens to all, theirs into `group`. */
static void exchange_heads(struct run *run, struct transfer *t, const struct strategy_link *link, const struct attention_call *call,
                           int stream, struct token_span mine, struct token_span group) {
    int members = comm_size(link->group), me = comm_rank(link->group);
    struct span heads = heads_of(run, link, mine.x.shape[2], me);
    if (mine.count == 0) return;
    token_span_copy_heads(run, span_among(group, tokens_of(run, call, stream, me)), 0, mine, heads.first, heads.count);
    if (stream == STREAM_TEXT && call->text_whole) return;
    for (int step = 1; step < members; step++) { /* each starts with another partner */
        int to = (me + step) % members, from = (me - step + members) % members;
        transfer_receive(run, t, from, span_among(group, tokens_of(run, call, stream, from)));
        transfer_send(run, t, to, pack_heads(run, link, mine, to));
    }
}

/* One stream of the outputs: each member's tokens back to it, its heads of mine into `out`. */
static void return_tokens(struct run *run, const struct strategy_link *link, const struct attention_call *group, int stream,
                          struct token_span out) {
    int members = comm_size(link->group), me = comm_rank(link->group);
    struct token_span theirs[members];
    struct transfer t = {.group = link->group};
    for (int step = 1; step < members; step++) {
        int to = (me + step) % members, from = (me - step + members) % members;
        theirs[from] = (struct token_span){.count = out.count};
        theirs[from].x =
            run_tensor(run, group->dtype, SHAPE(group->batch, out.count, heads_of(run, link, out.x.shape[2], from).count, group->width));
        transfer_receive(run, &t, from, theirs[from]);
        transfer_send(run, &t, to, span_among(group->out[stream], tokens_of(run, group, stream, to)));
    }
    transfer_wait(run, &t);
    theirs[me] = span_among(group->out[stream], tokens_of(run, group, stream, me));
    for (int i = 0; i < members; i++) {
        struct span heads = heads_of(run, link, out.x.shape[2], i);
        token_span_copy_heads(run, out, heads.first, theirs[i], 0, heads.count);
    }
}

/* Memory for the result: one tensor where the queries are, so that what follows finds it as they
 * lay. */
static void reserve_out(struct run *run, struct attention_call *call) {
    bool joined = call->q[STREAM_TEXT].count > 0 && call->q[STREAM_TEXT].x.data == call->q[STREAM_PICTURE].x.data;
    for (int s = 0; s < STREAMS; s++) {
        call->out[s] = (struct token_span){.count = call->q[s].count};
        if (joined || call->q[s].count == 0) continue;
        call->out[s].x = run_tensor(run, call->dtype, SHAPE(call->batch, call->q[s].count, call->heads, call->width));
    }
    int64_t all = call->q[STREAM_PICTURE].count + call->q[STREAM_TEXT].count;
    if (joined) attention_lay_out(call, run_tensor(run, call->dtype, SHAPE(call->batch, all, call->heads, call->width)), call->out);
}

static void attend(struct run *run, const struct strategy_link *link, struct attention_call *call) {
    int members = comm_size(link->group);
    if (members > call->heads) {
        error_set(
            &run->error, TESSERA_ERROR_ARGUMENT,
            "ulysses degree %d: this model has %lld attention heads on a rank, so at most %lld are possible; use the ring for the rest",
            members, (long long)call->heads, (long long)call->heads);
        return;
    }
    reserve_out(run, call);
    struct attention_call group = group_call(run, link, call);
    struct transfer t = {.group = link->group};
    for (int s = 0; s < STREAMS; s++) {
        exchange_heads(run, &t, link, &group, s, call->q[s], group.q[s]);
        exchange_heads(run, &t, link, &group, s, call->k[s], group.k[s]);
        exchange_heads(run, &t, link, &group, s, call->v[s], group.v[s]);
    }
    transfer_wait(run, &t);
    attention_next(run, link, &group);
    for (int s = 0; s < STREAMS; s++)
        if (call->q[s].count > 0 && !run_failed(run)) return_tokens(run, link, &group, s, call->out[s]);
}

/* ---- for plans ---- */

/* e B D times: (N - N_me) (q_me + 2 k_me) of the way there, N_me (the group's q - q_me) of the way
 * back, N_me (U - 1) T of a whole text that asks. */
static void meeting_bytes(struct plan_pass *p, const struct meeting *a) {
    if (a->kind != MEETING_ATTENTION) return;
    int u = p->degrees[MESH_ULYSSES], first = p->at[MESH_RING] * u;
    int64_t heads = plan_pass_units(p, a), mine = cut_evenly(heads, u, p->at[MESH_ULYSSES]).count;
    int64_t queries = plan_pass_tokens(p, a, p->me, 1, false), keys = plan_pass_tokens(p, a, p->me, 1, true);
    int64_t sum = (heads - mine) * (queries + 2 * keys) + mine * (plan_pass_tokens(p, a, first, u, false) - queries);
    if ((a->of & MEETING_TEXT) && p->has_text && !p->cuts_text && a->text_asks) sum += mine * (u - 1) * p->text;
    plan_pass_add(p, MESH_ULYSSES, a->count * sum * p->batch * a->width, p->m->element_bytes);
}

/* Queries, keys and values there, outputs back; a whole text's, too. */
static void meeting_wait(const struct plan_estimate *e, const struct meeting *a, double attention, struct plan_cost *cost) {
    (void)attention;
    if (a->kind != MEETING_ATTENTION) return;
    struct plan_group group = plan_axis_group(e->mesh, MESH_ULYSSES);
    double u = group.degree, sent = plan_estimate_token(e, a) * (u - 1) / u, keys = plan_estimate_keys(e, a);
    bool has_text = plan_estimate_has_text(e, a), cut = has_text && e->cuts_text;
    double queries = a->text_asks || !cut ? keys : keys - e->text;
    plan_wait_add(&cost->wait, a->count, plan_wait_to_all(e, group, sent * (queries + 2 * keys)));
    plan_wait_add(&cost->wait, a->count, plan_wait_to_all(e, group, sent * queries));
    if (has_text && !cut && a->text_asks) plan_wait_add(&cost->wait, a->count, plan_wait_to_all(e, group, sent * e->text));
}

const struct strategy ulysses_strategy = {.name = "ulysses",
                                          .group = MESH_ULYSSES,
                                          .applies = applies,
                                          .attend = attend,
                                          .meeting_bytes = meeting_bytes,
                                          .meeting_wait = meeting_wait};
