/* Device maps: the components and blocks of a pipeline on the ranks of a world, each rank with a
 * memory limit. By words (parallel/placement.h) or by a file (map_file.h). Weights are not needed:
 * configs tell what a model holds. If its weight files are there, their types count. Private to
 * this room; include/tessera_plan.h has the public face. */
#ifndef TESSERA_PIPELINES_DEVICE_MAP_H
#define TESSERA_PIPELINES_DEVICE_MAP_H

#include "parallel/placement.h"
#include "pipelines/map_modules.h"
#include "pipelines/plan_model.h"
#include "tessera_plan.h"

enum { DEVICE_MAP_MAX_RANKS = 1024 };

struct tessera_map {
    struct pipeline *pipeline; /* described; owned, as is all that follows */
    struct map_modules modules;
    struct placement_model model;
    double *block_bytes, *block_windows; /* [num_blocks] each */
    double denoise[2], decode[2];        /* bytes that these need with all rows at once, and with some at a time (offload.h) */
    double parameters;      /* numbers in all weights */
    struct placement placement;
    bool is_file;
    enum placement_way way;   /* unless is_file */
    enum placement_keep keep; /* with which it fits; otherwise the permitted one that needs least */
    bool may_keep[PLACEMENT_KEEPS];
    int ranks;
    double *rooms; /* [ranks] bytes; INFINITY: no limit */
    double base;   /* bytes that a process takes for itself */
    struct plan_model plan;           /* for predicted seconds */
    struct device_map_entry *entries; /* [num_entries] */
    int num_entries;
};

enum { DEVICE_MAP_NAME = 192 };

/* A component, or neighbouring blocks, on one rank. */
struct device_map_entry {
    const char *component;
    char first[DEVICE_MAP_NAME], last[DEVICE_MAP_NAME]; /* modules, without their component's name; "" of one placed whole */
    int first_block, last_block, rank;                  /* -1, -1 of one placed whole */
    double bytes;
};

/* memory: [ranks] bytes, 0 without limit; or NULL. `offload` as in tessera_model_options. */
tessera_status device_map_fill(struct tessera_map *map, const struct plan_request *request, const char *words, const uint64_t *memory,
                               const char *offload, tessera_error *error);
void device_map_free(struct tessera_map *map); /* NULL is allowed */

/* The bytes that rank r needs at most, minus those that it may take: above 0 it does not fit. */
double device_map_need(const struct tessera_map *map, int rank);
/* MEMORY if a rank needs more than it may take. The message says by how much, and what would fit.
 */
tessera_status device_map_check(const struct tessera_map *map, tessera_error *error);

/* Bytes of a component's weights on a rank. */
double device_map_share(const struct tessera_map *map, const char *component, int rank);

#endif
