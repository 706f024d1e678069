/* See latent_preview.h. */
#include "cli/latent_preview.h"

#include <lapacke.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/preview.h"
#include "tessera_stages.h"

/* A picture of SIDE x SIDE latents in patches of PATCH x PATCH equal ones: more of them than the
 * widest latents have channels. */
enum { PICTURE = 128, SIDE = 16, PATCH = 2, PATCHES = SIDE / PATCH * SIDE / PATCH, MOST_CHANNELS = 32 };

#define SECONDS_BETWEEN 0.5

/* ---- the fit ---- */

/* The same numbers each time, even in [-sqrt(3), sqrt(3)]: their variance is 1. */
static void draw_patches(double patches[PATCHES][MOST_CHANNELS + 1], int channels, float *latents) {
    uint32_t state = 1;
    for (int p = 0; p < PATCHES; p++) {
        for (int c = 0; c < channels; c++) {
            state = state * 1664525u + 1013904223u; /* Numerical Recipes' generator */
            patches[p][c] = ((double)state * 0x1p-31 - 1.0) * sqrt(3.0);
        }
        patches[p][channels] = 1.0;
    }
    for (int c = 0; c < channels; c++)
        for (int y = 0; y < SIDE; y++)
            for (int x = 0; x < SIDE; x++)
                latents[(c * SIDE + y) * SIDE + x] = (float)patches[y / PATCH * (SIDE / PATCH) + x / PATCH][c];
}

/* The mean colour of each patch, in [0, 1]. */
static void measure_patches(const tessera_image *image, double colours[PATCHES][3]) {
    const int side = PICTURE / (SIDE / PATCH);
    memset(colours, 0, PATCHES * sizeof *colours);
    for (int y = 0; y < PICTURE; y++)
        for (int x = 0; x < PICTURE; x++)
            for (int k = 0; k < 3; k++)
                colours[y / side * (SIDE / PATCH) + x / side][k] += (double)image->pixels_f32[(y * PICTURE + x) * 3 + k] / (side * side);
}

static tessera_status fit(struct latent_preview *preview, const tessera_image *image, double patches[PATCHES][MOST_CHANNELS + 1],
                          tessera_error *error) {
    double colours[PATCHES][3];
    int unknown = preview->channels + 1;
    measure_patches(image, colours);
    if (LAPACKE_dgels(LAPACK_ROW_MAJOR, 'N', PATCHES, unknown, 3, patches[0], MOST_CHANNELS + 1, colours[0], 3) != 0)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "the autoencoder's colours cannot be fitted");
    preview->weights = malloc((size_t)unknown * 3 * sizeof *preview->weights);
    if (preview->weights == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a preview");
    memcpy(preview->weights, colours, (size_t)unknown * 3 * sizeof *preview->weights);
    return TESSERA_OK;
}

tessera_status latent_preview_open(struct latent_preview *preview, tessera_model *model, tessera_error *error) {
    static const int known[] = {4, 8, 16, 32};
    tessera_request request = TESSERA_REQUEST;
    tessera_status status = TESSERA_ERROR_ARGUMENT;
    tessera_request_defaults(model, false, &request);
    request.width = request.height = PICTURE;
    request.use_resolution_binning = false;
    for (size_t i = 0; i < sizeof known / sizeof *known && status == TESSERA_ERROR_ARGUMENT; i++) { /* another number of them is one of values */
        double patches[PATCHES][MOST_CHANNELS + 1];
        float latents[MOST_CHANNELS * SIDE * SIDE];
        tessera_image image = TESSERA_IMAGE;
        *preview = (struct latent_preview){.channels = known[i]};
        draw_patches(patches, known[i], latents);
        status = tessera_decode(model, &request, latents, (size_t)known[i] * SIDE * SIDE, &image, error);
        if (status == TESSERA_OK && image.pixels_f32 != NULL) status = fit(preview, &image, patches, error);
        tessera_image_free(&image);
    }
    if (status != TESSERA_ERROR_ARGUMENT) return status;
    return error_set(error, TESSERA_ERROR_UNSUPPORTED, "a picture of %dx%d has no %dx%d latents here", PICTURE, PICTURE, SIDE, SIDE);
}

/* ---- pictures ---- */

static void paint(const struct latent_preview *preview, const tessera_step *step, uint8_t *pixels) {
    size_t positions = (size_t)step->latent_height * (size_t)step->latent_width;
    for (size_t i = 0; i < positions; i++)
        for (int k = 0; k < 3; k++) {
            double colour = preview->weights[preview->channels * 3 + k];
            for (int c = 0; c < preview->channels; c++)
                colour += (double)step->x_0[(size_t)c * positions + i] * preview->weights[c * 3 + k];
            pixels[i * 3 + (size_t)k] = (uint8_t)lrint(255 * fmin(fmax(colour, 0), 1));
        }
}

void latent_preview_show(struct latent_preview *preview, const tessera_step *step) {
    double now = clock_seconds();
    if (preview->weights == NULL || step->latent_channels != preview->channels || step->done == step->total || isatty(STDOUT_FILENO) != 1) return;
    if (preview->lines > 0 && now - preview->shown_at < SECONDS_BETWEEN) return;
    uint8_t *pixels = malloc((size_t)step->latent_height * (size_t)step->latent_width * 3);
    if (pixels == NULL) return;
    paint(preview, step, pixels);
    latent_preview_clear(preview);
    preview->lines = preview_blocks(pixels, step->latent_width, step->latent_height);
    preview->shown_at = now;
    free(pixels);
}

void latent_preview_clear(struct latent_preview *preview) {
    if (preview->lines > 0) printf("\033[%dA\033[J", preview->lines); /* up, and erase what is below */
    fflush(stdout);
    preview->lines = 0;
}

void latent_preview_close(struct latent_preview *preview) {
    free(preview->weights);
    *preview = (struct latent_preview){0};
}
