/* See elementary.h. Every function reduces its argument and sums a Taylor polynomial in float64,
 * with the small parts that rounding would lose carried beside (Dekker 1971; Cody and Waite 1980).
 * Only +, -, *, /, fma and scalings by powers of 2 are used, each rounded once as IEEE 754 says, so
 * the file must be compiled without contraction and without -ffast-math.
 *
 *     x = hi + lo, |lo| <= ulp(hi) / 2          a pair: what one float64 cannot hold */
#include "base/elementary.h"

#include <math.h>

#ifdef __FAST_MATH__
#error "reproducible arithmetic needs IEEE 754: compile without -ffast-math"
#endif

static const double ln_2_high = 0x1.62e42feep-1,
                    ln_2_low = 0x1.a39ef35793c76p-33; /* the first has 32 bits: times an exponent it is exact */

struct pair {
    double hi, lo;
};

/* a + b exactly, any order (Knuth's TwoSum). */
static struct pair sum_of(double a, double b) {
    double sum = a + b, from_b = sum - a, from_a = sum - from_b;
    return (struct pair){sum, (a - from_a) + (b - from_b)};
}

/* ---- exponentials ---- */

/* e^r - 1 - r for |r| <= ln(2) / 2 = 0.347: r^2/2! + r^3/3! + ..., cut where terms are below 2^-63. */
static double exp_rest(double r) {
    static const double factors[] = {1.0 / 6227020800.0, 1.0 / 479001600.0, 1.0 / 39916800.0, 1.0 / 3628800.0,
                                     1.0 / 362880.0,     1.0 / 40320.0,     1.0 / 5040.0,     1.0 / 720.0,
                                     1.0 / 120.0,        1.0 / 24.0,        1.0 / 6.0,        1.0 / 2.0};
    double sum = 1.0 / 87178291200.0;
    for (int i = 0; i < 12; i++) sum = sum * r + factors[i];
    return sum * r * r;
}

/* x.hi + x.lo = n ln 2 + r.hi + r.lo; returns n. */
static int reduce_exp(struct pair x, struct pair *r) {
    const double log_2_e = 0x1.71547652b82fep+0;
    double n = rint(x.hi * log_2_e), high = x.hi - n * ln_2_high;
    *r = sum_of(high, x.lo - n * ln_2_low);
    return (int)n;
}

static double exp_of_pair(struct pair x) {
    const double most = 710.0, least = -746.0; /* beyond: infinity, 0 */
    if (!(x.hi < most)) return x.hi == x.hi ? INFINITY : x.hi;
    if (x.hi < least) return 0.0;
    struct pair r;
    int n = reduce_exp(x, &r);
    struct pair first = sum_of(1.0, r.hi);
    return ldexp(first.hi + (first.lo + (exp_rest(r.hi) + r.lo)), n);
}

double elementary_exp(double x) {
    return exp_of_pair((struct pair){x, 0.0});
}

/* (2^n - 1) + 2^n (e^r - 1) */
double elementary_expm1(double x) {
    if (!(x < 710.0)) return x == x ? INFINITY : x;
    if (x < -40.0) return -1.0;
    struct pair r;
    int n = reduce_exp((struct pair){x, 0.0}, &r);
    double rest = exp_rest(r.hi) + r.lo;
    if (n == 0) return r.hi + rest;
    struct pair first = sum_of(1.0 - ldexp(1.0, -n), r.hi);
    return ldexp(first.hi + (first.lo + rest), n);
}

/* ---- logarithms ---- */

/* ln x for a positive, finite x = 2^e m, m in [sqrt(1/2), sqrt(2)): with s = (m - 1) / (m + 1), ln
 * m = 2 (s + s^3/3 + s^5/5 + ...). */
static struct pair log_of(double x) {
    int e;
    double m = frexp(x, &e);
    if (m < 0x1.6a09e667f3bcdp-1) m *= 2.0, e--;
    double f = m - 1.0;
    struct pair below = sum_of(1.0, m);
    double s = f / below.hi, s_low = (fma(-s, below.hi, f) - s * below.lo) / below.hi, z = s * s, sum = 1.0 / 25.0;
    for (int k = 23; k >= 3; k -= 2) sum = sum * z + 1.0 / k;
    struct pair high = sum_of(e * ln_2_high, 2.0 * s);
    return sum_of(high.hi, high.lo + (2.0 * (s_low + s * z * sum) + e * ln_2_low));
}

/* What has no finite logarithm: 0, below, infinity, NaN. */
static double log_of_odd(double x) {
    return x == 0.0 ? -INFINITY : x < 0.0 ? NAN : x;
}

double elementary_log(double x) {
    return x > 0.0 && x < INFINITY ? log_of(x).hi : log_of_odd(x);
}

double elementary_log1p(double x) {
    double u = 1.0 + x;
    if (!(u > 0.0 && u < INFINITY)) return log_of_odd(u);
    struct pair l = log_of(u), lost = sum_of(1.0, x);
    return l.hi + (l.lo + lost.lo / u);
}

double elementary_pow(double x, double y) {
    if (x == 1.0 || y == 0.0) return 1.0;
    if (x == 0.0) return y > 0.0 ? 0.0 : y < 0.0 ? INFINITY : y;
    if (!(x > 0.0 && x < INFINITY)) return NAN;
    struct pair l = log_of(x);
    double high = y * l.hi;
    return exp_of_pair((struct pair){high, fma(y, l.hi, -high) + y * l.lo});
}

/* ---- sine and cosine ---- */

/* x = n pi/2 + r, |r| <= pi/4; returns n mod 4. pi/2 in pieces of 22 bits, so that n < 2^31 times a piece is
 * exact. */
static int reduce_angle(double x, struct pair *r) {
    static const double pieces[] = {0x1.921fb0p+0, 0x1.5110b0p-22, 0x1.184698p-44, 0x1.3198a0p-69, 0x1.701b80p-92};
    const double two_over_pi = 0x1.45f306dc9c883p-1;
    double n = rint(x * two_over_pi), high = (x - n * pieces[0]) - n * pieces[1];
    struct pair first = sum_of(high, -(n * pieces[2]));
    *r = sum_of(first.hi, first.lo - (n * pieces[3] + n * pieces[4]));
    return (int)((long long)n & 3);
}

/* r - r^3/3! + r^5/5! - ... */
static double sin_of(struct pair r) {
    static const double factors[] = {-1.0 / 1307674368000.0, 1.0 / 6227020800.0, -1.0 / 39916800.0, 1.0 / 362880.0,
                                     -1.0 / 5040.0,          1.0 / 120.0,        -1.0 / 6.0};
    double z = r.hi * r.hi, sum = 1.0 / 355687428096000.0;
    for (int i = 0; i < 7; i++) sum = sum * z + factors[i];
    return r.hi + (r.lo * (1.0 - 0.5 * z) + r.hi * z * sum);
}

/* 1 - r^2/2! + r^4/4! - ... */
static double cos_of(struct pair r) {
    static const double factors[] = {1.0 / 20922789888000.0, -1.0 / 87178291200.0, 1.0 / 479001600.0, -1.0 / 3628800.0,
                                     1.0 / 40320.0,          -1.0 / 720.0,         1.0 / 24.0};
    double z = r.hi * r.hi, half = 0.5 * z, most = 1.0 - half, sum = -1.0 / 6402373705728000.0;
    for (int i = 0; i < 7; i++) sum = sum * z + factors[i];
    return most + (((1.0 - most) - half) + (fma(r.hi, r.hi, -z) * -0.5 + (z * z * sum - r.hi * r.lo)));
}

static double turned(double x, int quarters) {
    const double most = 2147483648.0;
    if (!(x < most && x > -most)) return NAN;
    struct pair r;
    int quadrant = (reduce_angle(x, &r) + quarters) & 3;
    double value = quadrant & 1 ? cos_of(r) : sin_of(r);
    return quadrant & 2 ? -value : value;
}

double elementary_sin(double x) {
    return turned(x, 0);
}

double elementary_cos(double x) {
    return turned(x, 1);
}

/* ---- float32, and the tables ---- */

static float exp_float(float x) {
    return (float)elementary_exp((double)x);
}
static float expm1_float(float x) {
    return (float)elementary_expm1((double)x);
}
static float log_float(float x) {
    return (float)elementary_log((double)x);
}
static float sin_float(float x) {
    return (float)elementary_sin((double)x);
}
static float cos_float(float x) {
    return (float)elementary_cos((double)x);
}
static float pow_float(float x, float y) {
    return (float)elementary_pow((double)x, (double)y);
}

const struct elementary *elementary_of(bool reproducible) {
    static const struct elementary library = {exp, log, log1p, sin, cos, pow, expf, expm1f, logf, sinf, cosf, powf};
    static const struct elementary own = {elementary_exp, elementary_log, elementary_log1p, elementary_sin, elementary_cos, elementary_pow,
                                          exp_float,      expm1_float,    log_float,        sin_float,      cos_float,      pow_float};
    return reproducible ? &own : &library;
}
