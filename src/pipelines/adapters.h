/* The LoRA files that a model's weights carry: the model's own, then those of the present request.
 *
 * Merged weights belong to the model, keyed by the set of files (paths, scales, and what the system
 * says of each file). If a request has another set than the one before it, the components that
 * either set changes are opened again; the others stay. A request that fails leaves nothing behind:
 * the next one finds its own set, or opens it. Private to this room. */
#ifndef TESSERA_PIPELINES_ADAPTERS_H
#define TESSERA_PIPELINES_ADAPTERS_H

#include "tessera.h"

struct pipeline;

struct adapters {
    tessera_lora *own; /* [num_own], the model's; paths owned */
    int num_own;
    char *key; /* of p->loras */
};

/* Fills p->adapters and p->loras from the model's options. */
tessera_status adapters_open(struct pipeline *p, const tessera_lora *loras, int count, tessera_error *error);
/* Makes components open with the model's files and then the request's. Errors are those of
 * tessera_model_open for a LoRA. */
tessera_status adapters_use(struct pipeline *p, const tessera_request *request, tessera_error *error);
void adapters_free(struct pipeline *p);

#endif
