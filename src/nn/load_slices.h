/* What loading of shared-out layers has in common; private to loading. */
#ifndef TESSERA_NN_LOAD_SLICES_H
#define TESSERA_NN_LOAD_SLICES_H

#include "nn/load_stored.h"

/* This rank's slice of `units` groups of `width` channels, in channels. */
struct span load_channels(const struct loader *loader, int64_t units, int64_t width);
/* Some numbers of the vector "<base>.<parameter>" [channels], F32. */
struct tensor load_vector_slice(struct loader *loader, const char *base, const char *parameter, int64_t channels, struct span mine);

#endif
