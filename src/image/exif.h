/* Orientation: how a camera was held, as its pictures say, and turning the pixels upright.
 *
 * A picture says it in EXIF (JEITA CP-3451, tag 0x0112 of the first directory of a TIFF structure)
 * or in XMP ("tiff:Orientation"):
 *
 *     1 upright     2 mirrored        3 half a turn            4 mirrored, half a turn
 *     5 mirrored, a quarter left      6 a quarter right        7 mirrored, a quarter right      8 a quarter left
 *
 * The second half names what Pillow's ImageOps.exif_transpose does, which diffusers' load_image
 * calls. Foreign bytes: every offset is checked, and what is broken is no orientation. */
#ifndef TESSERA_IMAGE_EXIF_H
#define TESSERA_IMAGE_EXIF_H

#include "image/image.h"

/* The orientation that a TIFF structure names ("Exif\0\0" before it is skipped), 1 where it is none of
 * the eight, or 0: it names none, and XMP may. */
int exif_orientation(const uint8_t *data, size_t length);
/* The same of an XMP packet. */
int exif_orientation_of_xmp(const char *data, size_t length);
/* Turns the picture upright, in place; orientations outside 2..8 change nothing. MEMORY. */
tessera_status exif_turn_upright(struct image *image, int orientation, tessera_error *error);

#endif
