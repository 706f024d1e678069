/* Device maps by words and from files, for models of every family: all components and blocks are
 * placed, a map that is written is read back the same, limits are kept or what is missing is said,
 * and files that do not fit the model are refused with the file and the entry. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "check.h"
#include "pipelines/device_map.h"
#include "pipelines/placed.h"

static const char *const models[] = {
    "tests/cases/pipeline_sd15/model",   "tests/cases/pipeline_sdxl/model",         "tests/cases/pipeline_sd3/model",
    "tests/cases/pipeline_flux/model",   "tests/cases/pipeline_flux_control/model", "tests/cases/pipeline_pixart/model",
    "tests/cases/pipeline_pixart_alpha/model", "tests/cases/pipeline_hunyuandit/model",   "models/emoji",
};
static const char *const words[] = {"auto", "balanced", "balanced_low_0", "sequential"};
static const char flux[] = "tests/cases/pipeline_flux/model";

static char path[64];

static tessera_plan_request small(void) {
    tessera_plan_request r = TESSERA_PLAN_REQUEST;
    r.width = r.height = 64;
    return r;
}

static tessera_map *opened(const char *model, const char *word, int ranks, const uint64_t *memory, const char *offload, tessera_error *error) {
    tessera_model_options options = TESSERA_MODEL_OPTIONS;
    tessera_plan_request request = small();
    options.offload = offload;
    return tessera_map_open(model, &options, &request, word, ranks, memory, error);
}

static void write_map(const char *text) {
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0, "%s", path);
}

/* ---- words ---- */

/* Every block is in one entry, in their order; the bytes of entries and of ranks are the same. */
static void check_entries(const char *model, const char *word, const tessera_map *map, int ranks) {
    tessera_map_entry e = TESSERA_MAP_ENTRY;
    tessera_map_rank rank = TESSERA_MAP_RANK;
    double bytes = 0, of_ranks = 0;
    int next = 0;
    for (int i = 0; tessera_map_get(map, i, &e); i++) {
        CHECK(e.rank >= 0 && e.rank < ranks && e.bytes > 0, "%s, %s: %s on rank %d, %g bytes", model, word, e.component, e.rank, e.bytes);
        bytes += e.bytes;
        if (e.first_block < 0) continue;
        CHECK(e.first_block == next && e.last_block >= next && e.first[0] != 0, "%s, %s: blocks %d to %d, \"%s\"", model, word, e.first_block,
              e.last_block, e.first);
        next = e.last_block + 1;
    }
    CHECK(next == map->model.num_blocks, "%s, %s: %d of %d blocks", model, word, next, map->model.num_blocks);
    for (int r = 0; tessera_map_get_rank(map, r, &rank); r++) of_ranks += rank.weight_bytes;
    CHECK(fabs(bytes - of_ranks) < 1, "%s, %s: %g bytes in entries, %g on ranks", model, word, bytes, of_ranks);
}

static void check_written(const char *model, const char *word, const tessera_map *map, int ranks) {
    tessera_error error = {0};
    char *text = tessera_map_json(map);
    write_map(text != NULL ? text : "");
    tessera_map *again = opened(model, path, ranks, NULL, NULL, &error);
    CHECK(again != NULL, "%s, %s: %s in\n%s", model, word, error.message, text);
    if (again != NULL) {
        bool same = memcmp(again->placement.encoders, map->placement.encoders, sizeof map->placement.encoders) == 0 &&
                    again->placement.autoencoder == map->placement.autoencoder &&
                    memcmp(again->placement.blocks, map->placement.blocks, (size_t)map->model.num_blocks * sizeof(int)) == 0;
        CHECK(same, "%s, %s: another map is read from\n%s", model, word, text);
    }
    tessera_map_free(again);
    free(text);
}

static void test_words(void) {
    for (size_t m = 0; m < sizeof models / sizeof *models; m++)
        for (size_t w = 0; w < sizeof words / sizeof *words; w++)
            for (int ranks = 1; ranks <= 3; ranks++) {
                tessera_error error = {0};
                tessera_map *map = opened(models[m], words[w], ranks, NULL, NULL, &error);
                CHECK(map != NULL, "%s, %s: %s", models[m], words[w], error.message);
                if (map == NULL) continue;
                check_entries(models[m], words[w], map, ranks);
                check_written(models[m], words[w], map, ranks);
                CHECK(strcmp(tessera_map_offload(map), "none") == 0, "%s, %s: without limits %s", models[m], words[w], tessera_map_offload(map));
                CHECK(tessera_map_check(map, &error) == TESSERA_OK, "%s, %s: %s", models[m], words[w], error.message);
                tessera_map_free(map);
            }
}

/* ---- limits ---- */

static void test_limits(void) {
    static const uint64_t tiny[2] = {1 << 20, 1 << 20}, enough[2] = {1ull << 32, 1ull << 32};
    tessera_error error = {0};
    tessera_map *map = opened(flux, "auto", 2, enough, NULL, &error);
    CHECK(map != NULL && tessera_map_check(map, &error) == TESSERA_OK, "%s", error.message);
    CHECK(map != NULL && strcmp(tessera_map_offload(map), "none") == 0, "two ranks hold all of it: %s", tessera_map_offload(map));
    tessera_map_free(map);
    map = opened(flux, "auto", 2, tiny, NULL, &error);
    tessera_status status = map != NULL ? tessera_map_check(map, &error) : TESSERA_OK;
    CHECK(status == TESSERA_ERROR_MEMORY && strstr(error.message, "are missing; what would fit: ") != NULL, "%s", error.message);
    CHECK(map != NULL && strcmp(tessera_map_offload(map), "blocks") == 0, "nothing fits, and blocks need least: %s", tessera_map_offload(map));
    tessera_map_free(map);
    CHECK(opened(flux, "some", 2, NULL, NULL, &error) == NULL && strstr(error.message, "auto|balanced|") != NULL, "%s", error.message);
    CHECK(opened(flux, "auto", 0, NULL, NULL, &error) == NULL && error.status == TESSERA_ERROR_ARGUMENT, "%s", error.message);
    CHECK(opened(flux, "missing.json", 2, NULL, NULL, &error) == NULL && strstr(error.message, "missing.json") != NULL, "%s", error.message);
}

/* The way that a map of Flux's full size is for, on ranks of so many bytes. */
static void check_way(int ranks, uint64_t bytes, const char *want) {
    const uint64_t memory[2] = {bytes, bytes};
    tessera_error error = {0};
    tessera_map *map = opened("flux-dev", "auto", ranks, memory, NULL, &error);
    CHECK(map != NULL && tessera_map_check(map, &error) == TESSERA_OK, "%d ranks of %g bytes: %s", ranks, (double)bytes, error.message);
    CHECK(map != NULL && strcmp(tessera_map_offload(map), want) == 0, "%d ranks of %g bytes: %s, not %s", ranks, (double)bytes,
          tessera_map_offload(map), want);
    tessera_map_free(map);
}

/* Of Flux's full size, by its configs: what of 16 GB ranks hold, and what helps where it does not
 * fit. */
static void test_published(void) {
    static const uint64_t large[2] = {16000000000u, 16000000000u}, small_limits[2] = {9ull << 30, 9ull << 30};
    tessera_error error = {0};
    tessera_map *map = opened("flux-dev", "auto", 2, large, NULL, &error);
    tessera_map_rank rank = TESSERA_MAP_RANK;
    CHECK(map != NULL, "%s", error.message);
    if (map == NULL) return;
    CHECK(strcmp(tessera_map_offload(map), "stages") == 0 && tessera_map_check(map, &error) == TESSERA_OK, "%s: %s", tessera_map_offload(map),
          error.message);
    for (int r = 0; tessera_map_get_rank(map, r, &rank); r++)
        CHECK(rank.need_bytes < 16e9 && rank.need_bytes > 11e9, "rank %d needs %g", r, rank.need_bytes);
    tessera_map_free(map);
    check_way(1, 24000000000u, "blocks"); /* 34 GB in all, 24 of them the denoiser's */
    check_way(2, 24000000000u, "none");
    map = opened("flux-dev", "auto", 2, small_limits, "stages", &error);
    tessera_status status = map != NULL ? tessera_map_check(map, &error) : TESSERA_OK;
    CHECK(status == TESSERA_ERROR_MEMORY && strstr(error.message, "rank 1 needs 1") != NULL && strstr(error.message, "what would fit: --offload blocks, or weights of type q8_0") != NULL, "%s", error.message);
    tessera_map_free(map);
    map = opened("flux-dev", "auto", 2, small_limits, NULL, &error);
    CHECK(map != NULL && strcmp(tessera_map_offload(map), "blocks") == 0 && tessera_map_check(map, &error) == TESSERA_OK, "%s", error.message);
    tessera_map_times times = TESSERA_MAP_TIMES;
    tessera_plan_machine machine = TESSERA_PLAN_MACHINE;
    machine.operations = 1e12;
    CHECK(map != NULL && tessera_map_time(map, &machine, &times, &error) == TESSERA_OK, "%s", error.message);
    CHECK(times.picture_seconds > times.step_seconds && times.step_seconds > times.slowest_seconds && times.slowest_seconds > 0 &&
              times.message_seconds > 0 && times.disk_bytes > 1e9,
          "%g s, a step %g s, slowest %g s, messages %g s, %g bytes", times.picture_seconds, times.step_seconds, times.slowest_seconds,
          times.message_seconds, times.disk_bytes);
    tessera_map_free(map);
}

/* ---- numbers by hand ---- */

#define GB 1e9

/* Six blocks of 4 GB and an autoencoder of 1 GB, in numbers of 2 bytes; computing takes 1 GB beside
 * them. */
static const double blocks_by_hand[6] = {4 * GB, 4 * GB, 4 * GB, 4 * GB, 4 * GB, 4 * GB};
static const struct placement_model by_hand = {.num_blocks = 6,
                                               .blocks = blocks_by_hand,
                                               .windows = blocks_by_hand,
                                               .autoencoder = {1 * GB, 1 * GB},
                                               .denoise = 1 * GB,
                                               .decode = 1 * GB};

static void check_message(const tessera_map *map, const char *want) {
    tessera_error error = {0};
    CHECK(device_map_check(map, &error) == TESSERA_ERROR_MEMORY && strstr(error.message, want) != NULL, "\"%s\" is not in: %s", want,
          error.message);
}

/* The worst rank is named, and the least that would fit, at the byte where it does. */
static void test_remedies(void) {
    int halves[6] = {0, 0, 0, 1, 1, 1};
    double rooms[2] = {6 * GB, 12 * GB};
    tessera_map map = {.model = by_hand,
                       .placement = {.blocks = halves},
                       .keep = PLACEMENT_STAGES,
                       .ranks = 2,
                       .rooms = rooms,
                       .base = 2 * GB,
                       .parameters = 12.5 * GB};
    map.model.loading = 1 * GB; /* beside 12 GB of blocks and what computing takes */
    check_message(
        &map, "rank 0 needs 16.00 GB of memory and may take 8.00 GB, so 8.00 GB are missing; what would fit: --offload blocks, or 6 ranks, "
              "or weights of type q8_0 (");
    rooms[0] -= 1;
    check_message(&map, "--offload blocks, or weights of type q8_0 (");
    map.is_file = true;
    check_message(&map, "fit: --offload blocks, or weights of type q4_0 ("); /* its cut stays: 12 GB become 6.4 and 3.4 */
    map.keep = PLACEMENT_WINDOW, rooms[0] = rooms[1] = 4 * GB;
    check_message(&map,
                  "rank 0 needs 7.00 GB of memory and may take 6.00 GB, so 1.00 GB are missing; what would fit: weights of type q8_0 (");
    rooms[0] = rooms[1] = 1.5 * GB;
    check_message(&map, "what would fit: a larger limit, or a smaller picture");
}

/* What of a model as it is stored goes into a placement: files of float32 computed with in bfloat16. */
static void test_weights(void) {
    static const uint64_t memory[2] = {(uint64_t)100 << 30, 1};
    tessera_error error = {0};
    tessera_model_options options = TESSERA_MODEL_OPTIONS;
    tessera_plan_request request = small(), large = small();
    options.dtype = TESSERA_BF16;
    large.width = large.height = 2048;
    tessera_map *map = tessera_map_open(flux, &options, &request, "auto", 2, memory, &error);
    double resident = (double)memory_resident();
    options.dtype = TESSERA_F32;
    tessera_map *full = tessera_map_open(flux, &options, &large, "auto", 2, NULL, &error);
    double resident_full = (double)memory_resident();
    CHECK(map != NULL && full != NULL, "%s", error.message);
    if (map == NULL || full == NULL) return;
    const struct placement_model *m = &map->model;
    int last = m->num_blocks - 1;
    double most = fmax(m->encoders[0].largest, fmax(m->encoders[1].largest, m->autoencoder.largest));
    for (int i = 0; i <= last; i++) {
        CHECK(m->blocks[i] == full->model.blocks[i], "block %d: %g as stored, %g", i, m->blocks[i], full->model.blocks[i]);
        most = fmax(most, m->windows[i]);
    }
    CHECK(m->blocks[0] > m->blocks[1] && m->blocks[last] > m->blocks[last - 1], "what is before and behind blocks: %g, %g .. %g, %g",
          m->blocks[0], m->blocks[1], m->blocks[last - 1], m->blocks[last]);
    CHECK(m->windows[1] > m->blocks[1], "a block on its way has %g and what is converted, not %g", m->blocks[1], m->windows[1]);
    CHECK(m->loading == most, "the largest segment has %g, not %g", most, m->loading);
    for (int r = 0; r < 2; r++) CHECK(map->rooms[r] == (double)memory[r] - map->base, "rank %d: %g", r, map->rooms[r]);
    CHECK(fabs(map->base - resident - (double)cpu_library_bytes()) < 16e6, "%g for a process that holds %g", map->base, resident);
    CHECK(fabs(full->base - resident_full - (double)cpu_library_bytes() - 15.0 * 2048 * 2048) < 16e6,
          "%g with a large picture, for a process that holds %g", full->base, resident_full);
    tessera_map_free(map);
    tessera_map_free(full);
}

/* The last way is tried with some rows at a time, the first with all. */
static void test_rows(void) {
    static const uint64_t none[1] = {1}, enough[1] = {(uint64_t)100 << 30};
    tessera_model_options options = TESSERA_MODEL_OPTIONS;
    tessera_plan_request request = small();
    request.width = request.height = 2048;
    for (int by_rows = 0; by_rows < 2; by_rows++) {
        tessera_error error = {0};
        tessera_map *map = tessera_map_open(flux, &options, &request, "auto", 1, by_rows ? none : enough, &error);
        CHECK(map != NULL, "%s", error.message);
        if (map == NULL) return;
        CHECK(map->denoise[1] < map->denoise[0] && map->decode[1] < map->decode[0], "by rows %g of %g, %g of %g", map->denoise[1],
              map->denoise[0], map->decode[1], map->decode[0]);
        CHECK(map->model.denoise == map->denoise[by_rows] && map->model.decode == map->decode[by_rows], "%d: %g and %g", by_rows,
              map->model.denoise, map->model.decode);
        tessera_map_free(map);
    }
}

/* ---- files ---- */

/* What a file leads to on two ranks: NULL `message`: a map. */
static const struct {
    const char *text, *message;
} files[] = {
    {"{\"\": 1}", NULL},
    {"{\"text_encoder\": 0, \"text_encoder_2\": 1, \"transformer\": 1, \"vae\": 0}", NULL},
    {"{\"\": 0, \"transformer.single_transformer_blocks\": 1, \"transformer.norm_out\": 1, \"transformer.proj_out\": \"cuda:1\"}", NULL},
    {"{\"\": 0, \"vae.decoder\": 0}", NULL},
    {"{\"\": 0, \"transformer.transformer_blocks.1\": 1}", NULL},
    {"", "not JSON"},
    {"[0, 1]", "must be an object"},
    {"{}", "must be an object"},
    {"{\"\": 2}", "field \"\": 2: a device is a rank from 0 to 1"},
    {"{\"\": -1}", "field \"\": -1: a device"},
    {"{\"\": 0.5}", "field \"\": 0.5: a device"},
    {"{\"\": 0, \"vae\": 1e99}", "field \"vae\": 1e+99: a device"},
    {"{\"\": 0, \"vae\": \"mps\"}", "field \"vae\": \"mps\": a device"},
    {"{\"\": 0, \"vae\": \"cuda:7\"}", "field \"vae\": \"cuda:7\""},
    {"{\"\": 0, \"vae\": [0]}", "field \"vae\": is no device"},
    {"{\"\": 0, \"vae\": \"cpu\"}", "field \"vae\": \"cpu\": name a rank, and let --offload"},
    {"{\"\": 0, \"transformer\": \"disk\"}", "field \"transformer\": \"disk\": name a rank"},
    {"{\"\": 0, \"vae\": 0, \"vae\": 1}", "field \"vae\" is there twice"},
    {"{\"\": 0, \"unet\": 1}", "field \"unet\": this model has no such module: its components are "},
    {"{\"\": 0, \"transformer.transformer_blocks.99\": 1}", "transformer_blocks.99\": this model has no such module"},
    {"{\"text_encoder\": 0, \"transformer\": 1, \"vae\": 0}", "no entry is for \"text_encoder_2."},
    {"{\"\": 0, \"vae.decoder\": 1}", "is placed as a whole"},
    {"{\"\": 0, \"transformer.transformer_blocks.0.attn\": 1}",
     "transformer.transformer_blocks.0.attn\": rank 1, but \"\" has other modules of"},
    {"{\"\": 0, \"transformer.proj_out\": 1}", "transformer.proj_out\": rank 1, but \"\" has other modules of transformer.norm_out"},
    {"{\"\": 0, \"transformer.norm_out\": 1, \"transformer.proj_out\": 1}", "place both together"},
};

static void test_files(void) {
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        tessera_error error = {0};
        write_map(files[i].text);
        tessera_map *map = opened(flux, path, 2, NULL, NULL, &error);
        if (files[i].message == NULL)
            CHECK(map != NULL, "%s: %s", files[i].text, error.message);
        else
            CHECK(map == NULL && strstr(error.message, files[i].message) != NULL && strstr(error.message, path) != NULL, "%s: %s", files[i].text,
                  map != NULL ? "is a map" : error.message);
        tessera_map_free(map);
    }
}

/* Blocks that return to a rank: a run is an entry of its own, a rank's bytes and work are those of
 * all its runs, and what it hands to itself takes no time. */
static void test_returns(void) {
    static const char *const texts[2] = {"{\"\": 0, \"transformer.transformer_blocks.1\": 1}", /* 0 1 0 */
                                         "{\"\": 0, \"transformer.single_transformer_blocks\": 1, \"transformer.norm_out\": 1, \"transformer.proj_out\": 1}"};
    tessera_map_times times[2] = {TESSERA_MAP_TIMES, TESSERA_MAP_TIMES};
    tessera_plan_machine machine = TESSERA_PLAN_MACHINE;
    machine.ranks = 2, machine.operations = 1e15, machine.latency = 1, machine.bandwidth = 1e15;
    for (int i = 0; i < 2; i++) {
        tessera_error error = {0};
        write_map(texts[i]);
        tessera_map *map = opened(flux, path, 2, NULL, NULL, &error);
        CHECK(map != NULL, "%s: %s", texts[i], error.message);
        if (map == NULL) return;
        check_entries(flux, texts[i], map, 2);
        check_written(flux, texts[i], map, 2);
        CHECK(map->num_entries == map->modules.num_encoders + 1 + (i == 0 ? 3 : 2), "%s: %d entries", texts[i], map->num_entries);
        CHECK(device_map_share(map, "transformer", 0) + device_map_share(map, "transformer", 1) > device_map_share(map, "transformer", 0), "rank 1 has nothing");
        CHECK(tessera_map_time(map, &machine, &times[i], &error) == TESSERA_OK, "%s", error.message);
        tessera_map_free(map);
    }
    CHECK(times[0].slowest_rank == 0, "the rank with all blocks but one is not rank %d", times[0].slowest_rank);
    CHECK(times[0].message_seconds > 1.9 && times[0].message_seconds < 2.1, "two messages of a second: %g s", times[0].message_seconds);
    CHECK(times[1].message_seconds > 1.9 && times[1].message_seconds < 2.1, "one, and the latents back: %g s", times[1].message_seconds);
}

/* A map of another model, or for other ranks, is not taken. */
static void test_suits(void) {
    tessera_error error = {0};
    tessera_map *map = opened(flux, "auto", 2, NULL, NULL, &error), *other = opened(models[2], "auto", 2, NULL, NULL, &error);
    if (map == NULL || other == NULL) return;
    int blocks = map->model.num_blocks;
    CHECK(placed_suits(map, map->pipeline, blocks, 2, &error) == TESSERA_OK, "%s", error.message);
    CHECK(placed_suits(map, map->pipeline, blocks, 3, &error) == TESSERA_ERROR_ARGUMENT, "for 3 ranks");
    CHECK(placed_suits(map, other->pipeline, other->model.num_blocks, 2, &error) == TESSERA_ERROR_ARGUMENT, "for another model");
    double shares = device_map_share(map, "transformer", 0) + device_map_share(map, "transformer", 1), all = 0;
    for (int i = 0; i < blocks; i++) all += map->model.blocks[i];
    CHECK(shares == all && device_map_share(map, "vae", 1 - placed_rank(map, "vae")) == 0, "shares of %g are %g", all, shares);
    CHECK(placed_rank(map, "transformer") == -1 && placed_rank(map, "vae") >= 0, "ranks of components");
    tessera_map_free(map);
    tessera_map_free(other);
}

int main(void) {
    snprintf(path, sizeof path, "test_maps.%d.json", (int)getpid());
    test_words();
    test_limits();
    test_published();
    test_remedies();
    test_weights();
    test_rows();
    test_files();
    test_returns();
    test_suits();
    unlink(path);
    return CHECK_REPORT();
}
