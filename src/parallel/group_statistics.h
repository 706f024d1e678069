/* Statistics of group norms, merged over ranks. exchange.h declares what layers call. */
#ifndef TESSERA_PARALLEL_GROUP_STATISTICS_H
#define TESSERA_PARALLEL_GROUP_STATISTICS_H

#include "parallel/exchange.h"

/* stats F32 [B, groups, 2], (mean, variance) of this rank's rows, become those of the rows of all
 * members of `group`, each of its `weight`; the rows are all of this step. The same bits on every
 * rank. Errors stick in the run. */
void group_statistics_merge(struct run *run, struct comm *group, struct tensor *stats, double weight);

#endif
