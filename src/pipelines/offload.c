/* See offload.h. The memory of a process is what it has when the model is opened (the program, libraries, described layers), the weights that
 * are loaded, and what the stage at work needs beside. The last is an estimate from above, the planner's (docs/planner.md):
 *
 *     base | pictures | weights of a stage: all, or a window of blocks | activations, all rows at once or some | slack      <= limit */
#include "pipelines/offload.h"

#include <string.h>

#include "base/clock.h"
#include "parallel/plan.h"
#include "pipelines/device_map.h"
#include "pipelines/pipeline.h"
#include "pipelines/plan_model.h"
#include "pipelines/source.h"

static const char *const names[] = {"none", "stages", "blocks", "auto"};
enum { NAMES = sizeof names / sizeof *names };

#define SLACK ((size_t)48 << 20) /* what libraries take while they compute: threads' stacks, scratch of products */
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

tessera_status offload_needs_of(const struct pipeline *p, const struct plan_request *request, const int degrees[MESH_AXES],
                                struct offload_needs *out, tessera_error *error) {
    struct plan_model model;
    TRY(plan_model_of(p, request, &model, error));
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

static tessera_status find_needs(struct pipeline *p, const tessera_request *request, unsigned roles, int width, int height,
                                 tessera_error *error) {
    struct plan_request asked = {.width = width,
                                 .height = height,
                                 .steps = request->num_inference_steps,
                                 .max_sequence_length = request->max_sequence_length,
                                 .guidance_scale = request->guidance_scale,
                                 .has_negative_prompt = request->negative_prompt != NULL && request->true_cfg_scale > 1.0f,
                                 .no_binning = true};
    int degrees[MESH_AXES];
    for (int axis = 0; axis < MESH_AXES; axis++) degrees[axis] = team_degree(&p->team, (enum mesh_axis)axis);
    TRY(offload_needs_of(p, &asked, degrees, &p->needs, error));
    size_t pictures = request->deliver != NULL || request->num_images < 1 ? 1 : (size_t)request->num_images;
    if (roles & 1u << ROLE_AUTOENCODER) p->needs.pictures = pictures * (size_t)width * (size_t)height * PIXEL_BYTES;
    p->needs.roles = roles;
    return TESSERA_OK;
}

static enum pipeline_role role_of(const struct pipeline *p, const struct pipeline_slot *slot) {
    if (strcmp(slot->name, p->denoiser) == 0) return ROLE_DENOISER;
    return strcmp(slot->name, p->autoencoder) == 0 ? ROLE_AUTOENCODER : ROLE_TEXT;
}

/* In this request, on this rank. */
static bool takes_part(const struct pipeline *p, const struct pipeline_slot *slot) {
    bool is_here = p->map == NULL || device_map_share(p->map, slot->name, team_rank(&p->team)) > 0;
    return is_here && (p->needs.roles & 1u << role_of(p, slot)) != 0;
}

/* What a component takes whole: as it is stored, until it is loaded, then what its layers hold; and a part on the way from one to the other. */
static size_t whole_of(const struct component *c) {
    size_t stored = 0;
    for (int i = 0; i < c->num_blocks + 2; i++)
        if (component_has_part(c, i - 1)) stored += c->parts[i].stored;
    return (stored > c->weight_bytes ? stored : c->weight_bytes) + component_stream_least(c);
}

static tessera_status find_weights(struct pipeline *p, tessera_error *error) {
    for (int i = 0; i < p->num_slots; i++) {
        struct component component = {0};
        if (p->slots[i].window > 0 || !takes_part(p, &p->slots[i])) continue;
        TRY(source_component(p, &p->slots[i], &component, error));
        p->slots[i].window = component_stream_least(&component);
        p->slots[i].whole = whole_of(&component);
        component_close(&component);
    }
    return TESSERA_OK;
}

/* ---- what fits ---- */

static size_t needs_of(const struct pipeline *p, const struct pipeline_slot *slot, bool by_rows) {
    const struct offload_needs *needs = &p->needs;
    switch (role_of(p, slot)) {
    case ROLE_DENOISER: return by_rows ? needs->denoise_by_rows : needs->denoise;
    case ROLE_AUTOENCODER: return by_rows ? needs->decode_by_rows : needs->decode;
    default: return needs->text;
    }
}

static size_t memory_of_machine(const struct pipeline *p) {
    return memory_total() / (size_t)team_local_ranks(&p->team);
}

static size_t left_of(size_t limit, size_t taken) {
    return limit > taken ? limit - taken : 0;
}

static size_t limit_of(const struct pipeline *p) {
    size_t machine = memory_of_machine(p);
    return p->memory_limit > 0 ? p->memory_limit : machine - machine / 10;
}

/* What the process holds at its peak. */
static size_t peak_of(const struct pipeline *p, enum offload way, bool by_rows) {
    size_t all = 0, most = 0, most_needs = 0;
    for (int i = 0; i < p->num_slots; i++) {
        const struct pipeline_slot *slot = &p->slots[i];
        if (!takes_part(p, slot)) continue;
        size_t needs = needs_of(p, slot, by_rows), loaded = way == OFFLOAD_BLOCKS ? slot->window : slot->whole;
        all += slot->whole;
        if (loaded + needs > most) most = loaded + needs;
        if (needs > most_needs) most_needs = needs;
    }
    return p->base_memory + p->held_memory + p->needs.pictures + SLACK + (way == OFFLOAD_NONE ? all + most_needs : most);
}

tessera_status offload_open(struct pipeline *p, const tessera_model_options *options, tessera_error *error) {
    size_t all = 0;
    TRY(offload_read(options->offload, &p->offload_asked, error));
    for (int i = 0; i < p->num_slots; i++) all += p->slots[i].bytes;
    int is_large = all >= memory_of_machine(p) / 2, is_limited = options->max_memory > 0;
    TRY(team_greatest(&p->team, MESH_WORLD, &is_large, error));
    TRY(team_greatest(&p->team, MESH_WORLD, &is_limited, error));
    p->memory_limit = options->max_memory > 0 ? options->max_memory : is_limited ? memory_of_machine(p) : 0;
    p->stays_whole = !is_limited && (p->offload_asked == OFFLOAD_NONE || (p->offload_asked == OFFLOAD_AUTO && !is_large));
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

/* The first that fits and may be taken; the last that may be taken if none does. */
static int choose(const struct pipeline *p, size_t limit) {
    int last = 0;
    for (int i = 0; i < CHOICES; i++) {
        if (p->offload_asked != OFFLOAD_AUTO && choices[i].way != p->offload_asked) continue;
        if (p->offload_asked == OFFLOAD_AUTO && p->memory_limit == 0 && choices[i].way == OFFLOAD_NONE) continue;
        last = i;
        if (peak_of(p, choices[i].way, choices[i].by_rows) <= limit) break;
    }
    return last;
}

static tessera_status refuse(const struct pipeline *p, size_t peak, int width, int height, tessera_error *error) {
    const char *way = p->offload_asked == OFFLOAD_NONE || p->offload_asked == OFFLOAD_STAGES ? "take --offload auto, " : "";
    size_t mib = (size_t)1 << 20, needed = (peak + mib - 1) / mib, limit = p->memory_limit / mib;
    return error_set(error, TESSERA_ERROR_MEMORY,
                     "%s: a picture of %dx%d takes %zu MiB, which is %zu MiB more than the limit of %zu MiB (max_memory): %sraise the limit or make "
                     "a smaller picture",
                     p->name, width, height, needed, needed - limit, limit, way);
}

tessera_status offload_choose(struct pipeline *p, const tessera_request *request, unsigned roles, int width, int height, tessera_error *error) {
    p->offload = OFFLOAD_NONE;
    p->by_rows = false;
    if (p->stays_whole) return TESSERA_OK;
    TRY(find_needs(p, request, roles, width, height, error));
    TRY(find_weights(p, error));
    int choice = choose(p, limit_of(p));
    TRY(team_greatest(&p->team, MESH_PICTURE, &choice, error));
    p->offload = choices[choice].way;
    p->by_rows = choices[choice].by_rows;
    size_t peak = peak_of(p, p->offload, p->by_rows);
    return p->memory_limit == 0 || peak <= p->memory_limit ? TESSERA_OK : refuse(p, peak, width, height, error);
}

void offload_set_run(const struct pipeline *p, struct run *run) {
    run->chunk_bytes = p->by_rows ? CHUNK : 0;
    run->strip_bytes = p->by_rows ? PIPELINE_NARROW_STRIP_BYTES : PIPELINE_STRIP_BYTES;
}

size_t offload_room(const struct pipeline *p, size_t most) {
    size_t room = p->held_memory + left_of(limit_of(p), peak_of(p, p->offload, p->by_rows));
    return room < most ? room : most;
}

size_t offload_budget(const struct pipeline *p, const struct pipeline_slot *slot) {
    size_t limit = limit_of(p);
    if (p->offload == OFFLOAD_STAGES) return SIZE_MAX;
    if (p->memory_limit == 0 && p->offload_asked == OFFLOAD_BLOCKS) return 2 * component_stream_least(&slot->component);
    size_t now = memory_resident() + SLACK / 4, libraries = p->base_memory + SLACK; /* which take some of it when the first stage is over */
    return left_of(limit, (now > libraries ? now : libraries) + needs_of(p, slot, p->by_rows) + p->needs.pictures);
}
