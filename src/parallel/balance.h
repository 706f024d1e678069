/* Neighbouring pieces of work laid in stages so that the busiest has as little as can be. */
#ifndef TESSERA_PARALLEL_BALANCE_H
#define TESSERA_PARALLEL_BALANCE_H

#include <stdbool.h>

/* work [pieces], at least as many as stages; speeds [stages], or NULL where all are alike. Where
 * each stage begins: into first[stages + 1], whose last is `pieces`. No stage is empty. False, and
 * `first` as it was, if there is no memory for the table. */
bool balance_work(const double *work, int pieces, const double *speeds, int stages, int *first);

#endif
