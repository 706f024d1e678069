/* All meshes of a number of ranks: every cfg x ring x ulysses x tensor whose product it is, tensor
 * fastest; with `pipelines`, every cfg x pipefusion x ring x ulysses x tensor.
 *
 *     struct mesh_loop loop = {.ranks = 4, .wanted[MESH_RING] = 2};    // 0: any degree; the other axes stay 1
 *     while (mesh_loop_next(&loop)) mesh_open(world, loop.degrees, ...); */
#ifndef TESSERA_TESTS_MESH_LOOP_H
#define TESSERA_TESTS_MESH_LOOP_H

#include "comm/mesh.h"

struct mesh_loop {
    int ranks;
    bool pipelines;
    int wanted[MESH_AXES];  /* a degree, or 0 for any */
    int degrees[MESH_AXES]; /* of the mesh at hand */
};

enum { MESH_LOOP_AXES = 5 };
static const enum mesh_axis mesh_loop_axes[MESH_LOOP_AXES] = {MESH_CFG, MESH_PIPEFUSION, MESH_RING, MESH_ULYSSES, MESH_TENSOR};

/* Does the mesh at hand have all ranks and the wanted degrees? */
static inline bool mesh_loop_fits(const struct mesh_loop *loop) {
    int product = 1;
    for (int i = 0; i < MESH_LOOP_AXES; i++) {
        int axis = mesh_loop_axes[i];
        product *= loop->degrees[axis];
        if (loop->wanted[axis] != 0 && loop->degrees[axis] != loop->wanted[axis]) return false;
    }
    return product == loop->ranks && loop->degrees[MESH_CFG] <= 2 && (loop->pipelines || loop->degrees[MESH_PIPEFUSION] == 1);
}

/* The next mesh is in loop->degrees; false after the last one. */
static inline bool mesh_loop_next(struct mesh_loop *loop) {
    bool first = loop->degrees[MESH_DATA] == 0;
    for (int i = 0; first && i < MESH_AXES; i++) loop->degrees[i] = 1;
    if (first && mesh_loop_fits(loop)) return true;
    for (;;) {
        int i = MESH_LOOP_AXES - 1;
        while (i >= 0 && loop->degrees[mesh_loop_axes[i]] == loop->ranks) loop->degrees[mesh_loop_axes[i--]] = 1;
        if (i < 0) return false;
        loop->degrees[mesh_loop_axes[i]]++;
        if (mesh_loop_fits(loop)) return true;
    }
}

#endif
