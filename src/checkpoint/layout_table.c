/* What several layout tables use. */
#include "checkpoint/layout_table.h"

bool layout_each_block(const struct layout_size *size, int k, int original[], int diffusers[]) {
    original[0] = diffusers[0] = k;
    return k < size->blocks;
}

tessera_status layout_read_count(const struct json *config, const char *name, int fallback, int *out, tessera_error *error) {
    int64_t value = 0;
    TRY(json_int(config, name, fallback, 1, 1024, &value, error));
    *out = (int)value;
    return TESSERA_OK;
}
