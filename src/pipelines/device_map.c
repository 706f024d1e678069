/* See device_map.h. */
#include "pipelines/device_map.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "pipelines/map_file.h"
#include "pipelines/source.h"

enum { SCALE = 8 }; /* pixels of a latent, on a side */

static const char *const words_of_maps[] = {"auto", "balanced", "balanced_low_0", "sequential"};
static const enum placement_way ways[] = {PLACEMENT_BALANCED, PLACEMENT_BALANCED, PLACEMENT_BALANCED_LOW_0, PLACEMENT_SEQUENTIAL};
enum { WORDS = sizeof words_of_maps / sizeof *words_of_maps };

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a device map");
}

/* ---- what there is to place ---- */

static tessera_status weigh_denoiser(struct tessera_map *map, const struct component *c, tessera_error *error) {
    map->block_bytes = calloc((size_t)c->num_blocks + 1, sizeof *map->block_bytes);
    map->block_windows = calloc((size_t)c->num_blocks + 1, sizeof *map->block_windows);
    if (map->block_bytes == NULL || map->block_windows == NULL) return out_of_memory(error);
    int last = c->num_blocks - 1;
    for (int segment = COMPONENT_EMBED; segment <= c->num_blocks; segment++) {
        int block = segment < 0 ? 0 : segment > last ? last : segment;
        struct placement_weight weight = offload_weigh_segment(c, segment);
        map->block_bytes[block] += weight.bytes;
        map->block_windows[block] = fmax(map->block_windows[block], weight.largest);
    }
    map->model.blocks = map->block_bytes;
    map->model.windows = map->block_windows;
    map->model.num_blocks = c->num_blocks;
    return TESSERA_OK;
}

/* A component's bytes, and the count of its numbers. */
static tessera_status weigh_component(struct tessera_map *map, const struct pipeline_slot *slot, struct placement_weight *out,
                                      tessera_error *error) {
    struct component stored, described;
    TRY(source_weigh(map->pipeline, slot, (struct load_scope){0}, &stored, error));
    *out = offload_weigh(&stored);
    map->model.loading = fmax(map->model.loading, out->largest);
    tessera_status status = stored.denoiser != NULL ? weigh_denoiser(map, &stored, error) : TESSERA_OK;
    component_close(&stored);
    TRY(status);
    TRY(source_describe(map->pipeline, slot, (struct load_scope){0}, &described, error));
    map->parameters += (double)described.weight_bytes / (double)dtype_size(map->pipeline->dtype);
    component_close(&described);
    return TESSERA_OK;
}

static tessera_status weigh_all(struct tessera_map *map, tessera_error *error) {
    const struct pipeline *p = map->pipeline;
    struct placement_weight all_blocks;
    map->model.num_encoders = map->modules.num_encoders;
    for (int i = 0; i < map->modules.num_encoders; i++)
        TRY(weigh_component(map, &p->slots[pipeline_slot_index(p, map->modules.encoders[i])], &map->model.encoders[i], error));
    TRY(weigh_component(map, &p->slots[pipeline_slot_index(p, p->denoiser)], &all_blocks, error));
    return weigh_component(map, &p->slots[pipeline_slot_index(p, p->autoencoder)], &map->model.autoencoder, error);
}

/* The stages of one picture that goes through them as a whole: each needs as much as a rank alone.
 */
static tessera_status find_needs(struct tessera_map *map, const struct plan_request *request, tessera_error *error) {
    struct offload_needs needs;
    int degrees[MESH_AXES];
    for (int axis = 0; axis < MESH_AXES; axis++) degrees[axis] = 1;
    TRY(plan_model_of(map->pipeline, request, &map->plan, error));
    TRY(offload_needs_of(map->pipeline, request, degrees, &needs, error));
    map->model.text = (double)needs.text;
    map->denoise[0] = (double)needs.denoise, map->denoise[1] = (double)needs.denoise_by_rows;
    map->decode[0] = (double)needs.decode, map->decode[1] = (double)needs.decode_by_rows;
    return TESSERA_OK;
}

static tessera_status set_rooms(struct tessera_map *map, const uint64_t *memory, tessera_error *error) {
    map->base = offload_base(memory_resident(), offload_picture_bytes(1, (double)(SCALE * map->plan.columns), (double)(SCALE * map->plan.rows)));
    map->rooms = calloc((size_t)map->ranks, sizeof *map->rooms);
    if (map->rooms == NULL) return out_of_memory(error);
    for (int r = 0; r < map->ranks; r++) map->rooms[r] = memory != NULL && memory[r] > 0 ? (double)memory[r] - map->base : INFINITY;
    return TESSERA_OK;
}

/* ---- where it goes ---- */

double device_map_need(const struct tessera_map *map, int rank) {
    return placement_need(&map->model, &map->placement, map->keep, rank) + map->base;
}

static bool fits(const struct placement_model *model, const struct placement *placement, enum placement_keep keep, const double *rooms,
                 int ranks) {
    for (int r = 0; r < ranks; r++)
        if (placement_need(model, placement, keep, r) > rooms[r]) return false;
    return true;
}

/* What may be kept, from the fastest way on, as far as it fits, each first with all rows at once;
 * the last of them in any case. */
static tessera_status choose(struct tessera_map *map, tessera_error *error) {
    bool found = false;
    for (int i = 0; i < 2 * PLACEMENT_KEEPS && !found; i++) {
        if (!map->may_keep[i / 2]) continue;
        map->keep = (enum placement_keep)(i / 2);
        map->model.denoise = map->denoise[i % 2], map->model.decode = map->decode[i % 2];
        if (!map->is_file) {
            placement_free(&map->placement);
            if (!placement_choose(&map->model, map->rooms, map->ranks, map->way, map->keep, &map->placement)) return out_of_memory(error);
        }
        found = fits(&map->model, &map->placement, map->keep, map->rooms, map->ranks);
    }
    return TESSERA_OK;
}

/* The ranks of the same units, in the form of a placement. */
static void take_ranks(struct tessera_map *map, const int *ranks) {
    const struct map_modules *m = &map->modules;
    for (int i = 0; i < m->num_encoders; i++) map->placement.encoders[i] = ranks[i];
    for (int i = 0; i < m->num_blocks; i++) map->placement.blocks[i] = ranks[map_unit_block(m, i)];
    map->placement.autoencoder = ranks[map_unit_autoencoder(m)];
}

static tessera_status read_file(struct tessera_map *map, const char *path, tessera_error *error) {
    struct json *file = NULL;
    TRY(json_open(path, 0, &file, error));
    int *ranks = calloc((size_t)map_units(&map->modules), sizeof *ranks);
    map->placement.blocks = calloc((size_t)map->modules.num_blocks, sizeof *map->placement.blocks);
    tessera_status status = ranks != NULL && map->placement.blocks != NULL ? TESSERA_OK : out_of_memory(error);
    if (status == TESSERA_OK) status = map_file_read(file, &map->modules, map->ranks, ranks, error);
    if (status == TESSERA_OK) take_ranks(map, ranks);
    free(ranks);
    json_free(file);
    return status;
}

/* Reads a word, or else a file. */
static tessera_status read_words(struct tessera_map *map, const char *words, tessera_error *error) {
    for (int i = 0; i < WORDS; i++)
        if (strcmp(words, words_of_maps[i]) == 0) {
            map->way = ways[i];
            return TESSERA_OK;
        }
    size_t length = strlen(words);
    map->is_file = length > 5 && strcmp(words + length - 5, ".json") == 0;
    if (map->is_file) return read_file(map, words, error);
    return error_set(error, TESSERA_ERROR_ARGUMENT, "device map \"%s\": it must be one of %s, or a file FILE.json", words, TESSERA_DEVICE_MAPS);
}

static tessera_status read_offload(struct tessera_map *map, const char *name, tessera_error *error) {
    enum offload asked;
    TRY(offload_read(name, &asked, error));
    map->may_keep[PLACEMENT_WHOLE] = asked == OFFLOAD_NONE || asked == OFFLOAD_AUTO;
    map->may_keep[PLACEMENT_STAGES] = asked == OFFLOAD_STAGES || asked == OFFLOAD_AUTO;
    map->may_keep[PLACEMENT_WINDOW] = asked == OFFLOAD_BLOCKS || asked == OFFLOAD_AUTO;
    return TESSERA_OK;
}

/* ---- what is where ---- */

static void add_whole(struct tessera_map *map, const char *component, int rank, double bytes) {
    map->entries[map->num_entries++] =
        (struct device_map_entry){.component = component, .first_block = -1, .last_block = -1, .rank = rank, .bytes = bytes};
}

/* A module's name without its component's. */
static void name_block(const struct tessera_map *map, int block, char out[DEVICE_MAP_NAME]) {
    char name[DEVICE_MAP_NAME];
    map_module_name(&map->modules, map_unit_block(&map->modules, block), name, sizeof name);
    const char *dot = strchr(name, '.');
    snprintf(out, DEVICE_MAP_NAME, "%s", dot != NULL ? dot + 1 : name);
}

/* The run of blocks that begins with `first`; returns where the next begins. */
static int add_run(struct tessera_map *map, int first) {
    const int *ranks = map->placement.blocks;
    struct device_map_entry *e = &map->entries[map->num_entries++];
    int end = first;
    *e = (struct device_map_entry){.component = map->modules.denoiser, .first_block = first, .rank = ranks[first]};
    for (; end < map->model.num_blocks && ranks[end] == e->rank; end++) e->bytes += map->block_bytes[end];
    e->last_block = end - 1;
    name_block(map, first, e->first);
    name_block(map, end - 1, e->last);
    return end;
}

static tessera_status list_entries(struct tessera_map *map, tessera_error *error) {
    const struct map_modules *m = &map->modules;
    map->entries = calloc((size_t)(m->num_encoders + m->num_blocks + 1), sizeof *map->entries);
    if (map->entries == NULL) return out_of_memory(error);
    for (int i = 0; i < m->num_encoders; i++) add_whole(map, m->encoders[i], map->placement.encoders[i], map->model.encoders[i].bytes);
    for (int i = 0; i < m->num_blocks;) i = add_run(map, i);
    add_whole(map, m->autoencoder, map->placement.autoencoder, map->model.autoencoder.bytes);
    return TESSERA_OK;
}

tessera_status device_map_fill(struct tessera_map *map, const struct plan_request *request, const char *words, const uint64_t *memory,
                               const char *offload, tessera_error *error) {
    TRY(read_offload(map, offload, error));
    TRY(map_modules_open(map->pipeline, &map->modules, error));
    TRY(read_words(map, words, error));
    TRY(weigh_all(map, error));
    TRY(find_needs(map, request, error));
    TRY(set_rooms(map, memory, error));
    TRY(choose(map, error));
    return list_entries(map, error);
}

void device_map_free(struct tessera_map *map) {
    if (map == NULL) return;
    plan_model_free(&map->plan);
    placement_free(&map->placement);
    map_modules_free(&map->modules);
    pipeline_free(map->pipeline);
    free(map->entries);
    free(map->block_bytes);
    free(map->block_windows);
    free(map->rooms);
    free(map);
}

/* ---- what would fit ---- */

/* The least number of ranks, above the present one, on which it fits if each has the smallest
 * rank's room; 0: none. */
static int ranks_that_fit(const struct tessera_map *map) {
    double least = INFINITY;
    for (int r = 0; r < map->ranks; r++) least = fmin(least, map->rooms[r]);
    int most = map->ranks * 8 < DEVICE_MAP_MAX_RANKS ? map->ranks * 8 : DEVICE_MAP_MAX_RANKS, found = 0;
    double *rooms = calloc((size_t)most, sizeof *rooms);
    for (int r = 0; rooms != NULL && r < most; r++) rooms[r] = least;
    for (int ranks = map->ranks + 1; rooms != NULL && ranks <= most && found == 0; ranks++) {
        struct placement p;
        if (!placement_choose(&map->model, rooms, ranks, map->way, map->keep, &p)) break;
        if (fits(&map->model, &p, map->keep, rooms, ranks)) found = ranks;
        placement_free(&p);
    }
    free(rooms);
    return found;
}

static bool window_fits(const struct tessera_map *map) {
    struct placement p;
    if (map->keep == PLACEMENT_WINDOW) return false;
    if (map->is_file) return fits(&map->model, &map->placement, PLACEMENT_WINDOW, map->rooms, map->ranks);
    if (!placement_choose(&map->model, map->rooms, map->ranks, map->way, PLACEMENT_WINDOW, &p)) return false;
    bool good = fits(&map->model, &p, PLACEMENT_WINDOW, map->rooms, map->ranks);
    placement_free(&p);
    return good;
}

static double sum_of(const struct placement_model *m) {
    double bytes = m->autoencoder.bytes;
    for (int i = 0; i < m->num_encoders; i++) bytes += m->encoders[i].bytes;
    for (int i = 0; i < m->num_blocks; i++) bytes += m->blocks[i];
    return bytes;
}

/* Would it fit with so many bytes for each number? False also if it has no more bytes now. */
static bool type_fits(const struct tessera_map *map, double bytes_of_number) {
    struct placement_model m = map->model;
    struct placement p;
    double share = bytes_of_number / (sum_of(&m) / map->parameters);
    double *blocks = calloc(2 * (size_t)m.num_blocks, sizeof *blocks), *windows = blocks + m.num_blocks;
    bool good = blocks != NULL && share < 0.95;
    for (int i = 0; good && i < m.num_blocks; i++) blocks[i] = m.blocks[i] * share, windows[i] = m.windows[i] * share;
    for (int i = 0; i < m.num_encoders; i++) m.encoders[i].bytes *= share, m.encoders[i].largest *= share;
    m.autoencoder.bytes *= share, m.autoencoder.largest *= share;
    m.blocks = blocks, m.windows = windows, m.loading *= share;
    if (good && map->is_file) good = fits(&m, &map->placement, map->keep, map->rooms, map->ranks);
    if (good && !map->is_file) {
        good = placement_choose(&m, map->rooms, map->ranks, map->way, map->keep, &p) && fits(&m, &p, map->keep, map->rooms, map->ranks);
        placement_free(&p);
    }
    free(blocks);
    return good;
}

static void list_remedies(const struct tessera_map *map, char *out, size_t capacity) {
    static const struct {
        const char *name;
        double bytes;
    } types[] = {{"q8_0", 34.0 / 32}, {"q4_0", 18.0 / 32}}; /* with their scales */
    int more = map->is_file ? 0 : ranks_that_fit(map);
    size_t used = 0;
    out[0] = 0;
    if (window_fits(map)) used += (size_t)snprintf(out, capacity, "--offload blocks");
    if (more > 0 && used < capacity) used += (size_t)snprintf(out + used, capacity - used, "%s%d ranks", used > 0 ? ", or " : "", more);
    for (size_t i = 0; i < sizeof types / sizeof *types && used < capacity; i++) {
        if (!type_fits(map, types[i].bytes)) continue;
        snprintf(out + used, capacity - used, "%sweights of type %s (tessera convert --type %s)", used > 0 ? ", or " : "", types[i].name,
                 types[i].name);
        return;
    }
    if (used == 0) snprintf(out, capacity, "a larger limit, or a smaller picture");
}

tessera_status device_map_check(const struct tessera_map *map, tessera_error *error) {
    char remedies[256];
    int worst = 0;
    double over = 0;
    for (int r = 0; r < map->ranks; r++) {
        double missing = placement_need(&map->model, &map->placement, map->keep, r) - map->rooms[r];
        if (missing > over) over = missing, worst = r;
    }
    if (over <= 0) return TESSERA_OK;
    list_remedies(map, remedies, sizeof remedies);
    return error_set(error, TESSERA_ERROR_MEMORY,
                     "the device map does not fit: rank %d needs %.2f GB of memory and may take %.2f GB, so %.2f GB are missing; what would fit: %s", worst,
                     device_map_need(map, worst) / 1e9, (map->rooms[worst] + map->base) / 1e9, over / 1e9, remedies);
}

/* ---- for a pipeline ---- */

double device_map_share(const struct tessera_map *map, const char *component, int rank) {
    double bytes = 0;
    for (int i = 0; i < map->num_entries; i++)
        if (map->entries[i].rank == rank && strcmp(map->entries[i].component, component) == 0) bytes += map->entries[i].bytes;
    return bytes;
}
