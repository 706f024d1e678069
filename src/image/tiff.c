/* TIFF files (TIFF 6.0; libtiff does the work); see kinds.h: the first picture.
 *
 * libtiff's own way to RGB rounds 16 bits, mixes colours with alpha, and has other formulas for inks
 * and Lab than Pillow. So samples of 8 and 16 bits that are grey, RGB, inks or Lab are read in
 * tiff_samples.c; what else there is (palettes, 1 to 4 bits, YCbCr) goes libtiff's way. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "image/kinds.h"
#include "image/tiff_samples.h"

enum { MOST_BYTES_AT_ONCE = 512 << 20 };

struct source {
    const struct image_file *file;
    toff_t at;
    char message[160];
};

/* ---- libtiff's view of bytes in memory ---- */

static tmsize_t read_bytes(thandle_t user, void *out, tmsize_t length) {
    struct source *s = user;
    toff_t size = s->file->length, left = s->at < size ? size - s->at : 0, count = (toff_t)length < left ? (toff_t)length : left;
    memcpy(out, s->file->data + (count > 0 ? s->at : 0), count);
    s->at += count;
    return (tmsize_t)count;
}

static tmsize_t write_nothing(thandle_t user, void *data, tmsize_t length) {
    (void)user, (void)data, (void)length;
    return 0;
}

static toff_t seek(thandle_t user, toff_t offset, int whence) {
    struct source *s = user;
    s->at = whence == SEEK_CUR ? s->at + offset : whence == SEEK_END ? s->file->length + offset : offset;
    return s->at;
}

static int close_nothing(thandle_t user) {
    (void)user;
    return 0;
}

static toff_t size_of(thandle_t user) {
    return ((struct source *)user)->file->length;
}

static int keep_message(TIFF *tiff, void *user, const char *module, const char *format, va_list arguments) {
    struct source *s = user;
    (void)tiff, (void)module;
    if (s->message[0] == 0) vsnprintf(s->message, sizeof s->message, format, arguments);
    return 1;
}

static int drop_message(TIFF *tiff, void *user, const char *module, const char *format, va_list arguments) {
    (void)tiff, (void)user, (void)module, (void)format, (void)arguments;
    return 1;
}

static TIFF *open_memory(struct source *s) {
    TIFFOpenOptions *options = TIFFOpenOptionsAlloc();
    if (options == NULL) return NULL;
    TIFFOpenOptionsSetMaxSingleMemAlloc(options, MOST_BYTES_AT_ONCE);
    TIFFOpenOptionsSetErrorHandlerExtR(options, keep_message, s);
    TIFFOpenOptionsSetWarningHandlerExtR(options, drop_message, s);
    TIFF *tiff = TIFFClientOpenExt(s->file->path, "rm", s, read_bytes, write_nothing, seek, close_nothing, size_of, NULL, NULL, options);
    TIFFOpenOptionsFree(options);
    return tiff;
}

/* ---- pixels ---- */

/* libtiff's own way, without its own turning. */
static bool read_raster(TIFF *tiff, const struct tiff_samples *l, struct image *out) {
    TIFFRGBAImage image;
    char message[1024];
    size_t count = (size_t)l->width * l->height;
    uint32_t *raster = malloc(count * sizeof *raster);
    bool good = raster != NULL && TIFFRGBAImageBegin(&image, tiff, 1, message) == 1;
    if (good) {
        image.req_orientation = image.orientation;
        good = TIFFRGBAImageGet(&image, raster, l->width, l->height) == 1;
        TIFFRGBAImageEnd(&image);
    }
    for (size_t i = 0; i < count && good; i++) {
        out->pixels[i * 3] = (uint8_t)TIFFGetR(raster[i]);
        out->pixels[i * 3 + 1] = (uint8_t)TIFFGetG(raster[i]);
        out->pixels[i * 3 + 2] = (uint8_t)TIFFGetB(raster[i]);
    }
    free(raster);
    return good;
}

static tessera_status read_picture(TIFF *tiff, struct source *s, struct image *out, int *orientation, tessera_error *error) {
    struct tiff_samples l;
    char message[1024] = "";
    tiff_samples_describe(tiff, &l);
    TRY(image_check_size(s->file, l.width, l.height, error));
    bool samples = tiff_samples_are_read(&l);
    if (!samples && (l.bits > 8 || TIFFRGBAImageOK(tiff, message) != 1))
        return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                         "%s is a TIFF file of a kind that is not read (%d samples of %d bits): save it with 8 bits", s->file->path,
                         l.samples, l.bits);
    TRY(image_new((int)l.width, (int)l.height, out, error));
    if (!(samples ? tiff_samples_read(tiff, &l, out) : read_raster(tiff, &l, out)))
        return image_broken(s->file, s->message[0] != 0 ? s->message : "its pixels end early", error);
    *orientation = l.orientation;
    return TESSERA_OK;
}

tessera_status tiff_read(const struct image_file *file, struct image *out, int *orientation, tessera_error *error) {
    struct source source = {.file = file};
    *out = (struct image){0};
    TIFF *tiff = open_memory(&source);
    if (tiff == NULL) return image_broken(file, source.message[0] != 0 ? source.message : "out of memory", error);
    TIFFSetField(tiff, TIFFTAG_JPEGCOLORMODE, JPEGCOLORMODE_RGB); /* where JPEG is inside */
    tessera_status status = read_picture(tiff, &source, out, orientation, error);
    TIFFClose(tiff);
    if (status != TESSERA_OK) image_free(out);
    return status;
}
