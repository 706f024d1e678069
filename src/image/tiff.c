/* TIFF files (TIFF 6.0; libtiff does the work); see kinds.h: the first picture.
 *
 * libtiff's own way to RGB rounds 16 bits, mixes colours with alpha, and has another formula for
 * inks than Pillow. So samples of 8 and 16 bits that are grey, RGB or inks are read here; what else
 * there is (palettes, 1 to 4 bits, YCbCr) goes libtiff's way. */
#include <stdlib.h>
#include <string.h>
#include <tiffio.h>

#include "base/error.h"
#include "image/kinds.h"

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

/* ---- samples ---- */

struct samples {
    uint32_t width, height;
    uint16_t bits, samples, photometric, planar, orientation, extra;
};

static void read_format(TIFF *tiff, struct samples *l) {
    uint16_t count = 0, *kinds = NULL;
    TIFFGetField(tiff, TIFFTAG_IMAGEWIDTH, &l->width);
    TIFFGetField(tiff, TIFFTAG_IMAGELENGTH, &l->height);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_BITSPERSAMPLE, &l->bits);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_SAMPLESPERPIXEL, &l->samples);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_PLANARCONFIG, &l->planar);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_ORIENTATION, &l->orientation);
    if (TIFFGetField(tiff, TIFFTAG_PHOTOMETRIC, &l->photometric) == 0) l->photometric = PHOTOMETRIC_MINISBLACK;
    TIFFGetFieldDefaulted(tiff, TIFFTAG_EXTRASAMPLES, &count, &kinds);
    if (count > 0 && kinds != NULL) l->extra = kinds[0];
}

static bool is_grey(const struct samples *l) {
    return l->photometric == PHOTOMETRIC_MINISBLACK || l->photometric == PHOTOMETRIC_MINISWHITE;
}

static int colours_of(const struct samples *l) {
    return is_grey(l) ? 1 : l->photometric == PHOTOMETRIC_RGB ? 3 : l->photometric == PHOTOMETRIC_SEPARATED ? 4 : 0;
}

static bool reads_samples(TIFF *tiff, const struct samples *l) {
    int colours = colours_of(l);
    uint16_t format;
    TIFFGetFieldDefaulted(tiff, TIFFTAG_SAMPLEFORMAT, &format);
    return (l->bits == 8 || l->bits == 16) && format == SAMPLEFORMAT_UINT && colours > 0 && l->samples >= colours && l->samples <= 8 &&
           l->planar == PLANARCONFIG_CONTIG && !TIFFIsTiled(tiff);
}

/* Sample i of a row, in 8 bits: of 16 the upper ones, as in Pillow. libtiff gives them in the
 * machine's order. */
static uint8_t sample_at(const struct samples *l, const uint8_t *row, size_t i) {
    uint16_t wide;
    if (l->bits == 8) return row[i];
    memcpy(&wide, row + 2 * i, 2);
    return (uint8_t)(wide >> 8);
}

/* Grey of 16 bits is saturated (kinds.h); of 8 bits, white may be 0. */
static uint8_t grey_at(const struct samples *l, const uint8_t *row, size_t i) {
    uint16_t wide;
    if (l->bits == 8) return l->photometric == PHOTOMETRIC_MINISWHITE ? (uint8_t)(255 - row[i]) : row[i];
    memcpy(&wide, row + 2 * i, 2);
    return wide > 255 ? 255 : (uint8_t)wide;
}

/* Colours that were multiplied by their alpha get their own value back. */
static uint8_t without_alpha(uint8_t colour, uint8_t alpha) {
    unsigned value = alpha > 0 ? 255u * colour / alpha : colour;
    return (uint8_t)(value < 255 ? value : 255);
}

static void convert_row(const struct samples *l, const uint8_t *row, uint8_t *rgb) {
    bool divides = l->photometric == PHOTOMETRIC_RGB && l->samples == 4 && l->extra == EXTRASAMPLE_ASSOCALPHA;
    for (size_t x = 0; x < l->width; x++, rgb += 3) {
        size_t first = x * l->samples;
        for (size_t c = 0; c < 3; c++) {
            if (is_grey(l))
                rgb[c] = grey_at(l, row, first);
            else if (l->photometric == PHOTOMETRIC_SEPARATED)
                rgb[c] = image_of_ink((uint8_t)(255 - sample_at(l, row, first + 3)), sample_at(l, row, first + c));
            else
                rgb[c] = sample_at(l, row, first + c);
            if (divides) rgb[c] = without_alpha(rgb[c], sample_at(l, row, first + 3));
        }
    }
}

static bool read_samples(TIFF *tiff, const struct samples *l, struct image *out) {
    tmsize_t row_bytes = TIFFScanlineSize(tiff), needed = (tmsize_t)l->width * l->samples * l->bits / 8;
    uint8_t *row = row_bytes >= needed ? malloc((size_t)row_bytes) : NULL;
    bool good = row != NULL;
    for (uint32_t y = 0; y < l->height && good; y++) {
        good = TIFFReadScanline(tiff, row, y, 0) == 1;
        if (good) convert_row(l, row, out->pixels + (size_t)y * l->width * 3);
    }
    free(row);
    if (is_grey(l) && l->bits == 16) out->note = IMAGE_NOTE_GREY_16;
    return good;
}

/* libtiff's own way, without its own turning. */
static bool read_raster(TIFF *tiff, const struct samples *l, struct image *out) {
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
    struct samples l = {0};
    char message[1024] = "";
    read_format(tiff, &l);
    TRY(image_check_size(s->file, l.width, l.height, error));
    bool samples = reads_samples(tiff, &l);
    if (!samples && (l.bits > 8 || TIFFRGBAImageOK(tiff, message) != 1))
        return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                         "%s is a TIFF file of a kind that is not read (%d samples of %d bits%s): save it with 8 bits, without tiles",
                         s->file->path, l.samples, l.bits, TIFFIsTiled(tiff) ? ", in tiles" : "");
    TRY(image_new((int)l.width, (int)l.height, out, error));
    if (!(samples ? read_samples(tiff, &l, out) : read_raster(tiff, &l, out)))
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
