/* How much of a model is in memory at a time.
 *
 *     none     what a request opens stays open for the next one
 *     stages   text encoders, denoiser and autoencoder: each is open while its stage works, and no two are open together
 *     blocks   the same, and of each component only a window of blocks is loaded
 *     auto     the first of these that fits the memory there is
 *
 * Every way gives the same picture to the bit. All ranks of a model take the same way. Private to this room. */
#ifndef TESSERA_PIPELINES_OFFLOAD_H
#define TESSERA_PIPELINES_OFFLOAD_H

#include "base/error.h"

struct pipeline;

enum offload { OFFLOAD_NONE, OFFLOAD_STAGES, OFFLOAD_BLOCKS };

/* ARGUMENT if `name` is none of TESSERA_OFFLOADS. NULL is "auto". */
tessera_status offload_check(const char *name, tessera_error *error);
/* Sets p->offload from a name that offload_check took, by the slots' bytes and p->memory. Collective over the model's ranks. */
tessera_status offload_choose(struct pipeline *p, const char *name, tessera_error *error);

#endif
