/* The attacks of bench/bench_leaks.c on vectors whose answer is known: they find what is there, and
 * guess where there is nothing. */
#include <math.h>
#include <stdlib.h>

#include "check.h"
#include "leak_probe.h"

enum { CLASSES = 4, EACH = 8, KNOWN = CLASSES * EACH, ASKED = 16, DIMS = 12, ROWS = 200, TARGETS = 2, FEATURES = 3 };

static double noise(void) {
    static unsigned state = 1;
    state = state * 1664525u + 1013904223u;
    return (double)(state >> 8) / (1 << 24) - 0.5;
}

/* Class k has `signal` in column k, and noise everywhere; the last column is constant. */
static void make(float *x, double signal) {
    for (int i = 0; i < KNOWN + ASKED; i++)
        for (int d = 0; d < DIMS; d++) x[i * DIMS + d] = d == DIMS - 1 ? 3 : (float)(noise() + (d == i % CLASSES ? signal : 0));
}

static void test_classes(double signal, int least, int most) {
    static float x[(KNOWN + ASKED) * DIMS];
    int class_of[KNOWN], nearest[ASKED], classes[ASKED], near = 0, right = 0;
    make(x, signal);
    for (int i = 0; i < KNOWN; i++) class_of[i] = i % CLASSES;
    leak_standardise(x, KNOWN, ASKED, DIMS);
    double mean = 0, square = 0;
    for (int i = 0; i < KNOWN; i++) mean += (double)x[i * DIMS] / KNOWN, square += pow((double)x[i * DIMS], 2) / KNOWN;
    CHECK(fabs(mean) < 1e-5 && fabs(square - 1) < 1e-5 && x[DIMS - 1] == 0, "mean %g, square %g", mean, square);
    double *products = leak_products(x, KNOWN, ASKED, DIMS);
    leak_nearest(products, KNOWN, ASKED, nearest);
    CHECK(leak_classify(products, KNOWN, ASKED, class_of, CLASSES, classes), "no answer");
    for (int i = 0; i < ASKED; i++) {
        double best = INFINITY, found = 0;
        for (int j = 0; j < KNOWN; j++) {
            double d = 0;
            for (int k = 0; k < DIMS; k++) d += pow((double)x[(KNOWN + i) * DIMS + k] - (double)x[j * DIMS + k], 2);
            if (j == nearest[i]) found = d;
            best = fmin(best, d);
        }
        CHECK(found <= best * (1 + 1e-5), "row %d: the nearest is %g away, not %g", i, best, found);
        near += class_of[nearest[i]] == (KNOWN + i) % CLASSES;
        right += classes[i] == (KNOWN + i) % CLASSES;
    }
    CHECK(near >= least && near <= most, "signal %g: %d of %d by the nearest", signal, near, ASKED);
    CHECK(right >= least && right <= most, "signal %g: %d of %d by the probe", signal, right, ASKED);
    free(products);
}

/* y = x A with known A, in two pieces. */
static void test_fit(void) {
    static const double a[FEATURES][TARGETS] = {{1, -2}, {0.5, 3}, {-1, 0}};
    static double x[ROWS * FEATURES], y[ROWS * TARGETS], out[ROWS * TARGETS];
    struct leak_fit fit;
    for (int i = 0; i < ROWS; i++)
        for (int d = 0; d < FEATURES; d++) {
            x[i * FEATURES + d] = noise();
            for (int t = 0; t < TARGETS; t++) y[i * TARGETS + t] += x[i * FEATURES + d] * a[d][t];
        }
    CHECK(leak_fit_open(&fit, FEATURES, TARGETS), "no memory");
    leak_fit_add(&fit, x, y, 50);
    leak_fit_add(&fit, x + 50 * FEATURES, y + 50 * TARGETS, ROWS - 50);
    CHECK(leak_fit_solve(&fit), "no answer");
    leak_fit_apply(&fit, x, out, ROWS);
    for (int i = 0; i < ROWS * TARGETS; i++) CHECK(fabs(out[i] - y[i]) < 0.01, "target %d: %g, not %g", i, out[i], y[i]);
    leak_fit_close(&fit);
}

int main(void) {
    test_classes(4, ASKED, ASKED);
    test_classes(0, 0, ASKED / 2);
    test_fit();
    return CHECK_REPORT();
}
