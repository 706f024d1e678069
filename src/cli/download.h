/* Models by name on the command line: what a person sees while one is downloaded. */
#ifndef TESSERA_CLI_DOWNLOAD_H
#define TESSERA_CLI_DOWNLOAD_H

#include "hub/hub.h"

struct download_progress {
    bool quiet, terminal;
    bool line_open;      /* a redrawn line stands on the terminal */
    char file[256];      /* the file being drawn */
    double start, drawn; /* seconds: its first report, the last redraw */
    uint64_t start_bytes;
};

void download_progress_init(struct download_progress *progress, bool quiet);
/* A hub_progress; `user` is the struct download_progress. Stops when progress_signal() says so. */
bool download_progress_report(void *user, const char *file, uint64_t done, uint64_t total);
/* Takes the redrawn line away. */
void download_progress_clear(struct download_progress *progress);

/* The folder of a model that --model or --vae names: `model` itself, or where the hub's OWNER/NAME[@REVISION] lies, after a download
 * with progress on stderr. The caller frees *folder. Errors as of hub_resolve. */
tessera_status download_model(const char *model, bool quiet, char **folder, tessera_error *error);

#endif
