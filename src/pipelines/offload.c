/* See offload.h. The memory of a process is what it has when the model is opened (the program, libraries, described layers), the weights that
 * are loaded, and what the stage at work needs beside. The last is an estimate, that of the planner (docs/planner.md). */
#include "pipelines/offload.h"

#include <string.h>

#include "base/clock.h"
#include "parallel/plan.h"
#include "pipelines/pipeline.h"
#include "pipelines/plan_model.h"

static const char *const names[] = {"none", "stages", "blocks", "auto"};
enum { NAMES = sizeof names / sizeof *names };

#define SLACK ((size_t)48 << 20) /* what libraries take while they compute: threads' stacks, scratch of products */
#define TEXT_ARRAYS 64           /* bytes that a text encoder needs for each token and channel of its states */

tessera_status offload_read(const char *name, enum offload *out, tessera_error *error) {
    for (int i = 0; i < NAMES; i++)
        if (strcmp(name != NULL ? name : "auto", names[i]) == 0) {
            *out = (enum offload)i;
            return TESSERA_OK;
        }
    return error_set(error, TESSERA_ERROR_ARGUMENT, "offload: \"%s\": it must be one of %s", name, TESSERA_OFFLOADS);
}

/* ---- what a request needs ---- */

/* The largest encoder's states. */
static size_t text_needs(const struct plan_model *m, const struct pipeline *p) {
    int64_t channels = p->text_channels > 0 ? p->text_channels : m->width;
    return (size_t)m->predictions * (size_t)m->text_tokens * (size_t)channels * TEXT_ARRAYS;
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
    struct plan plan = plan_evaluate(&model, &machine, &mesh);
    out->text = text_needs(&model, p);
    out->denoise = (size_t)(plan.memory.activations + plan.memory.stores);
    out->decode = (size_t)model.decoder_memory;
    plan_model_free(&model);
    return TESSERA_OK;
}

static tessera_status find_needs(struct pipeline *p, const tessera_request *request, int width, int height, tessera_error *error) {
    struct plan_request asked = {.width = width,
                                 .height = height,
                                 .steps = request->num_inference_steps,
                                 .max_sequence_length = request->max_sequence_length,
                                 .guidance_scale = request->guidance_scale,
                                 .has_negative_prompt = request->negative_prompt != NULL && request->true_cfg_scale > 1.0f,
                                 .no_binning = true};
    int degrees[MESH_AXES];
    for (int axis = 0; axis < MESH_AXES; axis++) degrees[axis] = team_degree(&p->team, (enum mesh_axis)axis);
    return offload_needs_of(p, &asked, degrees, &p->needs, error);
}

/* ---- what fits ---- */

/* This rank's share of a component's weights. */
static size_t share_of(const struct pipeline *p, const struct pipeline_slot *slot) {
    if (strcmp(slot->name, p->denoiser) != 0) return slot->bytes;
    return slot->bytes / (size_t)(team_degree(&p->team, MESH_TENSOR) * team_degree(&p->team, MESH_PIPEFUSION));
}

static size_t needs_of(const struct pipeline *p, const struct pipeline_slot *slot) {
    if (strcmp(slot->name, p->denoiser) == 0) return p->needs.denoise;
    return strcmp(slot->name, p->autoencoder) == 0 ? p->needs.decode : p->needs.text;
}

static size_t memory_of_machine(const struct pipeline *p) {
    return memory_total() / (size_t)team_local_ranks(&p->team);
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

static enum offload fastest(const struct pipeline *p) {
    size_t all = 0, largest = 0, most = 0, machine = memory_of_machine(p), limit = p->memory_limit;
    if (limit == 0) limit = machine - machine / 10;
    for (int i = 0; i < p->num_slots; i++) {
        size_t bytes = share_of(p, &p->slots[i]), needs = needs_of(p, &p->slots[i]);
        all += bytes;
        if (bytes + needs > largest) largest = bytes + needs;
        if (needs > most) most = needs;
    }
    if (p->memory_limit > 0 && p->base_memory + all + most + SLACK <= limit) return OFFLOAD_NONE;
    return p->base_memory + largest + SLACK <= limit ? OFFLOAD_STAGES : OFFLOAD_BLOCKS;
}

tessera_status offload_choose(struct pipeline *p, const tessera_request *request, int width, int height, tessera_error *error) {
    int choice = (int)p->offload_asked;
    p->offload = OFFLOAD_NONE;
    if (p->stays_whole) return TESSERA_OK;
    TRY(find_needs(p, request, width, height, error));
    if (p->offload_asked == OFFLOAD_AUTO) choice = (int)fastest(p);
    TRY(team_greatest(&p->team, MESH_PICTURE, &choice, error));
    p->offload = (enum offload)choice;
    return TESSERA_OK;
}

static size_t left_of(size_t limit, size_t taken) {
    return limit > taken ? limit - taken : 0;
}

size_t offload_budget(const struct pipeline *p, const struct component *component) {
    size_t needs = component->denoiser != NULL ? p->needs.denoise : component->autoencoder != NULL ? p->needs.decode : p->needs.text;
    size_t machine = memory_of_machine(p), window = 2 * component_stream_least(component);
    if (p->offload == OFFLOAD_STAGES) return SIZE_MAX;
    if (p->memory_limit > 0) return left_of(p->memory_limit, memory_resident() + needs + SLACK);
    if (p->offload_asked == OFFLOAD_BLOCKS) return window;
    return left_of(machine - machine / 10, memory_resident() + needs + SLACK);
}
