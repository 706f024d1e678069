/* Pictures to latents and back, told to who watches the autoencoder's segments. */
#include "models/autoencoder.h"

struct tensor autoencoder_encode(const struct autoencoder *vae, struct run *run, struct tensor image) {
    if (!segment_begin(vae->watch, run, AUTOENCODER_ENCODER)) return (struct tensor){0};
    struct tensor moments = vae->class->encode(vae, run, image);
    segment_end(vae->watch, AUTOENCODER_ENCODER);
    return moments;
}

struct tensor autoencoder_decode(const struct autoencoder *vae, struct run *run, struct tensor z, bool tiled) {
    if (!segment_begin(vae->watch, run, AUTOENCODER_DECODER)) return (struct tensor){0};
    struct tensor image = tiled ? vae->class->decode_tiled(vae, run, z) : vae->class->decode(vae, run, z);
    segment_end(vae->watch, AUTOENCODER_DECODER);
    return image;
}
