/* The weights of one component: one safetensors file, or several with an index ("weight_map": name -> shard).
 *
 * In a folder it looks for diffusers' names (diffusion_pytorch_model.safetensors[.index.json]), then transformers'
 * (model.safetensors[.index.json]). Shards are mapped when opened; nothing is read until it is used. Every shard that the index
 * names must exist and hold the tensors that the index says. */
#ifndef TESSERA_TENSOR_WEIGHTS_H
#define TESSERA_TENSOR_WEIGHTS_H

#include "tensor/safetensors.h"

struct weights;

tessera_status weights_open(const char *folder, struct weights **out, tessera_error *error);
void weights_close(struct weights *weights);

/* A view into the map; a missing tensor is a FORMAT error that names folder and tensor. */
tessera_status weights_get(const struct weights *weights, const char *name, struct tensor *out, tessera_error *error);
bool weights_has(const struct weights *weights, const char *name);
const char *weights_folder(const struct weights *weights);
int weights_count(const struct weights *weights); /* tensors */
const struct safetensors_entry *weights_at(const struct weights *weights, int index);
int64_t weights_parameters(const struct weights *weights); /* elements of floating-point tensors */
size_t weights_bytes(const struct weights *weights);

#endif
