/* What a layout table is made of: shared by layout.c (which expands tables and looks names up) and
 * layout_*.c (the tables). */
#ifndef TESSERA_CHECKPOINT_LAYOUT_TABLE_H
#define TESSERA_CHECKPOINT_LAYOUT_TABLE_H

#include "checkpoint/layout.h"

#define LAYOUT_MAX_LEVELS 16
#define LAYOUT_MAX_NUMBERS 2 /* of "{}" in one name */

/* The counts of a config that the sets need. */
struct layout_size {
    int levels, layers;                     /* of a U-Net or autoencoder: resolutions, layers_per_block */
    bool down_attention[LAYOUT_MAX_LEVELS]; /* does down_blocks[i] hold transformers? */
    bool up_attention[LAYOUT_MAX_LEVELS];
    int blocks, single_blocks; /* of a transformer */
};

/* The k-th pair of numbers of a set; false behind the last. */
typedef bool layout_set(const struct layout_size *size, int k, int original[LAYOUT_MAX_NUMBERS], int diffusers[LAYOUT_MAX_NUMBERS]);

struct layout_line {
    layout_set *set; /* NULL: the names hold no numbers */
    const char *original, *diffusers;
    struct layout_change change;
};

struct layout_table {
    const struct layout_line *lines;
    int count;
    tessera_status (*read_size)(const struct json *config, struct layout_size *size, tessera_error *error); /* NULL: no counts */
};

extern const struct layout_table layout_table_unet, layout_table_vae, layout_table_openclip, layout_table_sdcpp,
    layout_table_t5, layout_table_sd3, layout_table_flux;

/* One number on both sides, from 0: blocks of a transformer. */
bool layout_each_block(const struct layout_size *size, int k, int original[], int diffusers[]);
/* Reads the field `name` (at least 1, at most 1024) into *out. */
tessera_status layout_read_count(const struct json *config, const char *name, int fallback, int *out, tessera_error *error);

/* Band `first` .. `first + span` of `bands`. */
#define BAND(first, span, bands)                                                                                                           \
    { LAYOUT_BAND, first, span, bands }
#define SWAPPED                                                                                                                            \
    { LAYOUT_SWAP_HALVES, 0, 0, 0 }
#define TRANSPOSED                                                                                                                         \
    { LAYOUT_TRANSPOSE, 0, 0, 0 }
#define LINEAR                                                                                                                             \
    { LAYOUT_LINEAR, 0, 0, 0 }
#define SAME                                                                                                                               \
    { LAYOUT_AS_IS, 0, 0, 0 }

#define LAYOUT_TABLE(lines, read_size)                                                                                                     \
    { lines, (int)(sizeof(lines) / sizeof(lines)[0]), read_size }

#endif
