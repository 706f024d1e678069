/* same_picture A.png B.ppm: exits 0 if both hold the same pixels, else says where they differ. The PPM is as generate.c writes it. */
#include <png.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static unsigned char *read_ppm(const char *path, int width, int height) {
    int w = 0, h = 0;
    size_t bytes = (size_t)width * (size_t)height * 3;
    FILE *file = fopen(path, "rb");
    unsigned char *pixels = malloc(bytes);
    bool good = file != NULL && pixels != NULL && fscanf(file, "P6 %d %d 255", &w, &h) == 2 && fgetc(file) == '\n' && w == width &&
                h == height && fread(pixels, 1, bytes, file) == bytes && fgetc(file) == EOF;
    if (file != NULL) fclose(file);
    if (good) return pixels;
    free(pixels);
    return NULL;
}

int main(int argc, char **argv) {
    int width = 0, height = 0;
    if (argc != 3) return fprintf(stderr, "usage: same_picture A.png B.ppm\n"), 2;
    unsigned char *a = read_png(argv[1], &width, &height), *b = a != NULL ? read_ppm(argv[2], width, height) : NULL;
    size_t bytes = (size_t)width * (size_t)height * 3, i = 0;
    while (b != NULL && i < bytes && a[i] == b[i]) i++;
    bool same = b != NULL && i == bytes;
    if (b == NULL)
        fprintf(stderr, "%s, %s: one cannot be read, or their sizes differ\n", argv[1], argv[2]);
    else if (!same)
        fprintf(stderr, "byte %zu of %zu: %d and %d\n", i, bytes, a[i], b[i]);
    free(a);
    free(b);
    return same ? 0 : 1;
}
