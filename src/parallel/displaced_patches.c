/* Displaced patches (Li et al. 2024, DistriFusion, section 4.2): in every layer in which positions
 * meet, the others' values are those of one step before (displaced.h).
 *
 *     attention    keys and values   [ this rank's, fresh | the others', of step t - 1 ]    each one's positions and its tokens T_i of the text
 *                  queries           this rank's positions and its tokens of the text
 *     halo         the neighbours' rows of step t - 1
 *     group norm   own statistics fresh, the others' as the mode says
 *
 * Sent per rank and step: 2 B (S_me + T_me) C to each of the n - 1 others, 8 (n - 1) (1 + 2 B
 * groups) a norm, a row to each neighbour, all behind the computing of a whole step. A text that is
 * not split (split_text) or has fewer tokens than there are ranks never travels: each rank carries
 * its own stream of it, T_me is 0, and the keys contain the whole text, fresh. In synchronous steps
 * everything is fresh, and each block is computed with while others arrive. */
#include "parallel/displaced_patches.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "backend/memory.h"
#include "parallel/group_statistics.h"
#include "parallel/online_attention.h"
#include "parallel/rows.h"
#include "parallel/strategy.h"

static bool applies(const struct strategy_choice *choice) {
    return choice->degrees[MESH_PATCH] > 1 && (choice->patch_strategy == NULL || choice->patch_strategy == &displaced_patches_strategy);
}

/* ---- state ---- */

tessera_status displaced_patches_open(const struct strategy_choice *choice, struct comm *group, void **state, tessera_error *error) {
    struct displaced *d = calloc(1, sizeof *d);
    if (d == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    *d = (struct displaced){.group = group,
                            .mode = choice->sync_mode,
                            .warmup_steps = choice->warmup_steps,
                            .comm_checkpoint = choice->comm_checkpoint,
                            .published_group_norm = choice->published_group_norm};
    *state = d;
    return TESSERA_OK;
}

void displaced_patches_begin(void *state, const struct strategy_moment *moment) {
    struct displaced *d = state;
    d->steps = moment->steps;
    displaced_step(d, moment->step);
}

tessera_status displaced_patches_reset(void *state, tessera_error *error) {
    return displaced_reset(state, error);
}

void displaced_patches_close(void *state) {
    displaced_close(state);
    free(state);
}

/* ---- cut and text ---- */

static bool keeps_text_whole(const struct strategy_choice *choice) {
    return !choice->split_text;
}

/* Where the patches of a picture end, [members + 1], if each rank's positions and all of the text,
 * where that is not split, are to be in proportion to the shares s:
 *
 *     end_i = (s_i (S + n T) - i T) / S
 */
static const double *leave_room(const struct parallel *p, int64_t positions, double *ends) {
    int members = comm_size(p->cut_group);
    double text = (double)p->text_tokens;
    if (p->shares == NULL || p->choice.split_text) return p->shares;
    for (int i = 0; i <= members; i++) ends[i] = (p->shares[i] * ((double)positions + members * text) - i * text) / (double)positions;
    return ends;
}

/* Whole rows. */
tessera_status displaced_patches_cut(struct run *run, const struct strategy_link *link, int64_t rows, int64_t columns, struct cut **out) {
    int members = comm_size(link->group);
    double ends[members + 1];
    return cut_rows(rows, columns, 1, 1, members, comm_rank(link->group), leave_room(run->parallel, rows * columns, ends), out,
                    &run->error);
}

/* ---- what lies with the messages ---- */

struct tensor displaced_patches_target(struct run *run, void *host, struct tensor shape) {
    shape.data = host;
    return run->backend->shares_host ? shape : run_tensor(run, shape.dtype, shape.ndim, shape.shape);
}

void displaced_patches_written(struct run *run, void *host, struct tensor target) {
    if (run_failed(run) || target.data == host) return;
    backend_download(run->backend, host, &target, &run->error);
}

struct tensor displaced_patches_read(struct run *run, void *host, struct tensor shape) {
    shape.data = host;
    return run_upload(run, shape);
}

/* ---- attention ---- */

/* What member i sends of a call. */
static int64_t tokens_of(const struct run *run, const struct attention_call *call, int i) {
    struct span member = {i, 1};
    bool cuts_text = call->k[STREAM_TEXT].count > 0 && !call->text_whole;
    return attention_picture_tokens(call, member) + (cuts_text ? attention_text_tokens(run, call, member) : 0);
}

/* Member i's block, without memory: keys, then values. */
static struct tensor shape_of(const struct run *run, const struct attention_call *call, int i) {
    return tensor_of(NULL, call->dtype, SHAPE(2 * call->batch, tokens_of(run, call, i), call->heads, call->width));
}

/* Keys (half 0) or values (half 1) of a block. */
static struct tensor half_of(struct tensor block, int half) {
    block.data = (char *)block.data + (size_t)half * (tensor_bytes(&block) / 2);
    block.shape[0] /= 2;
    return block;
}

/* This rank's keys or values into its block; those that are attended to: with a whole text, which
 * is in no block, beside them. */
static struct tensor fill_half(struct run *run, const struct attention_call *call, const struct token_span spans[STREAMS],
                               struct tensor half) {
    struct token_span to[STREAMS] = {spans[0], spans[1]};
    if (call->text_whole) to[STREAM_TEXT].count = 0;
    attention_lay_out(call, half, to);
    token_span_copy(run, to[STREAM_PICTURE], spans[STREAM_PICTURE]);
    if (call->text_whole) return attention_join(run, call, spans);
    token_span_copy(run, to[STREAM_TEXT], spans[STREAM_TEXT]);
    return half;
}

/* To this rank's block, and to each of the others': in a synchronous step while those behind it
 * arrive. */
static struct tensor attend_blocks(struct run *run, struct displaced *d, const struct attention_call *call, struct tensor k,
                                   struct tensor v, char *const *all) {
    int me = call->cut->me, members = call->cut->members;
    struct online_attention attention = online_attention_begin(run, attention_join(run, call, call->q), call->scale);
    online_attention_add(&attention, k, v);
    for (int step = 1; step < members && !run_failed(run); step++) {
        int i = (me - step + members) % members;
        if (displaced_wait(d, i, &run->error) != TESSERA_OK) break;
        struct tensor block = displaced_patches_read(run, all[i], shape_of(run, call, i));
        if (!run_failed(run)) online_attention_add(&attention, half_of(block, 0), half_of(block, 1));
    }
    struct tensor out = online_attention_end(&attention);
    tessera_error error = {0};
    if (displaced_wait_all(d, &error) != TESSERA_OK && !run_failed(run)) run->error = error;
    return out;
}

static void attend(struct run *run, const struct strategy_link *link, struct attention_call *call) {
    struct displaced *d = link->state;
    struct displaced_data data;
    int members = call->cut->members, me = call->cut->me;
    size_t bytes[members], token = 2 * (size_t)(call->batch * call->heads * call->width) * dtype_size(call->dtype);
    for (int i = 0; i < members; i++) bytes[i] = token * (size_t)tokens_of(run, call, i);
    if (displaced_receive(d, &(struct displaced_sizes){.all = bytes}, &data, &run->error) != TESSERA_OK) return;
    struct tensor block = displaced_patches_target(run, data.all[me], shape_of(run, call, me));
    if (run_failed(run)) return;
    struct tensor k = fill_half(run, call, call->k, half_of(block, 0)), v = fill_half(run, call, call->v, half_of(block, 1));
    displaced_patches_written(run, data.all[me], block);
    displaced_send(d);
    struct tensor out = attend_blocks(run, d, call, k, v, data.all);
    if (!run_failed(run)) attention_set_out(call, out);
}

/* ---- rows ---- */

struct halo displaced_patches_halo(struct run *run, const struct strategy_link *link, struct tensor x, int64_t above, int64_t below) {
    struct displaced *d = link->state;
    struct halo halo = {0};
    struct displaced_data data;
    bool has[2] = {comm_rank(d->group) > 0, comm_rank(d->group) < comm_size(d->group) - 1};
    int64_t in[2] = {has[0] ? above : 0, has[1] ? below : 0}, out[2] = {has[0] ? below : 0, has[1] ? above : 0};
    size_t row = tensor_bytes(&x) / (size_t)x.shape[1];
    const struct displaced_sizes sizes = {.in = {(size_t)in[0] * row, (size_t)in[1] * row},
                                          .out = {(size_t)out[0] * row, (size_t)out[1] * row}};
    comm_label(d->group, "halo");
    if (displaced_receive(d, &sizes, &data, &run->error) != TESSERA_OK) return halo;
    for (int i = 0; i < 2; i++) {
        if (out[i] == 0) continue;
        struct tensor rows =
            displaced_patches_target(run, data.out[i], tensor_of(NULL, x.dtype, SHAPE(x.shape[0], out[i], x.shape[2], x.shape[3])));
        if (!run_failed(run)) rows_pack(run, rows, x, i == 0 ? 0 : x.shape[1] - out[1], out[i]);
        displaced_patches_written(run, data.out[i], rows);
    }
    displaced_send(d);
    displaced_wait_all(d, &run->error);
    struct tensor *halves[2] = {&halo.above, &halo.below};
    for (int i = 0; i < 2; i++)
        if (in[i] > 0)
            *halves[i] =
                displaced_patches_read(run, data.in[i], tensor_of(NULL, x.dtype, SHAPE(x.shape[0], in[i], x.shape[2], x.shape[3])));
    return halo;
}

/* ---- group norms ---- */

/* What a rank knows of one group: means of x and of x^2 over its rows, in float64. */
struct moments {
    double mean, square;
};

static struct moments moments_of(const float *stats) {
    return (struct moments){stats[0], (double)stats[1] + (double)stats[0] * stats[0]};
}

/* mean_j B_j of group g over all members' blocks [weight, groups x (mean, square)], weighted by
 * rows, which the published code has equal; `old`, where it is not NULL, in place of member
 * `self`'s block. Blocks may lie anywhere in memory. */
static struct moments average(char *const *blocks, int members, int64_t g, int self, const double *old) {
    struct moments sum = {0, 0};
    double total = 0;
    for (int i = 0; i < members; i++) {
        const char *block = old != NULL && i == self ? (const char *)old : blocks[i];
        double weight, m[2];
        memcpy(&weight, block, sizeof weight);
        memcpy(m, block + (1 + 2 * g) * (int64_t)sizeof *m, sizeof m);
        sum.mean += weight * m[0];
        sum.square += weight * m[1];
        total += weight;
    }
    return (struct moments){sum.mean / total, sum.square / total};
}

/* This rank's block goes out, the others' are at data->all; *old, in the mode that asks for it,
 * becomes this rank's of the step before. */
static tessera_status exchange_moments(struct run *run, struct displaced *d, const double *block, int64_t numbers, double *old,
                                       struct displaced_data *data) {
    int members = comm_size(d->group), me = comm_rank(d->group);
    size_t bytes[members];
    for (int i = 0; i < members; i++) bytes[i] = (size_t)numbers * sizeof *block;
    comm_label(d->group, "group norm");
    TRY(displaced_receive(d, &(struct displaced_sizes){.all = bytes}, data, &run->error));
    memcpy(old, d->synchronous ? (const char *)block : data->all[me], bytes[me]);
    memcpy(data->all[me], block, bytes[me]);
    displaced_send(d);
    return displaced_wait_all(d, &run->error);
}

/* DistriFusion's statistics after warm-up (section 4.2, "corrected asynchronous group norm"), or
 * with the others' taken as they were: where the variance comes out negative, this rank's own. */
static void displace_stats(struct run *run, struct displaced *d, float *values, int64_t groups, double weight) {
    int64_t each = 1 + 2 * groups;
    bool corrects = d->mode == SYNC_CORRECTED_ASYNC_GN;
    struct displaced_data data;
    double *block = calloc((size_t)(2 * each), sizeof *block), *old = block + each;
    if (block == NULL) {
        error_set(&run->error, TESSERA_ERROR_MEMORY, "out of memory for statistics");
        return;
    }
    block[0] = weight;
    for (int64_t g = 0; g < groups; g++) {
        struct moments m = moments_of(values + 2 * g);
        block[1 + 2 * g] = m.mean;
        block[2 + 2 * g] = m.square;
    }
    exchange_moments(run, d, block, each, old, &data);
    for (int64_t g = 0; g < groups && !run_failed(run); g++) {
        struct moments m = average(data.all, comm_size(d->group), g, comm_rank(d->group), corrects ? old : NULL);
        if (corrects) {
            m.mean += block[1 + 2 * g] - old[1 + 2 * g];
            m.square += block[2 + 2 * g] - old[2 + 2 * g];
        }
        double variance = m.square - m.mean * m.mean;
        if (variance >= 0) values[2 * g + 1] = (float)variance;
        values[2 * g] = (float)m.mean;
    }
    free(block);
}

void displaced_patches_group_stats(struct run *run, const struct strategy_link *link, struct tensor *stats, double weight,
                                   double elements) {
    struct displaced *d = link->state;
    if (!d->synchronous && (d->mode == SYNC_SEPARATE_GN || d->mode == SYNC_NO_SYNC)) return; /* own rows alone */
    bool displaces = d->mode == SYNC_CORRECTED_ASYNC_GN || d->mode == SYNC_STALE_GN;
    if (!displaces) group_statistics_merge(run, d->group, stats, weight);
    float *values = run_map(run, stats, MAP_READ | MAP_WRITE);
    if (displaces && !run_failed(run)) displace_stats(run, d, values, tensor_count(stats) / 2, weight);
    for (int64_t i = 1; i < tensor_count(stats) && !run_failed(run) && d->published_group_norm && elements > 1; i += 2)
        values[i] *= (float)(elements / (elements - 1));
    run_unmap(run, stats, values, MAP_READ | MAP_WRITE);
}

/* ---- for plans ---- */

/* Pieces of its messages begin at multiples of 8; moments are float64. */
void displaced_patches_rows_bytes(struct plan_pass *p, const struct meeting *meeting) {
    if (meeting->kind == MEETING_HALO)
        plan_pass_add(p, MESH_PATCH, meeting->count * plan_pass_halo_rows(p, meeting) * ((plan_pass_row(p, meeting) + 7) / 8 * 8), 1);
    if (meeting->kind == MEETING_NORM)
        plan_pass_add(p, MESH_PATCH, meeting->count * (p->members - 1) * (1 + 2 * p->batch * plan_pass_units(p, meeting)),
                      (int)sizeof(double));
}

static void meeting_bytes(struct plan_pass *p, const struct meeting *a) {
    displaced_patches_rows_bytes(p, a);
    if (a->kind != MEETING_ATTENTION) return;
    int64_t tokens = plan_pass_tokens(p, a, p->me, 1, true);
    plan_pass_add(p, MESH_PATCH, a->count * 2 * (p->members - 1) * tokens * plan_pass_units(p, a) * p->batch * a->width,
                  p->m->element_bytes);
}

void displaced_patches_end_bytes(struct plan_pass *p, int64_t latents) {
    (void)latents;
    plan_pass_add_gather(p, MESH_PATCH);
}

/* After warm-up all of it is hidden; before, keys and values as far as attention to the own ones
 * takes as long. */
void displaced_patches_meeting_wait(const struct plan_estimate *e, const struct meeting *meeting, double attention,
                                    struct plan_cost *cost) {
    struct plan_group group = plan_cut_group(e->mesh);
    struct plan_wait *sum = e->hides ? &cost->hidden : &cost->wait;
    double n = group.degree, others = plan_estimate_patches_seen(e) - 1;
    if (meeting->kind == MEETING_HALO || meeting->kind == MEETING_NORM) plan_wait_add(sum, meeting->count, plan_wait_of_rows(e, meeting));
    if (meeting->kind != MEETING_ATTENTION) return;
    struct plan_wait blocks = plan_wait_to_all(e, group, plan_estimate_token(e, meeting) * 2 * others * plan_estimate_keys(e, meeting));
    plan_wait_add(sum, meeting->count * (e->hides ? 1.0 : plan_wait_not_behind(blocks, attention * (n - 1) / n)), blocks);
}

void displaced_patches_end_wait(const struct plan_estimate *e, struct plan_cost *cost) {
    plan_wait_add(&cost->wait, 1, plan_wait_of_prediction(e));
}

static int patches_seen(int patches) {
    return patches;
}

const struct strategy displaced_patches_strategy = {.name = "patch",
                                                    .group = MESH_PATCH,
                                                    .applies = applies,
                                                    .open = displaced_patches_open,
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
