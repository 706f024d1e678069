/* See shares.h. */
#include "pipelines/shares.h"

#include <math.h>
#include <stdlib.h>

#define AXIS(axis) (1u << (axis))

static int product(const int degrees[MESH_AXES], unsigned axes) {
    int result = 1;
    for (int axis = 0; axis < MESH_AXES; axis++)
        if (axes & AXIS(axis)) result *= degrees[axis];
    return result;
}

/* A rank's place along some axes, counted as in comm/mesh.h. */
static int place_of(const int degrees[MESH_AXES], int rank, unsigned axes) {
    int place = 0, stride = 1;
    for (int axis = MESH_AXES - 1; axis >= 0; axis--) {
        int coordinate = rank % degrees[axis];
        rank /= degrees[axis];
        if (!(axes & AXIS(axis))) continue;
        place += coordinate * stride;
        stride *= degrees[axis];
    }
    return place;
}

/* The weights of all ranks at each place along some axes, with room for one number more; NULL if
 * memory is out. */
static double *sum_along(const int degrees[MESH_AXES], const double *weights, unsigned axes) {
    double *sums = calloc((size_t)product(degrees, axes) + 1, sizeof *sums);
    int ranks = product(degrees, AXIS(MESH_AXES) - 1);
    for (int r = 0; sums != NULL && r < ranks; r++) sums[place_of(degrees, r, axes)] += weights[r];
    return sums;
}

/* From weights to where each one's span ends: [count + 1], from 0 to 1. */
static double *to_ends(double *weights, int count) {
    double total = 0, seen = 0;
    for (int i = 0; i < count && weights != NULL; i++) total += weights[i];
    for (int i = 0; i <= count && weights != NULL; i++) {
        double mine = weights[i];
        weights[i] = seen / total;
        seen += mine;
    }
    return weights;
}

tessera_status shares_open(const int degrees[MESH_AXES], const double *weights, struct shares *out, tessera_error *error) {
    const unsigned heads = AXIS(MESH_ULYSSES), rows = heads | AXIS(MESH_RING) | AXIS(MESH_PATCH), stages = AXIS(MESH_PIPEFUSION);
    const unsigned picture = rows | stages | AXIS(MESH_CFG) | AXIS(MESH_TENSOR);
    *out = (struct shares){0};
    if (weights == NULL) return TESSERA_OK;
    for (int r = 0; r < product(degrees, AXIS(MESH_AXES) - 1); r++)
        if (!isfinite(weights[r]) || weights[r] <= 0)
            return error_set(error, TESSERA_ERROR_ARGUMENT, "rank weights: rank %d has %g: each must be above 0", r, weights[r]);
    out->rows = to_ends(sum_along(degrees, weights, rows), product(degrees, rows));
    out->heads = to_ends(sum_along(degrees, weights, heads), product(degrees, heads));
    out->picture = to_ends(sum_along(degrees, weights, picture), product(degrees, picture));
    out->stages = sum_along(degrees, weights, stages);
    if (out->rows != NULL && out->heads != NULL && out->picture != NULL && out->stages != NULL) return TESSERA_OK;
    shares_free(out);
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
}

void shares_free(struct shares *shares) {
    free(shares->rows);
    free(shares->heads);
    free(shares->picture);
    free(shares->stages);
    *shares = (struct shares){0};
}
