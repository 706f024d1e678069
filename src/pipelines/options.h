/* The options with which a program opens a model, with all fields that this library knows, whatever
 * the program's header had. Private to this room. */
#ifndef TESSERA_PIPELINES_OPTIONS_H
#define TESSERA_PIPELINES_OPTIONS_H

#include "tessera.h"

struct model_options {
    tessera_model_options own; /* mesh points to `mesh`, loras to `loras` */
    tessera_mesh mesh;
    tessera_lora *loras; /* [own.num_loras] */
};

/* Reads and checks the program's options; NULL gives the defaults. ARGUMENT errors name the field.
 * Call model_options_free also after a failure. Even then mesh.world is the program's, if its mesh
 * can be read. */
tessera_status model_options_read(const tessera_model_options *given, struct model_options *out, tessera_error *error);
/* The program's list with all fields that this library knows, which the caller frees; paths are
 * borrowed. ARGUMENT errors name the field. */
tessera_status loras_read(const tessera_lora *given, int count, tessera_lora **out, tessera_error *error);
void model_options_free(struct model_options *options);

/* The program's mesh (NULL: one rank) with all fields that this library knows. ARGUMENT errors name
 * the field. */
tessera_status mesh_read(const tessera_mesh *given, tessera_mesh *out, tessera_error *error);

#endif
