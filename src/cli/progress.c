/* Progress on stderr and the flag that Ctrl-C sets; see progress.h.
 *
 * The flag is this program's one variable of static storage: a signal handler can reach nothing else. */
#include "cli/progress.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/clock.h"

#define BAR_WIDTH 24

static volatile sig_atomic_t stop_signal;

static void on_signal(int number) {
    stop_signal = number;
}

void progress_catch_signals(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = (int)SA_RESETHAND; /* the second one finds the default action */
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

int progress_signal(void) {
    return stop_signal;
}

void progress_init(struct progress *progress, bool quiet) {
    *progress = (struct progress){.quiet = quiet, .terminal = isatty(STDERR_FILENO) == 1, .phase = -1};
}

static const char *phase_name(int phase) {
    switch (phase) {
    case TESSERA_PHASE_TEXT:
        return "text";
    case TESSERA_PHASE_ENCODE:
        return "encode";
    case TESSERA_PHASE_DENOISE:
        return "denoise";
    case TESSERA_PHASE_DECODE:
        return "decode";
    default:
        return "work";
    }
}

static void draw_bar(struct progress *p, int done, int total, double seconds) {
    char bar[BAR_WIDTH + 1];
    int filled = total > 0 ? (int)((long)BAR_WIDTH * done / total) : 0;
    for (int i = 0; i < BAR_WIDTH; i++) bar[i] = i < filled ? '#' : '.';
    bar[BAR_WIDTH] = 0;
    fprintf(stderr, "\r\033[K%-8s [%s] %d/%d", phase_name(p->phase), bar, done, total);
    if (done > 0) fprintf(stderr, "  %.2f s a step, %.0f s left", seconds / done, seconds / done * (total - done));
    fflush(stderr);
    p->line_open = true;
}

bool progress_report(void *user, tessera_phase phase, int done, int total) {
    struct progress *p = user;
    if (stop_signal != 0) return false;
    if (p->quiet) return true;
    double now = clock_seconds();
    if (p->phase != (int)phase || done == 0) {
        p->phase = (int)phase;
        p->phase_start = now;
    }
    if (p->terminal)
        draw_bar(p, done, total, now - p->phase_start);
    else if (done == total)
        fprintf(stderr, "%s: %d of %d done in %.2f s\n", phase_name(p->phase), done, total, now - p->phase_start);
    return true;
}

void progress_clear(struct progress *progress) {
    if (progress->line_open) fputs("\r\033[K", stderr);
    progress->line_open = false;
    progress->phase = -1;
}
