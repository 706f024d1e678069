/* Device maps as `tessera generate` and `tessera plan` show them. */
#ifndef TESSERA_CLI_DEVICE_MAPS_H
#define TESSERA_CLI_DEVICE_MAPS_H

#include <stdio.h>

#include "tessera_plan.h"

struct cJSON;

/* A line for each component or run of blocks, and one for each rank; `word` is what --device-map
 * says. */
void device_maps_print(FILE *stream, const tessera_map *map, const char *word);
/* The same as JSON: {"modules": {"vae": 0, ...}, "offload": "stages", "parts": [...], "ranks":
 * [...]}; NULL if memory is out. */
struct cJSON *device_maps_json(const tessera_map *map);

/* Memory for each rank where --max-memory gives none: nine tenths of its machine's, shared by the
 * ranks that are there. On all ranks: limits [tessera_world_size(world)], of which those that are 0
 * are filled in. */
tessera_status device_maps_limits(tessera_world *world, uint64_t *limits, tessera_error *error);

#endif
