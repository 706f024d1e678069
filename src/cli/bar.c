/* See bar.h. */
#include "cli/bar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

enum { BAR_WIDTH = 24 };
#define REDRAW_SECONDS 0.1
#define LOG_SECONDS 10.0      /* a line at least this often */
#define LOG_SHARE 0.1         /* and after each tenth, */
#define LOG_LEAST_SECONDS 1.0 /* but none sooner after the last */
#define GIGABYTE 1e9
#define MEGABYTE 1e6

bool bar_terminal(void) {
    const char *terminal = getenv("TERM");
    return isatty(STDERR_FILENO) == 1 && (terminal == NULL || strcmp(terminal, "dumb") != 0);
}

struct bar bar_start(const char *what, enum bar_unit unit, bool quiet) {
    struct bar bar = {.unit = unit, .quiet = quiet, .terminal = bar_terminal()};
    bar_next(&bar, what, 0);
    return bar;
}

void bar_next(struct bar *bar, const char *what, double done) {
    snprintf(bar->what, sizeof bar->what, "%s", what);
    bar->start = clock_seconds();
    bar->first = done;
    bar->drawn = bar->terminal ? 0 : bar->start;
    bar->logged = 0;
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

/* ", 1.21 s each, 12 s left" */
static void print_rest(const struct bar *bar, double done, double total, double seconds) {
    double here = done - bar->first;
    if (here <= 0 || seconds <= 0) return;
    if (bar->unit == BAR_COUNT)
        fprintf(stderr, ", %.2f s each", seconds / here);
    else
        fprintf(stderr, ", %.1f MB/s", here / seconds / MEGABYTE);
    fprintf(stderr, ", %.0f s left", seconds / here * (total - done));
}

static void draw(struct bar *bar, double done, double total, double seconds) {
    char cells[BAR_WIDTH + 1];
    double share = total > 0 ? done / total : 1;
    for (int i = 0; i < BAR_WIDTH; i++) cells[i] = i < (int)(share * BAR_WIDTH) ? '#' : '.';
    cells[BAR_WIDTH] = 0;
    fprintf(stderr, "\r\033[K%-8s [%s] ", bar->what, cells);
    print_amount(bar, done, total);
    print_rest(bar, done, total, seconds);
    fflush(stderr);
    bar->open = true;
}

/* The same where lines stay. */
static void log_line(struct bar *bar, double done, double total, double now) {
    fprintf(stderr, "%s: ", bar->what);
    print_amount(bar, done, total);
    print_rest(bar, done, total, now - bar->start);
    fputc('\n', stderr);
    bar->drawn = now;
    bar->logged = done / total;
}

void bar_show(struct bar *bar, double done, double total) {
    double now = clock_seconds();
    if (bar->quiet) return;
    if (bar->terminal && (done >= total || now - bar->drawn >= REDRAW_SECONDS)) {
        draw(bar, done, total, now - bar->start);
        bar->drawn = now;
    }
    bool due = now - bar->drawn >= LOG_SECONDS || (done / total - bar->logged >= LOG_SHARE && now - bar->drawn >= LOG_LEAST_SECONDS);
    if (!bar->terminal && done > bar->first && done < total && due) log_line(bar, done, total, now);
    if (!bar->terminal && done >= total && !bar->ended) {
        fprintf(stderr, "%s: ", bar->what);
        print_amount(bar, done, total);
        if (bar->first == 0) fprintf(stderr, " in %.2f s", now - bar->start); /* else a part of it is not this bar's */
        fputc('\n', stderr);
        bar->ended = true;
    }
}

void bar_clear(struct bar *bar) {
    if (bar->open) fputs("\r\033[K", stderr);
    bar->open = false;
}
