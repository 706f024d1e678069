/* See binding.h. Affinity is the process's own, so what it was at first is kept here. */
#include "cli/binding.h"

#include <dirent.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pipelines/world.h"

static struct {
    bool bound;
    cpu_set_t before;
} state;

static void bind_threads(const cpu_set_t *processors) {
    DIR *threads = opendir("/proc/self/task");
    struct dirent *entry;
    while (threads != NULL && (entry = readdir(threads)) != NULL)
        if (entry->d_name[0] != '.') sched_setaffinity((pid_t)strtol(entry->d_name, NULL, 10), sizeof *processors, processors);
    if (threads != NULL) closedir(threads);
}

static int degree(int given) {
    return given > 0 ? given : 1;
}

static int stage_of(const tessera_mesh *mesh, int rank) {
    int inner = degree(mesh->patch) * degree(mesh->ring) * degree(mesh->ulysses) * degree(mesh->tensor);
    return rank / inner % degree(mesh->pipefusion);
}

/* The number of a rank's processor among those of its host; -1: they have one each. */
static int processor_of(const struct comm *comm, const tessera_mesh *mesh, int processors) {
    int me = comm_rank(comm), stage = stage_of(mesh, me), here = 0, before = 0;
    for (int i = 0; i < comm_size(comm); i++) {
        if (strcmp(comm_host(comm, i), comm_host(comm, me)) != 0) continue;
        here++;
        if (i < me && stage_of(mesh, i) == stage) before++;
    }
    return here > processors ? (before + stage) % processors : -1;
}

/* Processor `number` of a set. */
static cpu_set_t one_of(const cpu_set_t *set, int number) {
    cpu_set_t one;
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, set) && number-- == 0) CPU_SET(i, &one);
    return one;
}

void binding_choose(tessera_world *world, const tessera_mesh *mesh, int threads) {
    binding_release();
    if (tessera_world_size(world) == 1 || threads > 1) return;
    if (sched_getaffinity(0, sizeof state.before, &state.before) != 0) return;
    int processors = CPU_COUNT(&state.before);
    if (processors < 2 || processors != sysconf(_SC_NPROCESSORS_ONLN)) return;
    int mine = processor_of(world->comm, mesh, processors);
    if (mine < 0) return;
    cpu_set_t one = one_of(&state.before, mine);
    bind_threads(&one);
    state.bound = true;
}

void binding_release(void) {
    if (state.bound) bind_threads(&state.before);
    state.bound = false;
}
