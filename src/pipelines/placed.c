/* See placed.h. */
#include "pipelines/placed.h"

#include <string.h>

#include "pipelines/device_map.h"
#include "pipelines/pipeline.h"

int placed_rank(const struct tessera_map *map, const char *component) {
    for (int i = 0; i < map->modules.num_encoders; i++)
        if (strcmp(map->modules.encoders[i], component) == 0) return map->placement.encoders[i];
    return strcmp(map->modules.autoencoder, component) == 0 ? map->placement.autoencoder : -1;
}

tessera_status placed_suits(const struct tessera_map *map, const struct pipeline *p, int num_blocks, int ranks, tessera_error *error) {
    bool same = map->pipeline->class == p->class && map->pipeline->num_slots == p->num_slots && map->modules.num_blocks == num_blocks &&
                strcmp(map->modules.denoiser, p->denoiser) == 0;
    for (int i = 0; i < p->num_slots; i++)
        same = same && (strcmp(p->slots[i].name, p->denoiser) == 0 || placed_rank(map, p->slots[i].name) >= 0);
    if (!same) return error_set(error, TESSERA_ERROR_ARGUMENT, "mesh.map: was made for another model than %s", p->name);
    if (map->ranks == ranks) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_ARGUMENT, "mesh.map: is for %d ranks, and %d make a picture", map->ranks, ranks);
}
