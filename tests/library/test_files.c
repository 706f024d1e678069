/* tessera_files.h: pictures in and out with their texts, other sizes, models by name, fingerprints,
 * and what is refused. Run in the repository's root. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "tessera_files.h"

enum { WIDTH = 5, HEIGHT = 3 };

static char folder[] = "/tmp/tessera-files-XXXXXX", path[64];

static void test_pictures(void) {
    uint8_t pixels[HEIGHT * WIDTH * 3];
    const tessera_text texts[] = {{"Title", "a lion"}, {"key", "v\xC3\xA4lue"}};
    tessera_picture picture = TESSERA_PICTURE;
    tessera_error error = {0};
    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(i * 5);
    CHECK(tessera_png_write(path, NULL, pixels, WIDTH, HEIGHT, texts, 2, &error) == TESSERA_OK, "%s", error.message);
    CHECK(tessera_picture_read(path, &picture, &error) == TESSERA_OK, "%s", error.message);
    CHECK(picture.width == WIDTH && picture.height == HEIGHT && memcmp(picture.pixels, pixels, sizeof pixels) == 0,
          "it is read as written");
    CHECK(picture.num_texts == 2 && strcmp(picture.texts[1].key, "key") == 0 && strcmp(picture.texts[1].value, texts[1].value) == 0,
          "%d texts", picture.num_texts);
    CHECK(strcmp(tessera_picture_text(&picture, "Title"), "a lion") == 0 && tessera_picture_text(&picture, "none") == NULL, "by key");
    CHECK(picture.note == NULL, "note: %s", picture.note);
    CHECK(tessera_picture_scale(&picture, 10, 6, &error) == TESSERA_OK && picture.width == 10 && picture.height == 6, "%s", error.message);
    CHECK(tessera_picture_scale(&picture, 0, 6, &error) == TESSERA_ERROR_ARGUMENT && picture.width == 10, "no pixels wide");
    tessera_picture_free(&picture);
    tessera_picture_free(&picture);
    tessera_picture_free(NULL);
    CHECK(picture.pixels == NULL && picture.num_texts == 0, "a picture that is freed is empty");
}

/* A stream gets the same bytes as a file. */
static void test_stream(void) {
    const uint8_t pixels[3] = {1, 2, 3};
    tessera_error error = {0};
    char *bytes = NULL, there[4096];
    size_t length = 0;
    FILE *stream = open_memstream(&bytes, &length);
    CHECK(tessera_png_write("memory", stream, pixels, 1, 1, NULL, 0, &error) == TESSERA_OK, "%s", error.message);
    fclose(stream);
    CHECK(tessera_png_write(path, NULL, pixels, 1, 1, NULL, 0, &error) == TESSERA_OK, "%s", error.message);
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL && fread(there, 1, sizeof there, file) == length && memcmp(there, bytes, length) == 0, "%zu bytes", length);
    if (file != NULL) fclose(file);
    free(bytes);
}

static void test_refused(void) {
    tessera_picture picture = TESSERA_PICTURE, unset = {0};
    const uint8_t pixels[3] = {1, 2, 3};
    tessera_error error = {0};
    CHECK(tessera_picture_read("no/such.png", &picture, &error) == TESSERA_ERROR_IO && strstr(error.message, "no/such.png"), "%s",
          error.message);
    CHECK(tessera_picture_read("README.md", &picture, &error) == TESSERA_ERROR_FORMAT && strstr(error.message, "README.md"), "%s",
          error.message);
    CHECK(tessera_picture_read("src", &picture, &error) == TESSERA_ERROR_IO && strstr(error.message, "folder"), "%s", error.message);
    CHECK(tessera_picture_read(path, &unset, &error) == TESSERA_ERROR_ARGUMENT && strstr(error.message, "TESSERA_PICTURE"), "%s",
          error.message);
    CHECK(tessera_picture_read(NULL, NULL, NULL) == TESSERA_ERROR_ARGUMENT, "nothing");
    CHECK(tessera_png_write(path, NULL, NULL, 1, 1, NULL, 0, &error) == TESSERA_ERROR_ARGUMENT, "no pixels");
    CHECK(tessera_png_write(path, NULL, pixels, 1, 1, NULL, 1, &error) == TESSERA_ERROR_ARGUMENT, "no texts");
    CHECK(tessera_png_write("no/such/folder/a.png", NULL, pixels, 1, 1, NULL, 0, &error) == TESSERA_ERROR_IO, "no folder");
    CHECK(tessera_model_find(NULL, NULL, NULL, NULL, NULL, &error) == TESSERA_ERROR_ARGUMENT, "no name");
}

static void test_models(void) {
    char first[TESSERA_FINGERPRINT_BYTES], second[TESSERA_FINGERPRINT_BYTES], *found = NULL, *given = NULL;
    tessera_error error = {0};
    CHECK(tessera_model_find(TESSERA_EMBEDDED_MODEL, NULL, NULL, NULL, &found, &error) == TESSERA_OK, "%s", error.message);
    CHECK(tessera_model_find("models/emoji", NULL, NULL, NULL, &given, &error) == TESSERA_OK && strcmp(given, "models/emoji") == 0, "%s",
          error.message);
    CHECK(!tessera_model_is_on_hub("models/emoji") && tessera_model_is_on_hub("owner/no-such-model") && !tessera_model_is_on_hub(NULL),
          "names");
    CHECK(tessera_path_fingerprint(found, first, &error) == TESSERA_OK && tessera_path_fingerprint(given, second, &error) == TESSERA_OK,
          "%s", error.message);
    CHECK(strcmp(first, second) == 0 && strlen(first) == 16, "%s and %s", first, second);
    CHECK(tessera_path_fingerprint("no/such", first, &error) == TESSERA_ERROR_IO, "%s", error.message);
    tessera_bytes_fingerprint("a", 1, first);
    tessera_bytes_fingerprint("b", 1, second);
    CHECK(strcmp(first, second) != 0, "bytes that differ");
    free(found);
    CHECK(tessera_model_find("emoji-unet", NULL, NULL, NULL, &found, &error) == TESSERA_OK && strstr(found, "/models/emoji-unet") != NULL, "%s",
          error.message);
    free(found);
    free(given);
}

int main(void) {
    if (mkdtemp(folder) == NULL) return fprintf(stderr, "no folder\n"), 1;
    snprintf(path, sizeof path, "%s/a.png", folder);
    test_pictures();
    test_stream();
    test_refused();
    test_models();
    unlink(path);
    rmdir(folder);
    return CHECK_REPORT();
}
