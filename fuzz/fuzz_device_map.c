/* Fuzz target: a device map's file for a small Flux, over three ranks: it is refused with a
 * message, or every part has a rank. Runs in the repository root. */
#include <stdint.h>
#include <stdlib.h>

#include "pipelines/map_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RANKS = 3 };

static struct pipeline *pipeline;
static struct map_modules modules;

static void open_once(void) {
    const tessera_model_options options = TESSERA_MODEL_OPTIONS;
    if (pipeline != NULL) return;
    if (pipeline_open_described("tests/cases/pipeline_flux/model", &options, &pipeline, NULL) != TESSERA_OK) abort();
    if (map_modules_open(pipeline, &modules, NULL) != TESSERA_OK) abort();
}

static void check_ranks(const int *ranks) {
    for (int unit = 0; unit < map_units(&modules); unit++)
        if (ranks[unit] < 0 || ranks[unit] >= RANKS) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct json *file = NULL;
    tessera_error error = {0};
    open_once();
    int ranks[map_units(&modules)];
    if (json_parse("map.json", (const char *)data, size, &file, NULL) != TESSERA_OK) return 0;
    if (map_file_read(file, &modules, RANKS, ranks, &error) == TESSERA_OK)
        check_ranks(ranks);
    else if (error.message[0] == 0)
        abort();
    json_free(file);
    return 0;
}
