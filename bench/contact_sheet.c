/* A contact sheet: pictures of one size side by side in one PNG, for pages that compare them.
 *
 *     contact_sheet SHEET.png COLUMNS PICTURE...
 *
 * PICTURE is a PNG, or A.png:B.png: their difference, 8 times as large, around grey. */
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GAP = 4, FACTOR = 8, GREY = 128, WHITE = 255 };

struct picture {
    int width, height;
    png_bytep pixels; /* [height, width, 3]; owned */
};

static int read_picture(const char *path, struct picture *out) {
    png_image png = {.version = PNG_IMAGE_VERSION};
    *out = (struct picture){0};
    if (png_image_begin_read_from_file(&png, path) != 0) {
        png.format = PNG_FORMAT_RGB;
        *out = (struct picture){(int)png.width, (int)png.height, malloc(PNG_IMAGE_SIZE(png))};
        if (out->pixels != NULL && png_image_finish_read(&png, NULL, out->pixels, 0, NULL) != 0) return 1;
    }
    fprintf(stderr, "contact_sheet: %s: %s\n", path, png.message[0] != 0 ? png.message : "out of memory");
    png_image_free(&png);
    free(out->pixels);
    *out = (struct picture){0};
    return 0;
}

/* a becomes grey plus FACTOR times what it has more than b. */
static int take_difference(struct picture *a, const struct picture *b) {
    if (a->width != b->width || a->height != b->height) return 0;
    for (size_t i = 0; i < 3 * (size_t)a->width * (size_t)a->height; i++) {
        int value = GREY + FACTOR * (a->pixels[i] - b->pixels[i]);
        a->pixels[i] = (png_byte)(value < 0 ? 0 : value > WHITE ? WHITE : value);
    }
    return 1;
}

/* What an argument names. */
static int read_argument(char *argument, struct picture *out) {
    char *second = strchr(argument, ':');
    struct picture other;
    if (second != NULL) *second++ = 0;
    if (!read_picture(argument, out)) return 0;
    if (second == NULL) return 1;
    int good = read_picture(second, &other) && take_difference(out, &other);
    if (!good) fprintf(stderr, "contact_sheet: %s and %s are not of one size\n", argument, second);
    free(other.pixels);
    return good;
}

/* Lays `picture` on the place `index` of the sheet, which the first one's size makes. */
static int lay(struct picture *sheet, const struct picture *picture, int index, int columns, int rows) {
    int across = picture->width + GAP, down = picture->height + GAP;
    if (sheet->pixels == NULL) {
        *sheet = (struct picture){.width = columns * across - GAP, .height = rows * down - GAP};
        size_t bytes = 3 * (size_t)sheet->width * (size_t)sheet->height;
        sheet->pixels = malloc(bytes);
        if (sheet->pixels == NULL) return 0;
        memset(sheet->pixels, WHITE, bytes);
    }
    if (sheet->width != columns * across - GAP || sheet->height != rows * down - GAP) return 0;
    for (int y = 0; y < picture->height; y++) {
        size_t to = (size_t)(index / columns * down + y) * (size_t)sheet->width + (size_t)(index % columns * across);
        memcpy(sheet->pixels + 3 * to, picture->pixels + 3 * (size_t)y * (size_t)picture->width, 3 * (size_t)picture->width);
    }
    return 1;
}

int main(int argc, char **argv) {
    int columns = argc > 3 ? atoi(argv[2]) : 0, pictures = argc - 3;
    if (columns < 1) {
        fprintf(stderr, "usage: contact_sheet SHEET.png COLUMNS PICTURE...   (PICTURE: A.png, or the difference A.png:B.png)\n");
        return 2;
    }
    struct picture sheet = {0};
    int good = 1, rows = (pictures + columns - 1) / columns;
    for (int i = 0; i < pictures && good; i++) {
        struct picture picture;
        good = read_argument(argv[3 + i], &picture);
        if (good && !lay(&sheet, &picture, i, columns, rows)) {
            fprintf(stderr, "contact_sheet: %s does not fit: another size, or no memory\n", argv[3 + i]);
            good = 0;
        }
        free(picture.pixels);
    }
    png_image png = {
        .version = PNG_IMAGE_VERSION, .width = (png_uint_32)sheet.width, .height = (png_uint_32)sheet.height, .format = PNG_FORMAT_RGB};
    if (good && png_image_write_to_file(&png, argv[1], 0, sheet.pixels, 0, NULL) == 0) {
        fprintf(stderr, "contact_sheet: %s: %s\n", argv[1], png.message);
        good = 0;
    }
    free(sheet.pixels);
    return good ? 0 : 1;
}
