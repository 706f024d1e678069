/* Recipes: how the safetensors files of the reference cases are made again, bit for bit (README.md
 * beside this file has the format).
 *
 * FILE.recipe names the tensors in the order in which torch's generator drew them, FILE.stored has
 * the bytes of those that were not drawn (kept as FILE.stored.xz). */
#ifndef TESSERA_TESTS_RECIPES_RECIPE_H
#define TESSERA_TESTS_RECIPES_RECIPE_H

#include "base/error.h"

/* Makes `path` from path.recipe, and first the files that it copies from. Nothing is done where a
 * file with the recipe's checksum is there already, or a file without a recipe; *made counts the
 * others. FORMAT, with the line, for a recipe that cannot be followed or that gives another
 * checksum: then there is no file. */
tessera_status recipe_make(const char *path, int *made, tessera_error *error);

#endif
