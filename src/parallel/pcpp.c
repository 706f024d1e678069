/* Partially conditioned patches (Zhang, Luo and Lu 2024, PCPP, arXiv 2412.02962): displaced
 * patches, of which each sees its direct neighbours alone.
 *
 *     patch p - 2       not seen
 *     patch p - 1       keys and values of step t - 1
 *     patch p           fresh: its queries, keys and values, and the text, which each rank has whole
 *     patch p + 1       keys and values of step t - 1
 *     patch p + 2       not seen
 *
 * Sent per rank and step, whatever the number of ranks: 2 B S_me C to each of at most two
 * neighbours, a layer; attention costs 3 / n of that to the whole picture. Halos and group norms
 * are those of displaced patches. Synchronous steps see everything, so that they are exact; on two
 * ranks this is displaced patches.
 *
 * Left out: the paper's share of a neighbour that is seen, here always all of it. */
#include <string.h>

#include "backend/memory.h"
#include "parallel/displaced_patches.h"
#include "parallel/online_attention.h"
#include "parallel/strategy.h"

static bool applies(const struct strategy_choice *choice) {
    return choice->degrees[MESH_PATCH] > 1 && choice->patch_strategy == &pcpp_strategy;
}

static tessera_status open(const struct strategy_choice *choice, struct comm *group, void **state, tessera_error *error) {
    if (choice->split_text)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "split text: not with pcpp, where a patch would see only some of the text");
    return displaced_patches_open(choice, group, state, error);
}

static bool keeps_text_whole(const struct strategy_choice *choice) {
    (void)choice;
    return true;
}

/* ---- blocks of keys and values, [2, B, tokens, N, D] ---- */

/* A member's block, without memory. */
static struct tensor shape_of(const struct attention_call *call, int member) {
    struct span one = {member, 1};
    return tensor_of(NULL, call->dtype, SHAPE(2 * call->batch, attention_picture_tokens(call, one), call->heads, call->width));
}

static struct tensor half_of(struct tensor block, int half) {
    block.data = (char *)block.data + (size_t)half * (tensor_bytes(&block) / 2);
    block.shape[0] /= 2;
    return block;
}

/* This rank's positions into its block. */
static void fill(struct run *run, const struct attention_call *call, struct tensor block) {
    struct token_span k = call->k[STREAM_PICTURE], v = call->v[STREAM_PICTURE];
    if (run_failed(run)) return;
    token_span_copy(run, (struct token_span){half_of(block, 0), 0, k.count}, k);
    token_span_copy(run, (struct token_span){half_of(block, 1), 0, v.count}, v);
}

/* All members' blocks, fresh; the neighbours' also to where the next step finds them. */
static void gather(struct run *run, struct displaced *d, const struct attention_call *call, const struct displaced_data *data,
                   struct tensor *blocks) {
    int members = call->cut->members, me = call->cut->me;
    struct transfer t = {.group = d->group};
    for (int i = 0; i < members; i++) {
        struct tensor shape = shape_of(call, i);
        blocks[i] = run_tensor(run, shape.dtype, shape.ndim, shape.shape);
    }
    fill(run, call, blocks[me]);
    for (int step = 1; step < members && !run_failed(run); step++) { /* each starts with another partner */
        int to = (me + step) % members, from = (me - step + members) % members;
        transfer_receive(run, &t, from, token_span_all(blocks[from]));
        transfer_send(run, &t, to, token_span_all(blocks[me]));
    }
    transfer_wait(run, &t);
    for (int side = 0; side < 2 && !run_failed(run); side++) {
        int neighbour = me - 1 + 2 * side;
        if (neighbour >= 0 && neighbour < members) backend_download(run->backend, data->in[side], &blocks[neighbour], &run->error);
    }
}

static void attend(struct run *run, const struct strategy_link *link, struct attention_call *call) {
    struct displaced *d = link->state;
    int members = call->cut->members, me = call->cut->me;
    struct displaced_sizes sizes = {0};
    struct displaced_data data;
    struct tensor blocks[members], mine = shape_of(call, me);
    memset(blocks, 0, sizeof blocks);
    for (int side = 0; side < 2; side++) {
        int neighbour = me - 1 + 2 * side;
        if (neighbour < 0 || neighbour >= members) continue;
        struct tensor theirs = shape_of(call, neighbour);
        sizes.in[side] = tensor_bytes(&theirs);
        sizes.out[side] = tensor_bytes(&mine);
    }
    if (displaced_receive(d, &sizes, &data, &run->error) != TESSERA_OK) return;
    bool fresh = d->synchronous || d->mode == SYNC_FULL_SYNC;
    for (int side = 0; side < 2; side++) {
        if (sizes.out[side] == 0) continue;
        struct tensor block = displaced_patches_target(run, data.out[side], mine);
        int neighbour = me - 1 + 2 * side;
        fill(run, call, block);
        displaced_patches_written(run, data.out[side], block);
        if (!fresh) blocks[neighbour] = displaced_patches_read(run, data.in[side], shape_of(call, neighbour));
    }
    if (fresh)
        gather(run, d, call, &data, blocks);
    else
        displaced_send(d);
    struct online_attention attention = online_attention_begin(run, attention_join(run, call, call->q), call->scale);
    online_attention_add(&attention, attention_join(run, call, call->k), attention_join(run, call, call->v));
    for (int step = 1; step < members && !run_failed(run); step++) {
        struct tensor block = blocks[(me - step + members) % members];
        if (block.data != NULL) online_attention_add(&attention, half_of(block, 0), half_of(block, 1));
    }
    if (!run_failed(run)) attention_set_out(call, online_attention_end(&attention));
}

/* ---- bytes ---- */

static void meeting_bytes(struct plan_pass *p, const struct meeting *a) {
    displaced_patches_rows_bytes(p, a);
    if (a->kind != MEETING_ATTENTION) return;
    int64_t neighbours = (p->me > 0) + (p->me < p->members - 1), tokens = plan_pass_tokens(p, a, p->me, 1, true);
    int64_t to = p->warms_up ? p->members - 1 : neighbours;
    plan_pass_add(p, MESH_PATCH, a->count * 2 * to * tokens * plan_pass_units(p, a) * p->batch * a->width, p->m->element_bytes);
}

/* Its own and both neighbours'. */
static int patches_seen(int patches) {
    return patches < 3 ? patches : 3;
}

const struct strategy pcpp_strategy = {.name = "pcpp",
                                       .group = MESH_PATCH,
                                       .applies = applies,
                                       .open = open,
                                       .begin = displaced_patches_begin,
                                       .reset = displaced_patches_reset,
                                       .close = displaced_patches_close,
                                       .attend = attend,
                                       .halo = displaced_patches_halo,
                                       .group_stats = displaced_patches_group_stats,
                                       .keeps_text_whole = keeps_text_whole,
                                       .cut = displaced_patches_cut,
                                       .cuts_whole_rows = true,
                                       .patches_seen = patches_seen,
                                       .meeting_bytes = meeting_bytes,
                                       .end_bytes = displaced_patches_end_bytes,
                                       .meeting_wait = displaced_patches_meeting_wait,
                                       .end_wait = displaced_patches_end_wait};
