/* Positions of a picture's patches as vectors. */
#ifndef TESSERA_NN_POSITION_H
#define TESSERA_NN_POSITION_H

#include <stdint.h>

/* diffusers' get_2d_sincos_pos_embed: table [rows, columns, channels]; channels a multiple of 4. Positions along a side of n are
 * scaled so that `base_size` of them span it, then divided by `interpolation_scale`. */
void position_sincos_2d(float *table, int64_t rows, int64_t columns, int64_t channels, double base_size, double interpolation_scale);

#endif
