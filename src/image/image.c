/* See image.h. */
#include "image/image.h"

#include <stdlib.h>

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
