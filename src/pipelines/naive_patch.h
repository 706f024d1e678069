/* Naive patches: each rank makes a part of the picture as if it were a picture of its own, and the parts are laid side by side:
 * DistriFusion's baseline (Li et al. 2024, section 4.1), fast and with visible seams. Not exact. */
#ifndef TESSERA_PIPELINES_NAIVE_PATCH_H
#define TESSERA_PIPELINES_NAIVE_PATCH_H

#include "comm/comm.h"
#include "models/denoiser.h"

enum naive_split { NAIVE_ROWS, NAIVE_COLUMNS, NAIVE_ALTERNATE, NAIVE_SPLITS }; /* alternate: rows in even steps, columns in odd ones */

/* "row", "col", "alternate"; NULL behind the last. */
const char *naive_split_name(int split);

/* The prediction for the whole of inputs->latents, F32 [B, H, W, out_channels], from the parts that the members of `group` make of it: rows
 * or columns n i / members to n (i + 1) / members, in multiples of the denoiser's patch. Sent per rank: (members - 1) times its part. */
struct tensor naive_patch_forward(const struct denoiser *denoiser, struct run *run, struct comm *group, enum naive_split split, int step,
                                  const struct denoiser_inputs *inputs);

#endif
