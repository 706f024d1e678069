/* Meetings: what of a layer's work has to come together where positions or weights are cut over
 * ranks, as data. A denoiser lists them with each block, and a plan counts bytes and time from the
 * list, so that planning never includes a model's header.
 *
 *     attention   every position asks all others: heads for positions, keys and values around a ring, or those of one step before
 *     sum         partial products of a layer whose inputs are cut
 *     join        shares of a layer's outputs, laid side by side
 *     halo        rows of the neighbours, for convolutions wider than 1x1
 *     norm        statistics of groups of channels over the whole picture
 *
 * The first three are needed where weights are cut (and attention where positions are), the last
 * two where rows are. */
#ifndef TESSERA_PARALLEL_MEETING_H
#define TESSERA_PARALLEL_MEETING_H

#include "tessera_model/denoiser.h"

#endif
