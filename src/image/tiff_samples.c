/* See tiff_samples.h. */
#include "image/tiff_samples.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "image/kinds.h"

enum { MOST_SAMPLES = 8, MOST_TILE_BYTES = 256 << 20 };

void tiff_samples_describe(TIFF *tiff, struct tiff_samples *l) {
    uint16_t count = 0, *kinds = NULL;
    *l = (struct tiff_samples){0};
    TIFFGetField(tiff, TIFFTAG_IMAGEWIDTH, &l->width);
    TIFFGetField(tiff, TIFFTAG_IMAGELENGTH, &l->height);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_BITSPERSAMPLE, &l->bits);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_SAMPLESPERPIXEL, &l->samples);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_PLANARCONFIG, &l->planar);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_ORIENTATION, &l->orientation);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_SAMPLEFORMAT, &l->format);
    if (TIFFGetField(tiff, TIFFTAG_PHOTOMETRIC, &l->photometric) == 0) l->photometric = PHOTOMETRIC_MINISBLACK;
    TIFFGetFieldDefaulted(tiff, TIFFTAG_EXTRASAMPLES, &count, &kinds);
    if (count > 0 && kinds != NULL) l->extra = kinds[0];
}

static bool is_grey(const struct tiff_samples *l) {
    return l->photometric == PHOTOMETRIC_MINISBLACK || l->photometric == PHOTOMETRIC_MINISWHITE;
}

static int colours_of(const struct tiff_samples *l) {
    switch (l->photometric) {
    case PHOTOMETRIC_MINISBLACK:
    case PHOTOMETRIC_MINISWHITE:
        return 1;
    case PHOTOMETRIC_RGB:
        return 3;
    case PHOTOMETRIC_CIELAB:
        return l->bits == 8 ? 3 : 0;
    case PHOTOMETRIC_SEPARATED:
        return 4;
    default:
        return 0;
    }
}

bool tiff_samples_are_read(const struct tiff_samples *l) {
    int colours = colours_of(l);
    return (l->bits == 8 || l->bits == 16) && l->format == SAMPLEFORMAT_UINT && colours > 0 && l->samples >= colours &&
           l->samples <= MOST_SAMPLES;
}

/* ---- one pixel ---- */

/* Sample i of a row, in 8 bits: of 16 the upper ones, as in Pillow. libtiff gives them in the
 * machine's order. */
static uint8_t sample_at(const struct tiff_samples *l, const uint8_t *row, size_t i) {
    uint16_t wide;
    if (l->bits == 8) return row[i];
    memcpy(&wide, row + 2 * i, 2);
    return (uint8_t)(wide >> 8);
}

/* Grey of 16 bits is saturated (kinds.h); of 8 bits, white may be 0. */
static uint8_t grey_at(const struct tiff_samples *l, const uint8_t *row, size_t i) {
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

/* CIE 15: the inverse of Lab's f, with its two pieces. */
static double of_lab(double f) {
    return f > 24.0 / 116 ? f * f * f : (f - 16.0 / 116) * 108 / 841;
}

/* IEC 61966-2-1: sRGB's transfer function, to 8 bits. */
static uint8_t of_linear(double v) {
    v = v < 0 ? 0 : v > 1 ? 1 : v;
    return (uint8_t)lrint(255 * (v <= 0.0031308 ? 12.92 * v : 1.055 * pow(v, 1 / 2.4) - 0.055));
}

/* L* of 0 to 100 in 0 to 255, a* and b* as signed bytes, under D50 as in ICC profiles; sRGB's
 * primaries adapted to D50 by Bradford. Pillow interpolates this in a table, and so is a few units
 * off where colours leave sRGB. */
static void lab_to_rgb(const uint8_t *lab, uint8_t *rgb) {
    static const double white[] = {0.9642, 1, 0.8249};
    static const double to_rgb[3][3] = {
        {3.1338561, -1.6168667, -0.4906146}, {-0.9787684, 1.9161415, 0.0334540}, {0.0719453, -0.2289914, 1.4052427}};
    double y = (lab[0] * 100.0 / 255 + 16) / 116, f[] = {y + (int8_t)lab[1] / 500.0, y, y - (int8_t)lab[2] / 200.0};
    for (int c = 0; c < 3; c++) {
        double sum = 0;
        for (int i = 0; i < 3; i++) sum += to_rgb[c][i] * white[i] * of_lab(f[i]);
        rgb[c] = of_linear(sum);
    }
}

/* `count` pixels of l->samples samples each. */
static void convert(const struct tiff_samples *l, const uint8_t *row, size_t count, uint8_t *rgb) {
    bool divides = l->photometric == PHOTOMETRIC_RGB && l->samples == 4 && l->extra == EXTRASAMPLE_ASSOCALPHA;
    for (size_t x = 0; x < count; x++, rgb += 3) {
        size_t first = x * l->samples;
        if (l->photometric == PHOTOMETRIC_CIELAB) {
            lab_to_rgb(row + first, rgb);
            continue;
        }
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

/* ---- strips and tiles ---- */

/* Where the pixels of one plane go as they are read: `count` of them, the first in column x and
 * row y. */
typedef void (*pixel_sink)(void *user, uint16_t plane, uint32_t x, uint32_t y, const uint8_t *pixels, size_t count);

/* pixel_bytes: what a plane holds of one pixel. */
static bool read_strips(TIFF *tiff, const struct tiff_samples *l, uint16_t plane, size_t pixel_bytes, pixel_sink put, void *user) {
    tmsize_t row_bytes = TIFFScanlineSize(tiff);
    uint8_t *row = row_bytes >= (tmsize_t)(l->width * pixel_bytes) ? malloc((size_t)row_bytes) : NULL;
    bool good = row != NULL;
    for (uint32_t y = 0; y < l->height && good; y++) {
        good = TIFFReadScanline(tiff, row, y, plane) == 1;
        if (good) put(user, plane, 0, y, row, l->width);
    }
    free(row);
    return good;
}

static uint32_t least(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}

static bool read_tiles(TIFF *tiff, const struct tiff_samples *l, uint16_t plane, size_t pixel_bytes, pixel_sink put, void *user) {
    uint32_t width = 0, height = 0;
    tmsize_t row_bytes = TIFFTileRowSize(tiff), bytes = TIFFTileSize(tiff);
    if (TIFFGetField(tiff, TIFFTAG_TILEWIDTH, &width) == 0 || TIFFGetField(tiff, TIFFTAG_TILELENGTH, &height) == 0) return false;
    if (width == 0 || height == 0 || bytes > MOST_TILE_BYTES || row_bytes < (tmsize_t)(width * pixel_bytes) || bytes / height < row_bytes)
        return false;
    uint8_t *tile = malloc((size_t)bytes);
    bool good = tile != NULL;
    for (uint32_t y = 0; y < l->height && good; y += least(height, l->height - y))
        for (uint32_t x = 0; x < l->width && good; x += least(width, l->width - x)) {
            good = TIFFReadTile(tiff, tile, x, y, 0, plane) > 0;
            for (uint32_t row = 0; row < least(height, l->height - y) && good; row++)
                put(user, plane, x, y + row, tile + (tmsize_t)row * row_bytes, least(width, l->width - x));
        }
    free(tile);
    return good;
}

static bool read_plane(TIFF *tiff, const struct tiff_samples *l, uint16_t plane, size_t pixel_bytes, pixel_sink put, void *user) {
    return (TIFFIsTiled(tiff) ? read_tiles : read_strips)(tiff, l, plane, pixel_bytes, put, user);
}

struct target {
    const struct tiff_samples *l;
    uint8_t *pixels; /* RGB, or, of planes, all samples of each pixel side by side */
};

static void put_pixels(void *user, uint16_t plane, uint32_t x, uint32_t y, const uint8_t *pixels, size_t count) {
    const struct target *t = user;
    (void)plane;
    convert(t->l, pixels, count, t->pixels + ((size_t)y * t->l->width + x) * 3);
}

static void put_plane(void *user, uint16_t plane, uint32_t x, uint32_t y, const uint8_t *pixels, size_t count) {
    const struct target *t = user;
    size_t bytes = t->l->bits / 8, pixel_bytes = bytes * t->l->samples;
    uint8_t *out = t->pixels + ((size_t)y * t->l->width + x) * pixel_bytes + plane * bytes;
    for (size_t i = 0; i < count; i++) memcpy(out + i * pixel_bytes, pixels + i * bytes, bytes);
}

/* Each plane is read as a whole, since libtiff starts a strip anew where planes take turns. */
static bool read_planes(TIFF *tiff, const struct tiff_samples *l, struct image *out) {
    struct tiff_samples used = *l;
    if (l->samples > 4) used.samples = (uint16_t)colours_of(l); /* no colour was multiplied by alpha */
    size_t count = (size_t)l->width * l->height;
    struct target target = {&used, malloc(count * used.samples * (l->bits / 8))};
    bool good = target.pixels != NULL;
    for (uint16_t plane = 0; plane < used.samples && good; plane++) good = read_plane(tiff, l, plane, l->bits / 8, put_plane, &target);
    if (good) convert(&used, target.pixels, count, out->pixels);
    free(target.pixels);
    return good;
}

bool tiff_samples_read(TIFF *tiff, const struct tiff_samples *l, struct image *out) {
    struct target target = {l, out->pixels};
    if (is_grey(l) && l->bits == 16) out->note = IMAGE_NOTE_GREY_16;
    if (l->planar == PLANARCONFIG_SEPARATE && l->samples > 1) return read_planes(tiff, l, out);
    return read_plane(tiff, l, 0, (size_t)l->samples * (l->bits / 8), put_pixels, &target);
}
