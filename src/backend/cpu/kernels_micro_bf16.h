/* The micro-kernels of attention in bfloat16, BF16_ROWS rows by MICRO_COLUMNS columns of a product
 * at a time, and the layout in which each instruction set wants what it multiplies. Neighbours
 * along a sum lie together, a pair in 32 bits:
 *
 *     s[key][COLUMNS] = k q^T      k[key][pairs along D], as it is stored; q[pairs along D][COLUMNS]
 *     o[D][COLUMNS] += v^T p       v: pairs of keys, see pack_values;      p[pairs of keys][COLUMNS]
 *
 * vdpbf16ps (AVX512_BF16) adds two products to each float32 lane. tdpbf16ps (AMX) multiplies whole
 * tiles of 16 rows of 16 pairs: sums are padded with zeros to BF16_PAIRS pairs. */
#ifndef TESSERA_BACKEND_CPU_KERNELS_MICRO_BF16_H
#define TESSERA_BACKEND_CPU_KERNELS_MICRO_BF16_H

#include <immintrin.h>
#include "backend/cpu/kernels_micro.h"
#include "backend/cpu/tiles.h"

#ifdef __AMX_BF16__
#define BF16_ROWS 16
#define BF16_PAIRS 16
#else
#define BF16_ROWS MICRO_ROWS
#define BF16_PAIRS 1
#endif
#define BF16_VECTORS 3
static_assert(MICRO_COLUMNS == BF16_VECTORS * 16, "a row of a product is BF16_VECTORS vectors");

static inline __mmask32 first_of(int64_t n) {
    return n >= 32 ? 0xffffffffu : (1u << n) - 1;
}

/* Pairs in which `count` numbers lie, padding included. */
static inline int64_t pairs_of(int64_t count) {
    return round_up((count + 1) / 2, BF16_PAIRS);
}

/* 16 x 16 numbers of 32 bits: rows become columns. */
static inline void transpose(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) { /* then r[i + j] holds columns j, 4 + j, 8 + j, 12 + j of rows i to i + 3 */
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int j = 0; j < 4; j++) {
        t[j] = _mm512_shuffle_i32x4(r[j], r[4 + j], 0x88);
        t[4 + j] = _mm512_shuffle_i32x4(r[j], r[4 + j], 0xdd);
        t[8 + j] = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0x88);
        t[12 + j] = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0xdd);
    }
    for (int j = 0; j < 4; j++) {
        r[j] = _mm512_shuffle_i32x4(t[j], t[8 + j], 0x88);
        r[8 + j] = _mm512_shuffle_i32x4(t[j], t[8 + j], 0xdd);
        r[4 + j] = _mm512_shuffle_i32x4(t[4 + j], t[12 + j], 0x88);
        r[12 + j] = _mm512_shuffle_i32x4(t[4 + j], t[12 + j], 0xdd);
    }
}

/* Pair j of two rows of numbers d to d + 15, of which `width` and `rows` are there; zeros elsewhere. */
static inline __m512i load_pairs(const uint16_t *from, int64_t stride, int64_t rows, int64_t width, int64_t j, int64_t d) {
    __mmask16 mask = (__mmask16)first_of(min64(16, width - d)), even = 2 * j < rows ? mask : 0, odd = 2 * j + 1 < rows ? mask : 0;
    const uint16_t *row = even ? from + 2 * j * stride + d : from;
    __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(even, row));
    __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(odd, odd ? row + stride : row));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

#ifdef __AMX_BF16__

/* Tiles 0 to 2: sums; 3: of the left operand; 4 to 6: of the right one. A thread calls micro_begin
 * before its first product, micro_end after its last: what other code, such as oneDNN's, finds is
 * as if no tile had been used. */
static inline void micro_begin(void) {
    struct tile_config config = tile_config_whole();
    _tile_loadconfig(&config);
}

static inline void micro_end(void) {
    _tile_release();
}

/* v[padded_width][pairs_of(keys)]: a row per number of a head */
static inline void pack_values(uint32_t *to, const uint16_t *from, int64_t stride, int64_t keys, int64_t width, int64_t padded_width) {
    int64_t depth = pairs_of(keys);
    for (int64_t j = 0; j < depth; j += 16)
        for (int64_t d = 0; d < padded_width; d += 16) {
            __m512i rows[16];
            for (int64_t i = 0; i < 16; i++) rows[i] = load_pairs(from, stride, keys, width, j + i, d);
            transpose(rows);
            for (int64_t i = 0; i < 16; i++) _mm512_store_si512(to + (d + i) * depth + j, rows[i]);
        }
}

/* Tiles 0 to 2 += a[16][depth] b[depth][COLUMNS] */
static inline void multiply_tiles(int64_t depth, const uint32_t *a, const uint32_t *b) {
    for (int64_t i = 0; i < depth; i += 16, b += 16 * MICRO_COLUMNS) {
        _tile_loadd(3, a + i, depth * 4);
        _tile_loadd(4, b, MICRO_COLUMNS * 4);
        _tile_dpbf16ps(0, 3, 4);
        _tile_loadd(5, b + 16, MICRO_COLUMNS * 4);
        _tile_dpbf16ps(1, 3, 5);
        _tile_loadd(6, b + 32, MICRO_COLUMNS * 4);
        _tile_dpbf16ps(2, 3, 6);
    }
}

static inline void store_tiles(float *to) {
    _tile_stored(0, to, MICRO_COLUMNS * 4);
    _tile_stored(1, to + 16, MICRO_COLUMNS * 4);
    _tile_stored(2, to + 32, MICRO_COLUMNS * 4);
}

/* s[ROWS][COLUMNS] = k q^T */
static inline void micro_scores(float *s, int64_t pairs, const uint32_t *k, const uint32_t *q) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    multiply_tiles(pairs, k, q);
    store_tiles(s);
}

/* o[ROWS][COLUMNS] = o factor + v^T p; v begins at these rows */
static inline void micro_output(float *o, const __m512 factor[BF16_VECTORS], int64_t depth, const uint32_t *v, const uint32_t *p) {
    for (int r = 0; r < BF16_ROWS; r++)
        for (int j = 0; j < BF16_VECTORS; j++) {
            float *at = o + r * MICRO_COLUMNS + j * 16;
            _mm512_store_ps(at, _mm512_mul_ps(_mm512_load_ps(at), factor[j]));
        }
    _tile_loadd(0, o, MICRO_COLUMNS * 4);
    _tile_loadd(1, o + 16, MICRO_COLUMNS * 4);
    _tile_loadd(2, o + 32, MICRO_COLUMNS * 4);
    multiply_tiles(depth, v, p);
    store_tiles(o);
}

#else

static inline void micro_begin(void) {
}
static inline void micro_end(void) {
}

/* v[padded_width / ROWS][pairs_of(keys)][ROWS] */
static inline void pack_values(uint32_t *to, const uint16_t *from, int64_t stride, int64_t keys, int64_t width, int64_t padded_width) {
    int64_t depth = pairs_of(keys);
    for (int64_t j = 0; j < depth; j++)
        for (int64_t d = 0; d < padded_width; d += BF16_ROWS)
            _mm256_store_si256((__m256i *)(to + d * depth + j * BF16_ROWS),
                               _mm512_castsi512_si256(load_pairs(from, stride, keys, min64(width, d + BF16_ROWS), j, d)));
}

/* sum[r][j] += over pairs i of a[r * a_row + i * a_step] b[i][j], the micro-kernel of both products. */
static inline __attribute__((always_inline)) void multiply_pairs(__m512 sum[BF16_ROWS][BF16_VECTORS], int64_t depth, const uint32_t *a,
                                                                 int64_t a_row, int64_t a_step, const uint32_t *b) {
    for (int64_t i = 0; i < depth; i++, a += a_step, b += MICRO_COLUMNS) {
        __m512bh b0 = (__m512bh)_mm512_load_si512(b), b1 = (__m512bh)_mm512_load_si512(b + 16);
        __m512bh b2 = (__m512bh)_mm512_load_si512(b + 32);
#pragma GCC unroll 8
        for (int r = 0; r < BF16_ROWS; r++) {
            __m512bh pair = (__m512bh)_mm512_set1_epi32((int)a[r * a_row]);
            sum[r][0] = _mm512_dpbf16_ps(sum[r][0], pair, b0);
            sum[r][1] = _mm512_dpbf16_ps(sum[r][1], pair, b1);
            sum[r][2] = _mm512_dpbf16_ps(sum[r][2], pair, b2);
        }
    }
}

/* s[ROWS][COLUMNS] = k q^T */
static inline void micro_scores(float *s, int64_t pairs, const uint32_t *k, const uint32_t *q) {
    __m512 sum[BF16_ROWS][BF16_VECTORS];
#pragma GCC unroll 8
    for (int r = 0; r < BF16_ROWS; r++)
#pragma GCC unroll 3
        for (int j = 0; j < BF16_VECTORS; j++) sum[r][j] = _mm512_setzero_ps();
    multiply_pairs(sum, pairs, k, pairs, 1, q);
#pragma GCC unroll 8
    for (int r = 0; r < BF16_ROWS; r++)
#pragma GCC unroll 3
        for (int j = 0; j < BF16_VECTORS; j++) _mm512_store_ps(s + r * MICRO_COLUMNS + j * 16, sum[r][j]);
}

/* o[ROWS][COLUMNS] = o factor + v^T p; v begins at these rows */
static inline void micro_output(float *o, const __m512 factor[BF16_VECTORS], int64_t depth, const uint32_t *v, const uint32_t *p) {
    __m512 sum[BF16_ROWS][BF16_VECTORS];
#pragma GCC unroll 8
    for (int r = 0; r < BF16_ROWS; r++)
#pragma GCC unroll 3
        for (int j = 0; j < BF16_VECTORS; j++) sum[r][j] = _mm512_mul_ps(_mm512_load_ps(o + r * MICRO_COLUMNS + j * 16), factor[j]);
    multiply_pairs(sum, depth, v, 1, BF16_ROWS, p);
#pragma GCC unroll 8
    for (int r = 0; r < BF16_ROWS; r++)
#pragma GCC unroll 3
        for (int j = 0; j < BF16_VECTORS; j++) _mm512_store_ps(o + r * MICRO_COLUMNS + j * 16, sum[r][j]);
}

#endif

#endif
