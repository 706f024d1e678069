/* The models that the engine knows, by the class names that model folders use. */
#ifndef TESSERA_MODELS_REGISTRY_H
#define TESSERA_MODELS_REGISTRY_H

#include "models/autoencoder_kl.h"
#include "models/denoiser.h"
#include "models/text_encoder.h"

/* An opened component: config.json, weights, layers. It owns all of it. */
struct component {
    struct json *config;
    struct weights *weights;
    struct arena *arena;
    size_t weight_bytes;       /* of the weights that its layers hold: what this rank touches of the file, in the computing type */
    struct denoiser *denoiser; /* one of the three is set */
    struct text_encoder *text_encoder;
    struct autoencoder *autoencoder;
};

/* Where a component comes from. */
struct component_source {
    const char *folder;             /* holds config.json; may be NULL where config, and weights or hooks that record, are given */
    struct json *config;            /* becomes the component's, on failure too; NULL: the folder's own */
    struct weights *weights;        /* becomes the component's, on failure too; NULL: the folder's own (none where hooks record) */
    const struct load_hooks *hooks; /* or NULL; used while opening only */
    const struct denoiser_class *const *denoisers; /* [num_denoisers] that config.json may name beside those of the registry */
    int num_denoisers;
    struct load_share share; /* of a denoiser: this rank's share of attention heads and hidden channels; zeros: all */
};

/* Opens a component of any class that the engine knows: NULL-initialised `out` on failure. */
tessera_status component_open(const struct component_source *source, enum dtype dtype, struct component *out, tessera_error *error);
/* The same without weights: layers that say what they would ask of their file. Hooks of the source are not used. */
tessera_status component_describe(const struct component_source *source, enum dtype dtype, struct component *out, tessera_error *error);
void component_close(struct component *component);

#endif
