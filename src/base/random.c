/* Noise as torch's CPU generator draws it: MT19937 (Matsumoto and Nishimura, "Mersenne Twister",
 * ACM TOMACS 8(1), 1998) and Box-Muller in torch's two ways (see the header).
 *
 * The words are exactly torch's. The normals agree within some float32 rounding steps, because
 * torch's vectorised logarithm and cosine differ from the C library's in the last bit. */
#include "base/random.h"

#include <math.h>

#define WORDS 624
#define BLOCK 16 /* numbers that torch's normal_fill draws together */

void random_seed(struct random_generator *generator, uint64_t seed) {
    uint32_t word = (uint32_t)seed; /* torch's engine keeps the low 32 bits */
    generator->functions = elementary_of(false);
    generator->state[0] = word;
    for (uint32_t i = 1; i < WORDS; i++) generator->state[i] = word = 1812433253u * (word ^ (word >> 30)) + i;
    generator->next = WORDS;
    generator->has_cached_normal = false;
    generator->cached_normal = 0;
}

static void next_state(uint32_t *state) {
    for (int i = 0; i < WORDS; i++) {
        uint32_t mixed = (state[i] & 0x80000000u) | (state[(i + 1) % WORDS] & 0x7fffffffu);
        state[i] = state[(i + 397) % WORDS] ^ (mixed >> 1) ^ ((mixed & 1) ? 0x9908b0dfu : 0);
    }
}

uint32_t random_word(struct random_generator *generator) {
    if (generator->next == WORDS) {
        next_state(generator->state);
        generator->next = 0;
    }
    uint32_t word = generator->state[generator->next++];
    word ^= word >> 11;
    word ^= (word << 7) & 0x9d2c5680u;
    word ^= (word << 15) & 0xefc60000u;
    return word ^ (word >> 18);
}

/* [0, 1) with 24 bits */
static float uniform_float(struct random_generator *generator) {
    return (float)(random_word(generator) & 0xffffffu) * 0x1p-24f;
}

/* [0, 1) with 53 bits, from two words, the high one first */
static double uniform_double(struct random_generator *generator) {
    uint64_t high = random_word(generator);
    uint64_t low = random_word(generator);
    return (double)((high << 32 | low) & ((UINT64_C(1) << 53) - 1)) * 0x1p-53;
}

static double normal_double(struct random_generator *generator) {
    if (generator->has_cached_normal) {
        generator->has_cached_normal = false;
        return generator->cached_normal;
    }
    double u1 = uniform_double(generator);
    double u2 = uniform_double(generator);
    const struct elementary *f = generator->functions;
    double radius = sqrt(-2 * f->log1p(-u2)), theta = 2 * M_PI * u1;
    generator->cached_normal = radius * f->sin(theta);
    generator->has_cached_normal = true;
    return radius * f->cos(theta);
}

/* Turns a block of uniforms into normals: number j and number j + 8 make a pair. */
static void block_to_normal(const struct elementary *f, float *block) {
    for (int j = 0; j < BLOCK / 2; j++) {
        float u1 = 1 - block[j], u2 = block[j + BLOCK / 2];
        float radius = sqrtf(-2 * f->logf(u1)), theta = 2 * (float)M_PI * u2;
        block[j] = radius * f->cosf(theta);
        block[j + BLOCK / 2] = radius * f->sinf(theta);
    }
}

void random_normal(struct random_generator *generator, float *out, size_t count) {
    if (count < BLOCK) {
        for (size_t i = 0; i < count; i++) out[i] = (float)normal_double(generator);
        return;
    }
    for (size_t i = 0; i < count; i++) out[i] = uniform_float(generator);
    for (size_t i = 0; i + BLOCK <= count; i += BLOCK) block_to_normal(generator->functions, out + i);
    if (count % BLOCK == 0) return;
    float *last = out + count - BLOCK; /* torch draws the last 16 anew */
    for (size_t i = 0; i < BLOCK; i++) last[i] = uniform_float(generator);
    block_to_normal(generator->functions, last);
}
