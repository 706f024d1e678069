/* Recipes: torch's numbers bit for bit, and what becomes of a recipe that is whole, spoilt or wrong. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "check.h"
#include "recipes/draw.h"
#include "recipes/recipe.h"
#include "tensor/safetensors.h"

#define TORCH "tests/cases/rng_torch_cpu/io.safetensors"
#define MODEL "tests/cases/clip_g/model/model.safetensors"

static void test_draw(void) {
    tessera_error error = {0};
    struct safetensors *file = NULL;
    CHECK(safetensors_open(TORCH, &file, &error) == TESSERA_OK, "%s", error.message);
    for (int i = 0; i < safetensors_count(file); i++) {
        const struct safetensors_entry *entry = safetensors_at(file, i);
        unsigned long long seed = 0;
        bool twice = sscanf(entry->name, "out.randn_twice.%llu", &seed) == 1;
        CHECK(twice || sscanf(entry->name, "out.randn.%llu.", &seed) == 1, "%s", entry->name);
        size_t count = (size_t)tensor_count(&entry->tensor), first = twice ? count / 2 : count;
        float *drawn = calloc(count, sizeof *drawn);
        struct random_generator generator;
        draw_seed(&generator, seed);
        draw_normal(&generator, drawn, first);
        if (twice) draw_normal(&generator, drawn + first, count - first);
        CHECK(memcmp(drawn, entry->tensor.data, count * sizeof *drawn) == 0, "%s differs from torch's", entry->name);
        free(drawn);
    }
    CHECK(safetensors_count(file) == 45, "%d tensors", safetensors_count(file));
    safetensors_close(file);
}

static void write_text(const char *path, const char *text, size_t length) {
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL && fwrite(text, 1, length, file) == length && fclose(file) == 0, "%s", path);
}

/* Makes `path` from a recipe of `length` bytes. */
static tessera_status make(const char *path, const char *text, size_t length, int *made, tessera_error *error) {
    char recipe[4096];
    snprintf(recipe, sizeof recipe, "%s.recipe", path);
    write_text(recipe, text, length);
    *made = 0;
    tessera_status status = recipe_make(path, made, error);
    unlink(recipe);
    return status;
}

static void test_make(const char *folder) {
    char *path = file_join(folder, "made.safetensors"), *text, *expected, *data;
    size_t length, expected_length, data_length;
    int made;
    tessera_error error = {0};
    CHECK(file_read(MODEL ".recipe", 1 << 20, &text, &length, &error) == TESSERA_OK, "%s", error.message);
    CHECK(file_read(MODEL, 1 << 20, &expected, &expected_length, &error) == TESSERA_OK, "%s", error.message);
    CHECK(make(path, text, length, &made, &error) == TESSERA_OK && made == 1, "%s", error.message);
    CHECK(make(path, text, length, &made, &error) == TESSERA_OK && made == 0, "made again");
    write_text(path, "spoilt", 6);
    CHECK(make(path, text, length, &made, &error) == TESSERA_OK && made == 1, "a spoilt file stays");
    CHECK(file_read(path, 1 << 20, &data, &data_length, &error) == TESSERA_OK, "%s", error.message);
    CHECK(data_length == expected_length && memcmp(data, expected, data_length) == 0, "not the same file");
    free(data);
    unlink(path);
    char *seed = strstr(text, "seed ");
    CHECK(seed != NULL, "the recipe has no seed");
    if (seed != NULL) seed[5]++;
    CHECK(make(path, text, length, &made, &error) == TESSERA_ERROR_FORMAT && strstr(error.message, "another checksum") != NULL, "%s", error.message);
    CHECK(!file_exists(path), "a file with a wrong checksum stays");
    free(text);
    free(expected);
    free(path);
}

static void test_wrong(const char *folder) {
    static const struct {
        const char *text, *message;
    } recipes[] = {
        {"seed 1\nx 16 normal\n", "is missing"},
        {"sha256 0\nseed 1\nx 16\n", "nothing of how"},
        {"sha256 0\nseed 1\nx 16,a normal\n", "no such shape"},
        {"sha256 0\nseed 1\nx 16 gamma\n", "no such kind"},
        {"sha256 0\nseed 1\nx 16 matrix\n", "no such kind"},
        {"sha256 0\ntype I64\nx 16 normal\n", "no such kind"},
        {"sha256 0\ntype F9\n", "no such type"},
        {"sha256 0\nx 16 copy y\n", "no such tensor"},
        {"sha256 0\nfrom none.safetensors\n", "none.safetensors"},
        {"sha256 0\nx 16 stored\n", "made.safetensors.stored"},
        {"sha256 0\nsame none.json\n", "none.json"},
        {"sha256\n", "not WORD VALUE"},
    };
    char *path = file_join(folder, "made.safetensors");
    for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
        int made;
        tessera_error error = {0};
        tessera_status status = make(path, recipes[i].text, strlen(recipes[i].text), &made, &error);
        CHECK(status != TESSERA_OK && strstr(error.message, recipes[i].message) != NULL, "recipe %zu: %s", i, error.message);
        CHECK(!file_exists(path) && made == 0, "recipe %zu made a file", i);
    }
    free(path);
}

int main(void) {
    char folder[] = "/tmp/test_recipe.XXXXXX";
    CHECK(mkdtemp(folder) != NULL, "%s", folder);
    test_draw();
    test_make(folder);
    test_wrong(folder);
    rmdir(folder);
    return CHECK_REPORT();
}
