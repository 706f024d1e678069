/* What a way of making pictures loses: pictures of an embedded model, made in that way, against the
 * same ones made another way.
 *
 *     PSNR = -10 log10(mean squared difference)        pixels from 0 to 1, before they are rounded; in dB
 *     SSIM: metrics/ssim.h, of the same values
 *
 * Picture i has seed i and a prompt of its own; 128x128, 20 steps, guidance 4, float32, unless the
 * way says otherwise: the setting of the study whose figures are in models/emoji/README.md, which
 * is of the first eight. */
#ifndef TESSERA_BENCH_QUALITY_H
#define TESSERA_BENCH_QUALITY_H

#include "tessera.h"

enum { QUALITY_PICTURES = 8, QUALITY_MOST = 24 };
#define QUALITY_EQUAL 200.0 /* dB, of pictures that are the same bit for bit */

struct quality_way {
    tessera_mesh mesh; /* its size is set by quality_make */
    const char *step_cache;
    float step_cache_threshold;
    int steps;               /* 0: 20 */
    int width, height;       /* 0: 128 */
    int threads;             /* of each rank; 0: as many as the machine grants */
    const char *scheduler;   /* diffusers' class name; NULL: the model's own */
    const char *transformer; /* a file in the place of the model's own denoiser; NULL: none */
};

struct quality_pictures {
    float *pixels[QUALITY_MOST]; /* NULL: not made, or on another rank; owned */
    int width, height;
    size_t count;                   /* values of a picture */
    int64_t blocks, blocks_skipped; /* of all of them */
};

/* Makes the first `count` pictures, on all ranks of the mesh; one rank gets them. Free with
 * quality_free, after an error too. */
tessera_status quality_make(const char *model_folder, const struct quality_way *way, int count, struct quality_pictures *out,
                            tessera_error *error);
void quality_free(struct quality_pictures *pictures);

/* Of picture i, which both must have. */
double quality_decibel(const struct quality_pictures *a, const struct quality_pictures *b, int i);
tessera_status quality_similarity(const struct quality_pictures *a, const struct quality_pictures *b, int i, double *out,
                                  tessera_error *error);

#endif
