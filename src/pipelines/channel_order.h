/* The two orders of a picture's numbers: torch's [channels, rows, columns] (noise, diffusers'
 * latents) and ours [rows, columns, channels]. */
#ifndef TESSERA_PIPELINES_CHANNEL_ORDER_H
#define TESSERA_PIPELINES_CHANNEL_ORDER_H

#include <stdint.h>

static inline void channels_last(float *out, const float *in, int64_t channels, int64_t positions) {
    for (int64_t c = 0; c < channels; c++)
        for (int64_t i = 0; i < positions; i++) out[i * channels + c] = in[c * positions + i];
}

static inline void channels_first(float *out, const float *in, int64_t channels, int64_t positions) {
    for (int64_t c = 0; c < channels; c++)
        for (int64_t i = 0; i < positions; i++) out[c * positions + i] = in[i * channels + c];
}

#endif
