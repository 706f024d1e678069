/* Pictures in files, and scaled: bytes as Pillow has them (tests/metrics/make_case.py), and files
 * that are broken. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "case_io.h"
#include "check.h"
#include "image/exif.h"
#include "image/jpeg.h"
#include "image/png.h"
#include "image/resample.h"

#define CASE "tests/metrics/case"

/* The largest difference of a picture from a tensor U8 [height, width, 3]; 256: another size. */
static int difference(const struct image *image, const struct tensor *want) {
    if (want->data == NULL || want->dtype != DTYPE_U8 || want->shape[0] != image->height || want->shape[1] != image->width) return 256;
    int worst = 0;
    for (size_t i = 0; i < image_values(image); i++) {
        int d = abs(image->pixels[i] - ((const uint8_t *)want->data)[i]);
        worst = d > worst ? d : worst;
    }
    return worst;
}

static void test_scaled(const struct case_io *c) {
    const char *filters[] = {"nearest", "bilinear", "bicubic", "lanczos"};
    const int sizes[][2] = {{41, 57}, {133, 120}, {96, 31}, {90, 40}};
    tessera_error error = {0};
    struct image in;
    CHECK(image_file_read(CASE "/a/0000.png", &in, &error) == TESSERA_OK, "%s", error.message);
    for (int f = 0; f < 4; f++)
        for (int s = 0; s < 4; s++) {
            char name[48];
            struct image out;
            snprintf(name, sizeof name, "%s_%dx%d", filters[f], sizes[s][0], sizes[s][1]);
            CHECK(resample_bytes(&in, sizes[s][0], sizes[s][1], (enum resample_filter)f, &out, &error) == TESSERA_OK, "%s", error.message);
            struct tensor want = case_tensor(c, name);
            CHECK(difference(&out, &want) == 0, "%s differs by %d", name, difference(&out, &want));
            image_free(&out);
        }
    image_free(&in);
}

/* torchvision scales a tensor of bytes in floats and rounds at the end. */
static void test_floats(const struct case_io *c) {
    struct tensor want = case_tensor(c, "torch_resized");
    struct image in;
    static float out[57 * 41 * 3];
    int apart = 0;
    CHECK(image_file_read(CASE "/a/0000.png", &in, NULL) == TESSERA_OK, "read");
    CHECK(resample_floats(&in, 41, 57, RESAMPLE_BILINEAR, out, NULL) == TESSERA_OK, "scaled");
    for (int i = 0; i < 57 * 41 * 3; i++) apart += fabs((double)out[i] - ((const uint8_t *)want.data)[i]) > 0.51;
    CHECK(want.data != NULL && apart == 0, "%d values differ by more than rounding", apart);
    image_free(&in);
}

/* torchvision's CenterCrop of 96x80: rows from 15 and columns from 23 at 50; at 90, 5 rows of black
 * above, and columns from 3. */
static void test_middle(void) {
    const int cases[][3] = {{50, 15, 23}, {90, -5, 3}}; /* side, first row, first column */
    struct image in, out;
    CHECK(image_file_read(CASE "/a/0000.png", &in, NULL) == TESSERA_OK, "read");
    for (int i = 0; i < 2; i++) {
        int side = cases[i][0], wrong = 0;
        CHECK(image_crop_middle(&in, side, &out, NULL) == TESSERA_OK && out.width == side && out.height == side, "cropped");
        for (int p = 0; p < side * side * 3; p++) {
            int y = p / 3 / side + cases[i][1], x = p / 3 % side + cases[i][2];
            int want = y < 0 || y >= in.height ? 0 : in.pixels[(y * in.width + x) * 3 + p % 3];
            wrong += out.pixels[p] != want;
        }
        CHECK(wrong == 0, "%d values of the middle %d are others", wrong, side);
        image_free(&out);
    }
    image_free(&in);
}

static char *temporary(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "/tmp/test_image-%d-%s", (int)getpid(), name);
    return path;
}

static void test_jpeg(const struct case_io *c) {
    struct image in = {0}, again = {0};
    struct tensor want = case_tensor(c, "jpeg");
    tessera_error error = {0};
    CHECK(image_file_read(CASE "/a/0002.jpg", &in, &error) == TESSERA_OK, "%s", error.message);
    CHECK(difference(&in, &want) <= 1, "decoded JPEG differs by %d", difference(&in, &want)); /* builds of libjpeg round differently */
    char *path = temporary("again.jpg");
    CHECK(jpeg_file_write(path, &in, 100, &error) == TESSERA_OK, "%s", error.message);
    CHECK(image_file_read(path, &again, &error) == TESSERA_OK && again.width == 96 && again.height == 80, "%s", error.message);
    struct tensor got = tensor_of(again.pixels, DTYPE_U8, SHAPE(80, 96, 3));
    CHECK(difference(&in, &got) < 40, "written and read: %d", difference(&in, &got));
    image_free(&in);
    image_free(&again);
    unlink(path);
}

/* Whatever the length that is left: an error that names the file, or, once all that is needed is
 * there, the picture. */
static void test_cut_off(void) {
    char *data = NULL, *path = temporary("cut.jpg");
    size_t length = 0;
    CHECK(file_read(CASE "/a/0002.jpg", 1 << 20, &data, &length, NULL) == TESSERA_OK, "read");
    for (size_t left = 0; left + 2 < length; left += 61) {
        FILE *file = fopen(path, "wb");
        fwrite(data, 1, left, file);
        fclose(file);
        struct image out;
        tessera_error error = {0};
        CHECK(image_file_read(path, &out, &error) == TESSERA_ERROR_FORMAT && strstr(error.message, path) != NULL, "%zu of %zu bytes: %s",
              left, length, error.message);
        image_free(&out);
    }
    free(data);
    unlink(path);
}

/* Every kind of file, pixel for pixel as diffusers' load_image has it (make_pictures.py). Lossy
 * kinds may round differently by build, and Pillow interpolates Lab. */
static void test_kinds(void) {
    struct case_io c;
    tessera_error error = {0};
    CHECK(case_open("tests/image/case", &c, &error) == TESSERA_OK, "%s", error.message);
    for (size_t i = 0; c.io != NULL && i < (size_t)safetensors_count(c.io); i++) {
        const struct safetensors_entry *want = safetensors_at(c.io, (int)i);
        char path[256];
        struct image out;
        snprintf(path, sizeof path, "tests/%s", want->name);
        CHECK(image_file_read(path, &out, &error) == TESSERA_OK, "%s", error.message);
        bool lossy = strstr(path, ".jpg") != NULL || strstr(path, ".webp") != NULL, lab = strstr(path, "lab.tiff") != NULL;
        CHECK(difference(&out, &want->tensor) <= (lab ? 4 : lossy), "%s differs by %d", path, difference(&out, &want->tensor));
        CHECK((strstr(path, "grey16") != NULL) == (out.note != NULL), "%s: note %s", path, out.note != NULL ? out.note : "none");
        image_free(&out);
    }
    CHECK(c.io != NULL && safetensors_count(c.io) > 80, "all kinds are there");
    case_close(&c);
}

/* A file of `length` bytes is refused with a message that has `word`. */
static void check_refused(const char *what, const void *data, size_t length, tessera_status status, const char *word) {
    struct image out;
    tessera_error error = {0};
    CHECK(image_read(what, data, length, &out, &error) == status && strstr(error.message, word) != NULL && out.pixels == NULL, "%s: %s",
          what, error.message);
}

/* What is not read is named; a small file that claims a large picture is refused before memory is
 * taken. */
static void test_refused(void) {
    static const char bomb_gif[] = "GIF89a\xff\x3f\xff\x3f\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\1\0\1\0\0\2\2D\1\0;";
    static const char bomb_bmp[] =
        "BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\0\x3f\0\0\0\x3f\0\0\1\0\x18\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    static const char wide[] = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\1\0\0\0\0\0\1\x8\2\0\0\0";
    /* two million pixels in a row, which libpng's own limit would call broken */
    static const char longest[] = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\x1e\x84\x80\0\0\0\1\x8\2\0\0\0\xbb\xa1\x49\x1e\0\0\0\xaIDAT0123456789";
    check_refused("longest.png", longest, sizeof longest - 1, TESSERA_ERROR_FORMAT, "more than 16384 on a side");
    check_refused("photo.avif",
                  "\0\0\0\x20"
                  "ftypavif\0\0\0\0",
                  16, TESSERA_ERROR_UNSUPPORTED, "AVIF");
    check_refused("photo.heic",
                  "\0\0\0\x20"
                  "ftypheic\0\0\0\0",
                  16, TESSERA_ERROR_UNSUPPORTED, "HEIC");
    check_refused("bits.pbm", "P4\n8 1\n\xff", 8, TESSERA_ERROR_UNSUPPORTED, "PBM");
    check_refused("photo.pcx", "\x0a\x05\x01\x08\0\0\0\0", 8, TESSERA_ERROR_UNSUPPORTED, "PCX");
    check_refused("photo.j2c", "\xff\x4f\xff\x51\0\0\0\0", 8, TESSERA_ERROR_UNSUPPORTED, "JPEG 2000");
    check_refused("pointer.png", "version https://git-lfs.github.com/spec/v1\n", 43, TESSERA_ERROR_UNSUPPORTED, "Git LFS");
    check_refused("page.jpg", "<!DOCTYPE html><html>", 21, TESSERA_ERROR_UNSUPPORTED, "web page");
    check_refused("nothing.png", "", 0, TESSERA_ERROR_FORMAT, "no picture");
    check_refused("bomb.gif", bomb_gif, sizeof bomb_gif - 1, TESSERA_ERROR_FORMAT, "attack");
    check_refused("bomb.bmp", bomb_bmp, sizeof bomb_bmp - 1, TESSERA_ERROR_FORMAT, "attack");
    check_refused("wide.png", wide, sizeof wide - 1, TESSERA_ERROR_FORMAT, "broken");
}

static void test_errors(void) {
    struct image out;
    tessera_error error = {0};
    CHECK(image_file_read(CASE, &out, &error) == TESSERA_ERROR_IO && strstr(error.message, "folder") != NULL, "%s", error.message);
    CHECK(image_file_read("nowhere.jpg", &out, &error) == TESSERA_ERROR_IO && strstr(error.message, "nowhere.jpg") != NULL, "%s",
          error.message);
    CHECK(image_file_read(CASE "/case.json", &out, &error) == TESSERA_ERROR_FORMAT, "%s", error.message);
}

/* Indices behind the end of a palette, and what a GIF's frame leaves free. */
static void test_palettes(void) {
    static const uint8_t gif[] = {'G', 'I', 'F', '8', '9', 'a', 2, 0, 1, 0, 0x80, 0, 0, 0xFF, 0, 0, 0, 0xFF, 0, /* 2x1, red and green */
                                  0x21, 0xF9, 4, 1, 0, 0, 1, 0,                                                 /* colour 1 is transparent */
                                  0x2C, 1, 0, 0, 0, 1, 0, 1, 0, 0, 2, 2, 0x54, 1, 0, 0x3B};                     /* at x = 1: colour 2 */
    static const uint8_t bmp[] = {'B', 'M', 66, 0, 0, 0, 0, 0, 0, 0, 62, 0, 0, 0, 40, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 4, 0, 0, 0, 0, 0,
                                  4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 10, 20, 30, 0, 40, 50, 60, 0, /* two colours */
                                  0x21, 0, 0, 0};                                                                           /* colours 2 and 1 */
    static const uint8_t of_gif[] = {0, 0xFF, 0, 2, 2, 2}, of_bmp[] = {0, 0, 0, 60, 50, 40};
    struct image image = {0};
    tessera_error error = {0};
    CHECK(image_read("palette.gif", gif, sizeof gif, &image, &error) == TESSERA_OK, "%s", error.message);
    CHECK(image.pixels != NULL && memcmp(image.pixels, of_gif, sizeof of_gif) == 0, "a GIF's pixels behind its palette");
    image_free(&image);
    CHECK(image_read("palette.bmp", bmp, sizeof bmp, &image, &error) == TESSERA_OK, "%s", error.message);
    CHECK(image.pixels != NULL && memcmp(image.pixels, of_bmp, sizeof of_bmp) == 0, "a BMP's pixels behind its palette");
    image_free(&image);
}

/* Some cameras write the orientation as a LONG, where other writers have a SHORT; in both byte
 * orders. A value that is no orientation leaves the picture as it is. */
static void test_long_orientation(void) {
    const uint8_t big[] = "MM\0*\0\0\0\x08\0\x01\x01\x12\0\x04\0\0\0\x01\0\0\0\x06";
    const uint8_t little[] = "II*\0\x08\0\0\0\x01\0\x12\x01\x04\0\x01\0\0\0\x06\0\0\0";
    const uint8_t beyond[] = "II*\0\x08\0\0\0\x01\0\x12\x01\x04\0\x01\0\0\0\x06\0\x01\0";
    CHECK(exif_orientation(big, sizeof big - 1) == 6, "%d", exif_orientation(big, sizeof big - 1));
    CHECK(exif_orientation(little, sizeof little - 1) == 6, "%d", exif_orientation(little, sizeof little - 1));
    CHECK(exif_orientation(beyond, sizeof beyond - 1) == 1, "%d", exif_orientation(beyond, sizeof beyond - 1));
}

int main(void) {
    struct case_io c;
    tessera_error error = {0};
    CHECK(case_open(CASE, &c, &error) == TESSERA_OK, "%s", error.message);
    test_scaled(&c);
    test_floats(&c);
    test_middle();
    test_jpeg(&c);
    test_cut_off();
    test_kinds();
    test_refused();
    test_errors();
    test_palettes();
    test_long_orientation();
    case_close(&c);
    return CHECK_REPORT();
}
