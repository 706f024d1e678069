/* A counter-based generator: element i of a block is a hash of (key of the block, i), so nothing is
 * carried from one to the next.
 *
 *     key of a block = splitmix64(FNV-1a(name) + seed, number of the block)     (Steele et al. 2014; Fowler, Noll and Vo)
 *     pair of values = two halves of lowbias32(i + low key), with the high key mixed in between     (Wellons 2018, "hash prospector")
 *
 * Its statistical quality is what weights of a test model need, no more. Arithmetic is on integers,
 * with one rounded multiplication at the end, so that machines agree bit for bit. */
#include "checkpoint/random_weights.h"

#include "base/bf16.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define BIAS_DEVIATION 0.02

static uint64_t splitmix64(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static uint64_t key_of(uint64_t seed, const char *name, uint64_t block) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (const char *c = name; *c != 0; c++) hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
    return splitmix64(splitmix64(hash + splitmix64(seed)) + block);
}

static uint32_t hash_of(uint32_t i, uint32_t low, uint32_t high) {
    uint32_t x = i + low;
    x = (x ^ x >> 16) * 0x7feb352du;
    x ^= high;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

/* 16 random bits as a signed number times `scale`, rounded to BF16 (to nearest, ties to even). */
static uint16_t value_of(uint32_t bits, float scale) {
    float value = (float)(int16_t)(uint16_t)bits * scale;
    return bf16_round(value);
}

static void fill_block(uint64_t key, float scale, int64_t count, uint16_t *out) {
    uint32_t low = (uint32_t)key, high = (uint32_t)(key >> 32);
    for (int64_t i = 0; i < count / 2; i++) {
        uint32_t hash = hash_of((uint32_t)i, low, high);
        out[2 * i] = value_of(hash, scale);
        out[2 * i + 1] = value_of(hash >> 16, scale);
    }
    if (count % 2 != 0) out[count - 1] = value_of(hash_of((uint32_t)(count / 2), low, high), scale);
}

static bool is_norm_weight(const struct safetensors_entry *entry) {
    static const char suffix[] = ".weight";
    size_t length = strlen(entry->name), tail = sizeof suffix - 1;
    return entry->tensor.ndim == 1 && length >= tail && strcmp(entry->name + length - tail, suffix) == 0;
}

static double deviation_of(const struct tensor *tensor) {
    double inputs = 1;
    if (tensor->ndim < 2) return BIAS_DEVIATION;
    for (int i = 1; i < tensor->ndim; i++) inputs *= (double)tensor->shape[i];
    return 1.0 / sqrt(inputs);
}

void random_weights_fill(uint64_t seed, const struct safetensors_entry *entry, int64_t first, int64_t count, uint16_t *out) {
    assert(first % RANDOM_WEIGHTS_BLOCK == 0);
    if (is_norm_weight(entry)) {
        for (int64_t i = 0; i < count; i++) out[i] = bf16_round(1.0f);
        return;
    }
    float scale = (float)(deviation_of(&entry->tensor) * sqrt(3.0) / 32768.0); /* a uniform variable on [-a, a] has deviation a / sqrt(3) */
    for (int64_t done = 0; done < count; done += RANDOM_WEIGHTS_BLOCK) {
        int64_t block = count - done < RANDOM_WEIGHTS_BLOCK ? count - done : RANDOM_WEIGHTS_BLOCK;
        fill_block(key_of(seed, entry->name, (uint64_t)((first + done) / RANDOM_WEIGHTS_BLOCK)), scale, block, out + done);
    }
}
