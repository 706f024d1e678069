/* Other sizes of a picture, pixel for pixel as Pillow's Image.resize computes them
 * (src/libImaging/Resample.c; bytes as in its mode "RGB", floats as in its mode "F"), so that
 * metrics which were defined with it come out the same.
 *
 *     out[i] = sum over j of in[j] f((j + 1/2 - c) / s) / sum of these f        c = (i + 1/2) in / out, s = max(in / out, 1)
 *
 * along each row, then along each column. f has a support of 1 (a triangle, "bilinear"), 2 (Keys'
 * cubic, 1981, a = -1/2) or 3 (Lanczos), widened by s where the picture shrinks; "nearest" takes
 * the pixel in which c lies. */
#ifndef TESSERA_IMAGE_RESAMPLE_H
#define TESSERA_IMAGE_RESAMPLE_H

#include "image/image.h"

enum resample_filter { RESAMPLE_NEAREST, RESAMPLE_BILINEAR, RESAMPLE_BICUBIC, RESAMPLE_LANCZOS };

/* The value after each of the two passes is rounded to a byte, with weights in fixed point, as in
 * Pillow. MEMORY. Free with image_free. */
tessera_status resample_bytes(const struct image *in, int width, int height, enum resample_filter filter, struct image *out,
                              tessera_error *error);
/* in [in_height, in_width, 3] from `in`'s bytes as they are -> out F32 [height, width, 3], neither
 * rounded nor cut to 0 .. 255. MEMORY. */
tessera_status resample_floats(const struct image *in, int width, int height, enum resample_filter filter, float *out,
                               tessera_error *error);

#endif
