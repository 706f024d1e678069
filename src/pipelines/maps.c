/* The public API of include/tessera_plan.h for device maps, over device_map.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipelines/device_map.h"
#include "pipelines/options.h"
#include "pipelines/plans.h"
#include "pipelines/sized.h"

static tessera_status open_map(struct tessera_map *map, const char *model, const tessera_model_options *options,
                               const tessera_plan_request *request, const char *words, const uint64_t *memory, tessera_error *error) {
    struct plan_request wanted;
    char *folder = NULL;
    if (map->ranks < 1 || map->ranks > DEVICE_MAP_MAX_RANKS)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "device map: %d ranks: from 1 to %d are possible", map->ranks, DEVICE_MAP_MAX_RANKS);
    TRY(plans_read_request(request, &wanted, error));
    TRY(plans_find_model(model, &folder, error));
    tessera_status status = pipeline_open_described(folder != NULL ? folder : model, options, &map->pipeline, error);
    free(folder);
    TRY(status);
    return device_map_fill(map, &wanted, words, memory, options->offload, error);
}

tessera_map *tessera_map_open(const char *model, const tessera_model_options *given, const tessera_plan_request *request, const char *words,
                              int ranks, const uint64_t *memory, tessera_error *error) {
    tessera_error own;
    struct model_options options;
    if (error == NULL) error = &own;
    *error = (tessera_error){0};
    if (model == NULL || model[0] == 0 || words == NULL) {
        error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_map_open: no model or no map is named");
        return NULL;
    }
    struct tessera_map *map = calloc(1, sizeof *map);
    if (map == NULL) {
        error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
        return NULL;
    }
    map->ranks = ranks;
    tessera_status status = model_options_read(given, &options, error);
    if (status == TESSERA_OK) status = open_map(map, model, &options.own, request, words, memory, error);
    model_options_free(&options);
    if (status == TESSERA_OK) return map;
    device_map_free(map);
    return NULL;
}

void tessera_map_free(tessera_map *map) {
    device_map_free(map);
}

tessera_status tessera_map_check(const tessera_map *map, tessera_error *error) {
    if (map == NULL) return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_map_check: map is NULL");
    return device_map_check(map, error);
}

const char *tessera_map_offload(const tessera_map *map) {
    static const char *const names[PLACEMENT_KEEPS] = {"none", "stages", "blocks"};
    return map != NULL ? names[map->keep] : "";
}

bool tessera_map_get(const tessera_map *map, int index, tessera_map_entry *out) {
    if (map == NULL || out == NULL || index < 0 || index >= map->num_entries) return false;
    const struct device_map_entry *e = &map->entries[index];
    const tessera_map_entry entry = {.component = e->component,
                                     .first = e->first,
                                     .last = e->last,
                                     .first_block = e->first_block,
                                     .last_block = e->last_block,
                                     .rank = e->rank,
                                     .bytes = e->bytes};
    return sized_write(out, &entry, sizeof entry, sizeof entry.struct_size);
}

bool tessera_map_get_rank(const tessera_map *map, int rank, tessera_map_rank *out) {
    if (map == NULL || out == NULL || rank < 0 || rank >= map->ranks) return false;
    const tessera_map_rank found = {.weight_bytes = placement_bytes(&map->model, &map->placement, rank),
                                    .need_bytes = device_map_need(map, rank),
                                    .limit_bytes = isfinite(map->rooms[rank]) ? map->rooms[rank] + map->base : 0};
    return sized_write(out, &found, sizeof found, sizeof found.struct_size);
}

/* ---- seconds ---- */

/* Each run of blocks is a stage. */
static struct plan evaluate(const struct tessera_map *map, const struct plan_machine *machine) {
    struct plan_mesh mesh = {.patches = 1};
    struct plan_machine stages = *machine;
    int first[PLAN_MAX_BLOCKS + 1], ranks[PLAN_MAX_BLOCKS];
    for (int axis = 0; axis < MESH_AXES; axis++) mesh.degrees[axis] = 1;
    mesh.degrees[MESH_PIPEFUSION] = 0;
    for (int i = 0; i < map->num_entries; i++) {
        if (map->entries[i].first_block < 0) continue;
        ranks[mesh.degrees[MESH_PIPEFUSION]] = map->entries[i].rank;
        first[mesh.degrees[MESH_PIPEFUSION]++] = map->entries[i].first_block;
    }
    first[mesh.degrees[MESH_PIPEFUSION]] = map->model.num_blocks;
    stages.ranks = mesh.degrees[MESH_PIPEFUSION];
    return plan_evaluate_stages(&map->plan, &stages, &mesh, first, ranks);
}

/* The rank whose blocks have most work, and its share of all. */
static double slowest_share(const struct tessera_map *map, int *rank) {
    double all = 0, most = 0;
    for (int i = 0; i < map->plan.num_blocks; i++) all += map->plan.blocks[i].work;
    for (int r = 0; r < map->ranks; r++) {
        double work = 0;
        for (int i = 0; i < map->plan.num_blocks; i++) work += map->placement.blocks[i] == r ? map->plan.blocks[i].work : 0;
        if (work > most) most = work, *rank = r;
    }
    return all > 0 ? most / all : 0;
}

/* Blocks that pass through a window: of each rank what does not fit beside what computing takes. */
static double most_read(const struct tessera_map *map, int *rank) {
    double most = 0;
    *rank = 0;
    for (int r = 0; r < map->ranks && map->keep == PLACEMENT_WINDOW; r++) {
        double bytes = device_map_share(map, map->modules.denoiser, r), over = bytes + map->model.denoise - map->rooms[r];
        if (bytes == 0 || over <= most) continue;
        most = isfinite(over) ? over : bytes;
        *rank = r;
    }
    return most;
}

tessera_status tessera_map_time(const tessera_map *map, const tessera_plan_machine *given, tessera_map_times *out, tessera_error *error) {
    struct plan_machine machine;
    int threads = 0;
    if (map == NULL || out == NULL) return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_map_time: map or times is NULL");
    TRY(plans_read_machine(given, &machine, &threads, error));
    TRY(plans_measure(&map->plan, threads, &machine, error));
    struct plan plan = evaluate(map, &machine);
    tessera_map_times times = {.picture_seconds = plan.picture_seconds,
                               .step_seconds = plan.step_seconds,
                               .text_seconds = plan.text_seconds,
                               .decode_seconds = plan.decode_seconds,
                               .message_seconds = plan.latency_seconds + plan.bandwidth_seconds};
    times.slowest_seconds = plan.compute_seconds * slowest_share(map, &times.slowest_rank);
    times.disk_bytes = most_read(map, &times.disk_rank);
    if (sized_write(out, &times, sizeof times, sizeof times.struct_size)) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_ARGUMENT, "times: struct_size is not set: begin with TESSERA_MAP_TIMES");
}

char *tessera_map_json(const tessera_map *map) {
    if (map == NULL) return NULL;
    const struct map_modules *m = &map->modules;
    int *ranks = calloc((size_t)map_units(m), sizeof *ranks);
    if (ranks == NULL) return NULL;
    for (int i = 0; i < m->num_encoders; i++) ranks[i] = map->placement.encoders[i];
    ranks[map_unit_autoencoder(m)] = map->placement.autoencoder;
    for (int i = 0; i < m->num_blocks; i++) ranks[map_unit_block(m, i)] = map->placement.blocks[i];
    ranks[map_unit_embed(m)] = map->placement.blocks[0];
    ranks[map_unit_finish(m)] = map->placement.blocks[m->num_blocks - 1];
    char *text = map_modules_json(m, ranks);
    free(ranks);
    return text;
}
