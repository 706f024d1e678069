/* Models by name on the command line: what a person sees while one is downloaded. */
#ifndef TESSERA_CLI_DOWNLOAD_H
#define TESSERA_CLI_DOWNLOAD_H

#include "hub/hub.h"

/* The folder of a model that --model or --vae names: `model` itself, or where the hub's OWNER/NAME[@REVISION] lies, after a download
 * with progress on stderr. The caller frees *folder. Errors as of hub_resolve. */
tessera_status download_model(const char *model, const char *variant, bool quiet, char **folder, tessera_error *error);

#endif
