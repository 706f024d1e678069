/* A bar for long work: on a terminal a line that is redrawn, with the time left.
 *
 *     denoise  [############............] 10 of 20, 1.21 s each, 12 s left
 *     weights  [######..................] 1.05 of 4.20 GB, 812 MB/s, 4 s left
 *
 * Elsewhere (a log, under mpirun, TERM=dumb) a line every 10 seconds, or every tenth of the work
 * that takes more than a second, and one when it is done.
 *
 *     denoise: 10 of 20, 1.21 s each, 12 s left
 *     denoise: 20 of 20 in 24.20 s
 */
#ifndef TESSERA_CLI_BAR_H
#define TESSERA_CLI_BAR_H

#include <stdbool.h>

enum bar_unit { BAR_COUNT, BAR_BYTES };

struct bar {
    char what[64];
    enum bar_unit unit;
    bool quiet, terminal;
    bool open, ended;    /* a redrawn line stands on the terminal; the line at the end has been written */
    double start, drawn; /* seconds */
    double logged;       /* the share of the work that the last line told of */
    double first;        /* what was done at the start */
};

/* Whether standard error is a terminal on which a line can be redrawn. */
bool bar_terminal(void);
/* Of `what` ("features"), counted in `unit`. */
struct bar bar_start(const char *what, enum bar_unit unit, bool quiet);
/* The next piece of work on the same line, of which `done` is there already: another file, another
 * phase. */
void bar_next(struct bar *bar, const char *what, double done);
void bar_show(struct bar *bar, double done, double total);
/* Takes the redrawn line away. */
void bar_clear(struct bar *bar);

#endif
