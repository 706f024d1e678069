/* Pictures as sequences of square patches, and back: nn_patches and nn_unpatch of tessera_model.h.
 */
#ifndef TESSERA_NN_PATCH_H
#define TESSERA_NN_PATCH_H

#include "nn/run.h"
#include "parallel/cut.h"

#endif
