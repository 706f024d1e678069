/* The LoRA files that a model's weights carry: the model's own, and after them those of the request at work.
 *
 * Merged weights belong to the model, keyed by the set of files (paths, scales, and what the system says of each file). A request with another
 * set than the one before it has the components that either set changes opened anew; the others stay. A request that fails leaves nothing:
 * the next one finds its own set, or brings it. Private to this room. */
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
/* Sees to it that components are opened with the model's files and then the request's. Errors as tessera_model_open's for a LoRA. */
tessera_status adapters_use(struct pipeline *p, const tessera_request *request, tessera_error *error);
void adapters_free(struct pipeline *p);

#endif
