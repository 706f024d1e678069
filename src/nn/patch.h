/* Pictures as sequences of square patches, and back. */
#ifndef TESSERA_NN_PATCH_H
#define TESSERA_NN_PATCH_H

#include "nn/run.h"
#include "parallel/cut.h"

/* [B, H, W, C] -> [B, h w, p p C] in the run's type, h = H / p, w = W / p; patches row by row, in a patch pixels row by row. Of a picture
 * that is cut, only this rank's patches. */
struct tensor nn_patches(struct run *run, struct tensor picture, int64_t p, const struct cut *cut);
/* The inverse: [B, h w, p p C] -> F32 [B, h p, w p, C]. */
struct tensor nn_unpatch(struct run *run, struct tensor tokens, int64_t p, int64_t h, int64_t w);

#endif
