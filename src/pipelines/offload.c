/* See offload.h. The memory of a process is what it has when the model is opened (the program,
 * libraries, described layers), the loaded weights, and what the present phase needs beside them.
 * The last is the planner's estimate from above (docs/planner.md):
 *
 *     base | pictures | weights of a phase: all, or a window of blocks | activations, all rows at once or some | slack      <= limit
 *
 * placement.h computes the sum, as for a device map with one rank. */
#include "pipelines/offload.h"

#include <string.h>

#include "base/clock.h"
#include "parallel/placement.h"
#include "parallel/plan.h"
#include "pipelines/pipeline.h"
#include "pipelines/source.h"

static const char *const names[] = {"none", "stages", "blocks", "auto"};
enum { NAMES = sizeof names / sizeof *names };

#define CHUNK ((size_t)16 << 20) /* of rows that blocks work on at a time where memory is short: products are as fast as with all of them */
#define PIXEL_BYTES 15           /* of a picture that is delivered: three channels, as bytes and in float32 */

tessera_status offload_read(const char *name, enum offload *out, tessera_error *error) {
    for (int i = 0; i < NAMES; i++)
        if (strcmp(name != NULL ? name : "auto", names[i]) == 0) {
            *out = (enum offload)i;
            return TESSERA_OK;
        }
    return error_set(error, TESSERA_ERROR_ARGUMENT, "offload: \"%s\": it must be one of %s", name, TESSERA_OFFLOADS);
}

/* ---- what a request needs ---- */

static size_t least_of(double a, double b) {
    return (size_t)(a < b ? a : b);
}

tessera_status offload_needs_of(struct pipeline *p, const struct plan_request *request, const int degrees[MESH_AXES],
                                struct offload_needs *out, tessera_error *error) {
    struct plan_model model;
    TRY(plan_model_of_activations(p, request, &model, error));
    struct plan_mesh mesh = {.patches = 1};
    struct plan_machine machine = {.ranks = 1, .per_host = 1, .operations = 1, .between = {0, 1}, .inside = {0, 1}};
    for (int axis = 0; axis < MESH_AXES; axis++) {
        mesh.degrees[axis] = axis == MESH_PIPEFUSION && degrees[axis] > model.num_blocks ? model.num_blocks : degrees[axis]; /* of a device map */
        machine.ranks *= mesh.degrees[axis];
    }
    struct plan_memory memory = plan_evaluate(&model, &machine, &mesh).memory;
    *out = (struct offload_needs){
        .text = (size_t)model.text_memory,
        .denoise = (size_t)(memory.activations + memory.stores),
        .denoise_by_rows = least_of(memory.activations, memory.activations_by_rows + (double)CHUNK) + (size_t)memory.stores,
        .decode = (size_t)model.decoder_memory,
        .decode_by_rows = (size_t)model.decoder_memory_narrow,
    };
    plan_model_free(&model);
    return TESSERA_OK;
}

/* What of a request the choice depends on. */
static struct plan_request asked_of(const tessera_request *request, int width, int height) {
    return (struct plan_request){.width = width,
                                 .height = height,
                                 .max_sequence_length = request->max_sequence_length,
                                 .guidance_scale = request->guidance_scale,
                                 .has_negative_prompt = request->negative_prompt != NULL && request->true_cfg_scale > 1.0f,
                                 .no_binning = true};
}

static struct offload_question question_of(const tessera_request *request, unsigned roles, int width, int height) {
    size_t pictures = request->deliver != NULL || request->num_images < 1 ? 1 : (size_t)request->num_images;
    if (!(roles & 1u << ROLE_AUTOENCODER)) pictures = 0;
    return (struct offload_question){.request = asked_of(request, width, height), .roles = roles, .pictures = pictures};
}

static bool same_question(const struct offload_question *a, const struct offload_question *b) {
    const struct plan_request *x = &a->request, *y = &b->request;
    return a->roles == b->roles && a->pictures == b->pictures && x->width == y->width && x->height == y->height &&
           x->max_sequence_length == y->max_sequence_length && x->guidance_scale == y->guidance_scale &&
           x->has_negative_prompt == y->has_negative_prompt;
}

static tessera_status find_needs(struct pipeline *p, const struct offload_question *q, tessera_error *error) {
    int degrees[MESH_AXES];
    for (int axis = 0; axis < MESH_AXES; axis++) degrees[axis] = team_degree(&p->team, (enum mesh_axis)axis);
    TRY(offload_needs_of(p, &q->request, degrees, &p->needs, error));
    p->needs.pictures = (size_t)offload_picture_bytes((double)q->pictures, q->request.width, q->request.height);
    p->needs.roles = q->roles;
    return TESSERA_OK;
}

double offload_picture_bytes(double pictures, double width, double height) {
    return pictures * width * height * PIXEL_BYTES;
}

double offload_base(size_t resident, double pictures) {
    return (double)resident + (double)cpu_library_bytes() + pictures;
}

/* ---- what weights take ---- */

/* Does this request use the component on this rank? */
static bool is_used(const struct pipeline *p, const struct pipeline_slot *slot) {
    enum pipeline_role role = pipeline_role_of(p, slot);
    if ((p->needs.roles & 1u << role) == 0) return false;
    if (role == ROLE_DENOISER) return pipeline_has_blocks(p);
    bool shared = role == ROLE_AUTOENCODER && p->team.mesh != NULL && p->team.parallel_vae;
    return shared || pipeline_rank_of(p, slot->name) == team_rank(&p->team);
}

struct placement_weight offload_weigh_segment(const struct component *c, int segment) {
    const struct component_segment *p = &c->segments[segment + 1];
    size_t held = p->stored > p->bytes ? p->stored : p->bytes;
    return (struct placement_weight){(double)held, (double)(c->weights != NULL ? component_stream_segment(c, segment) : p->bytes)};
}

struct placement_weight offload_weigh(const struct component *c) {
    struct placement_weight sum = {0};
    for (int segment = COMPONENT_EMBED; segment <= c->num_blocks; segment++) {
        struct placement_weight one = offload_weigh_segment(c, segment);
        if (!component_has_segment(c, segment)) continue;
        sum.bytes += one.bytes;
        if (one.largest > sum.largest) sum.largest = one.largest;
    }
    return sum;
}

/* Opens the components that the request uses. They stay open until
 * pipeline_done_with closes them. */
static tessera_status find_weights(struct pipeline *p, tessera_error *error) {
    for (int i = 0; i < p->num_slots; i++) {
        struct pipeline_slot *slot = &p->slots[i];
        if (slot->window > 0 || !is_used(p, slot)) continue;
        TRY(pipeline_open_slot(p, slot, error));
        struct placement_weight weight = offload_weigh(&slot->component);
        slot->whole = (size_t)weight.bytes, slot->window = (size_t)weight.largest;
    }
    return TESSERA_OK;
}

/* ---- what fits ---- */

static size_t needs_of(const struct pipeline *p, const struct pipeline_slot *slot, bool by_rows) {
    const struct offload_needs *needs = &p->needs;
    switch (pipeline_role_of(p, slot)) {
    case ROLE_DENOISER: return by_rows ? needs->denoise_by_rows : needs->denoise;
    case ROLE_AUTOENCODER: return by_rows ? needs->decode_by_rows : needs->decode;
    default: return needs->text;
    }
}

/* This rank's components as a model on one rank. */
struct here {
    struct placement_model model;
    struct placement placement;
    double block, window;
    int rank;
};

static void lay_out(const struct pipeline *p, bool by_rows, struct here *out) {
    struct placement_model *m = &out->model;
    *out = (struct here){.model = {.num_blocks = 1, .blocks = &out->block, .windows = &out->window}, .placement.blocks = &out->rank};
    for (int i = 0; i < p->num_slots; i++) {
        const struct pipeline_slot *slot = &p->slots[i];
        struct placement_weight weight = {(double)slot->whole, (double)slot->window};
        if (!is_used(p, slot)) continue;
        switch (pipeline_role_of(p, slot)) {
        case ROLE_DENOISER: out->block = weight.bytes, out->window = weight.largest; break;
        case ROLE_AUTOENCODER: m->autoencoder = weight; break;
        default: m->encoders[m->num_encoders++] = weight;
        }
        if (weight.largest > m->loading) m->loading = weight.largest;
    }
    m->text = (double)p->needs.text;
    m->denoise = (double)(by_rows ? p->needs.denoise_by_rows : p->needs.denoise);
    m->decode = (double)(by_rows ? p->needs.decode_by_rows : p->needs.decode);
}

static size_t left_of(size_t limit, size_t taken) {
    return limit > taken ? limit - taken : 0;
}

/* The bytes that the process holds at its peak. */
static size_t peak_of(const struct pipeline *p, enum offload way, bool by_rows) {
    static const enum placement_keep keeps[] = {PLACEMENT_WHOLE, PLACEMENT_STAGES, PLACEMENT_WINDOW};
    struct here here;
    lay_out(p, by_rows, &here);
    return (size_t)(offload_base(p->base_memory + p->held_memory, (double)p->needs.pictures) + placement_need(&here.model, &here.placement, keeps[way], 0));
}

tessera_status offload_open(struct pipeline *p, const tessera_model_options *options, tessera_error *error) {
    size_t all = 0;
    TRY(offload_read(options->offload, &p->offload_asked, error));
    p->machine_memory = memory_total() / (size_t)team_local_ranks(&p->team);
    for (int i = 0; i < p->num_slots; i++) all += p->slots[i].bytes;
    int is_large = all >= p->machine_memory / 2, is_limited = options->max_memory > 0, is_elsewhere = 0;
    for (int role = 0; role < PIPELINE_ROLES; role++)
        if (!p->backends[role]->shares_host) is_elsewhere = 1;
    TRY(team_greatest(&p->team, MESH_WORLD, &is_large, error));
    TRY(team_greatest(&p->team, MESH_WORLD, &is_limited, error));
    TRY(team_greatest(&p->team, MESH_WORLD, &is_elsewhere, error));
    p->is_large = is_large;
    p->memory_limit = options->max_memory > 0 ? options->max_memory : is_limited ? p->machine_memory : 0;
    p->stays_whole = !is_limited && is_elsewhere && (p->offload_asked == OFFLOAD_NONE || (p->offload_asked == OFFLOAD_AUTO && !is_large));
    return TESSERA_OK;
}

/* The ways by their speed; of each way, first with all rows at once. */
struct choice {
    enum offload way;
    bool by_rows;
};
static const struct choice choices[] = {{OFFLOAD_NONE, false},  {OFFLOAD_NONE, true},   {OFFLOAD_STAGES, false},
                                        {OFFLOAD_STAGES, true}, {OFFLOAD_BLOCKS, false}, {OFFLOAD_BLOCKS, true}};
enum { CHOICES = sizeof choices / sizeof *choices };

/* The memory for which a way is chosen: a tenth of the machine's stays free. */
static size_t usable_memory(const struct pipeline *p) {
    return p->memory_limit > 0 ? p->memory_limit : p->machine_memory - p->machine_memory / 10;
}

/* The first permitted way that fits; the last permitted one if none does. */
static int choose(const struct pipeline *p) {
    int last = 0;
    for (int i = 0; i < CHOICES; i++) {
        if (p->offload_asked != OFFLOAD_AUTO && choices[i].way != p->offload_asked) continue;
        if (p->offload_asked == OFFLOAD_AUTO && p->memory_limit == 0 && p->is_large && choices[i].way == OFFLOAD_NONE) continue;
        last = i;
        if (peak_of(p, choices[i].way, choices[i].by_rows) <= usable_memory(p)) break;
    }
    return last;
}

/* MEMORY if the peak is above the limit. Without a limit it is the machine's memory; the system can
 * take back mapped weights that a user wants to keep. */
static tessera_status check_peak(const struct pipeline *p, const struct offload_question *q, tessera_error *error) {
    bool given = p->memory_limit > 0, may_change = p->offload_asked == OFFLOAD_NONE || p->offload_asked == OFFLOAD_STAGES;
    enum offload counted = !given && p->offload_asked == OFFLOAD_NONE ? OFFLOAD_BLOCKS : p->offload;
    size_t limit = given ? p->memory_limit : p->machine_memory, peak = peak_of(p, counted, p->by_rows);
    if (peak <= limit) return TESSERA_OK;
    size_t mib = (size_t)1 << 20, needed = (peak + mib - 1) / mib, least = limit / mib;
    return error_set(error, TESSERA_ERROR_MEMORY,
                     "%s: a picture of %dx%d takes %zu MiB, which is %zu MiB more than the %s of %zu MiB (%s): %s%s or make a smaller picture", p->name,
                     q->request.width, q->request.height, needed, needed - least, given ? "limit" : "memory", least,
                     given ? "max_memory" : "of this machine or its control group", may_change ? "take --offload auto, " : "",
                     given ? "raise the limit" : "give another limit (max_memory)");
}

tessera_status offload_choose(struct pipeline *p, const tessera_request *request, unsigned roles, int width, int height, tessera_error *error) {
    struct offload_question q = question_of(request, roles, width, height);
    p->offload = OFFLOAD_NONE;
    p->by_rows = false;
    if (p->stays_whole) return TESSERA_OK;
    if (!p->is_judged || !same_question(&q, &p->judged)) {
        p->is_judged = false;
        TRY(find_needs(p, &q, error));
        TRY(find_weights(p, error));
        p->choice = choose(p);
        p->judged = q, p->is_judged = true;
    }
    /* In every request: after one that failed, ranks may differ in what they have judged. */
    int choice = p->choice;
    TRY(team_greatest(&p->team, MESH_PICTURE, &choice, error));
    p->offload = choices[choice].way;
    p->by_rows = choices[choice].by_rows;
    return check_peak(p, &q, error);
}

void offload_set_run(const struct pipeline *p, struct run *run) {
    run->chunk_bytes = p->by_rows ? CHUNK : 0;
    run->strip_bytes = p->by_rows ? PIPELINE_NARROW_STRIP_BYTES : PIPELINE_STRIP_BYTES;
}

size_t offload_room(const struct pipeline *p, size_t most) {
    size_t room = p->held_memory + left_of(usable_memory(p), peak_of(p, p->offload, p->by_rows));
    return room < most ? room : most;
}

size_t offload_budget(const struct pipeline *p, const struct pipeline_slot *slot) {
    if (p->offload == OFFLOAD_STAGES) return SIZE_MAX;
    if (p->memory_limit == 0 && p->offload_asked == OFFLOAD_BLOCKS) return 2 * component_stream_least(&slot->component);
    size_t limit = usable_memory(p), peak = peak_of(p, p->offload, p->by_rows);
    if (p->memory_limit == 0 && peak > limit) limit = peak; /* it takes of the tenth that would stay free */
    size_t slack = cpu_library_bytes(), now = memory_resident() + slack / 4, libraries = p->base_memory + slack; /* which take some of it when the first stage is over */
    size_t left = left_of(limit, (now > libraries ? now : libraries) + needs_of(p, slot, p->by_rows) + p->needs.pictures);
    return peak <= limit && left < slot->window ? slot->window : left;
}
