/* JPEG files (ITU-T T.81; libjpeg does the work). Reading turns grey into RGB; a file with four colours (CMYK) is refused, and so is one
 * that is cut off, which libjpeg alone would fill up with grey. Left out: colour profiles, rotation by EXIF. */
#ifndef TESSERA_IMAGE_JPEG_H
#define TESSERA_IMAGE_JPEG_H

#include "image/image.h"

/* IO, FORMAT: as image_file_read. */
tessera_status jpeg_file_read(const char *path, struct image *out, tessera_error *error);
/* quality 1 to 100; colours at half resolution, libjpeg's (and Pillow's) usual way. Appears whole or not at all. */
tessera_status jpeg_file_write(const char *path, const struct image *image, int quality, tessera_error *error);

#endif
