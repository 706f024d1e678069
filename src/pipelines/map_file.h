/* A device map that a person wrote or accelerate saved: a flat JSON object from names of modules to
 * ranks.
 *
 *     {"text_encoder": 0, "text_encoder_2": 1, "transformer": 1, "transformer.transformer_blocks.3": 0, "vae": 0}      {"": 0}
 *
 * An entry applies to all tensors whose names begin with it. The longest entry wins; "" applies to
 * all others. Ranks are whole numbers; "cuda:1" is rank 1. Private to this room. */
#ifndef TESSERA_PIPELINES_MAP_FILE_H
#define TESSERA_PIPELINES_MAP_FILE_H

#include "base/json.h"
#include "pipelines/map_modules.h"

/* Writes the rank of each unit to ranks [map_units(modules)]. FORMAT errors name the file and the
 * entry: a module that the model does not have, a rank that does not exist, tensors without a rank,
 * a block on two ranks. */
tessera_status map_file_read(const struct json *file, const struct map_modules *modules, int num_ranks, int *ranks, tessera_error *error);

#endif
