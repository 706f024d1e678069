/* BMP files, read by hand: Windows' headers of 40 bytes and more, and OS/2's of 12; see kinds.h.
 *
 *     | 14: "BM", size, 0, offset of pixels | header: its size, width, height, planes, bits, compression, ... | masks | palette | rows |
 *
 * Rows are padded to 4 bytes and come from the bottom up, unless the height is negative. Pixels are
 * indices of 1, 4 or 8 bits, run-length encoded or not, or colours of 16, 24 or 32 bits, those of
 * 16 and 32 by masks if compression says so. Left out: JPEG and PNG inside. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "image/kinds.h"

enum { PLAIN = 0, RUNS_8 = 1, RUNS_4 = 2, MASKS = 3, MASKS_ALPHA = 6 };
enum { FILE_HEADER = 14, OS2_HEADER = 12, WINDOWS_HEADER = 40 };

struct bmp {
    const struct image_file *file;
    int64_t width, height;
    bool top_down;
    int bits, compression;
    size_t pixels; /* where they begin */
    uint8_t palette[256][3];
    uint32_t masks[3];
};

static uint32_t number_at(const struct bmp *b, size_t at, int bytes) {
    uint32_t value = 0;
    for (int i = 0; i < bytes; i++) value |= (uint32_t)(at + (size_t)i < b->file->length ? b->file->data[at + (size_t)i] : 0) << 8 * i;
    return value;
}

/* ---- headers ---- */

static void read_palette(struct bmp *b, size_t at, size_t entry_bytes, uint32_t used) {
    uint32_t count = b->bits <= 8 ? 1u << b->bits : 0;
    if (used > 0 && used < count) count = used;
    for (uint32_t i = 0; i < count; i++)
        for (int c = 0; c < 3; c++) b->palette[i][c] = (uint8_t)number_at(b, at + i * entry_bytes + 2 - (size_t)c, 1);
}

static void read_masks(struct bmp *b, size_t at) {
    static const uint32_t of_15[] = {0x7C00, 0x3E0, 0x1F}, of_24[] = {0xFF0000, 0xFF00, 0xFF};
    bool given = b->compression == MASKS || b->compression == MASKS_ALPHA;
    for (int c = 0; c < 3; c++) b->masks[c] = given ? number_at(b, at + 4 * (size_t)c, 4) : b->bits == 16 ? of_15[c] : of_24[c];
}

static bool is_known(const struct bmp *b) {
    switch (b->compression) {
    case PLAIN:
        return b->bits == 1 || b->bits == 4 || b->bits == 8 || b->bits == 16 || b->bits == 24 || b->bits == 32;
    case RUNS_8:
        return b->bits == 8;
    case RUNS_4:
        return b->bits == 4;
    default:
        return (b->compression == MASKS || b->compression == MASKS_ALPHA) && (b->bits == 16 || b->bits == 32);
    }
}

static tessera_status read_headers(struct bmp *b, tessera_error *error) {
    size_t size = number_at(b, FILE_HEADER, 4), after = FILE_HEADER + size;
    if (b->file->length < FILE_HEADER + OS2_HEADER || (size != OS2_HEADER && size < WINDOWS_HEADER) || size > 1024)
        return image_broken(b->file, "its header is not that of a BMP picture", error);
    bool os2 = size == OS2_HEADER;
    b->pixels = number_at(b, 10, 4);
    b->width = os2 ? (int64_t)number_at(b, 18, 2) : (int32_t)number_at(b, 18, 4);
    b->height = os2 ? (int64_t)number_at(b, 20, 2) : (int32_t)number_at(b, 22, 4);
    b->bits = (int)number_at(b, os2 ? 24 : 28, 2);
    b->compression = os2 ? PLAIN : (int)number_at(b, 30, 4);
    b->top_down = b->height < 0;
    if (b->top_down) b->height = -b->height;
    TRY(image_check_size(b->file, b->width, b->height, error));
    if (!is_known(b))
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s is a BMP file of a kind that is not read (%d bits, compression %d)",
                         b->file->path, b->bits, b->compression);
    bool masks_behind = b->compression == MASKS && size == WINDOWS_HEADER;
    read_masks(b, FILE_HEADER + WINDOWS_HEADER);
    read_palette(b, after + (masks_behind ? 12 : 0), os2 ? 3 : 4, os2 ? 0 : number_at(b, 46, 4));
    return TESSERA_OK;
}

/* ---- pixels ---- */

/* The pixel in column x and row y from the top. */
static uint8_t *place(const struct bmp *b, struct image *out, int64_t x, int64_t row) {
    int64_t y = b->top_down ? row : b->height - 1 - row;
    return out->pixels + (y * b->width + x) * 3;
}

/* The bits of a mask, scaled to 8 bits, halves cut off. */
static uint8_t masked(uint32_t value, uint32_t mask) {
    if (mask == 0) return 0;
    int shift = __builtin_ctz(mask);
    uint64_t most = mask >> shift;
    return (uint8_t)((uint64_t)((value & mask) >> shift) * 255 / most);
}

static void convert_pixel(const struct bmp *b, const uint8_t *row, int64_t x, uint8_t *rgb) {
    if (b->bits <= 8) {
        int per_byte = 8 / b->bits, shift = (per_byte - 1 - (int)(x % per_byte)) * b->bits;
        memcpy(rgb, b->palette[(row[x / per_byte] >> shift) & ((1 << b->bits) - 1)], 3);
        return;
    }
    uint32_t value = 0;
    for (int i = 0; i < b->bits / 8; i++) value |= (uint32_t)row[x * (b->bits / 8) + i] << 8 * i;
    for (int c = 0; c < 3; c++) rgb[c] = masked(value, b->masks[c]);
}

static bool read_rows(const struct bmp *b, struct image *out) {
    size_t row_bytes = (((size_t)b->width * (size_t)b->bits + 31) / 32) * 4, used = ((size_t)b->width * (size_t)b->bits + 7) / 8;
    for (int64_t row = 0; row < b->height; row++) {
        size_t at = b->pixels + (size_t)row * row_bytes;
        if (at + used > b->file->length) return false;
        for (int64_t x = 0; x < b->width; x++) convert_pixel(b, b->file->data + at, x, place(b, out, x, row));
    }
    return true;
}

/* Run lengths (Microsoft's "Bitmap Compression"): count, value | 0, escape. What no run covers has the palette's first
 * colour. */
static bool read_runs(const struct bmp *b, struct image *out) {
    size_t at = b->pixels, length = b->file->length;
    const uint8_t *data = b->file->data;
    int64_t x = 0, row = 0;
    for (int64_t i = 0; i < b->width * b->height; i++) memcpy(out->pixels + i * 3, b->palette[0], 3);
    while (row < b->height) {
        if (at + 2 > length) return false;
        int count = data[at], value = data[at + 1];
        at += 2;
        bool literal = count == 0 && value > 2;
        if (count == 0 && value == 0) {
            x = 0, row++;
        } else if (count == 0 && value == 1) {
            return true;
        } else if (count == 0 && value == 2) {
            if (at + 2 > length) return false;
            x += data[at], row += data[at + 1], at += 2;
        } else {
            if (literal) count = value;
            size_t bytes = b->bits == 8 ? (size_t)count : ((size_t)count + 1) / 2;
            if (literal && at + bytes > length) return false;
            for (int i = 0; i < count; i++, x++) {
                int byte = !literal ? value : data[at + (size_t)(b->bits == 8 ? i : i / 2)];
                int index = b->bits == 8 ? byte : i % 2 == 0 ? byte >> 4 : byte & 15;
                if (x < b->width) memcpy(place(b, out, x, row), b->palette[index], 3);
            }
            if (literal) at += bytes + bytes % 2;
        }
    }
    return true;
}

tessera_status bmp_read(const struct image_file *file, struct image *out, int *orientation, tessera_error *error) {
    struct bmp b = {.file = file};
    *out = (struct image){0};
    *orientation = 0;
    TRY(read_headers(&b, error));
    TRY(image_new((int)b.width, (int)b.height, out, error));
    if (b.compression == RUNS_8 || b.compression == RUNS_4 ? read_runs(&b, out) : read_rows(&b, out)) return TESSERA_OK;
    image_free(out);
    return image_broken(file, "its pixels end early", error);
}
