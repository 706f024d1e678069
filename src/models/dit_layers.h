/* Layers that diffusion transformers are made of: declared in tessera_model.h, for authors of
 * models too, but for the last.
 *
 * Attention and feed-forward hold this rank's slices of the weights: some heads, some hidden
 * channels; what follows them is summed over the ranks that cut weights. How many heads those are
 * is told by the shapes of the layers.
 *
 * Left to the models: which layers a block has and in which order, positions, and the names of
 * weights. */
#ifndef TESSERA_MODELS_DIT_LAYERS_H
#define TESSERA_MODELS_DIT_LAYERS_H

#include "nn/load.h"
#include "tessera_model/denoiser.h"
#include "tessera_model/transformers.h"

/* What meets in a block of self attention with `sums` layers whose inputs are cut. Attention to the
 * text needs nothing: each rank has all of it. */
void dit_list_meetings(int64_t heads, int64_t head_dim, int sums, struct meeting_list *list);

#endif
