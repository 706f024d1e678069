/* See offload.h. */
#include "pipelines/offload.h"

#include <string.h>

#include "base/clock.h"
#include "pipelines/pipeline.h"

static const char *const names[] = {[OFFLOAD_NONE] = "none", [OFFLOAD_STAGES] = "stages"};
enum { NAMES = sizeof names / sizeof *names };

static int place_of(const char *name) {
    for (int i = 0; i < NAMES; i++)
        if (strcmp(name, names[i]) == 0) return i;
    return -1;
}

static bool is_auto(const char *name) {
    return name == NULL || strcmp(name, "auto") == 0;
}

tessera_status offload_check(const char *name, tessera_error *error) {
    if (is_auto(name) || place_of(name) >= 0) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_ARGUMENT, "offload: \"%s\": it must be one of %s", name, TESSERA_OFFLOADS);
}

/* All that is opened stays as long as it takes less than half of the machine's memory: pictures and other programs need the rest. */
static enum offload fastest(const struct pipeline *p) {
    size_t bytes = 0;
    for (int i = 0; i < p->num_slots; i++) bytes += p->slots[i].bytes;
    return bytes < memory_total() / 2 / (size_t)team_local_ranks(&p->team) ? OFFLOAD_NONE : OFFLOAD_STAGES;
}

tessera_status offload_choose(struct pipeline *p, const char *name, tessera_error *error) {
    TRY(offload_check(name, error));
    int choice = is_auto(name) ? (int)fastest(p) : place_of(name);
    TRY(team_greatest(&p->team, &choice, error));
    p->offload = (enum offload)choice;
    return TESSERA_OK;
}
