/* The mesh that is chosen by measuring: the same on all ranks, of all ranks, exact, and it makes a
 * picture.
 *
 *     mpirun -n N test_plan_auto MODEL... */
#include <string.h>

#include "check.h"
#include "comm/collectives.h"
#include "pipelines/plan_auto.h"
#include "pipelines/world.h"

static int product_of(const tessera_mesh *m) {
    const int degrees[] = {m->data, m->cfg, m->pipefusion, m->patch, m->ring, m->ulysses, m->tensor};
    int product = 1;
    for (size_t i = 0; i < sizeof degrees / sizeof *degrees; i++) product *= degrees[i] > 0 ? degrees[i] : 1;
    return product;
}

static void make_picture(const char *name, const tessera_model_options *options) {
    tessera_error error = {0};
    tessera_image image = TESSERA_IMAGE;
    tessera_model *model = tessera_model_open(name, options, &error);
    CHECK(model != NULL, "%s: %s", name, error.message);
    if (model == NULL) return;
    tessera_request request = TESSERA_REQUEST;
    tessera_request_defaults(model, false, &request);
    request.prompt = "a red apple";
    request.width = request.height = 128;
    request.num_inference_steps = 1;
    if (request.max_sequence_length > 32) request.max_sequence_length = 32;
    CHECK(tessera_generate(model, &request, &image, &error) == TESSERA_OK, "%s: %s", name, error.message);
    tessera_image_free(&image);
    tessera_model_free(model);
}

static void check_model(tessera_world *world, const char *name) {
    tessera_mesh mesh = {.struct_size = sizeof(tessera_mesh), .world = world};
    tessera_model_options options = {.struct_size = sizeof(tessera_model_options), .dtype = TESSERA_F32, .threads = 1, .mesh = &mesh};
    struct plan_request request = {.width = 128, .height = 128, .guidance_scale = -1, .max_sequence_length = 32};
    struct plan_auto_options auto_options = {.threads = 1};
    char reason[PLAN_REASON_LENGTH];
    tessera_error error = {0};
    int degrees[3], first[3];
    tessera_status status = plan_auto(name, &options, &request, &auto_options, &mesh, reason, &error);
    CHECK(status == TESSERA_OK, "%s: %s", name, error.message);
    if (status != TESSERA_OK) return;
    int size = tessera_world_size(world);
    CHECK(product_of(&mesh) == size && mesh.patch <= 1, "%d ranks of %d", product_of(&mesh), size);
    CHECK(mesh.num_pipeline_patch <= 1, "%d patches are not exact", mesh.num_pipeline_patch);
    degrees[0] = mesh.ring, degrees[1] = mesh.ulysses, degrees[2] = mesh.tensor;
    memcpy(first, degrees, sizeof first);
    CHECK(comm_broadcast(world->comm, 0, first, sizeof first, &error) == TESSERA_OK, "%s", error.message);
    CHECK(memcmp(first, degrees, sizeof first) == 0, "rank %d has another mesh than rank 0", tessera_world_rank(world));
    if (tessera_world_rank(world) == 0) printf("%s: %s\n", name, reason);
    make_picture(name, &options);
    double weights[size];
    for (int i = 0; i < size; i++) weights[i] = 1 + i % 2;
    mesh.rank_weights = weights; /* of a fast and a slow rank */
    CHECK(plan_auto(name, &options, &request, &auto_options, &mesh, reason, &error) == TESSERA_OK, "%s", error.message);
    CHECK(mesh.rank_weights == weights && product_of(&mesh) == size, "%d ranks", product_of(&mesh));
    make_picture(name, &options);
    auto_options.memory = 1000; /* bytes */
    CHECK(plan_auto(name, &options, &request, &auto_options, &mesh, reason, &error) == (size > 1 ? TESSERA_ERROR_MEMORY : TESSERA_OK), "%s",
          error.message);
}

/* Rank 0's speed is the unit of the others', and what plans compute with. */
static void check_measured(tessera_world *world, const char *name) {
    tessera_model_options options = {.struct_size = sizeof(tessera_model_options), .dtype = TESSERA_F32};
    struct plan_request request = {.width = 128, .height = 128, .guidance_scale = -1, .max_sequence_length = 32};
    struct plan_auto_options auto_options = {.threads = 1};
    struct plan_model model;
    struct plan_measured measured;
    tessera_error error = {0};
    CHECK(plan_model_open(name, &options, &request, &model, &error) == TESSERA_OK, "%s", error.message);
    CHECK(plan_measure_machine(world->comm, &model, &auto_options, &measured, &error) == TESSERA_OK, "%s", error.message);
    CHECK(measured.machine.ranks == tessera_world_size(world), "%d ranks", measured.machine.ranks);
    CHECK(measured.machine.speeds != NULL && measured.machine.speeds[0] == 1.0, "rank 0 is not the unit");
    plan_measured_free(&measured);
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
    check_measured(world, argv[1]);
    CHECK(tessera_world_finish(world, &error) == TESSERA_OK, "%s", error.message);
    tessera_world_free(world);
    return CHECK_REPORT();
}
