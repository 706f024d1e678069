/* A bar for work that is counted in pictures: on a terminal a line that is redrawn, with the time left; elsewhere one line at the end. */
#ifndef TESSERA_CLI_BAR_H
#define TESSERA_CLI_BAR_H

#include <stdbool.h>

struct bar {
    const char *what; /* e.g. "features" */
    bool quiet, terminal, open;
    double start, drawn;
};

struct bar bar_start(const char *what, bool quiet);
void bar_show(struct bar *bar, int done, int total);
/* Takes the redrawn line away. */
void bar_clear(struct bar *bar);

#endif
