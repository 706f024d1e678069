/* What a pipeline asks of its device map. Private to this room. */
#ifndef TESSERA_PIPELINES_PLACED_H
#define TESSERA_PIPELINES_PLACED_H

#include "tessera_plan.h"

struct pipeline;

/* The rank of a component that lies whole on one rank; -1: it is the denoiser, or there is no
 * component of this name. */
int placed_rank(const struct tessera_map *map, const char *component);
/* Was the map made for this pipeline? ARGUMENT if it was made for another model, or for other
 * ranks. */
tessera_status placed_suits(const struct tessera_map *map, const struct pipeline *pipeline, int num_blocks, int ranks, tessera_error *error);

#endif
