/* See image.h. */
#include "image/image.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "image/jpeg.h"
#include "image/png.h"

tessera_status image_new(int width, int height, struct image *out, tessera_error *error) {
    *out = (struct image){width, height, malloc((size_t)width * (size_t)height * 3 + 1)};
    return out->pixels != NULL ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a picture of %dx%d", width, height);
}

void image_free(struct image *image) {
    free(image->pixels);
    *image = (struct image){0};
}

size_t image_values(const struct image *image) {
    return (size_t)image->width * (size_t)image->height * 3;
}

/* The first two bytes: 0xFF 0xD8 begin a JPEG file; everything else is left to the reader of PNG. */
static tessera_status is_jpeg(const char *path, bool *out, tessera_error *error) {
    *out = false;
    if (file_is_folder(path)) return error_set(error, TESSERA_ERROR_IO, "%s is a folder, not a picture", path);
    FILE *stream = fopen(path, "rb");
    if (stream == NULL) return error_set_errno(error, "%s cannot be read", path);
    int first = fgetc(stream), second = fgetc(stream);
    fclose(stream);
    *out = first == 0xFF && second == 0xD8;
    return TESSERA_OK;
}

tessera_status image_file_read(const char *path, struct image *out, tessera_error *error) {
    bool jpeg;
    *out = (struct image){0};
    TRY(is_jpeg(path, &jpeg, error));
    if (jpeg) return jpeg_file_read(path, out, error);
    struct png_picture picture;
    TRY(png_file_read(path, "", &picture, error));
    *out = (struct image){picture.width, picture.height, picture.pixels};
    picture.pixels = NULL;
    png_picture_free(&picture);
    return TESSERA_OK;
}

/* Where the middle begins; below zero, as many rows of black come first. Halves are rounded to the even number, as Python does. */
static int middle_of(int size, int side) {
    return size >= side ? (int)nearbyint((size - side) / 2.0) : -((side - size) / 2);
}

tessera_status image_crop_middle(const struct image *in, int side, struct image *out, tessera_error *error) {
    int top = middle_of(in->height, side), left = middle_of(in->width, side), low = left > 0 ? left : 0;
    int high = left + side < in->width ? left + side : in->width;
    TRY(image_new(side, side, out, error));
    memset(out->pixels, 0, image_values(out));
    for (int y = 0; y < side; y++) {
        if (y + top < 0 || y + top >= in->height) continue;
        const uint8_t *from = in->pixels + ((size_t)(y + top) * (size_t)in->width + (size_t)low) * 3;
        memcpy(out->pixels + ((size_t)y * (size_t)side + (size_t)(low - left)) * 3, from, (size_t)(high - low) * 3);
    }
    return TESSERA_OK;
}
