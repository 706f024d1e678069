/* The shape of AMX's eight tiles, as the instruction ldtilecfg reads it (Intel's Software
 * Developer's Manual, LDTILECFG). */
#ifndef TESSERA_BACKEND_CPU_TILES_H
#define TESSERA_BACKEND_CPU_TILES_H

#include <assert.h>
#include <stdint.h>

struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};
static_assert(sizeof(struct tile_config) == 64, "ldtilecfg reads 64 bytes");

/* Every tile as large as it can be: 16 rows of 64 bytes. */
static inline struct tile_config tile_config_whole(void) {
    struct tile_config config = {.palette = 1};
    for (int i = 0; i < 8; i++) config.row_bytes[i] = 64, config.rows[i] = 16;
    return config;
}

#endif
