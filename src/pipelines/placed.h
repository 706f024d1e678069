/* What a pipeline asks of the device map that places its parts. Private to this room. */
#ifndef TESSERA_PIPELINES_PLACED_H
#define TESSERA_PIPELINES_PLACED_H

#include "tessera_plan.h"

struct pipeline;

/* The rank of a component that is placed whole; -1: it is the denoiser, or there is none of this name. */
int placed_rank(const struct tessera_map *map, const char *component);
/* Does the map place this pipeline's parts? ARGUMENT if it was made for another model, or for other ranks. */
tessera_status placed_suits(const struct tessera_map *map, const struct pipeline *pipeline, int num_blocks, int ranks, tessera_error *error);

#endif
