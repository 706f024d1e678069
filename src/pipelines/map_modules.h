/* A model's modules by their names, as device maps name them: "text_encoder_2",
 * "transformer.transformer_blocks.3", "vae". Each tensor that the model loads belongs to a unit,
 * which lies on one rank: a text encoder, the autoencoder, a block of the denoiser, and what comes
 * before the first block and after the last, which go with these blocks. No weights are read.
 * Private to this room. */
#ifndef TESSERA_PIPELINES_MAP_MODULES_H
#define TESSERA_PIPELINES_MAP_MODULES_H

#include "parallel/placement.h"
#include "pipelines/pipeline.h"

struct map_tensor {
    char *name; /* with its component's: "vae.decoder.conv_in.weight" */
    int unit;
};

struct map_modules {
    const struct pipeline *pipeline; /* borrowed */
    const char *encoders[PLACEMENT_MAX_ENCODERS], *denoiser, *autoencoder; /* its components */
    int num_encoders, num_blocks;
    struct map_tensor *tensors; /* sorted by name; owned */
    int count, capacity;
};

/* Units: the text encoders in their order, the autoencoder, then of the denoiser: */
static inline int map_unit_autoencoder(const struct map_modules *m) {
    return m->num_encoders;
}
static inline int map_unit_block(const struct map_modules *m, int block) {
    return m->num_encoders + 1 + block;
}
static inline int map_unit_embed(const struct map_modules *m) {
    return map_unit_block(m, m->num_blocks);
}
static inline int map_unit_finish(const struct map_modules *m) {
    return map_unit_embed(m) + 1;
}
static inline int map_units(const struct map_modules *m) {
    return map_unit_finish(m) + 1;
}

/* Lists the modules of a pipeline, which may be only described and must outlive them. Call
 * map_modules_free also after a failure. */
tessera_status map_modules_open(const struct pipeline *pipeline, struct map_modules *out, tessera_error *error);
void map_modules_free(struct map_modules *modules);

/* The shortest name of a module that holds tensors of this unit and of no other; "" if the unit has
 * no tensors. Returns `out`. */
const char *map_module_name(const struct map_modules *modules, int unit, char *out, size_t capacity);

/* The map as accelerate writes it, a line for each module; ranks [map_units]. The caller frees it;
 * NULL if memory is out. */
char *map_modules_json(const struct map_modules *modules, const int *ranks);

#endif
