/* The mesh of mesh.h: each group is one split of the whole, whose colour is the coordinate on the
 * axes that the group does not span. */
#include "comm/mesh.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const axis_names[MESH_AXES] = {"data", "cfg", "pipefusion", "patch", "ring", "ulysses", "tensor"};

/* The axes that a group spans, as bits. */
static unsigned group_axes(int group) {
    const unsigned sequence = 1u << MESH_RING | 1u << MESH_ULYSSES, rows = sequence | 1u << MESH_PATCH;
    const unsigned stage = rows | 1u << MESH_TENSOR, branch = stage | 1u << MESH_PIPEFUSION, picture = branch | 1u << MESH_CFG;
    switch (group) {
    case MESH_SEQUENCE:
        return sequence;
    case MESH_CUT:
        return rows;
    case MESH_STAGE:
        return stage;
    case MESH_BRANCH:
        return branch;
    case MESH_PICTURE:
        return picture;
    case MESH_WORLD:
        return picture | 1u << MESH_DATA;
    default:
        return 1u << group;
    }
}

const char *mesh_axis_name(enum mesh_axis axis) {
    return axis_names[axis];
}

/* Adds to a line of text that is cut where it is full. */
static void add(char *line, size_t capacity, size_t *used, const char *name, int degree, const char *between) {
    if (*used >= capacity) return;
    int length = snprintf(line + *used, capacity - *used, "%s%s %d", *used > 0 ? between : "", name, degree);
    *used += length > 0 ? (size_t)length : 0;
}

/* Says which degrees make `size` ranks: the product of the others must divide it. */
static tessera_status wrong_product(const int *degrees, int size, tessera_error *error) {
    char given[200] = "", possible[200] = "";
    size_t given_used = 0, possible_used = 0;
    long product = 1;
    for (int axis = 0; axis < MESH_AXES; axis++) {
        product *= degrees[axis];
        if (degrees[axis] > 1) add(given, sizeof given, &given_used, axis_names[axis], degrees[axis], " x ");
    }
    for (int axis = 0; axis < MESH_AXES; axis++) {
        long others = product / degrees[axis];
        bool excluded = (axis == MESH_PATCH && degrees[MESH_RING] * degrees[MESH_ULYSSES] > 1) ||
                        ((axis == MESH_RING || axis == MESH_ULYSSES) && degrees[MESH_PATCH] > 1);
        if (size % others == 0 && !excluded && (axis != MESH_CFG || size / others <= 2))
            add(possible, sizeof possible, &possible_used, axis_names[axis], (int)(size / others), " or ");
    }
    if (given_used == 0) snprintf(given, sizeof given, "all degrees 1");
    return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: that is %ld rank%s, but there %s %d: %s%s, or start %ld", given, product,
                     product == 1 ? "" : "s", size == 1 ? "is" : "are", size,
                     possible_used > 0 ? "possible is " : "no single degree can be changed to fit", possible, product);
}

static tessera_status check_degrees(const int *degrees, int size, tessera_error *error) {
    long product = 1;
    for (int axis = 0; axis < MESH_AXES; axis++) {
        if (degrees[axis] < 1 || degrees[axis] > 65536 || (product *= degrees[axis]) > 1 << 24)
            return error_set(error, TESSERA_ERROR_ARGUMENT, "%s degree %d is not possible: 1 to %d", axis_names[axis], degrees[axis], size);
    }
    if (degrees[MESH_PATCH] > 1 && degrees[MESH_RING] * degrees[MESH_ULYSSES] > 1)
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "patch %d with ring %d and ulysses %d: both cut the picture; choose patch, or ring and ulysses",
                         degrees[MESH_PATCH], degrees[MESH_RING], degrees[MESH_ULYSSES]);
    return product == size ? TESSERA_OK : wrong_product(degrees, size, error);
}

/* Ranks counted along the axes in `axes` only, innermost fastest. */
static int index_along(const struct mesh *mesh, unsigned axes) {
    int index = 0;
    for (int axis = 0; axis < MESH_AXES; axis++)
        if (axes >> axis & 1) index = index * mesh->degrees[axis] + mesh->coordinate[axis];
    return index;
}

/* Groups of ranks that make one picture run its jobs together; the others, which may hold several
 * pictures', run their own. */
static tessera_status share_jobs(struct mesh *mesh, tessera_error *error) {
    for (int group = 0; group < MESH_GROUPS; group++)
        if (group != MESH_DATA && group != MESH_WORLD) TRY(comm_job_share(mesh->group[group], mesh->group[MESH_PICTURE], error));
    return TESSERA_OK;
}

static tessera_status open_groups(struct mesh *mesh, struct comm *comm, const int degrees[MESH_AXES], tessera_error *error) {
    int rest = comm_rank(comm);
    for (int axis = MESH_AXES - 1; axis >= 0; axis--) {
        mesh->degrees[axis] = degrees[axis];
        mesh->coordinate[axis] = rest % degrees[axis];
        rest /= degrees[axis];
    }
    for (int group = 0; group < MESH_GROUPS; group++) {
        unsigned axes = group_axes(group);
        TRY(comm_split(comm, index_along(mesh, ~axes), index_along(mesh, axes), &mesh->group[group], error));
    }
    return share_jobs(mesh, error);
}

tessera_status mesh_open(struct comm *comm, const int degrees[MESH_AXES], struct mesh **out, tessera_error *error) {
    tessera_error own;
    if (error == NULL) error = &own;
    *out = NULL;
    tessera_status status = comm_job_begin(comm, error);
    if (status == TESSERA_OK) status = check_degrees(degrees, comm_size(comm), error);
    struct mesh *mesh = status == TESSERA_OK ? calloc(1, sizeof *mesh) : NULL;
    if (status == TESSERA_OK && mesh == NULL) status = error_set(error, TESSERA_ERROR_MEMORY, "no memory for a mesh");
    if (status == TESSERA_OK) status = open_groups(mesh, comm, degrees, error);
    status = comm_job_end(comm, status, error);
    if (status == TESSERA_OK)
        *out = mesh;
    else
        mesh_free(mesh);
    return status;
}

void mesh_free(struct mesh *mesh) {
    if (mesh == NULL) return;
    for (int group = 0; group < MESH_GROUPS; group++) comm_free(mesh->group[group]);
    free(mesh);
}
