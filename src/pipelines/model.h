/* The public handle of a model: a pipeline, and whether a call is using it. Private to this room.
 */
#ifndef TESSERA_PIPELINES_MODEL_H
#define TESSERA_PIPELINES_MODEL_H

#include <stdatomic.h>

#include "pipelines/pipeline.h"

struct tessera_model {
    struct pipeline *pipeline;
    atomic_int state; /* of tessera.c */
};

/* Takes the handle for one call of this name; ARGUMENT if another call has it. */
tessera_status model_enter(tessera_model *model, const char *call, tessera_error *error);
/* Ends the call; frees the model if the program has freed it meanwhile. */
void model_leave(tessera_model *model);

#endif
