/* The arithmetic of verify-study: projections keep distances, majorities, and chances that are
 * counted one by one. */
#include <math.h>

#include "check.h"
#include "split/study.h"

enum { SIZE = 4000, SEEDS = 400 };

static double normal(void) {
    static unsigned state = 7;
    double sum = 0;
    for (int i = 0; i < 12; i++) {
        state = state * 1664525u + 1013904223u;
        sum += (double)(state >> 8) / (1 << 24) - 0.5;
    }
    return sum;
}

/* The mean of squared distances by projections is the squared distance. */
static void test_projections(void) {
    static float a[SIZE], b[SIZE];
    static const float *const vectors[2] = {a, b};
    double out[2 * PROJECTIONS], again[2 * PROJECTIONS], sum = 0, lowest = INFINITY, highest = 0;
    for (int i = 0; i < SIZE; i++) {
        a[i] = (float)normal();
        b[i] = a[i] + (float)(1e-5 * normal());
    }
    double exact = study_exact_distance(a, b, SIZE);
    CHECK(fabs(exact - 1e-5) < 1e-6, "%g", exact);
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        study_project(vectors, 2, SIZE, seed, out);
        double d = study_distance(out, out + PROJECTIONS, PROJECTIONS);
        sum += d / SEEDS;
        lowest = fmin(lowest, d);
        highest = fmax(highest, d);
    }
    CHECK(fabs(sum / exact - 1) < 0.05, "mean %g, exact %g", sum, exact);
    CHECK(lowest > exact / 2 && highest < 2 * exact, "from %g to %g, exact %g", lowest, highest, exact);
    study_project(vectors, 2, SIZE, 3, out);
    study_project(vectors, 2, SIZE, 4, again);
    CHECK(out[0] != again[0] && study_distance(out, out, PROJECTIONS) == 0, "seeds give the same signs");
}

static void test_vote(void) {
    bool agree[STUDY_MOST_REPLICAS][STUDY_MOST_REPLICAS] = {{true, false, true}, {false, true, false}, {true, false, true}};
    unsigned losers;
    CHECK(study_vote(agree, 3, &losers) && losers == 2, "losers %x", losers);
    CHECK(!study_vote(agree, 2, &losers) && losers == 0, "one of two is no majority");
}

/* Each way to draw, one by one. */
static void test_chances(void) {
    for (int n = 2; n <= STUDY_MOST_REPLICAS; n++) {
        double wrong, none, all[2] = {0};
        for (unsigned liars = 0; liars < 1u << n; liars++) {
            int count = __builtin_popcount(liars);
            double chance = pow(0.3, count) * pow(0.7, n - count);
            if (2 * count > n) all[0] += chance;
            if (2 * count == n) all[1] += chance;
        }
        study_collusion(n, 0.3, &wrong, &none);
        CHECK(fabs(wrong - all[0]) < 1e-12 && fabs(none - all[1]) < 1e-12, "%d replicas: %g and %g, not %g and %g", n, wrong, none, all[0],
              all[1]);
    }
    int drawn = 0, missed = 0; /* 4 of 8 steps; lies in the first 3 */
    for (unsigned set = 0; set < 256; set++)
        if (__builtin_popcount(set) == 4) {
            drawn++;
            missed += (set & 7) == 0;
        }
    CHECK(fabs(study_missed(8, 3, 4) - (double)missed / drawn) < 1e-12, "%g", study_missed(8, 3, 4));
    CHECK(fabs(study_missed(28, 1, 3) - 25.0 / 28) < 1e-12 && study_missed(28, 28, 1) == 0 && study_missed(28, 1, 28) == 0, "steps of 28");
}

int main(void) {
    test_projections();
    test_vote();
    test_chances();
    return CHECK_REPORT();
}
