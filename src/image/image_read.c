/* Which kind of picture a file is, by its first bytes, and its reader. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "image/exif.h"
#include "image/kinds.h"

enum { MOST_FILE_BYTES = 1 << 30 };

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
    {MAGIC(0, "P1\n"), "a PBM", NULL},
    {MAGIC(0, "P2\n"), "a PGM", NULL},
    {MAGIC(0, "P3\n"), "a PPM", NULL},
    {MAGIC(0, "P4\n"), "a PBM", NULL},
    {MAGIC(0, "P5"), "a PGM", NULL},
    {MAGIC(0, "P6"), "a PPM", NULL},
    {MAGIC(0, "P7\n"), "a PAM", NULL},
    {MAGIC(0, "PF\n"), "a PFM", NULL},
    {MAGIC(0, "Pf\n"), "a PFM", NULL},
    {MAGIC(0, "qoif"), "a QOI", NULL},
    {MAGIC(0, "\x01\xDA"), "an SGI", NULL},
    {MAGIC(0, "\x0A\x05\x01"), "a PCX", NULL},
    {MAGIC(0, "icns"), "an icon", NULL},
    {MAGIC(0, "\xFF\x4F\xFF\x51"), "a JPEG 2000", NULL},
    {MAGIC(0, "gimp xcf"), "a GIMP", NULL},
    {MAGIC(0, "FORM"), "an IFF", NULL},
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
