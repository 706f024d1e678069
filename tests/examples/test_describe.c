/* What AuraFlow's file says of its blocks, seen by a plan: the bytes that are counted from its
 * meetings are those that each rank sends, on every mesh of the world that is listed. A step's
 * bytes are the difference between loops of unequal length. */
#include <stdlib.h>
#include <string.h>

#include "case_io.h"
#include "check.h"
#include "comm/stats.h"
#include "models/registry.h"
#include "parallel/plan.h"
#include "pipelines/world.h"
#include "tessera_model.h"

#define CASES "tests/cases/auraflow/"

extern const struct denoiser_class auraflow_class;
static const struct denoiser_class *const classes[] = {&auraflow_class};

enum { REGISTERS = 8, FEW_STEPS = 4, MORE_STEPS = 6, MAX_BLOCKS = 8 };

static const struct plan_mesh meshes[] = {
    /* data, cfg, pipefusion, patch, ring, ulysses, tensor */
    {{1, 2, 1, 1, 1, 1, 1}, 1, 1, false, 0}, {{1, 1, 1, 1, 2, 1, 1}, 1, 1, false, 0}, {{1, 1, 1, 1, 1, 2, 1}, 1, 1, false, 0},
    {{1, 1, 1, 1, 1, 1, 2}, 1, 1, false, 0}, {{1, 1, 1, 2, 1, 1, 1}, 1, 1, false, 0}, {{1, 1, 1, 2, 1, 1, 1}, 1, 1, true, 0},
    {{1, 1, 2, 1, 1, 1, 1}, 1, 1, false, 0}, {{1, 1, 2, 1, 1, 1, 1}, 4, 1, false, 0}, {{1, 1, 1, 1, 2, 2, 1}, 1, 1, false, 0},
    {{1, 2, 1, 1, 1, 2, 1}, 1, 1, false, 0}, {{1, 1, 1, 1, 1, 2, 2}, 1, 1, false, 0}, {{1, 1, 2, 1, 2, 1, 1}, 4, 1, false, 0},
    {{1, 2, 2, 1, 1, 1, 1}, 4, 1, false, 0},
};

/* The model as a plan has it; its blocks' meetings lie in `infos`. */
static bool describe(const struct case_io *c, struct component *component, struct denoiser_block_info *infos, struct plan_block *blocks,
                     struct plan_model *out) {
    struct component_source source = {.folder = CASES "model", .denoisers = classes, .num_denoisers = 1};
    tessera_error error = {0};
    tessera_status status = component_describe(&source, DTYPE_F32, component, &error);
    CHECK(status == TESSERA_OK, "%s", error.message);
    if (status != TESSERA_OK) return false;
    const struct denoiser *d = component->denoiser;
    struct tensor x = case_tensor(c, "in.sample"), text = case_tensor(c, "in.encoder_hidden_states");
    for (int i = 0; i < d->num_blocks; i++) {
        d->class->describe(d, i, &infos[i]);
        blocks[i] = (struct plan_block){.carries_text = (infos[i].carries & DENOISER_CARRIES_TEXT) != 0,
                                        .work = 1,
                                        .out = {0, 32},
                                        .num_meetings = infos[i].meetings.count,
                                        .meetings = infos[i].meetings.items};
    }
    *out = (struct plan_model){.rows = x.shape[2],
                               .columns = x.shape[3],
                               .channels = d->in_channels,
                               .out_channels = d->out_channels,
                               .patch_size = d->patch_size,
                               .heads = d->num_heads,
                               .width = 32,
                               .cond_width = 32,
                               .text_tokens = text.shape[1] + REGISTERS,
                               .text_stream = d->text_stream,
                               .predictions = 2,
                               .element_bytes = 4,
                               .steps = MORE_STEPS,
                               .pictures = 1,
                               .num_blocks = d->num_blocks,
                               .blocks = blocks};
    return true;
}

/* What this rank sends in a loop of so many steps. */
static uint64_t bytes_of(tessera_world *world, const struct case_io *c, const struct plan_mesh *mesh, int steps) {
    const int *degrees = mesh->degrees, halves[] = {3, 3}; /* the plan's blocks are of equal work */
    struct tensor sample = case_tensor(c, "in.sample"), x = case_channels_last(&sample);
    tessera_error error = {0};
    const tessera_mesh wanted = {.struct_size = sizeof(tessera_mesh),
                                 .world = world,
                                 .split_text = mesh->split_text,
                                 .cfg = degrees[MESH_CFG],
                                 .pipefusion = degrees[MESH_PIPEFUSION],
                                 .patch = degrees[MESH_PATCH],
                                 .ring = degrees[MESH_RING],
                                 .ulysses = degrees[MESH_ULYSSES],
                                 .tensor = degrees[MESH_TENSOR],
                                 .num_pipeline_patch = mesh->patches,
                                 .warmup_steps = mesh->warmup_steps,
                                 .stage_blocks = degrees[MESH_PIPEFUSION] == 2 ? halves : NULL};
    tessera_sampling s = {.denoiser = CASES "model",
                          .scheduler = CASES "loop",
                          .denoisers = classes,
                          .num_denoisers = 1,
                          .dtype = TESSERA_F32,
                          .threads = 1,
                          .mesh = &wanted,
                          .num_inference_steps = steps,
                          .guidance_scale = 3.5f,
                          .inputs = {.text = case_tensor(c, "in.encoder_hidden_states")},
                          .rows = sample.shape[2],
                          .columns = sample.shape[3]};
    comm_stats_reset(world->comm);
    CHECK(tessera_sample(&s, x.data, (size_t)tensor_count(&x), &error) == TESSERA_OK, "%s", error.message);
    free(x.data);
    return comm_stats_read(world->comm, NULL).bytes_sent;
}

static void check_meshes(tessera_world *world, const struct case_io *c, const struct plan_model *model) {
    for (size_t i = 0; i < sizeof meshes / sizeof *meshes; i++) {
        const struct plan_mesh *mesh = &meshes[i];
        char name[128];
        if (plan_mesh_ranks(mesh) != tessera_world_size(world)) continue;
        uint64_t few = bytes_of(world, c, mesh, FEW_STEPS), more = bytes_of(world, c, mesh, MORE_STEPS);
        uint64_t planned = (MORE_STEPS - FEW_STEPS) * plan_step_bytes(model, mesh, tessera_world_rank(world)).sum;
        CHECK(more - few == planned && planned > 0, "%s: sent %llu, planned %llu", plan_mesh_text(mesh, name, sizeof name),
              (unsigned long long)(more - few), (unsigned long long)planned);
    }
}

int main(void) {
    tessera_error error = {0};
    tessera_world *world = tessera_world_open(&error);
    CHECK(world != NULL, "%s", error.message);
    if (world == NULL) return CHECK_REPORT();
    struct denoiser_block_info *infos = calloc(MAX_BLOCKS, sizeof *infos);
    for (int i = 0; i < 2 && infos != NULL; i++) { /* text that the ranks divide, and text that they do not */
        struct case_io c = {0};
        struct component component = {0};
        struct plan_block blocks[MAX_BLOCKS];
        struct plan_model model;
        CHECK(case_open(i == 0 ? CASES "loop" : CASES "odd_text", &c, &error) == TESSERA_OK, "%s", error.message);
        if (c.io != NULL && describe(&c, &component, infos, blocks, &model)) check_meshes(world, &c, &model);
        component_close(&component);
        case_close(&c);
    }
    free(infos);
    CHECK(tessera_world_finish(world, &error) == TESSERA_OK, "%s", error.message);
    tessera_world_free(world);
    return CHECK_REPORT();
}
