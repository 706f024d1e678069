/* See image.h. */
#include "image/image.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "image/exif.h"
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

/* ---- files ---- */

enum { MOST_FILE_BYTES = 1 << 30 };

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

/* How files of a kind begin. */
struct kind {
    size_t offset;
    const char *magic;
    size_t magic_length;
    const char *name;
    image_reader reader; /* NULL: such files are named, and not read */
};

#define MAGIC(offset, magic) offset, magic, sizeof magic - 1

static const struct kind kinds[] = {
    {MAGIC(0, "\x89PNG\r\n\x1a\n"), "a PNG", png_read},
    {MAGIC(0, "\xFF\xD8"), "a JPEG", jpeg_read},
    {MAGIC(8, "WEBP"), "a WebP", webp_read},
    {MAGIC(0, "II*\0"), "a TIFF", tiff_read},
    {MAGIC(0, "MM\0*"), "a TIFF", tiff_read},
    {MAGIC(0, "II+\0"), "a BigTIFF", tiff_read},
    {MAGIC(0, "MM\0+"), "a BigTIFF", tiff_read},
    {MAGIC(0, "GIF8"), "a GIF", gif_read},
    {MAGIC(0, "BM"), "a BMP", bmp_read},
    {MAGIC(4, "ftypavif"), "an AVIF", NULL},
    {MAGIC(4, "ftypavis"), "an AVIF", NULL},
    {MAGIC(4, "ftyp"), "a HEIC picture or a video", NULL},
    {MAGIC(0, "\xFF\x0A"), "a JPEG XL", NULL},
    {MAGIC(4, "JXL "), "a JPEG XL", NULL},
    {MAGIC(4, "jP  "), "a JPEG 2000", NULL},
    {MAGIC(0, "8BPS"), "a Photoshop", NULL},
    {MAGIC(0, "%PDF"), "a PDF", NULL},
    {MAGIC(0, "<svg"), "an SVG", NULL},
    {MAGIC(0, "<?xml"), "an XML or SVG", NULL},
    {MAGIC(0, "<!DOCTYPE"), "a web page's", NULL},
    {MAGIC(0, "<html"), "a web page's", NULL},
    {MAGIC(0, "version https://git-lfs"), "a Git LFS pointer", NULL},
    {MAGIC(0, "P5"), "a PGM", NULL},
    {MAGIC(0, "P6"), "a PPM", NULL},
    {MAGIC(0, "v/1\x01"), "an OpenEXR", NULL},
    {MAGIC(0, "\0\0\1\0"), "an icon", NULL},
    {MAGIC(0, "DDS "), "a DDS", NULL},
};

static const struct kind *kind_of(const uint8_t *data, size_t length) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const struct kind *kind = &kinds[i];
        if (length >= kind->offset + kind->magic_length && memcmp(data + kind->offset, kind->magic, kind->magic_length) == 0) return kind;
    }
    return NULL;
}

tessera_status image_read(const char *path, const uint8_t *data, size_t length, struct image *out, tessera_error *error) {
    const struct image_file file = {path, data, length};
    const struct kind *kind = kind_of(data, length);
    int orientation = 0;
    *out = (struct image){0};
    if (kind == NULL)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s is no picture: PNG, JPEG, WebP, TIFF, GIF and BMP files are read", path);
    if (kind->reader == NULL)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                         "%s is %s file, which is not read: save the picture as PNG, JPEG, WebP, TIFF, GIF or BMP", path, kind->name);
    TRY(kind->reader(&file, out, &orientation, error));
    tessera_status status = exif_turn_upright(out, orientation, error);
    if (status != TESSERA_OK) image_free(out);
    return status;
}

tessera_status image_file_read(const char *path, struct image *out, tessera_error *error) {
    char *data = NULL;
    size_t length = 0;
    *out = (struct image){0};
    if (file_is_folder(path)) return error_set(error, TESSERA_ERROR_IO, "%s is a folder, not a picture", path);
    TRY(file_read(path, MOST_FILE_BYTES, &data, &length, error));
    tessera_status status = image_read(path, (const uint8_t *)data, length, out, error);
    free(data);
    return status;
}

/* ---- cutting ---- */

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
