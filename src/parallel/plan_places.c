/* Where a rank is in a plan's mesh. Ranks are counted with the innermost axis fastest. */
#include "parallel/plan.h"

int plan_stride(const struct plan_mesh *mesh, enum mesh_axis axis) {
    int stride = 1;
    for (int a = MESH_AXES - 1; a > (int)axis; a--) stride *= mesh->degrees[a];
    return stride;
}

int plan_coordinate(const struct plan_mesh *mesh, int rank, enum mesh_axis axis) {
    return rank / plan_stride(mesh, axis) % mesh->degrees[axis];
}

int plan_cut_members(const struct plan_mesh *mesh) {
    return mesh->degrees[MESH_PATCH] * mesh->degrees[MESH_RING] * mesh->degrees[MESH_ULYSSES];
}
