/* Writes the weight files of one component, filled at random, piece by piece: memory stays at a few
 * MB whatever the size.
 *
 *     diffusion_pytorch_model.safetensors                                        or, above max_shard_bytes,
 *     diffusion_pytorch_model-00001-of-00003.safetensors ... and diffusion_pytorch_model.safetensors.index.json
 *
 * Transformers' components have "model" in place of "diffusion_pytorch_model". */
#ifndef TESSERA_CHECKPOINT_RANDOM_COMPONENT_H
#define TESSERA_CHECKPOINT_RANDOM_COMPONENT_H

#include "checkpoint/tensor_list.h"

struct random_component {
    const char *folder; /* holds config.json */
    const char *name;   /* e.g. "transformer": the same tensor name in two components gives different weights */
    const char *stem;   /* "diffusion_pytorch_model" or "model" */
    const struct tensor_list *list;
    uint64_t seed;
    size_t max_shard_bytes;
    /* Called after each piece; false: stop (CANCELLED). */
    bool (*wrote)(void *user, size_t bytes);
    void *user;
};

tessera_status random_component_write(const struct random_component *component, tessera_error *error);

#endif
