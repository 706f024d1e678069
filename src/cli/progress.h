/* What a person sees while a picture is made, and how Ctrl-C stops it.
 *
 * On a terminal one line is redrawn (phase, bar, step n of N, time a step, time left); elsewhere each phase that ends writes a line.
 * The first SIGINT or SIGTERM asks the computation to stop at its next step; the second kills as usual. */
#ifndef TESSERA_CLI_PROGRESS_H
#define TESSERA_CLI_PROGRESS_H

#include "tessera.h"

struct progress {
    bool quiet, terminal;
    int phase; /* the phase being drawn; -1: none yet */
    double phase_start;
    bool line_open; /* a redrawn line stands on the terminal */
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
