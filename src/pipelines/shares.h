/* Unequal ranks: which shares of a picture's tokens, of attention heads and of the blocks each rank
 * of a mesh gets. */
#ifndef TESSERA_PIPELINES_SHARES_H
#define TESSERA_PIPELINES_SHARES_H

#include "comm/mesh.h"

struct shares {      /* owned; NULL if all are equal */
    double *rows;    /* [patch x ring x ulysses + 1], from 0 to 1: where the spans of a picture end */
    double *heads;   /* [ulysses + 1]: of attention heads */
    double *picture; /* [ranks of a picture + 1]: of the autoencoder's rows */
    double *stages;  /* [pipefusion]: speeds of the pipeline's stages */
};

/* weights [product of the degrees]: the ranks' speeds, in any unit. A place along an axis is as
 * fast as all of its ranks together. NULL weights give NULLs. ARGUMENT if a weight is not a
 * positive number. */
tessera_status shares_open(const int degrees[MESH_AXES], const double *weights, struct shares *out, tessera_error *error);
void shares_free(struct shares *shares);

#endif
