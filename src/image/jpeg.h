/* Writing JPEG files (ITU-T T.81; libjpeg does the work). Reading is image.h's: grey and four inks
 * (CMYK, YCCK) become RGB as in Pillow, EXIF turns the picture, and a file that is cut off is
 * refused, which libjpeg alone would fill up with grey. Left out: colour profiles. */
#ifndef TESSERA_IMAGE_JPEG_H
#define TESSERA_IMAGE_JPEG_H

#include "image/image.h"

/* quality 1 to 100; colours at half resolution, libjpeg's (and Pillow's) usual way. Appears whole
 * or not at all. */
tessera_status jpeg_file_write(const char *path, const struct image *image, int quality, tessera_error *error);

#endif
