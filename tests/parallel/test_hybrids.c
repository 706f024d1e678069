/* Every exact hybrid of a world against one rank: each denoiser case is run alone by every rank, then by all together over every mesh that
 * the world's size allows, and must agree within the case's tolerance.
 *
 *     mpirun -n N test_hybrids CASE_FOLDER...
 *
 * Prints one line per case; exits 1 if one failed. Degrees that a model cannot have (more ranks than heads) are left out. */
#include <stdlib.h>

#include "comm/mesh.h"
#include "denoiser_case.h"
#include "models/component_test.h"
#include "parallel/parallel.h"

struct world {
    struct comm *comm;
    int size, rank;
};

/* The largest error of got against want, in shares of the case's tolerance. */
static double worst_error(const struct case_io *c, struct tensor got, struct tensor want) {
    return case_compare(c, &got, &want).worst;
}

static struct tensor copy_of(struct tensor t) {
    struct tensor copy = t;
    copy.data = malloc(tensor_bytes(&t));
    memcpy(copy.data, t.data, tensor_bytes(&t));
    return copy;
}

/* One mesh: this rank's part of the case. */
static void run_mesh(const struct case_io *c, const char *model, const struct denoiser_inputs *in, struct tensor alone,
                     const struct mesh *mesh, double *worst) {
    const int *degrees = mesh->degrees;
    struct component_test t;
    struct load_share share = {mesh->coordinate[MESH_TENSOR], degrees[MESH_TENSOR]};
    tessera_error error = {0};
    bool opened = component_test_open_share(&t, model, DTYPE_F32, share, &error);
    CHECK(opened, "%s", error.message);
    if (!opened) return;
    struct parallel parallel = {.rows = mesh->group[MESH_SEQUENCE],
                                .ring = mesh->group[MESH_RING],
                                .ulysses = mesh->group[MESH_ULYSSES],
                                .tensor = mesh->group[MESH_TENSOR]};
    t.run.parallel = &parallel;
    struct tensor out = denoiser_forward(t.component.denoiser, &t.run, in);
    CHECK(!run_failed(&t.run), "%s", t.run.error.message);
    double e = run_failed(&t.run) ? INFINITY : worst_error(c, out, alone);
    CHECK(e <= 1.0, "ring %d ulysses %d tensor %d: %.3g of the tolerance", degrees[MESH_RING], degrees[MESH_ULYSSES], degrees[MESH_TENSOR],
          e);
    if (e > *worst) *worst = e;
    parallel_free(&parallel);
    component_test_close(&t);
}

/* Every mesh of ring x ulysses x tensor. */
static int run_meshes(const struct world *world, const struct case_io *c, const char *model, const struct denoiser *denoiser,
                      const struct denoiser_inputs *in, struct tensor alone, double *worst) {
    int meshes = 0;
    for (int tensor = 1; tensor <= world->size; tensor++)
        for (int ring = 1; ring <= world->size / tensor; ring++) {
            tessera_error error = {0};
            struct mesh *mesh = NULL;
            int degrees[MESH_AXES] = {1, 1, 1, 1, ring, world->size / tensor / ring, tensor};
            if (degrees[MESH_ULYSSES] * ring * tensor != world->size) continue;
            if (denoiser_check_degrees(denoiser, degrees[MESH_ULYSSES], tensor, &error) != TESSERA_OK) continue;
            CHECK(mesh_open(world->comm, degrees, &mesh, &error) == TESSERA_OK, "%s", error.message);
            run_mesh(c, model, in, alone, mesh, worst);
            mesh_free(mesh);
            meshes++;
        }
    return meshes;
}

static void run_case(const struct world *world, const char *folder) {
    struct case_io c;
    struct component_test t;
    tessera_error error = {0};
    double worst = 0;
    CHECK(case_open(folder, &c, &error) == TESSERA_OK, "%s", error.message);
    if (c.json == NULL) return;
    char *model = file_join(folder, "model");
    if (!component_test_open(&t, model, DTYPE_F32)) return;
    struct denoiser_case d = denoiser_case_read(&c);
    struct tensor alone = copy_of(denoiser_forward(t.component.denoiser, &t.run, &d.in));
    int meshes = run_meshes(world, &c, model, t.component.denoiser, &d.in, alone, &worst);
    component_test_close(&t);
    if (world->rank == 0) printf("  %-40s %d meshes of %d ranks, worst %.3g of tolerance\n", folder, meshes, world->size, worst);
    free(alone.data);
    denoiser_case_free(&d);
    free(model);
    case_close(&c);
}

int main(int argc, char **argv) {
    tessera_error error = {0};
    struct world world = {0};
    if (comm_world_open(NULL, &world.comm, &error) != TESSERA_OK) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    world.size = comm_size(world.comm);
    world.rank = comm_rank(world.comm);
    for (int i = 1; i < argc; i++) run_case(&world, argv[i]);
    comm_finish(world.comm, &error);
    comm_free(world.comm);
    return CHECK_REPORT();
}
