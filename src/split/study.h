/* How well cheating is found: the arithmetic of `tessera verify-study`.
 *
 *     answers --study_project--> projections --study_distance--> agree or not --study_vote--> who lost
 *
 * A random projection is a sum of an answer's numbers with signs drawn from a seed; a hash of k
 * projections stands for the answer. Two answers agree where their distance is at most a threshold.
 * What majorities and challenges miss follows from counting, exactly. */
#ifndef TESSERA_SPLIT_STUDY_H
#define TESSERA_SPLIT_STUDY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "split/projection.h"

enum { STUDY_MOST_REPLICAS = 9 };

/* PROJECTIONS signed sums of each of `count` vectors [size]: out [count, PROJECTIONS]. */
void study_project(const float *const *vectors, int count, size_t size, uint64_t seed, double *out);
/* |a - b| / |a| by the first `length` projections. */
double study_distance(const double *a, const double *b, int length);
/* |a - b| / |a| itself. */
double study_exact_distance(const float *a, const float *b, size_t size);

/* Replicas [replicas] of which agree[i][k] says whether i and k do. The largest group around one of
 * them wins if it is more than half: true, and
 * *losers has a bit for each one outside it. Else false. */
bool study_vote(bool agree[STUDY_MOST_REPLICAS][STUDY_MOST_REPLICAS], int replicas, unsigned *losers);

/* Of `replicas` drawn from workers of which a share colludes and always gives the same wrong
 * answer: the chance that this answer has the majority (wrong wins), and that no answer has one. */
void study_collusion(int replicas, double share, double *wrong, double *none);
/* The chance that `challenges` of `steps`, drawn without repetition, miss all `lies`: C(steps -
 * lies, challenges) / C(steps, challenges). */
double study_missed(int steps, int lies, int challenges);

#endif
