/* Pictures in memory, and files of them: PNG, JPEG, WebP, TIFF, GIF and BMP, told apart by their
 * first bytes (kinds.h). A file reads as diffusers' load_image reads it: Pillow's RGB, upright by
 * the orientation that it names (exif.h). */
#ifndef TESSERA_IMAGE_IMAGE_H
#define TESSERA_IMAGE_IMAGE_H

#include "tessera_files.h"

#define IMAGE_MAX_SIDE TESSERA_MAX_SIDE
#define IMAGE_FREE_PIXELS ((int64_t)1 << 25) /* 32 megapixels: what any file may claim */
#define IMAGE_PIXELS_PER_BYTE 100            /* a photograph has less than 10 */

struct image {
    int width, height;
    uint8_t *pixels;  /* [height, width, 3], RGB */
    const char *note; /* what a person should know of how the file was read, or NULL; a constant */
};

/* IO, FORMAT, UNSUPPORTED: the file cannot be read, is no such picture, is broken, or is of a kind
 * that is not read; the message names it. Free with image_free. */
tessera_status image_file_read(const char *path, struct image *out, tessera_error *error);
/* The same of a file's bytes, which messages call `path`. */
tessera_status image_read(const char *path, const uint8_t *data, size_t length, struct image *out, tessera_error *error);

/* Without data where memory is out, which is then the error. */
tessera_status image_new(int width, int height, struct image *out, tessera_error *error);
void image_free(struct image *image);
size_t image_values(const struct image *image); /* numbers: height * width * 3 */

/* The middle of a picture, `side` x `side`, as torchvision's CenterCrop: what lies outside it is
 * black. MEMORY. Free with image_free. */
tessera_status image_crop_middle(const struct image *in, int side, struct image *out, tessera_error *error);

#endif
