/* Key layouts: how the tensors of a checkpoint in its original layout become those of a diffusers
 * component.
 *
 * One table per family says it, row by row: {original, diffusers, how}. Names may hold "{}" for
 * numbers; a row's set says which numbers there are for a given config. A name that ends in '.'
 * stands for all that begins with it (weight and bias, or a whole sub-module). The expanded table
 * answers both ways: where a diffusers tensor lies in the original file, and what an original
 * tensor becomes, which may be several diffusers tensors, each a band of its rows (fused query, key
 * and value). Names here are those within one component: prefixes such as "model.diffusion_model."
 * are taken off by the caller. */
#ifndef TESSERA_CHECKPOINT_LAYOUT_H
#define TESSERA_CHECKPOINT_LAYOUT_H

#include "base/json.h"

enum layout_kind {
    LAYOUT_SAME,     /* the original is diffusers' or transformers' own layout (CLIP-L, T5) */
    LAYOUT_UNET,     /* SD1.x, SD2.x, SDXL */
    LAYOUT_VAE,      /* the autoencoder of all families */
    LAYOUT_OPENCLIP, /* the text encoder of SD2.x, the second one of SDXL */
    LAYOUT_SDCPP,    /* the same as stable-diffusion.cpp names it */
    LAYOUT_T5,       /* llama.cpp's names */
    LAYOUT_SD3,
    LAYOUT_FLUX,
    LAYOUT_KIND_COUNT
};

/* Dimension 0 is that of the output features. */
enum layout_how {
    LAYOUT_AS_IS,
    LAYOUT_BAND,        /* rows first .. first + span of `bands` equal bands of dimension 0: a view */
    LAYOUT_SWAP_HALVES, /* the two halves of dimension 0 change places: (shift, scale) and (scale, shift) */
    LAYOUT_TRANSPOSE,
    LAYOUT_LINEAR, /* a 1x1 convolution [out, in, 1, 1] in the original is a linear layer [out, in] here: a view */
};

struct layout_change {
    enum layout_how how;
    int first, span, bands; /* of LAYOUT_BAND */
};

/* One name for another. */
struct layout_match {
    char name[192];
    struct layout_change change;
};

#define LAYOUT_MAX_MATCHES 4 /* diffusers tensors that one original tensor becomes, at most */

struct layout;

/* The table of a family, expanded for a component's config.json (block counts). UNSUPPORTED or
 * FORMAT errors name the file and the field. */
tessera_status layout_new(enum layout_kind kind, const struct json *config, struct layout **out, tessera_error *error);
/* The layout that belongs to the class in the config ("UNet2DConditionModel", ...); LAYOUT_SAME
 * where it has none of its own. */
enum layout_kind layout_kind_of(const struct json *config);
void layout_free(struct layout *layout);

/* Where the diffusers tensor `name` ("....weight") lies in the original; false if the table does
 * not have it. */
bool layout_to_original(const struct layout *layout, const char *name, struct layout_match *out);
/* What the original tensor `name` becomes; returns how many entries of `out` were filled in, 0 if
 * the table does not have it. */
int layout_to_diffusers(const struct layout *layout, const char *name, struct layout_match out[LAYOUT_MAX_MATCHES]);

/* The expanded rows, for listing. A row whose names end in '.' (or are empty) stands for all
 * tensors below them. */
struct layout_row {
    char *original, *diffusers;
    struct layout_change change;
};
int layout_count(const struct layout *layout);
const struct layout_row *layout_at(const struct layout *layout, int index);

#endif
