/* Attacks on vectors that belong to prompts: nearest neighbour and linear probes. For bench_leaks.c.
 *
 * The attacker has `known` vectors whose classes (or targets) it knows, and wants those of `asked`
 * others. The first `known` rows of a matrix are the known ones. Penalties are fixed and not tuned,
 * so a patient attacker does better. */
#ifndef TESSERA_BENCH_LEAK_PROBE_H
#define TESSERA_BENCH_LEAK_PROBE_H

#include <stdbool.h>

/* Gives each column of x [known + asked, dims] the mean 0 and the deviation 1 over the known rows.
 * A column that is constant there becomes 0. */
void leak_standardise(float *x, int known, int asked, int dims);
/* The inner products of all rows with the known ones: [known + asked, known], owned by the caller.
 * NULL: memory is out. */
double *leak_products(const float *x, int known, int asked, int dims);

/* found[i]: the known row that is nearest to asked row i by Euclidean distance. */
void leak_nearest(const double *products, int known, int asked, int *found);
/* found[i]: the class, 0 .. classes - 1, of asked row i by ridge regression on one column per class
 * (0 or 1, less its mean), with a hundredth of the mean squared length as penalty. False: memory is
 * out. */
bool leak_classify(const double *products, int known, int asked, const int *class_of, int classes, int *found);

/* Ridge regression to several targets, from rows that come in pieces. */
struct leak_fit {
    int dims, targets;
    double *squares; /* [dims, dims], the upper half; owned */
    double *weights; /* [dims, targets]: products until leak_fit_solve, then the answer; owned */
};
bool leak_fit_open(struct leak_fit *fit, int dims, int targets);
void leak_fit_add(struct leak_fit *fit, const double *x, const double *y, int rows); /* x [rows, dims], y [rows, targets] */
/* With a thousandth of the mean square as penalty. False: the numbers are not finite. */
bool leak_fit_solve(struct leak_fit *fit);
void leak_fit_apply(const struct leak_fit *fit, const double *x, double *y, int rows);
void leak_fit_close(struct leak_fit *fit);

#endif
