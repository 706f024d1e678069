/* Pictures of the embedded model with its transformer in a small type: for bench_small_weights.c
 * and tests/pipelines/test_small_pictures.c. */
#ifndef TESSERA_BENCH_SMALL_PICTURES_H
#define TESSERA_BENCH_SMALL_PICTURES_H

#include "quality.h"

#define SMALL_MODEL "models/emoji"
#define SMALL_STORED SMALL_MODEL "/transformer/diffusion_pytorch_model.safetensors"
enum { SMALL_PICTURES = 4, SMALL_PATH = 64 };

/* PSNR in dB of the pictures. */
struct small_figure {
    double mean, lowest;
};

/* Writes the denoiser in the file `stored` with matrices of `type` ("q8_0"; "f8" is float8 e4m3) to
 * a new temporary file, whose name is then in `path`; the caller unlinks it, after an error too. */
tessera_status small_denoiser(const char *stored, const char *type, char path[SMALL_PATH], tessera_error *error);
struct small_figure small_figure_of(const struct quality_pictures *exact, const struct quality_pictures *small);

#endif
