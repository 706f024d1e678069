/* What a person sees while a picture is made, and how Ctrl-C stops it.
 *
 * Each phase has its bar (bar.h), counted in steps. The first SIGINT, SIGTERM or SIGHUP (the
 * terminal is gone) asks the computation to stop at its next step; the second kills as usual. */
#ifndef TESSERA_CLI_PROGRESS_H
#define TESSERA_CLI_PROGRESS_H

#include "cli/bar.h"
#include "tessera.h"

struct progress {
    struct bar bar;
    int phase; /* the phase being drawn; -1: none yet */
};

void progress_init(struct progress *progress, bool quiet);
/* A tessera_progress; `user` is the struct progress. */
bool progress_report(void *user, tessera_phase phase, int done, int total);
/* Takes the redrawn line away. */
void progress_clear(struct progress *progress);

void progress_catch_signals(void);
/* The signal that asked to stop, or 0. */
int progress_signal(void);

#endif
