/* make_cases FOLDER: makes the safetensors files below FOLDER that are there as recipes only
 * (recipe.h). The build runs it, so that tests find their cases whole. It warns of files with
 * neither a recipe nor an .xz: git ignores them (tests/cases/.gitignore). */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "recipes/recipe.h"

#define RECIPE ".recipe"
#define PACKED ".xz" /* tools/unpack.sh makes the file */
#define TENSORS ".safetensors"

static int made, failed; /* nftw hands nothing through to its function */

static bool ends_in(const char *path, const char *end) {
    size_t length = strlen(path), tail = strlen(end);
    return length > tail && strcmp(path + length - tail, end) == 0;
}

static void make(const char *recipe) {
    char *path = strndup(recipe, strlen(recipe) - strlen(RECIPE));
    tessera_error error = {0};
    if (recipe_make(path, &made, &error) != TESSERA_OK) {
        fprintf(stderr, "make_cases: %s\n", error.message);
        failed = 1;
    }
    free(path);
}

static int visit(const char *path, const struct stat *info, int type, struct FTW *place) {
    if (type != FTW_F) return 0;
    if (ends_in(path, RECIPE)) make(path);
    if (!ends_in(path, TENSORS)) return 0;
    char recipe[4096], packed[4096];
    snprintf(recipe, sizeof recipe, "%s" RECIPE, path);
    snprintf(packed, sizeof packed, "%s" PACKED, path);
    if (file_exists(recipe) || file_exists(packed)) return 0;
    fprintf(stderr, "make_cases: warning: git ignores %s: write a recipe with tests/recipes/make_recipes.py, or pack a copy with tools/pack.sh\n", path);
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: make_cases FOLDER\n");
        return 2;
    }
    if (nftw(argv[1], visit, 16, FTW_PHYS) != 0) {
        perror(argv[1]);
        return 1;
    }
    if (made > 0) printf("make_cases: %d files made below %s\n", made, argv[1]);
    return failed;
}
