/* The bytes that a plan predicts against those that ranks count: every mesh of a world, step for
 * step, through the public API.
 *
 *     mpirun -n N test_plan_bytes MODEL...
 *
 * A picture of some steps is made, and one of a step more: what a rank sends more is a step's
 * bytes, to the byte, whatever is sent once a picture. Prints a line per model. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "comm/stats.h"
#include "pipelines/plan_auto.h"
#include "pipelines/world.h"

enum { FEWER_STEPS = 3, WIDTH = 64, HEIGHT = 96, TEXT = 20 };

static tessera_request request_of(const tessera_model *model, int steps) {
    tessera_request r = TESSERA_REQUEST;
    tessera_request_defaults(model, false, &r);
    r.prompt = "a red apple", r.negative_prompt = "blue";
    r.width = WIDTH, r.height = HEIGHT;
    r.num_inference_steps = steps;
    r.true_cfg_scale = 2; /* Flux is guided by it */
    r.use_resolution_binning = false;
    if (r.max_sequence_length > TEXT) r.max_sequence_length = TEXT;
    return r;
}

/* Bytes that this rank sends for a picture. */
static bool send_picture(tessera_world *world, tessera_model *model, int steps, uint64_t *bytes) {
    tessera_image image = TESSERA_IMAGE;
    tessera_error error = {0};
    tessera_request request = request_of(model, steps);
    uint64_t before = comm_stats_read(world->comm, NULL).bytes_sent;
    tessera_status status = tessera_generate(model, &request, &image, &error);
    CHECK(status == TESSERA_OK, "%s", error.message);
    *bytes = comm_stats_read(world->comm, NULL).bytes_sent - before;
    tessera_image_free(&image);
    return status == TESSERA_OK;
}

static tessera_mesh mesh_of(tessera_world *world, const struct plan_mesh *plan) {
    tessera_mesh mesh = {.struct_size = sizeof(tessera_mesh), .world = world, .warmup_steps = -1};
    plan_mesh_choose(plan, &mesh);
    return mesh;
}

static void check_mesh(tessera_world *world, const char *name, const struct plan_model *plan_model, const struct plan_mesh *mesh) {
    tessera_mesh wanted = mesh_of(world, mesh);
    tessera_model_options options = {.struct_size = sizeof(tessera_model_options), .dtype = TESSERA_F32, .threads = 1, .mesh = &wanted};
    tessera_error error = {0};
    uint64_t fewer, more;
    char text[128];
    int rank = tessera_world_rank(world);
    plan_mesh_text(mesh, text, sizeof text);
    tessera_model *model = tessera_model_open(name, &options, &error);
    CHECK(model != NULL, "%s, %s: %s", name, text, error.message);
    bool ready = model != NULL && send_picture(world, model, FEWER_STEPS, &fewer); /* what is sent once */
    if (ready && send_picture(world, model, FEWER_STEPS, &fewer) && send_picture(world, model, FEWER_STEPS + 1, &more)) {
        struct plan_bytes predicted = plan_step_bytes(plan_model, mesh, rank);
        CHECK(more - fewer == predicted.sum, "%s, %s: rank %d sends %llu bytes in a step, %llu are predicted", name, text, rank,
              (unsigned long long)(more - fewer), (unsigned long long)predicted.sum);
    }
    tessera_model_free(model);
}

/* As request_of has it. */
static int sequence_length(const char *name) {
    tessera_error error = {0};
    tessera_model *model = tessera_model_open(name, NULL, &error);
    int length = model != NULL ? request_of(model, 1).max_sequence_length : 0;
    CHECK(model != NULL, "%s", error.message);
    tessera_model_free(model);
    return length;
}

static void check_model(tessera_world *world, const char *name) {
    tessera_model_options options = {.struct_size = sizeof(tessera_model_options), .dtype = TESSERA_F32};
    struct plan_request request = {.width = WIDTH, .height = HEIGHT, .guidance_scale = -1, .has_negative_prompt = true, .no_binning = true};
    request.max_sequence_length = sequence_length(name);
    struct plan_machine machine = {
        .ranks = tessera_world_size(world), .per_host = 1, .between = {1e-4, 1e9}, .inside = {1e-5, 1e9}, .operations = 1e11};
    struct plan_model model;
    struct plan *plans = NULL;
    tessera_error error = {0};
    int count = 0;
    machine.per_host = machine.ranks;
    CHECK(plan_model_open(name, &options, &request, &model, &error) == TESSERA_OK, "%s", error.message);
    if (model.num_blocks == 0) return;
    model.pictures = machine.ranks; /* no group is idle */
    CHECK(plan_rank(&model, &machine, true, &plans, &count, &error) == TESSERA_OK, "%s", error.message);
    for (int i = 0; i < count; i++) check_mesh(world, name, &model, &plans[i].mesh);
    if (tessera_world_rank(world) == 0) printf("  %-40s %d meshes of %d ranks\n", name, count, machine.ranks);
    free(plans);
    plan_model_free(&model);
}

int main(int argc, char **argv) {
    tessera_error error = {0};
    tessera_world *world = tessera_world_open(&error);
    if (world == NULL) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    for (int i = 1; i < argc; i++) check_model(world, argv[i]);
    CHECK(tessera_world_finish(world, &error) == TESSERA_OK, "%s", error.message);
    tessera_world_free(world);
    return CHECK_REPORT();
}
