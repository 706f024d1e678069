/* See bar.h. */
#include "cli/bar.h"

#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"

enum { BAR_WIDTH = 24 };
#define REDRAW_SECONDS 0.1

struct bar bar_start(const char *what, bool quiet) {
    return (struct bar){.what = what, .quiet = quiet, .terminal = isatty(STDERR_FILENO) == 1, .start = clock_seconds()};
}

static void draw(struct bar *bar, int done, int total, double seconds) {
    char cells[BAR_WIDTH + 1];
    for (int i = 0; i < BAR_WIDTH; i++) cells[i] = (long)i * total < (long)done * BAR_WIDTH ? '#' : '.';
    cells[BAR_WIDTH] = 0;
    fprintf(stderr, "\r\033[K%s  [%s] %d of %d", bar->what, cells, done, total);
    if (done > 0) fprintf(stderr, ", %.0f s left", seconds / done * (total - done));
    fflush(stderr);
    bar->open = true;
}

void bar_show(struct bar *bar, int done, int total) {
    double now = clock_seconds();
    if (bar->quiet) return;
    if (bar->terminal && (done == total || now - bar->drawn >= REDRAW_SECONDS)) {
        draw(bar, done, total, now - bar->start);
        bar->drawn = now;
    }
    if (!bar->terminal && done == total) fprintf(stderr, "%s: %d pictures in %.1f s\n", bar->what, total, now - bar->start);
}

void bar_clear(struct bar *bar) {
    if (bar->open) fputs("\r\033[K", stderr);
    bar->open = false;
}
