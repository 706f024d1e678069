/* The host's own functions against the C library's in extended precision: the bound that
 * elementary.h promises, the float32 functions rounded to the nearest, special arguments, and that
 * those which go straight to float32 or to whole numbers agree with the C library's. */
#include <float.h>
#include <math.h>

#include "base/elementary.h"
#include "base/random.h"
#include "check.h"

enum { COUNT = 200000 };

static double uniform(struct random_generator *g, double low, double high) {
    return low + (high - low) * ((double)random_word(g) + (double)random_word(g) * 0x1p-32) * 0x1p-32;
}

/* |got - want| in units of the last place of a number of so many bits. */
static double ulps(long double got, long double want, int bits) {
    int exponent;
    frexpl(want, &exponent);
    return (double)(fabsl(got - want) / ldexpl(1, exponent - bits));
}

#define WITHIN(function, reference, low, high)                                                                                             \
    do {                                                                                                                                   \
        double worst = 0, at = 0;                                                                                                          \
        for (int i = 0; i < COUNT; i++) {                                                                                                  \
            double x = uniform(&g, low, high), error = ulps((long double)(function), reference, DBL_MANT_DIG);                             \
            if (error > worst) worst = error, at = x;                                                                                      \
        }                                                                                                                                  \
        CHECK(worst < 1.1, "%s: off by %g ulp at %a", #function, worst, at);                                                               \
    } while (0)

/* Half a unit, and what float64 was off by. */
#define NEAREST(function, reference, low, high)                                                                                            \
    do {                                                                                                                                   \
        double worst = 0, at = 0;                                                                                                          \
        for (int i = 0; i < COUNT; i++) {                                                                                                  \
            float x = (float)uniform(&g, low, high);                                                                                       \
            double error = ulps((long double)(function), reference, FLT_MANT_DIG);                                                         \
            if (error > worst) worst = error, at = (double)x;                                                                              \
        }                                                                                                                                  \
        CHECK(worst < 0.50001, "%s: off by %g ulp at %a", #function, worst, at);                                                           \
    } while (0)

static void test_errors(void) {
    struct random_generator g;
    random_seed(&g, 1);
    WITHIN(elementary_exp(x), expl(x), -700, 700);
    WITHIN(elementary_expm1(x), expm1l(x), -2, 2);
    WITHIN(elementary_log(x), logl(x), 0.5, 2);
    WITHIN(elementary_log(x * x * x), logl(x * x * x), 0, 1000);
    WITHIN(elementary_log1p(x), log1pl(x), -0.999, 1);
    WITHIN(elementary_sin(x), sinl(x), -1000, 1000);
    WITHIN(elementary_cos(x), cosl(x), -1e9, 1e9);
    WITHIN(elementary_pow(x, 7), powl(x, 7), 0, 20);
    WITHIN(elementary_pow(10000, x), powl(10000, x), -1, 1);
    const struct elementary *f = elementary_of(true);
    NEAREST(f->expf(x), expl(x), -80, 80);
    NEAREST(f->expm1f(x), expm1l(x), -3, 3);
    NEAREST(f->logf(x), logl(x), 0, 1);
    NEAREST(f->sinf(x), sinl(x), -1000, 1000);
    NEAREST(f->cosf(x), cosl(x), 0, 6.5);
    NEAREST(f->powf(10000, x), powl(10000, x), -1, 1);
}

static void test_special(void) {
    CHECK(elementary_exp(0) == 1 && elementary_exp(-INFINITY) == 0 && elementary_exp(800) == INFINITY, "exp");
    CHECK(elementary_exp(-744.5) == 0x1p-1074, "exp underflows gradually: %a", elementary_exp(-744.5));
    CHECK(elementary_log(1) == 0 && elementary_log(0) == -INFINITY && elementary_log(INFINITY) == INFINITY && isnan(elementary_log(-1)),
          "log");
    CHECK(elementary_expm1(0) == 0 && elementary_expm1(-50) == -1 && elementary_log1p(0) == 0 && elementary_log1p(-1) == -INFINITY,
          "near 1");
    CHECK(elementary_pow(0, 2) == 0 && elementary_pow(3, 0) == 1 && elementary_pow(1, NAN) == 1, "pow");
    CHECK(elementary_sin(0) == 0 && elementary_cos(0) == 1 && isnan(elementary_sin(0x1p31)) && isnan(elementary_cos(INFINITY)), "sin, cos");
    CHECK(isnan(elementary_exp(NAN)) && isnan(elementary_log(NAN)) && isnan(elementary_sin(NAN)), "NaN");
}

/* Tables of positions at the sizes of models, and T5's logarithmic buckets. */
static void test_agreement(void) {
    long different = 0;
    for (int p = 0; p < 512; p++)
        for (int i = 0; i < 384; i++) {
            double angle = p * (1.0 / elementary_pow(10000.0, i / 384.0)), library = p * (1.0 / pow(10000.0, i / 384.0));
            different += (float)elementary_sin(angle) != (float)sin(library) || (float)elementary_cos(angle) != (float)cos(library);
        }
    CHECK(different == 0, "%ld positions differ", different);
    for (int d = 8; d < 100000; d++) {
        float mine = (float)elementary_log((double)((float)d / 8.0f)) / (float)elementary_log(16.0);
        float library = logf((float)d / 8.0f) / (float)log(16.0);
        different += (int)(mine * 8.0f) != (int)(library * 8.0f);
    }
    CHECK(different == 0, "%ld buckets differ", different);
}

int main(void) {
    test_errors();
    test_special();
    test_agreement();
    return CHECK_REPORT();
}
