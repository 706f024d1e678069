/* The public API of include/tessera.h over the group of all ranks. World NULL means one
 * rank. */
#include "pipelines/world.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "comm/collectives.h"
#include "comm/stats.h"

const tessera_setting *tessera_world_settings(void) {
    return comm_settings();
}

bool tessera_world_is_launched(void) {
    return comm_is_launched();
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

tessera_status tessera_world_share(tessera_world *world, tessera_status status, void *data, size_t bytes, tessera_error *error) {
    tessera_error own = {0};
    if (error == NULL) error = &own;
    if (bytes > 0 && data == NULL) status = error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_world_share: data is NULL");
    if (tessera_world_size(world) == 1) return status;
    tessera_status begun = comm_job_begin(world->comm, error);
    if (begun != TESSERA_OK) status = begun;
    if (status == TESSERA_OK && bytes > 0) status = comm_broadcast(world->comm, 0, data, bytes, error);
    return comm_job_end(world->comm, status, error);
}

tessera_status tessera_world_gather(tessera_world *world, const void *mine, size_t bytes, void *all, tessera_error *error) {
    int ranks = tessera_world_size(world);
    if (mine == NULL || all == NULL) return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_world_gather: mine or all is NULL");
    if (ranks == 1) {
        memcpy(all, mine, bytes);
        return TESSERA_OK;
    }
    size_t *each = calloc((size_t)ranks, sizeof *each);
    if (each == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    for (int i = 0; i < ranks; i++) each[i] = bytes;
    tessera_status status = comm_all_gather(world->comm, mine, all, each, error);
    free(each);
    return status;
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
    if (peaks == NULL) return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_world_peak_memory: peaks is NULL");
    return tessera_world_gather(world, &mine, sizeof mine, peaks, error);
}

tessera_status tessera_world_finish(tessera_world *world, tessera_error *error) {
    return world != NULL ? comm_finish(world->comm, error) : TESSERA_OK;
}

void tessera_world_free(tessera_world *world) {
    if (world == NULL) return;
    comm_free(world->comm);
    free(world);
}
