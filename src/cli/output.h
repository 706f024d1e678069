/* Where pictures go: names of output files, and whether they can be written, asked before anything
 * is computed. */
#ifndef TESSERA_CLI_OUTPUT_H
#define TESSERA_CLI_OUTPUT_H

#include "tessera.h"

/* The file of picture `number` of `total` (over all prompts of the run); the caller frees.
 *   output NULL            tessera-SLUG-SEED.png, with "-NUMBER" before ".png" if there are several
 *   an existing folder, or a name that ends in '/'    FOLDER/SLUG_SEED_NUMBER.png
 *   any other              the name itself; if there are several, NAME-NUMBER.png
 * SLUG is the prompt in lower-case letters, digits and hyphens, cut at 48 bytes. */
char *output_name(const char *output, const char *prompt, uint64_t seed, int number, int total, tessera_error *error);

/* What stands for standard output. */
bool output_is_stream(const char *output);

/* `path` with "-COPY" before its extension; itself for copy 0. The caller frees. */
char *output_copy_name(const char *path, int copy, tessera_error *error);
/* The least copy from 0 on whose name is no regular file. */
tessera_status output_free_copy(const char *path, int *copy, tessera_error *error);

/* An existing folder, or a name that ends in '/'. */
bool output_is_folder(const char *output);

/* Makes the folder, and those above it, if `output` ends in '/' and is missing, and fails with IO
 * if a file could not be created, or with ARGUMENT if the name asks for a format other than PNG, or
 * "-" for a terminal that would show bytes. */
tessera_status output_check(const char *output, tessera_error *error);

#endif
