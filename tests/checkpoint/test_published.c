/* Where published models, tokenizers and data files are found, and what is said where they are not. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "check.h"
#include "checkpoint/published.h"

static void test_names(void) {
    char choices[512] = "";
    for (const char *const *name = published_names(); *name != NULL; name++) strcat(strcat(choices, choices[0] != 0 ? "|" : ""), *name);
    CHECK(strcmp(choices, PUBLISHED_CHOICES) == 0, "%s", choices);
    tessera_error error = {0};
    char *folder;
    CHECK(published_folder("sd16", &folder, &error) == TESSERA_ERROR_ARGUMENT && strstr(error.message, "sd15") != NULL, "%s",
          error.message);
    CHECK(published_tokenizer("sdxl", "tokenizer_9", &folder, &error) == TESSERA_ERROR_ARGUMENT, "%s", error.message);
    CHECK(published_tokenizer("hunyuandit", "tokenizer_2", &folder, &error) == TESSERA_ERROR_UNSUPPORTED, "%s", error.message);
    CHECK(published_tokenizer("sdxl", "tokenizer_2", &folder, &error) == TESSERA_OK && strstr(folder, "clip-pad-0") != NULL, "%s",
          error.message);
    free(folder);
}

/* A foreign tokenizers.json names a vocabulary, never a path. */
static void test_vocabulary_names(void) {
    static const char *const paths[] = {"", ".", "..", "../published/sdxl", "clip/../clip", "/etc"};
    tessera_error error = {0};
    char *folder;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        CHECK(published_vocabulary(paths[i], "tokenizers.json", &folder, &error) == TESSERA_ERROR_FORMAT && folder == NULL &&
                  strstr(error.message, "tokenizers.json: ") != NULL,
              "\"%s\": %s", paths[i], error.message);
    CHECK(published_vocabulary("clip", "tokenizers.json", &folder, &error) == TESSERA_OK && file_is_folder(folder), "%s", error.message);
    free(folder);
}

static void test_data(void) {
    tessera_error error = {0};
    char *path;
    unsetenv("TESSERA_DATA_DIR");
    CHECK(data_find("models/emoji", &path, &error) == TESSERA_OK && file_is_folder(path), "%s", error.message);
    free(path);
    CHECK(data_find("models/none", &path, &error) == TESSERA_ERROR_IO && strstr(error.message, "TESSERA_DATA_DIR") != NULL, "%s",
          error.message);
    setenv("TESSERA_DATA_DIR", "tests/cases", 1);
    CHECK(data_find("bert", &path, &error) == TESSERA_OK && strcmp(path, "tests/cases/bert") == 0, "%s", error.message);
    free(path);
    CHECK(data_find("models/emoji", &path, &error) == TESSERA_ERROR_IO && path == NULL, "only in the folder that is named");
    unsetenv("TESSERA_DATA_DIR");
}

int main(void) {
    test_names();
    test_vocabulary_names();
    test_data();
    return CHECK_REPORT();
}
