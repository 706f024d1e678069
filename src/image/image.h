/* Pictures in memory, and files of them: PNG (png.h) or JPEG (jpeg.h), told apart by their first bytes. */
#ifndef TESSERA_IMAGE_IMAGE_H
#define TESSERA_IMAGE_IMAGE_H

#include "tessera.h"

#define IMAGE_MAX_SIDE 16384

struct image {
    int width, height;
    uint8_t *pixels; /* [height, width, 3], RGB */
};

/* IO, FORMAT: the file cannot be read, is no such picture, or is broken; the message names it. Free with image_free. */
tessera_status image_file_read(const char *path, struct image *out, tessera_error *error);

/* Without data where memory is out, which is then the error. */
tessera_status image_new(int width, int height, struct image *out, tessera_error *error);
void image_free(struct image *image);
size_t image_values(const struct image *image); /* numbers: height * width * 3 */

/* The middle of a picture, `side` x `side`, as torchvision's CenterCrop: what lies outside it is black. MEMORY. Free with image_free. */
tessera_status image_crop_middle(const struct image *in, int side, struct image *out, tessera_error *error);

#endif
