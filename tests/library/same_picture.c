/* same_picture A.png B.png: exits 0 if both hold the same pixels, else says where they differ. */
#include <png.h>
#include <stdio.h>
#include <stdlib.h>

static unsigned char *read_png(const char *path, int *width, int *height) {
    png_image png = {.version = PNG_IMAGE_VERSION};
    if (!png_image_begin_read_from_file(&png, path)) return NULL;
    png.format = PNG_FORMAT_RGB;
    *width = (int)png.width, *height = (int)png.height;
    unsigned char *pixels = malloc(PNG_IMAGE_SIZE(png));
    if (pixels != NULL && png_image_finish_read(&png, NULL, pixels, 0, NULL)) return pixels;
    png_image_free(&png);
    free(pixels);
    return NULL;
}

int main(int argc, char **argv) {
    int width = 0, height = 0, columns = 0, rows = 0;
    if (argc != 3) return fprintf(stderr, "usage: same_picture A.png B.png\n"), 2;
    unsigned char *a = read_png(argv[1], &width, &height), *b = read_png(argv[2], &columns, &rows);
    size_t bytes = (size_t)width * (size_t)height * 3, i = 0;
    int comparable = a != NULL && b != NULL && width == columns && height == rows;
    while (comparable && i < bytes && a[i] == b[i]) i++;
    if (!comparable)
        fprintf(stderr, "%s, %s: one cannot be read, or their sizes differ\n", argv[1], argv[2]);
    else if (i < bytes)
        fprintf(stderr, "byte %zu of %zu: %d and %d\n", i, bytes, a[i], b[i]);
    free(a);
    free(b);
    return comparable && i == bytes ? 0 : 1;
}
