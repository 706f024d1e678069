/* Pictures in memory, and what all readers of picture files check. */
#include "image/image.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "image/kinds.h"

tessera_status image_new(int width, int height, struct image *out, tessera_error *error) {
    *out = (struct image){.width = width, .height = height, .pixels = malloc((size_t)width * (size_t)height * 3 + 1)};
    return out->pixels != NULL ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a picture of %dx%d", width, height);
}

void image_free(struct image *image) {
    free(image->pixels);
    *image = (struct image){0};
}

size_t image_values(const struct image *image) {
    return (size_t)image->width * (size_t)image->height * 3;
}

/* ---- for readers (kinds.h) ---- */

tessera_status image_broken(const struct image_file *file, const char *what, tessera_error *error) {
    return error_set(error, TESSERA_ERROR_FORMAT, "%s is broken or cut off: %s", file->path, what);
}

tessera_status image_check_size(const struct image_file *file, int64_t width, int64_t height, tessera_error *error) {
    if (width < 1 || height < 1) return image_broken(file, "it has no pixels", error);
    if (width > IMAGE_MAX_SIDE || height > IMAGE_MAX_SIDE)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s has %lldx%lld pixels, more than %d on a side: scale it down", file->path,
                         (long long)width, (long long)height, IMAGE_MAX_SIDE);
    if (width * height <= IMAGE_FREE_PIXELS + (int64_t)file->length * IMAGE_PIXELS_PER_BYTE) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT,
                     "%s claims %lldx%lld pixels in a file of %zu bytes, which looks like an attack on memory: scale it down", file->path,
                     (long long)width, (long long)height, file->length);
}

/* ---- cutting ---- */

/* Where the middle begins; below zero, as many rows of black come first. Halves are rounded to the
 * even number, as Python does. */
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
