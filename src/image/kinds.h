/* The kinds of picture files, for the table in image_read.c only: one reader each, from a file's
 * bytes in memory.
 *
 * A reader gives what Pillow's Image.open(...).convert("RGB") gives, which is what diffusers sees:
 * transparency is dropped, a palette is looked up, of an animation the first picture is taken. The
 * orientation (exif.h) is the reader's to find and the caller's to apply. */
#ifndef TESSERA_IMAGE_KINDS_H
#define TESSERA_IMAGE_KINDS_H

#include "image/image.h"

/* A file's bytes, and the name by which messages call it. */
struct image_file {
    const char *path;
    const uint8_t *data;
    size_t length;
};

/* FORMAT if the file is broken or cut off, UNSUPPORTED if it is more than is read, MEMORY; `out` is
 * then empty. *orientation: 0, none. */
typedef tessera_status (*image_reader)(const struct image_file *, struct image *out, int *orientation, tessera_error *error);

tessera_status jpeg_read(const struct image_file *, struct image *out, int *orientation, tessera_error *error);
tessera_status png_read(const struct image_file *, struct image *out, int *orientation, tessera_error *error);
tessera_status webp_read(const struct image_file *, struct image *out, int *orientation, tessera_error *error);
tessera_status tiff_read(const struct image_file *, struct image *out, int *orientation, tessera_error *error);
tessera_status gif_read(const struct image_file *, struct image *out, int *orientation, tessera_error *error);
tessera_status bmp_read(const struct image_file *, struct image *out, int *orientation, tessera_error *error);

/* For a picture of so many pixels, before memory is taken for it: FORMAT where a side is too long,
 * or where a small file claims a large picture (a decompression bomb): at most IMAGE_FREE_PIXELS,
 * and IMAGE_PIXELS_PER_BYTE for each byte of the file. */
tessera_status image_check_size(const struct image_file *file, int64_t width, int64_t height, tessera_error *error);
/* FORMAT: "PATH is broken or cut off: WHAT". */
tessera_status image_broken(const struct image_file *file, const char *what, tessera_error *error);

/* What Pillow makes of 16-bit grey: it keeps values up to 255 and makes all others white. */
#define IMAGE_NOTE_GREY_16 "has 16-bit grey: values above 255 become white, as in diffusers; save it with 8 bits to keep its shades"

/* Pillow's 255 - x of CMYK: what ink c leaves where black leaves `white` = 255 - k, rounded as its
 * MULDIV255 does. */
static inline uint8_t image_of_ink(uint8_t white, uint8_t c) {
    unsigned product = (unsigned)c * white + 128;
    return (uint8_t)(white - ((((product >> 8) + product) >> 8)));
}

#endif
