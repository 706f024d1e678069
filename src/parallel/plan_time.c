/* Seconds and memory of a plan: docs/planner.md has the model in words.
 *
 *     a block     operations / rate  +  for each exchange: latency + bytes / bandwidth
 *     hidden      a ring's blocks, and displaced patches' in synchronous steps, while a block is computed with; all of theirs after warm-up
 *     a pipeline  a patch's way through all stages, or the busiest stage's patches, whichever takes longer
 *
 * The rank with the largest span counts. Strategies say how long ranks wait at each exchange
 * (plan_wait.h). */
#include <math.h>
#include <string.h>

#include "parallel/strategy.h"

/* Arrays as wide as the model that a transformer block holds at once: the two streams, queries,
 * keys, values, their copies for the exchange, the output, and the hidden channels of a
 * feed-forward network, which tensor cuts; and a U-Net's maps as large as its widest. On small
 * models of all families arenas peaked at 0.5 to 1 of what these say. */
#define LIVE_ARRAYS 11.0
#define LIVE_MAPS 9.0
#define HIDDEN_ARRAYS 5.0
#define ARRAYS_BY_ROWS 8.0
#define MAPS_BY_ROWS 7.0
/* Norms, modulations, activations, casts and additions for each all-reduce of a block, as passes
 * over its elements. This is measured, too. */
#define PASSES 12.0

/* ---- a block on one rank ---- */

static double rounded_up(double a, double b) {
    return ceil(a / b);
}

static double all_positions(const struct plan_model *m) {
    return (double)(m->rows / m->patch_size) * (double)(m->columns / m->patch_size);
}

static double largest_span(const struct plan_model *m, const struct plan_mesh *mesh) {
    double members = plan_cut_members(mesh), unit = (double)m->row_unit;
    double columns = (double)(m->columns / m->patch_size);
    if (m->row_unit == 0 && plan_mesh_patch_strategy(mesh) != NULL) return rounded_up(all_positions(m) / columns, members) * columns;
    if (m->row_unit == 0) return rounded_up(all_positions(m), members);
    double rows = fmin(rounded_up(rounded_up((double)m->rows, unit), members) * unit, (double)m->rows);
    return rows * (double)m->columns;
}

static double largest_slice(const struct plan_model *m, int tensor) {
    double heads = rounded_up((double)m->heads, tensor) / (double)m->heads;
    return m->max_tensor > 0 ? fmax(heads, rounded_up((double)m->max_tensor, tensor) / (double)m->max_tensor) : heads;
}

/* The mean speed of the ranks in one place of data, cfg and tensor, the first of which is `first`.
 * Those axes are cut equally; among these ranks work is divided by speed. */
static double mean_speed(const struct plan_machine *machine, const struct plan_mesh *mesh, int first) {
    int stages = mesh->degrees[MESH_PIPEFUSION], members = plan_cut_members(mesh);
    double sum = 0;
    for (int s = 0; s < stages; s++)
        for (int i = 0; i < members; i++)
            sum += machine->speeds[first + s * plan_stride(mesh, MESH_PIPEFUSION) + i * plan_stride(mesh, MESH_ULYSSES)];
    return sum / (stages * members);
}

static bool is_first(const struct plan_mesh *mesh, int rank) {
    return plan_coordinate(mesh, rank, MESH_PIPEFUSION) == 0 && rank / plan_stride(mesh, MESH_ULYSSES) % plan_cut_members(mesh) == 0;
}

/* The share of the rates that counts if all ranks compute at the same time: the slowest rank's; or,
 * if spans are proportional, that of the slowest of those groups. */
static double slowest_share(const struct plan_machine *machine, const struct plan_mesh *mesh) {
    double slowest = INFINITY;
    for (int i = 0; machine->speeds != NULL && i < machine->ranks; i++) {
        if (machine->proportional && !is_first(mesh, i)) continue;
        slowest = fmin(slowest, machine->proportional ? mean_speed(machine, mesh, i) : machine->speeds[i]);
    }
    return (machine->speeds != NULL ? slowest : 1.0) / fmax(machine->crowding, 1.0);
}

static struct plan_estimate estimate_of(const struct plan_model *m, const struct plan_machine *machine, const struct plan_mesh *mesh,
                                        const int *first, const int *ranks, double share) {
    struct plan_estimate p = {.m = m,
                              .machine = machine,
                              .mesh = mesh,
                              .rate = machine->operations * slowest_share(machine, mesh),
                              .share = share,
                              .has_text = true,
                              .first = first,
                              .ranks = ranks};
    p.batch = (double)m->predictions / mesh->degrees[MESH_CFG];
    p.positions = share < 1.0 ? rounded_up(all_positions(m) * share, plan_cut_members(mesh)) : largest_span(m, mesh);
    p.cuts_text = plan_cuts_text(m, mesh);
    p.text = p.cuts_text ? rounded_up((double)m->text_tokens, plan_cut_members(mesh)) : (double)m->text_tokens;
    p.tensor = largest_slice(m, mesh->degrees[MESH_TENSOR]);
    p.patch_strategy = plan_mesh_patch_strategy(mesh);
    return p;
}

static double attention_seconds(const struct plan_estimate *p, const struct plan_block *block) {
    const struct plan_model *m = p->m;
    double ulysses = p->mesh->degrees[MESH_ULYSSES], heads = rounded_up((double)m->heads, p->mesh->degrees[MESH_TENSOR]);
    double keys =
        all_positions(m) * plan_estimate_patches_seen(p) / plan_cut_members(p->mesh) + (m->text_stream ? (double)m->text_tokens : 0);
    double queries = p->positions;
    if (m->text_stream && p->has_text) queries += p->cuts_text ? p->text : p->text / ulysses;
    double uneven = rounded_up(heads, ulysses) * ulysses / heads,
           share = p->machine->attention_share > 0 ? p->machine->attention_share : 1.0;
    return p->batch * queries * keys * block->pair_operations * p->tensor * uneven / (p->rate * share);
}

static double product_seconds(const struct plan_estimate *p, const struct plan_block *block) {
    double text = p->has_text ? p->text * block->text_operations : 0;
    return p->batch * (p->positions * block->picture_operations + text) * p->tensor / p->rate;
}

/* The work element by element, counted where a layer's outputs are added to the stream; all such
 * work scales with it. */
static double element_seconds(const struct plan_estimate *p, const struct plan_block *block) {
    double elements = 0;
    for (int i = 0; i < block->num_meetings && p->machine->elements > 0; i++)
        if (block->meetings[i].kind == MEETING_SUM)
            elements += block->meetings[i].count * plan_estimate_bytes(p, &block->meetings[i]) / p->m->element_bytes;
    return p->machine->elements > 0 ? PASSES * elements / (p->machine->elements * p->rate / p->machine->operations) : 0;
}

/* Each pass reads all weights of a block. */
static double weight_seconds(const struct plan_estimate *p, const struct plan_block *block) {
    double bytes = block->weight_bytes - block->cut_bytes * (1.0 - p->tensor);
    return p->machine->streaming > 0 ? bytes / (p->machine->streaming * p->rate / p->machine->operations) : 0;
}

static void add_meeting(const struct plan_estimate *e, const struct meeting *meeting, double attention, struct plan_cost *cost) {
    struct plan_chain chain = plan_chain_of(e->mesh);
    for (int i = 0; i < chain.count; i++)
        if (chain.strategies[i]->meeting_wait != NULL) chain.strategies[i]->meeting_wait(e, meeting, attention, cost);
}

static void add_step_end(const struct plan_estimate *e, struct plan_cost *cost) {
    struct plan_chain chain = plan_chain_of(e->mesh);
    for (int i = 0; i < chain.count; i++)
        if (chain.strategies[i]->end_wait != NULL) chain.strategies[i]->end_wait(e, cost);
}

static void add_block(const struct plan_estimate *p, const struct plan_block *block, struct plan_cost *cost) {
    double attention = attention_seconds(p, block);
    int layers = 0;
    cost->compute += attention + product_seconds(p, block) + element_seconds(p, block) + weight_seconds(p, block);
    for (int i = 0; i < block->num_meetings; i++) layers += block->meetings[i].kind == MEETING_ATTENTION ? block->meetings[i].count : 0;
    for (int i = 0; i < block->num_meetings; i++) add_meeting(p, &block->meetings[i], layers > 0 ? attention / layers : 0, cost);
}

/* Embedding, last projection, and the exchange of the prediction. */
static void add_ends(const struct plan_estimate *p, struct plan_cost *cost) {
    cost->compute += p->batch * p->positions * p->m->end_operations / p->rate;
    add_step_end(p, cost);
}

/* ---- a step ---- */

static double seconds_of(const struct plan_cost *cost) {
    double busy = cost->compute + cost->wait.latency + cost->wait.bandwidth;
    return fmax(busy, cost->hidden.bandwidth);
}

/* What a stage costs in a pass. */
static struct plan_cost stage_cost(const struct plan_estimate *p, int stage) {
    struct plan_cost cost = {0};
    for (int i = p->first[stage]; i < p->first[stage + 1]; i++) add_block(p, &p->m->blocks[i], &cost);
    if (stage == p->mesh->degrees[MESH_PIPEFUSION] - 1) add_ends(p, &cost);
    return cost;
}

static double map_bytes(const struct plan_estimate *p, struct denoiser_map map) {
    return plan_estimate_positions(p, map.level) * p->batch * (double)map.channels * p->m->element_bytes;
}

/* The messages of a stage: a patch's tokens to the next stage, skips to others, and latents from
 * the last stage to the first. */
static struct plan_wait stage_message(const struct plan_estimate *p, int stage) {
    const struct plan_model *m = p->m;
    struct denoiser_map skips[PLAN_MAX_SKIPS];
    int stages = p->mesh->degrees[MESH_PIPEFUSION], parcels;
    double bytes = p->positions * (double)(m->patch_size * m->patch_size * m->channels) * sizeof(float);
    if (stage == stages - 1 && p->ranks != NULL && p->ranks[stage] == p->ranks[0]) return (struct plan_wait){0};
    if (stage < stages - 1) {
        bytes = map_bytes(p, m->blocks[p->first[stage + 1] - 1].out);
        for (int i = plan_skips(m, p->first, p->ranks, stages, stage, skips, &parcels); i-- > 0;) bytes += map_bytes(p, skips[i]);
    }
    return plan_wait_to_next(p, plan_axis_group(p->mesh, MESH_PIPEFUSION), bytes);
}

static void add_cost(struct plan_cost *sum, double count, struct plan_cost more) {
    sum->compute += count * more.compute;
    plan_wait_add(&sum->wait, count, more.wait);
    plan_wait_add(&sum->hidden, count, more.hidden);
}

/* The share of its time that a stage takes if ranks crowd their processors: while a picture goes
 * through the stages, most ranks idle. */
static double crowded_share(const struct plan_estimate *p, double predictions) {
    int crowd = p->machine->crowd > 0 ? p->machine->crowd : p->machine->per_host;
    double here = plan_group_among(crowd, plan_axis_group(p->mesh, MESH_PIPEFUSION)), crowding = fmax(p->machine->crowding, 1.0);
    return fmax(1.0 / crowding, predictions / (here + predictions - 1.0));
}

/* The whole picture, one stage after the other; the predictions follow each other closely. */
static struct plan_cost whole_step(const struct plan_estimate *p) {
    int stages = p->mesh->degrees[MESH_PIPEFUSION];
    struct plan_cost sum = {0}, busiest = {0};
    struct plan_estimate one = *p;
    double predictions = stages > 1 ? p->batch : 1.0;
    one.batch /= predictions;
    double share = crowded_share(p, predictions);
    for (int s = 0; s < stages; s++) {
        struct plan_cost stage = stage_cost(&one, s);
        stage.compute *= share;
        if (seconds_of(&stage) > seconds_of(&busiest)) busiest = stage;
        add_cost(&sum, 1, stage);
        if (stages > 1) plan_wait_add(&sum.wait, 1, stage_message(&one, s));
    }
    add_cost(&sum, predictions - 1, busiest);
    return sum;
}

/* Has a rank several stages? */
static bool returns(const struct plan_estimate *p) {
    bool found = false;
    for (int s = 0; p->ranks != NULL && s < p->mesh->degrees[MESH_PIPEFUSION]; s++)
        for (int before = 0; before < s; before++) found = found || p->ranks[before] == p->ranks[s];
    return found;
}

/* The same for one of several pictures under way, so that no stage waits. A rank with several
 * stages computes one after the other. */
static struct plan_cost whole_step_of_many(const struct plan_estimate *p) {
    int stages = p->mesh->degrees[MESH_PIPEFUSION], pictures = (int)rounded_up(p->m->pictures, p->mesh->degrees[MESH_DATA]);
    struct plan_cost one = whole_step(p), busiest = {0};
    int enough = (int)rounded_up(stages, p->batch), at_once = returns(p) ? 1 : pictures < enough ? pictures : enough;
    for (int s = 0; s < stages; s++) {
        struct plan_cost stage = stage_cost(p, s);
        if (seconds_of(&stage) > seconds_of(&busiest)) busiest = stage;
    }
    struct plan_cost shared = {0};
    add_cost(&shared, 1.0 / at_once, one);
    return seconds_of(&shared) > seconds_of(&busiest) ? shared : busiest;
}

/* A step of several patches in flight: the busiest stage's, or one patch's way round, whichever
 * takes longer. *fill: until the last stage has its first patch. */
static struct plan_cost patched_step(const struct plan_estimate *patch, double *fill) {
    int stages = patch->mesh->degrees[MESH_PIPEFUSION], patches = patch->mesh->patches;
    struct plan_estimate with_text = *patch, without = *patch;
    struct plan_cost busiest = {0}, round = {0};
    without.has_text = false;
    for (int s = 0; s < stages; s++) {
        struct plan_cost first = stage_cost(&with_text, s), rest = stage_cost(&without, s), all = first;
        add_cost(&all, patches - 1, rest);
        if (seconds_of(&all) > seconds_of(&busiest)) busiest = all;
        add_cost(&round, 1, rest);
        if (stages > 1) plan_wait_add(&round.wait, 1, stage_message(&without, s));
    }
    *fill = seconds_of(&round) * (stages - 1) / stages;
    return seconds_of(&round) > seconds_of(&busiest) ? round : busiest;
}

/* ---- memory ---- */

static double stage_weights(const struct plan_estimate *p, int stage) {
    const struct plan_model *m = p->m;
    double bytes = m->shared_bytes - m->shared_cut_bytes * (1.0 - p->tensor);
    for (int i = p->first[stage]; i < p->first[stage + 1]; i++)
        bytes += m->blocks[i].weight_bytes - m->blocks[i].cut_bytes * (1.0 - p->tensor);
    bool last = stage == p->mesh->degrees[MESH_PIPEFUSION] - 1;
    return bytes + (stage == 0 ? m->first_bytes : 0) + (last ? m->last_bytes : 0);
}

/* Keys and values that are kept between steps: those of the whole picture, twice if other ranks'
 * arrive meanwhile. */
static double stage_stores(const struct plan_estimate *p, int stage) {
    const int *degrees = p->mesh->degrees;
    double copies = plan_mesh_patch_strategy(p->mesh) != NULL ? 2.0 : p->mesh->patches > 1 ? 1.0 : 0.0, bytes = 0;
    for (int i = p->first[stage]; i < p->first[stage + 1]; i++) {
        for (int j = 0; j < p->m->blocks[i].num_meetings; j++) {
            const struct meeting *a = &p->m->blocks[i].meetings[j];
            if (a->kind != MEETING_ATTENTION) continue;
            double tokens = all_positions(p->m) / (double)((int64_t)1 << (2 * a->level));
            if ((a->of & MEETING_TEXT) && (p->cuts_text || p->mesh->patches > 1)) tokens += (double)p->m->text_tokens;
            bytes += 2 * tokens * a->count * (double)(a->units * a->width) * p->batch * p->m->element_bytes;
        }
    }
    return copies * bytes * p->tensor / degrees[MESH_ULYSSES];
}

/* How many skips exist at the same time. */
static double most_skips(const struct plan_model *m) {
    int height = 0, most = 0;
    for (int i = 0; i < m->num_blocks; i++) {
        height += m->blocks[i].pushes - m->blocks[i].pops;
        if (height > most) most = height;
    }
    return most;
}

/* Bytes on a rank of the largest feature map of a model that is cut by rows (skips count in their
 * number); of other models, bytes of the tokens at the model's width. */
static double live_bytes(const struct plan_estimate *p, bool by_rows) {
    const struct plan_model *m = p->m;
    double widest = 0, element = p->batch * m->element_bytes, live = by_rows ? ARRAYS_BY_ROWS : LIVE_ARRAYS + HIDDEN_ARRAYS * p->tensor;
    if (m->row_unit == 0)
        return ((p->positions + (m->text_stream ? p->text : 0)) * live + p->positions * most_skips(m)) * (double)m->width * element;
    for (int i = 0; i < m->num_blocks; i++)
        for (int j = 0; j < m->blocks[i].num_meetings; j++) {
            const struct meeting *a = &m->blocks[i].meetings[j];
            if (a->kind != MEETING_NORM) continue;
            widest = fmax(widest, plan_estimate_positions(p, a->level) * (double)(a->units * a->width) * element);
        }
    return widest * (by_rows ? MAPS_BY_ROWS : LIVE_MAPS);
}

static struct plan_memory memory_of(const struct plan_estimate *p) {
    const struct plan_model *m = p->m;
    struct plan_memory memory = {.text_phase = m->encoder_bytes, .decode_phase = m->decoder_bytes + m->decoder_memory};
    double latents = 8.0 * (double)(m->rows * m->columns * m->channels) * sizeof(float);
    memory.activations = live_bytes(p, false) + latents;
    memory.activations_by_rows = live_bytes(p, true) + latents;
    for (int s = 0; s < p->mesh->degrees[MESH_PIPEFUSION]; s++) {
        double weights = stage_weights(p, s), stores = stage_stores(p, s);
        if (weights + stores < memory.weights + memory.stores) continue;
        memory.weights = weights;
        memory.stores = stores;
    }
    memory.most = fmax(memory.weights + memory.stores + memory.activations, fmax(memory.text_phase, memory.decode_phase));
    return memory;
}

static double least_memory(const struct plan_machine *machine) {
    double least = machine->memory > 0 ? machine->memory : INFINITY;
    for (int i = 0; machine->memories != NULL && i < machine->ranks; i++) least = fmin(least, machine->memories[i]);
    return least;
}

/* ---- a plan ---- */

static enum plan_limit limit_of(const struct plan *plan) {
    if (plan->over > 0) return PLAN_BY_MEMORY;
    double c = plan->compute_seconds, b = plan->bandwidth_seconds, l = plan->latency_seconds;
    return c >= b && c >= l ? PLAN_BY_COMPUTE : b >= l ? PLAN_BY_BANDWIDTH : PLAN_BY_LATENCY;
}

/* Seconds of a step after warm-up, and of what comes before. */
static void time_steps(struct plan_estimate whole, const struct plan_estimate *patch, struct plan *plan) {
    const struct plan_mesh *mesh = whole.mesh;
    struct plan_cost first = mesh->patches > 1 ? whole_step(&whole) : whole_step_of_many(&whole), later = first;
    double fill = 0;
    if (mesh->patches > 1) later = patched_step(patch, &fill);
    if (plan_mesh_patch_strategy(mesh) != NULL) {
        whole.hides = true;
        later = whole_step(&whole);
    }
    plan->step_seconds = seconds_of(&later);
    plan->warmup_step_seconds = seconds_of(&first);
    plan->compute_seconds = later.compute;
    plan->latency_seconds = later.wait.latency;
    plan->bandwidth_seconds = plan->step_seconds - later.compute - later.wait.latency;
    int steps = whole.m->steps, warmup = mesh->warmup_steps < steps ? mesh->warmup_steps : steps;
    plan->picture_seconds = warmup * plan->warmup_step_seconds + (steps - warmup) * plan->step_seconds + fill;
}

struct plan plan_evaluate(const struct plan_model *m, const struct plan_machine *machine, const struct plan_mesh *mesh) {
    int first[PLAN_MAX_BLOCKS + 1];
    plan_stages(m, mesh->degrees[MESH_PIPEFUSION], first);
    return plan_evaluate_stages(m, machine, mesh, first, NULL);
}

struct plan plan_evaluate_stages(const struct plan_model *m, const struct plan_machine *machine, const struct plan_mesh *mesh, const int *first,
                                 const int *ranks) {
    struct plan plan = {.mesh = *mesh};
    struct plan_estimate whole = estimate_of(m, machine, mesh, first, ranks, 1.0);
    struct plan_estimate patch = estimate_of(m, machine, mesh, first, ranks, 1.0 / mesh->patches);
    time_steps(whole, &patch, &plan);
    bool shares_text = machine->ranks > mesh->degrees[MESH_DATA]; /* an encoder on each rank of a picture */
    plan.text_seconds = (shares_text ? m->longest_text_operations : m->text_operations) / whole.rate;
    plan.decode_seconds = m->decode_operations / whole.rate;
    double rounds = rounded_up(m->pictures, mesh->degrees[MESH_DATA]);
    plan.picture_seconds = (plan.picture_seconds + plan.text_seconds + plan.decode_seconds) * rounds / m->pictures;
    plan.memory = memory_of(&patch);
    plan.over = fmax(plan.memory.most - least_memory(machine), 0);
    plan.limit = limit_of(&plan);
    return plan;
}
