/* What the launcher says of this process, and how a process that failed ends its launch. */
#include "comm/comm.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Milliseconds that a rank leaves to the one that says what is wrong, and then to those of lower
 * numbers. */
enum { RECOVERY_WAIT = 2000, RECOVERY_TURN = 200, RECOVERY_TURNS = 20, RECOVERY_FAREWELL = 2000 };

/* What a launcher says of this process's rank; NULL without one. */
static const char *launched_rank(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *rank = getenv(names[i]);
        if (rank != NULL) return rank;
    }
    return NULL;
}

int comm_launched_rank(void) {
    const char *rank = launched_rank();
    return rank != NULL ? atoi(rank) : 0;
}

/* Whether the parent of this process is a launcher of Open MPI. */
static bool parent_launches(void) {
    static const char *const names[] = {"mpirun", "mpiexec", "orterun", "orted"};
    char path[48], name[32] = "";
    snprintf(path, sizeof path, "/proc/%ld/comm", (long)getppid());
    FILE *stream = fopen(path, "r");
    if (stream == NULL) return false;
    if (fgets(name, sizeof name, stream) != NULL) name[strcspn(name, "\n")] = 0;
    fclose(stream);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) return true;
    return false;
}

bool comm_is_launched(void) {
    return launched_rank() != NULL;
}

static sigset_t launcher_signals(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCONT);
    return set;
}

void comm_begin_launch(void) {
    sigset_t set = launcher_signals();
    if (comm_is_launched()) pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/* Whether a signal comes within so many milliseconds, or came before and is pending. */
static bool signalled_within(int milliseconds) {
    sigset_t set = launcher_signals();
    return sigtimedwait(&set, NULL, &(struct timespec){milliseconds / 1000, milliseconds % 1000 * 1000000L}) >= 0 || errno != EAGAIN;
}

/* Open MPI 4.1's launcher, when it gets SIGTERM, sends its ranks SIGCONT, and SIGTERM and SIGKILL a
 * second later. Another signal meanwhile ends it before it has removed its files: so whoever got
 * SIGCONT does not send one. It crashes more often where ranks go by themselves meanwhile. */
void comm_end_launch(void) {
    const char *recovery = getenv("OMPI_MCA_orte_enable_recovery");
    int rank = comm_launched_rank();
    if (!comm_is_launched() || recovery == NULL || strcmp(recovery, "0") == 0) return;
    bool continued = signalled_within(0); /* by the launcher, or long ago by somebody else */
    int wait = rank > 0 ? RECOVERY_WAIT + RECOVERY_TURN * ((rank - 1) % RECOVERY_TURNS) : continued ? RECOVERY_WAIT : 0;
    if (signalled_within(wait) || (parent_launches() && kill(getppid(), SIGTERM) == 0))
        nanosleep(&(struct timespec){RECOVERY_FAREWELL / 1000, 0}, NULL);
}
