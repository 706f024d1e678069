/* Positions of a picture's tokens as vectors: position_sincos_2d of tessera_model/tokens.h. */
#ifndef TESSERA_NN_POSITION_H
#define TESSERA_NN_POSITION_H

#include "tessera_model/tokens.h"

#endif
