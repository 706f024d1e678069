/* See bar.h. */
#include "cli/bar.h"

#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"

enum { BAR_WIDTH = 24 };
#define REDRAW_SECONDS 0.1
#define GIGABYTE 1e9
#define MEGABYTE 1e6

struct bar bar_start(const char *what, enum bar_unit unit, bool quiet) {
    struct bar bar = {.unit = unit, .quiet = quiet, .terminal = isatty(STDERR_FILENO) == 1};
    bar_next(&bar, what, 0);
    return bar;
}

void bar_next(struct bar *bar, const char *what, double done) {
    snprintf(bar->what, sizeof bar->what, "%s", what);
    bar->start = clock_seconds();
    bar->first = done;
    bar->drawn = 0;
    bar->ended = false;
}

/* "3 of 8", "1.05 of 4.20 GB" */
static void print_amount(const struct bar *bar, double done, double total) {
    bool large = total >= GIGABYTE;
    double size = large ? GIGABYTE : MEGABYTE;
    if (bar->unit == BAR_COUNT)
        fprintf(stderr, "%.0f of %.0f", done, total);
    else
        fprintf(stderr, "%.2f of %.2f %s", done / size, total / size, large ? "GB" : "MB");
}

static void draw(struct bar *bar, double done, double total, double seconds) {
    char cells[BAR_WIDTH + 1];
    double share = total > 0 ? done / total : 1, here = done - bar->first;
    for (int i = 0; i < BAR_WIDTH; i++) cells[i] = i < (int)(share * BAR_WIDTH) ? '#' : '.';
    cells[BAR_WIDTH] = 0;
    fprintf(stderr, "\r\033[K%-8s [%s] ", bar->what, cells);
    print_amount(bar, done, total);
    if (here > 0 && seconds > 0) {
        if (bar->unit == BAR_COUNT)
            fprintf(stderr, ", %.2f s each", seconds / here);
        else
            fprintf(stderr, ", %.1f MB/s", here / seconds / MEGABYTE);
        fprintf(stderr, ", %.0f s left", seconds / here * (total - done));
    }
    fflush(stderr);
    bar->open = true;
}

void bar_show(struct bar *bar, double done, double total) {
    double now = clock_seconds();
    if (bar->quiet) return;
    if (bar->terminal && (done >= total || now - bar->drawn >= REDRAW_SECONDS)) {
        draw(bar, done, total, now - bar->start);
        bar->drawn = now;
    }
    if (!bar->terminal && done >= total && !bar->ended) {
        fprintf(stderr, "%s: ", bar->what);
        print_amount(bar, done, total);
        fprintf(stderr, " in %.2f s\n", now - bar->start);
        bar->ended = true;
    }
}

void bar_clear(struct bar *bar) {
    if (bar->open) fputs("\r\033[K", stderr);
    bar->open = false;
}
