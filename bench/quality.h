/* What a way of making pictures loses: eight pictures of the embedded model, made in that way, against the same ones made another way.
 *
 *     PSNR = -10 log10(mean squared difference)        pixels from 0 to 1, before they are rounded; in dB
 *
 * Picture i has seed i; 128x128, 20 steps (or `steps`), guidance 4, float32: the setting of the study whose figures are in
 * models/emoji/README.md. */
#ifndef TESSERA_BENCH_QUALITY_H
#define TESSERA_BENCH_QUALITY_H

#include "tessera.h"

enum { QUALITY_PICTURES = 8 };
#define QUALITY_EQUAL 200.0 /* dB, of pictures that are the same bit for bit */

struct quality_way {
    tessera_mesh mesh; /* its size is set by quality_make */
    const char *step_cache;
    float step_cache_threshold;
    int steps; /* 0: 20 */
    const char *transformer; /* a file in the place of the model's own; NULL: none */
};

struct quality_pictures {
    float *pixels[QUALITY_PICTURES]; /* NULL: not made, or on another rank; owned */
    size_t count;                    /* values of a picture */
    int64_t blocks, blocks_skipped;  /* of all of them */
};

/* Makes the first `count` pictures, on all ranks of the mesh; one rank gets them. Free with quality_free, after an error too. */
tessera_status quality_make(const char *model_folder, const struct quality_way *way, int count, struct quality_pictures *out,
                            tessera_error *error);
void quality_free(struct quality_pictures *pictures);

/* Of picture i, which both must have. */
double quality_decibel(const struct quality_pictures *a, const struct quality_pictures *b, int i);

#endif
