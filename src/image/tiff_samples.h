/* Samples of a TIFF file to RGB, as Pillow has it, for tiff.c only. */
#ifndef TESSERA_IMAGE_TIFF_SAMPLES_H
#define TESSERA_IMAGE_TIFF_SAMPLES_H

#include <tiffio.h>

#include "image/image.h"

/* What the file's tags say; names are TIFF's. */
struct tiff_samples {
    uint32_t width, height;
    uint16_t bits, samples, photometric, planar, orientation, format;
    uint16_t extra; /* what the first sample after the colours is */
};

void tiff_samples_describe(TIFF *tiff, struct tiff_samples *out);
/* Samples of 8 and 16 bits that are grey, RGB or inks, and Lab of 8. */
bool tiff_samples_are_read(const struct tiff_samples *l);
/* Into out's pixels, in strips or tiles, pixel by pixel or plane by plane. False: the file is
 * broken, or memory is out. */
bool tiff_samples_read(TIFF *tiff, const struct tiff_samples *l, struct image *out);

#endif
