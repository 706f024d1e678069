/* What every autoencoder offers: pictures to latents and back. */
#ifndef TESSERA_MODELS_AUTOENCODER_H
#define TESSERA_MODELS_AUTOENCODER_H

#include "base/json.h"
#include "models/segment.h"
#include "nn/load.h"

struct autoencoder {
    const struct autoencoder_class *class;
    int64_t latent_channels, scale;     /* picture side / latent side */
    float scaling_factor, shift_factor; /* latents = (z - shift) * scaling */
    bool has_encoder;
    const struct segment_watch *watch; /* or NULL; see component_watch */
};

/* An autoencoder's two segments, whose weights come and go as a denoiser's blocks do. */
enum autoencoder_segment { AUTOENCODER_ENCODER, AUTOENCODER_DECODER, AUTOENCODER_SEGMENTS };

struct autoencoder_class {
    const char *name; /* config.json's _class_name */
    /* The handle and room for its layers; then the layers of one segment, as a denoiser's block
     * (tessera_model.h). */
    struct autoencoder *(*open)(const struct json *config, struct loader *loader);
    void (*load_segment)(struct autoencoder *, enum autoencoder_segment, struct loader *);
    /* This rank's pixel rows of a picture height x width, to give to encode and to get from decode:
     * all where it is alone. More ranks than latent rows are an ARGUMENT error in run->error. */
    struct span (*rows)(const struct autoencoder *, struct run *, int64_t height, int64_t width);
    /* image F32 [B, this rank's rows, W, 3] in [-1, 1] -> moments F32 [B, h, w, 2 *
     * latent_channels] on every rank: means, then log-variances. */
    struct tensor (*encode)(const struct autoencoder *, struct run *, struct tensor image);
    /* z F32 [B, h, w, latent_channels] (unscaled), whole on every rank -> F32 [B, this rank's rows,
     * W, 3]. */
    struct tensor (*decode)(const struct autoencoder *, struct run *, struct tensor z);
    /* The same in blended tiles, with less memory and not exact, of the whole picture, alone. */
    struct tensor (*decode_tiled)(const struct autoencoder *, struct run *, struct tensor z);
};

/* The class's functions, each told to who watches the segment. */
struct tensor autoencoder_encode(const struct autoencoder *, struct run *, struct tensor image);
struct tensor autoencoder_decode(const struct autoencoder *, struct run *, struct tensor z, bool tiled);

extern const struct autoencoder_class autoencoder_kl_class;

#endif
