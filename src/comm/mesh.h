/* The mesh: ranks as a box with one axis per strategy, outermost first.
 *
 *     data x cfg x pipefusion x (patch | ring x ulysses) x tensor
 *
 * The innermost axis changes fastest with the rank, so ranks that talk most (tensor) are
 * neighbours. A rank belongs to one group per axis (those that differ from it in that coordinate
 * only) and to the composite groups below. Axes of degree 1 have a group of one, so callers need no
 * second path. A mesh is built from any group; several may live in one process. */
#ifndef TESSERA_COMM_MESH_H
#define TESSERA_COMM_MESH_H

#include "comm/comm.h"

enum mesh_axis { MESH_DATA, MESH_CFG, MESH_PIPEFUSION, MESH_PATCH, MESH_RING, MESH_ULYSSES, MESH_TENSOR, MESH_AXES };

enum mesh_group {                            /* after the groups of the axes themselves, numbered as the axes */
                  MESH_SEQUENCE = MESH_AXES, /* ring x ulysses: the ranks that share one sequence */
                  MESH_CUT,                  /* patch x ring x ulysses: the ranks of one stage among which a picture's positions are cut */
                  MESH_STAGE,                /* one pipeline stage: rows x tensor */
                  MESH_BRANCH,               /* all ranks of one member of the CFG pair */
                  MESH_PICTURE,              /* all but data: the ranks that make one picture */
                  MESH_WORLD,                /* all of the mesh */
                  MESH_GROUPS
};

/* A degree as options and tessera_mesh have it, where 0 is as 1. */
static inline int mesh_degree(int given) {
    return given > 0 ? given : 1;
}

struct mesh {
    int degrees[MESH_AXES], coordinate[MESH_AXES];
    struct comm
        *group[MESH_GROUPS]; /* owned; indexed by mesh_axis or mesh_group. A member's rank counts along the axes, innermost fastest */
};

/* On all members of `comm`. The product of the degrees must be its size, and patch excludes ring
 * and ulysses: else an ARGUMENT error that says which degrees are possible (the same on all
 * members). */
tessera_status mesh_open(struct comm *comm, const int degrees[MESH_AXES], struct mesh **out, tessera_error *error);
void mesh_free(struct mesh *mesh);

const char *mesh_axis_name(enum mesh_axis axis); /* "ulysses" */

#endif
