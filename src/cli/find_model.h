/* Models by name on the command line: what a person sees while one is downloaded. */
#ifndef TESSERA_CLI_FIND_MODEL_H
#define TESSERA_CLI_FIND_MODEL_H

#include "tessera_files.h"

/* Where the model lies that an option names (tessera_model_find), after a download with progress on
 * standard error. The caller frees
 * *folder. */
tessera_status find_model(const char *model, const char *variant, bool quiet, char **folder, tessera_error *error);
/* A tessera_download; `user` is the struct bar, which counts each file's bytes. */
bool find_model_report(void *user, const char *file, uint64_t done, uint64_t total);

#endif
