/* See exif.h. */
#include "image/exif.h"

#include <string.h>

#include "base/error.h"

enum { TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3, TYPE_LONG = 4, ENTRY_BYTES = 12 };

static uint32_t number_at(const uint8_t *data, int bytes, bool big) {
    uint32_t value = 0;
    for (int i = 0; i < bytes; i++) value |= (uint32_t)data[i] << 8 * (big ? bytes - 1 - i : i);
    return value;
}

static int valid(uint32_t orientation) {
    return orientation >= 1 && orientation <= 8 ? (int)orientation : 0;
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
        uint32_t type = number_at(entry + 2, 2, big);
        if (number_at(entry, 2, big) != TAG_ORIENTATION || number_at(entry + 4, 4, big) != 1) continue;
        return type == TYPE_SHORT || type == TYPE_LONG ? valid(number_at(entry + 8, type == TYPE_SHORT ? 2 : 4, big)) : 0;
    }
    return 0;
}

int exif_orientation_of_xmp(const char *data, size_t length) {
    static const char name[] = "tiff:Orientation";
    const size_t size = sizeof name - 1;
    for (size_t i = 0; i + size + 3 <= length; i++) {
        if (memcmp(data + i, name, size) != 0) continue;
        const char *rest = data + i + size;
        if (rest[0] == '=' && rest[1] == '"') return valid((uint32_t)(rest[2] - '0'));
        if (rest[0] == '>') return valid((uint32_t)(rest[1] - '0'));
    }
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
