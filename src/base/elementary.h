/* Elementary functions of the host: the C library's, whose last bit differs between machines, or
 * our own, whose bits are the same on every machine with IEEE 754 arithmetic
 * (docs/reproducible.md).
 *
 * Whatever computes noise, schedules, embeddings or tables of positions calls them through a table,
 * so that one choice, that of the kernels, decides. Where a float64 result is rounded to float32 or
 * to whole numbers at once, either gives the same, and the code calls ours directly. */
#ifndef TESSERA_BASE_ELEMENTARY_H
#define TESSERA_BASE_ELEMENTARY_H

#include <stdbool.h>

struct elementary {
    double (*exp)(double x);
    double (*log)(double x);
    double (*log1p)(double x);
    double (*sin)(double x);
    double (*cos)(double x);
    double (*pow)(double x, double y);
    float (*expf)(float x);
    float (*expm1f)(float x);
    float (*logf)(float x);
    float (*sinf)(float x);
    float (*cosf)(float x);
    float (*powf)(float x, float y);
};

/* Ours if `reproducible`, otherwise the C library's; lives for ever. */
const struct elementary *elementary_of(bool reproducible);

/* Ours. Each errs by less than 1.1 units in the last place where its result is a normal number. sin and cos: NaN where |x| >= 2^31. pow:
 * x >= 0. Of the float32 functions in the table each is the float64 one rounded once. */
double elementary_exp(double x);
double elementary_expm1(double x);
double elementary_log(double x);
double elementary_log1p(double x);
double elementary_sin(double x);
double elementary_cos(double x);
double elementary_pow(double x, double y);

#endif
