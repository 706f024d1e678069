/* The models that the engine knows, by the class names that model folders use. */
#ifndef TESSERA_MODELS_REGISTRY_H
#define TESSERA_MODELS_REGISTRY_H

#include "models/autoencoder_kl.h"
#include "models/denoiser.h"
#include "models/text_encoder.h"

/* Opening a component folder: config.json, class lookup, weights, layers. A component owns all of it. */
struct component {
    struct json *config;
    struct weights *weights;
    struct arena *arena;
    struct denoiser *denoiser; /* one of the three is set */
    struct text_encoder *text_encoder;
    struct autoencoder *autoencoder;
};

tessera_status component_open(const char *folder, enum dtype dtype, struct component *out, tessera_error *error);
void component_close(struct component *component);

#endif
