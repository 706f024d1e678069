/* See device_maps.h. */
#include "cli/device_maps.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "cli/quantity.h"

enum { HOST_BYTES = 64, TEXT_BYTES = 24 };
#define USABLE 0.9 /* of a machine's memory, as where a model is offloaded */

/* ---- lines ---- */

static void print_entry(FILE *stream, const tessera_map_entry *e) {
    char bytes[TEXT_BYTES];
    fprintf(stream, "  %-16s rank %-3d %10s", e->component, e->rank, quantity_bytes_text(e->bytes, true, bytes, sizeof bytes));
    int blocks = e->last_block - e->first_block + 1;
    if (e->first_block >= 0) fprintf(stream, "  %d block%s: %s", blocks, blocks == 1 ? "" : "s", e->first);
    if (e->first_block >= 0 && blocks > 1) fprintf(stream, " to %s", e->last);
    fputc('\n', stream);
}

static void print_rank(FILE *stream, int rank, const tessera_map_rank *r) {
    char weights[TEXT_BYTES], need[TEXT_BYTES], limit[TEXT_BYTES];
    fprintf(stream, "  rank %d holds %s of weights and needs %s of memory", rank,
            quantity_bytes_text(r->weight_bytes, true, weights, sizeof weights), quantity_bytes_text(r->need_bytes, true, need, sizeof need));
    if (r->limit_bytes > 0) fprintf(stream, " of the %s that it may take", quantity_bytes_text(r->limit_bytes, true, limit, sizeof limit));
    fputc('\n', stream);
}

void device_maps_print(FILE *stream, const tessera_map *map, const char *word) {
    tessera_map_entry entry = TESSERA_MAP_ENTRY;
    tessera_map_rank rank = TESSERA_MAP_RANK;
    fprintf(stream, "device map %s, for --offload %s:\n", word, tessera_map_offload(map));
    for (int i = 0; tessera_map_get(map, i, &entry); i++) print_entry(stream, &entry);
    for (int r = 0; tessera_map_get_rank(map, r, &rank); r++) print_rank(stream, r, &rank);
}

/* ---- JSON ---- */

static cJSON *entry_json(const tessera_map_entry *e) {
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "component", e->component);
    cJSON_AddNumberToObject(object, "rank", e->rank);
    cJSON_AddNumberToObject(object, "bytes", e->bytes);
    if (e->first_block < 0) return object;
    cJSON_AddNumberToObject(object, "first_block", e->first_block);
    cJSON_AddNumberToObject(object, "last_block", e->last_block);
    cJSON_AddStringToObject(object, "first_module", e->first);
    cJSON_AddStringToObject(object, "last_module", e->last);
    return object;
}

static cJSON *rank_json(const tessera_map_rank *r) {
    cJSON *object = cJSON_CreateObject();
    cJSON_AddNumberToObject(object, "weight_bytes", r->weight_bytes);
    cJSON_AddNumberToObject(object, "need_bytes", r->need_bytes);
    if (r->limit_bytes > 0) cJSON_AddNumberToObject(object, "limit_bytes", r->limit_bytes);
    return object;
}

cJSON *device_maps_json(const tessera_map *map) {
    tessera_map_entry entry = TESSERA_MAP_ENTRY;
    tessera_map_rank rank = TESSERA_MAP_RANK;
    char *text = tessera_map_json(map);
    cJSON *root = cJSON_CreateObject(), *modules = text != NULL ? cJSON_Parse(text) : NULL;
    free(text);
    cJSON_AddItemToObject(root, "modules", modules);
    cJSON_AddStringToObject(root, "offload", tessera_map_offload(map));
    cJSON *placed = cJSON_AddArrayToObject(root, "parts"), *ranks = cJSON_AddArrayToObject(root, "ranks");
    for (int i = 0; tessera_map_get(map, i, &entry); i++) cJSON_AddItemToArray(placed, entry_json(&entry));
    for (int r = 0; tessera_map_get_rank(map, r, &rank); r++) cJSON_AddItemToArray(ranks, rank_json(&rank));
    return root;
}

/* ---- memory ---- */

/* What each rank says of its machine. */
struct machine {
    char host[HOST_BYTES];
    uint64_t memory;
};

tessera_status device_maps_limits(tessera_world *world, uint64_t *limits, tessera_error *error) {
    int ranks = tessera_world_size(world);
    struct machine mine = {.memory = memory_total()}, *all = calloc((size_t)ranks, sizeof *all);
    gethostname(mine.host, sizeof mine.host - 1);
    tessera_status status = all != NULL ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    status = tessera_world_share(world, status, NULL, 0, error);
    if (status == TESSERA_OK) status = tessera_world_gather(world, &mine, sizeof mine, all, error);
    for (int r = 0; r < ranks && status == TESSERA_OK; r++) {
        int sharers = 0;
        for (int other = 0; other < ranks; other++) sharers += strcmp(all[other].host, all[r].host) == 0;
        if (limits[r] == 0) limits[r] = (uint64_t)((double)all[r].memory * USABLE / sharers);
    }
    free(all);
    return status;
}
