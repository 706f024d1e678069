/* torch's normals, bit for bit; see draw.h. */
#include "recipes/draw.h"

#include <math.h>
#include <string.h>

#define BLOCK 16 /* numbers that torch's normal_fill_AVX2 draws together; fewer are drawn one by one */

/* Of 0 < x <= 1. */
static float vector_log(float x) {
    static const float coefficients[] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,  -1.2420140846e-1f, 1.4249322787e-1f,
                                         -1.6668057665e-1f, 2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    float exponent = (float)((int)(bits >> 23) - 126), m;
    bits = (bits & 0x7fffff) | 0x3f000000;
    memcpy(&m, &bits, sizeof m);
    bool low = m < 0.707106781186547524f;
    exponent -= low ? 1 : 0;
    m = m - 1 + (low ? m : 0);
    float z = m * m, y = coefficients[0];
    for (size_t i = 1; i < sizeof coefficients / sizeof *coefficients; i++) y = fmaf(y, m, coefficients[i]);
    y = fmaf(y * m, z, exponent * -2.12194440e-4f);
    return fmaf(exponent, 0.693359375f, m + fmaf(-z, 0.5f, y));
}

/* Of 0 <= x < 2 pi. */
static void vector_sine_and_cosine(float x, float *sine, float *cosine) {
    int octant = ((int)(x * 1.27323954473516f) + 1) & ~1;
    float turns = (float)octant;
    x = fmaf(turns, -0.78515625f, x);
    x = fmaf(turns, -2.4187564849853515625e-4f, x);
    x = fmaf(turns, -3.77489497744594108e-8f, x);
    float z = x * x;
    float c = fmaf(fmaf(2.443315711809948e-5f, z, -1.388731625493765e-3f), z, 4.166664568298827e-2f) * z;
    float s = fmaf(fmaf(-1.9515295891e-4f, z, 8.3321608736e-3f), z, -1.6666654611e-1f) * z;
    c = fmaf(c, z, -(z * 0.5f)) + 1;
    s = fmaf(s, x, x);
    bool swapped = (octant & 2) != 0;
    *sine = swapped ? c : s;
    *cosine = swapped ? s : c;
    if ((octant & 4) != 0) *sine = -*sine;
    if (((octant - 2) & 4) == 0) *cosine = -*cosine;
}

/* Turns a block of uniforms into normals: number j and number j + 8 make a pair. */
static void block_to_normal(float *block) {
    for (int j = 0; j < BLOCK / 2; j++) {
        float radius = sqrtf(-2 * vector_log(1 - block[j])), sine, cosine;
        vector_sine_and_cosine(2 * (float)M_PI * block[j + BLOCK / 2], &sine, &cosine);
        block[j] = radius * cosine + 0.0f; /* the mean, which makes -0 into 0 */
        block[j + BLOCK / 2] = radius * sine + 0.0f;
    }
}

void draw_seed(struct random_generator *generator, uint64_t seed) {
    random_seed(generator, seed);
    generator->functions = elementary_of(true);
}

void draw_uniform(struct random_generator *generator, float *out, size_t count) {
    for (size_t i = 0; i < count; i++) out[i] = (float)(random_word(generator) & 0xffffffu) * 0x1p-24f;
}

void draw_normal(struct random_generator *generator, float *out, size_t count) {
    if (count < BLOCK) {
        random_normal(generator, out, count);
        return;
    }
    draw_uniform(generator, out, count);
    for (size_t i = 0; i + BLOCK <= count; i += BLOCK) block_to_normal(out + i);
    if (count % BLOCK == 0) return;
    draw_uniform(generator, out + count - BLOCK, BLOCK); /* torch draws the last 16 anew */
    block_to_normal(out + count - BLOCK);
}
