/* The public API of include/tessera.h over the group of all ranks. A world that is NULL is that of one rank. */
#include "pipelines/world.h"

#include <stdlib.h>

#include "base/clock.h"
#include "comm/collectives.h"
#include "comm/stats.h"

const tessera_setting *tessera_world_settings(void) {
    return comm_settings();
}

tessera_world *tessera_world_open(tessera_error *error) {
    tessera_error own;
    if (error == NULL) error = &own;
    tessera_world *world = calloc(1, sizeof *world);
    if (world == NULL) {
        error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
        return NULL;
    }
    if (comm_world_open(NULL, &world->comm, error) == TESSERA_OK) return world;
    free(world);
    return NULL;
}

int tessera_world_rank(const tessera_world *world) {
    return world != NULL ? comm_rank(world->comm) : 0;
}

int tessera_world_size(const tessera_world *world) {
    return world != NULL ? comm_size(world->comm) : 1;
}

tessera_status tessera_world_check_same(tessera_world *world, const char *what, const char *text, tessera_error *error) {
    if (what == NULL || text == NULL)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_world_check_same: what or text is NULL");
    return world != NULL ? comm_check_same(world->comm, what, text, error) : TESSERA_OK;
}

void tessera_world_abort(tessera_world *world, const tessera_error *error) {
    static const tessera_error unknown = {TESSERA_ERROR_INTERNAL, "this rank gave up and did not say why"};
    if (world != NULL) comm_abort(world->comm, error != NULL ? error : &unknown);
}

bool tessera_world_failed(tessera_world *world) {
    return world != NULL && comm_world_failed(world->comm);
}

tessera_status tessera_world_print_stats(tessera_world *world, void *stream, tessera_error *error) {
    if (stream == NULL) return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_world_print_stats: stream is NULL");
    return world != NULL ? comm_stats_print(world->comm, stream, error) : TESSERA_OK;
}

tessera_status tessera_world_peak_memory(tessera_world *world, uint64_t *peaks, tessera_error *error) {
    uint64_t mine = memory_peak_resident();
    int ranks = tessera_world_size(world);
    if (peaks == NULL) return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_world_peak_memory: peaks is NULL");
    peaks[0] = mine;
    if (ranks == 1) return TESSERA_OK;
    size_t *bytes = calloc((size_t)ranks, sizeof *bytes);
    if (bytes == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    for (int i = 0; i < ranks; i++) bytes[i] = sizeof mine;
    tessera_status status = comm_all_gather(world->comm, &mine, peaks, bytes, error);
    free(bytes);
    return status;
}

tessera_status tessera_world_finish(tessera_world *world, tessera_error *error) {
    return world != NULL ? comm_finish(world->comm, error) : TESSERA_OK;
}

void tessera_world_free(tessera_world *world) {
    if (world == NULL) return;
    comm_free(world->comm);
    free(world);
}
