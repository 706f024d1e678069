/* Pictures as sequences of tokens, each a small square of them, and back: nn_patchify and
 * nn_unpatchify of tessera_model.h.
 */
#ifndef TESSERA_NN_PATCHIFY_H
#define TESSERA_NN_PATCHIFY_H

#include "nn/run.h"
#include "parallel/cut.h"

#endif
