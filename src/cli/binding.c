/* See binding.h. Affinity is the process's own, so what it was at first is kept here. */
#include "cli/binding.h"

#include <dirent.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/mesh_options.h"

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

static int stage_of(const tessera_mesh *mesh, int rank) {
    int inner = mesh_options_degree(mesh->patch) * mesh_options_degree(mesh->ring) * mesh_options_degree(mesh->ulysses) *
                mesh_options_degree(mesh->tensor);
    return rank / inner % mesh_options_degree(mesh->pipefusion);
}

/* The number of a rank's processor among those of its machine; -1: they have one each. */
static int processor_of(const tessera_world *world, const char (*kernels)[KERNEL_ID_BYTES], const tessera_mesh *mesh, int processors) {
    int me = tessera_world_rank(world), stage = stage_of(mesh, me), here = 0, before = 0;
    for (int i = 0; i < tessera_world_size(world); i++) {
        if (strcmp(kernels[i], kernels[me]) != 0 || (kernels[i][0] == 0 && i != me)) continue;
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

/* Whether this process may run on every processor, of which there are several. */
static bool is_free(int *processors) {
    if (sched_getaffinity(0, sizeof state.before, &state.before) != 0) return false;
    *processors = CPU_COUNT(&state.before);
    return *processors > 1 && *processors == sysconf(_SC_NPROCESSORS_ONLN);
}

tessera_status binding_choose(tessera_world *world, const tessera_mesh *mesh, int threads, tessera_error *error) {
    static const tessera_mesh none = TESSERA_MESH;
    int processors, ranks = tessera_world_size(world);
    char mine[KERNEL_ID_BYTES] = "", kernels[ranks][KERNEL_ID_BYTES];
    binding_release();
    if (ranks == 1) return TESSERA_OK;
    kernel_id(mine);
    TRY(tessera_world_gather(world, mine, sizeof mine, kernels, error));
    if (threads > 1 || !is_free(&processors)) return TESSERA_OK;
    int number = processor_of(world, (const char(*)[KERNEL_ID_BYTES])kernels, mesh != NULL ? mesh : &none, processors);
    if (number < 0) return TESSERA_OK;
    cpu_set_t one = one_of(&state.before, number);
    bind_threads(&one);
    state.bound = true;
    return TESSERA_OK;
}

void binding_release(void) {
    if (state.bound) bind_threads(&state.before);
    state.bound = false;
}
