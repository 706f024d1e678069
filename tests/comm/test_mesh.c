/* Every mesh of the world's size: coordinates, the groups' sizes and members, messages in several
 * meshes at a time; and degrees that do not fit. */
#include "ranks.h"

#include <string.h>
#include "comm/comm_state.h"
#include "comm/mesh.h"

static tessera_error error;
static int meshes;

/* The world rank at a coordinate. */
static int rank_at(const int *degrees, const int *coordinate) {
    int rank = 0;
    for (int axis = 0; axis < MESH_AXES; axis++) rank = rank * degrees[axis] + coordinate[axis];
    return rank;
}

/* An axis' group holds the ranks that differ in that coordinate only, in its order; and its
 * messages reach just them. */
static void check_axis(const struct mesh *mesh, int axis, int rank) {
    struct comm *group = mesh->group[axis];
    CHECK(comm_size(group) == mesh->degrees[axis] && comm_rank(group) == mesh->coordinate[axis], "axis %d: %d of %d", axis,
          comm_rank(group), comm_size(group));
    int sum = 0, coordinate[MESH_AXES];
    memcpy(coordinate, mesh->coordinate, sizeof coordinate);
    for (int i = 0; i < mesh->degrees[axis]; i++) {
        coordinate[axis] = i;
        CHECK(group->world[i] == rank_at(mesh->degrees, coordinate), "axis %d, member %d", axis, i);
        sum += rank_at(mesh->degrees, coordinate);
    }
    float got = (float)rank;
    CHECK_OK(comm_all_reduce(group, &got, 1, COMM_F32, &error), error);
    CHECK(got == (float)sum, "axis %d: ranks sum to %g, not %d", axis, got, sum);
}

static void check_sizes(const struct mesh *mesh, int size) {
    const int *d = mesh->degrees;
    int rows = d[MESH_PATCH] * d[MESH_RING] * d[MESH_ULYSSES], stage = rows * d[MESH_TENSOR], branch = stage * d[MESH_PIPEFUSION];
    const int expected[] = {d[MESH_RING] * d[MESH_ULYSSES], rows, stage, branch, branch * d[MESH_CFG], size};
    for (int group = MESH_SEQUENCE; group < MESH_GROUPS; group++)
        CHECK(comm_size(mesh->group[group]) == expected[group - MESH_SEQUENCE], "group %d has %d", group, comm_size(mesh->group[group]));
    struct comm *sequence = mesh->group[MESH_SEQUENCE];
    CHECK(comm_rank(sequence) == mesh->coordinate[MESH_RING] * d[MESH_ULYSSES] + mesh->coordinate[MESH_ULYSSES], "rank in the sequence");
    CHECK(comm_rank(mesh->group[MESH_BRANCH]) == comm_rank(mesh->group[MESH_WORLD]) % branch, "rank in the branch");
}

static void check_mesh(struct comm *world, const int *degrees) {
    struct mesh *mesh = NULL;
    CHECK_OK(mesh_open(world, degrees, &mesh, &error), error);
    if (mesh == NULL) return;
    meshes++;
    CHECK(rank_at(degrees, mesh->coordinate) == comm_rank(world), "coordinate");
    for (int axis = 0; axis < MESH_AXES; axis++) check_axis(mesh, axis, comm_rank(world));
    check_sizes(mesh, comm_size(world));
    mesh_free(mesh);
}

/* All ways to write `rest` as the product of degrees from `axis` on. */
static void each_mesh(struct comm *world, int *degrees, int axis, int rest) {
    if (axis == MESH_AXES) {
        bool fits = rest == 1 && (degrees[MESH_PATCH] == 1 || degrees[MESH_RING] * degrees[MESH_ULYSSES] == 1);
        if (fits) check_mesh(world, degrees);
        return;
    }
    for (int degree = 1; degree <= rest; degree++) {
        degrees[axis] = degree;
        if (rest % degree == 0) each_mesh(world, degrees, axis + 1, rest / degree);
    }
}

static void test_misfits(struct comm *world) {
    int size = comm_size(world);
    struct mesh *mesh = NULL;
    int degrees[MESH_AXES] = {1, 1, 1, 1, 1, size + 1, 1};
    CHECK(mesh_open(world, degrees, &mesh, &error) == TESSERA_ERROR_ARGUMENT, "%d ranks for %d", size + 1, size);
    char possible[32];
    snprintf(possible, sizeof possible, "ulysses %d", size);
    CHECK(strstr(error.message, possible) != NULL, "%s", error.message);
    degrees[MESH_ULYSSES] = 0;
    CHECK(mesh_open(world, degrees, &mesh, &error) == TESSERA_ERROR_ARGUMENT && strstr(error.message, "ulysses") != NULL, "%s",
          error.message);
    const int both[MESH_AXES] = {1, 1, 1, 2, 2, 1, 1};
    CHECK(mesh_open(world, both, &mesh, &error) == TESSERA_ERROR_ARGUMENT && strstr(error.message, "patch") != NULL, "%s", error.message);
    CHECK(mesh == NULL, "no mesh after an error");
}

/* Two meshes and a mesh of a half of the world live side by side. */
static void test_several(struct comm *world) {
    int size = comm_size(world);
    const int first[MESH_AXES] = {1, 1, 1, 1, size, 1, 1}, second[MESH_AXES] = {1, 1, 1, 1, 1, 1, size};
    struct mesh *a = NULL, *b = NULL, *c = NULL;
    struct comm *half = NULL;
    CHECK_OK(mesh_open(world, first, &a, &error), error);
    CHECK_OK(mesh_open(world, second, &b, &error), error);
    CHECK_OK(comm_split(world, comm_rank(world) % 2, 0, &half, &error), error);
    const int third[MESH_AXES] = {1, 1, 1, 1, 1, comm_size(half), 1};
    CHECK_OK(mesh_open(half, third, &c, &error), error);
    float x = 1, y = 2, z = 3;
    CHECK_OK(comm_all_reduce(a->group[MESH_RING], &x, 1, COMM_F32, &error), error);
    CHECK_OK(comm_all_reduce(b->group[MESH_TENSOR], &y, 1, COMM_F32, &error), error);
    CHECK_OK(comm_all_reduce(c->group[MESH_ULYSSES], &z, 1, COMM_F32, &error), error);
    CHECK(x == (float)size && y == 2 * (float)size && z == 3 * (float)comm_size(half), "%g %g %g", x, y, z);
    mesh_free(c);
    comm_free(half);
    mesh_free(a);
    mesh_free(b);
}

int main(void) {
    struct comm *world = NULL;
    if (comm_world_open(NULL, &world, &error) != TESSERA_OK) return fprintf(stderr, "%s\n", error.message), 1;
    int degrees[MESH_AXES];
    each_mesh(world, degrees, 0, comm_size(world));
    CHECK(meshes > 0, "no mesh was tried");
    test_misfits(world);
    test_several(world);
    return ranks_report(world);
}
