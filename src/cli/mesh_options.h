/* The mesh that the options of `tessera generate` ask for. */
#ifndef TESSERA_CLI_MESH_OPTIONS_H
#define TESSERA_CLI_MESH_OPTIONS_H

#include "cli/options.h"

#define MESH_TEXT_BYTES 160

struct mesh_options {
    tessera_mesh mesh;          /* borrows stage_blocks and texts of the options */
    int *stage_blocks;          /* owned, or NULL */
    double *rank_weights;       /* owned, or NULL */
    char text[MESH_TEXT_BYTES]; /* of the ranks that make a picture: "cfg 2 x ulysses 2", "1" */
    int ranks;                  /* how many they are */
};

/* A degree as options and tessera_mesh have it, where 0 means 1. */
static inline int mesh_options_degree(int degree) {
    return degree > 0 ? degree : 1;
}

/* `values` of generate.h. ARGUMENT: a list of stages that is not one. Free with mesh_options_free
 * either way. */
tessera_status mesh_options_read(const struct option_value *values, tessera_world *world, struct mesh_options *out, tessera_error *error);
/* The predictions of a step are one, not two: --parallelism gives their ranks to the picture
 * instead. True if that changed the mesh. */
bool mesh_options_unsplit(const struct option_value *values, struct mesh_options *options);
/* Another mesh in place of the one that was read. */
void mesh_options_choose(struct mesh_options *options, const tessera_mesh *mesh);
/* Puts what is in force back into the values, for a picture's record. `unet`: the model is one (its
 * pipeline has one patch by default). */
void mesh_options_settle(const struct mesh_options *options, bool unet, struct option_value *values);
/* Whether a record's value of this option of generate.h only makes sense on as many ranks. */
bool mesh_options_shapes(int option);
/* Whether an option says how ranks share the work. */
bool mesh_options_given(const struct option_value *values);
void mesh_options_free(struct mesh_options *options);

#endif
