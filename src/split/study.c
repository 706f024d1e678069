/* See study.h. */
#include "split/study.h"

#include <math.h>
#include <string.h>

/* 64 signs that follow from seed and place alone (splitmix64, Steele et al. 2014). */
static uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

void study_project(const float *const *vectors, int count, size_t size, uint64_t seed, double *out) {
    uint64_t start = mix(seed);
    memset(out, 0, (size_t)count * STUDY_PROJECTIONS * sizeof *out);
    for (size_t i = 0; i < size; i++) {
        uint64_t bits = mix(start ^ i);
        double signs[STUDY_PROJECTIONS];
        for (int k = 0; k < STUDY_PROJECTIONS; k++) signs[k] = (bits >> k & 1) != 0 ? -1 : 1;
        for (int v = 0; v < count; v++) {
            double x = (double)vectors[v][i], *sums = out + (size_t)v * STUDY_PROJECTIONS;
            for (int k = 0; k < STUDY_PROJECTIONS; k++) sums[k] += signs[k] * x;
        }
    }
}

static double relative(double difference, double size) {
    if (size > 0) return sqrt(difference / size);
    return difference > 0 ? INFINITY : 0;
}

double study_distance(const double *a, const double *b, int length) {
    double difference = 0, size = 0;
    for (int k = 0; k < length; k++) {
        difference += (a[k] - b[k]) * (a[k] - b[k]);
        size += a[k] * a[k];
    }
    return relative(difference, size);
}

double study_exact_distance(const float *a, const float *b, size_t size) {
    double difference = 0, squares = 0;
    for (size_t i = 0; i < size; i++) {
        double d = (double)a[i] - (double)b[i];
        difference += d * d;
        squares += (double)a[i] * (double)a[i];
    }
    return relative(difference, squares);
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
