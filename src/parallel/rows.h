/* What the exact cut by rows shares with displaced patches, which are exact at first. */
#ifndef TESSERA_PARALLEL_ROWS_H
#define TESSERA_PARALLEL_ROWS_H

#include "parallel/exchange.h"

/* `count` rows of x [B, H, W, C] from `first` on, packed, into `rows`, which has as many. */
void rows_pack(struct run *run, struct tensor rows, struct tensor x, int64_t first, int64_t count);

#endif
