/* See study.h. */
#include "split/study.h"

#include <math.h>
#include <string.h>

void study_project(const float *const *vectors, int count, size_t size, uint64_t seed, double *out) {
    uint64_t start = projection_seed(seed);
    memset(out, 0, (size_t)count * PROJECTIONS * sizeof *out);
    for (size_t i = 0; i < size; i++) {
        uint64_t signs = projection_seed(start ^ i);
        for (int v = 0; v < count; v++) projection_add(signs, (double)vectors[v][i], out + (size_t)v * PROJECTIONS);
    }
}

double study_distance(const double *a, const double *b, int length) {
    double difference[PROJECTIONS];
    for (int k = 0; k < length; k++) difference[k] = a[k] - b[k];
    return projection_ratio(difference, a, length);
}

double study_exact_distance(const float *a, const float *b, size_t size) {
    double difference = 0, squares = 0;
    for (size_t i = 0; i < size; i++) {
        double d = (double)a[i] - (double)b[i];
        difference += d * d;
        squares += (double)a[i] * (double)a[i];
    }
    double d = sqrt(difference), size_of_a = sqrt(squares);
    return projection_ratio(&d, &size_of_a, 1);
}

bool study_vote(bool agree[STUDY_MOST_REPLICAS][STUDY_MOST_REPLICAS], int replicas, unsigned *losers) {
    int best = 0, most = 0;
    for (int i = 0; i < replicas; i++) {
        int with = 0;
        for (int k = 0; k < replicas; k++) with += agree[i][k];
        if (with > most) {
            best = i;
            most = with;
        }
    }
    *losers = 0;
    if (2 * most <= replicas) return false;
    for (int k = 0; k < replicas; k++)
        if (!agree[best][k]) *losers |= 1u << k;
    return true;
}

void study_collusion(int replicas, double share, double *wrong, double *none) {
    double ways = 1; /* C(replicas, liars) */
    *wrong = *none = 0;
    for (int liars = 0; liars <= replicas; liars++) {
        double chance = ways * pow(share, liars) * pow(1 - share, replicas - liars);
        if (2 * liars > replicas) *wrong += chance;
        if (2 * liars == replicas) *none += chance;
        ways = ways * (replicas - liars) / (liars + 1);
    }
}

double study_missed(int steps, int lies, int challenges) {
    double missed = 1;
    for (int i = 0; i < challenges; i++) missed *= steps - lies > i ? (double)(steps - lies - i) / (steps - i) : 0;
    return missed;
}
