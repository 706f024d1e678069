/* See exif.h. */
#include "image/exif.h"

#include <string.h>

#include "base/error.h"

enum { TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3, TYPE_LONG = 4, ENTRY_BYTES = 12, VALUE_BYTES = 4 };

static uint32_t number_at(const uint8_t *data, int bytes, bool big) {
    uint32_t value = 0;
    for (int i = 0; i < bytes; i++) value |= (uint32_t)data[i] << 8 * (big ? bytes - 1 - i : i);
    return value;
}

/* What is none of the eight leaves the picture as it is. */
static int orientation_or_upright(uint32_t named) {
    return named >= 1 && named <= 8 ? (int)named : 1;
}

/* The first value of an entry of a directory, or 0: it has none, or one that is no whole number. */
static uint32_t first_value(const uint8_t *data, size_t length, const uint8_t *entry, bool big) {
    uint32_t type = number_at(entry + 2, 2, big), count = number_at(entry + 4, 4, big), at = number_at(entry + 8, 4, big);
    uint32_t bytes = type == TYPE_SHORT ? 2 : type == TYPE_LONG ? 4 : 0;
    if (bytes == 0 || count == 0) return 0;
    if (count <= VALUE_BYTES / bytes) return number_at(entry + 8, (int)bytes, big);
    return at <= length && length - at >= bytes ? number_at(data + at, (int)bytes, big) : 0;
}

int exif_orientation(const uint8_t *data, size_t length) {
    if (length >= 6 && memcmp(data, "Exif\0\0", 6) == 0) data += 6, length -= 6;
    if (length < 8 || (memcmp(data, "MM\0*", 4) != 0 && memcmp(data, "II*\0", 4) != 0)) return 0;
    bool big = data[0] == 'M';
    size_t directory = number_at(data + 4, 4, big);
    if (directory > length - 2) return 0;
    size_t count = number_at(data + directory, 2, big);
    for (size_t i = 0; i < count && directory + 2 + (i + 1) * ENTRY_BYTES <= length; i++) {
        const uint8_t *entry = data + directory + 2 + i * ENTRY_BYTES;
        if (number_at(entry, 2, big) == TAG_ORIENTATION) return orientation_or_upright(first_value(data, length, entry, big));
    }
    return 0;
}

/* Whether `length` bytes begin with a digit between two texts, which is then *digit. */
static bool reads_digit(const char *data, size_t length, const char *before, const char *after, uint32_t *digit) {
    size_t start = strlen(before), end = strlen(after);
    if (length < start + 1 + end || memcmp(data, before, start) != 0 || memcmp(data + start + 1, after, end) != 0) return false;
    *digit = (uint32_t)(data[start] - '0');
    return *digit <= 9;
}

int exif_orientation_of_xmp(const char *data, size_t length) {
    uint32_t digit;
    for (size_t i = 0; i < length; i++)
        if (reads_digit(data + i, length - i, "tiff:Orientation=\"", "\"", &digit) ||
            reads_digit(data + i, length - i, "<tiff:Orientation>", "</tiff:Orientation>", &digit))
            return orientation_or_upright(digit);
    return 0;
}

/* Where the upright picture's pixel (x, y) lies in one of width x height with this orientation. */
static size_t source_of(int orientation, int width, int height, int x, int y) {
    bool swaps = orientation >= 5;
    int column = swaps ? y : x, row = swaps ? x : y;
    if (orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8) column = width - 1 - column;
    if (orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7) row = height - 1 - row;
    return ((size_t)row * (size_t)width + (size_t)column) * 3;
}

tessera_status exif_turn_upright(struct image *image, int orientation, tessera_error *error) {
    struct image upright;
    bool swaps = orientation >= 5;
    if (orientation < 2 || orientation > 8) return TESSERA_OK;
    TRY(image_new(swaps ? image->height : image->width, swaps ? image->width : image->height, &upright, error));
    for (int y = 0; y < upright.height; y++)
        for (int x = 0; x < upright.width; x++)
            memcpy(upright.pixels + ((size_t)y * (size_t)upright.width + (size_t)x) * 3,
                   image->pixels + source_of(orientation, image->width, image->height, x, y), 3);
    upright.note = image->note;
    image_free(image);
    *image = upright;
    return TESSERA_OK;
}
