/* Random weights that depend on seed and name only: any piece of any tensor can be made at any
 * time, on any machine alike.
 *
 * A matrix or kernel is uniform with standard deviation 1 / sqrt(inputs of an output), which keeps
 * activations near 1; a norm's weight is 1; a bias is uniform and small. */
#ifndef TESSERA_CHECKPOINT_RANDOM_WEIGHTS_H
#define TESSERA_CHECKPOINT_RANDOM_WEIGHTS_H

#include "tensor/safetensors.h"

/* Elements first .. first + count - 1 of the tensor, as BF16. `first` is a multiple of
 * RANDOM_WEIGHTS_BLOCK. */
#define RANDOM_WEIGHTS_BLOCK ((int64_t)1 << 16)
void random_weights_fill(uint64_t seed, const struct safetensors_entry *entry, int64_t first, int64_t count, uint16_t *out);

#endif
