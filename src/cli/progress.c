/* Progress on stderr and the flag that Ctrl-C sets; see progress.h.
 *
 * The flag is this program's one variable of static storage: a signal handler can reach nothing else. */
#include "cli/progress.h"

#include <signal.h>
#include <string.h>

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
    const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction before;
        bool ignored = sigaction(signals[i], NULL, &before) == 0 && before.sa_handler == SIG_IGN;
        if (signals[i] == SIGHUP && ignored)
            continue; /* nohup; SIGINT is ignored by each background job of a script, which may mean to send it */
        sigaction(signals[i], &action, NULL);
    }
}

int progress_signal(void) {
    return stop_signal;
}

void progress_init(struct progress *progress, bool quiet) {
    *progress = (struct progress){.bar = bar_start("work", BAR_COUNT, quiet), .phase = -1};
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

bool progress_report(void *user, tessera_phase phase, int done, int total) {
    struct progress *p = user;
    if (stop_signal != 0) return false;
    if (p->phase != (int)phase || done == 0) {
        p->phase = (int)phase;
        bar_next(&p->bar, phase_name(p->phase), done); /* of several pictures, some may be done */
    }
    bar_show(&p->bar, done, total);
    return true;
}

void progress_clear(struct progress *progress) {
    bar_clear(&progress->bar);
    progress->phase = -1;
}
