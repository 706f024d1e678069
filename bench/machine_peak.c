/* Peak speed by experiment: loops of independent multiply-adds that never leave the registers, and
 * one long sum over memory.
 *
 * The instruction set is chosen at run time. It leaves out frequency: run it in the same process as
 * what it is compared with. */
#include "machine_peak.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include "backend/cpu/cpu.h"
#include "backend/cpu/tiles.h"
#include "base/clock.h"

#define ROUNDS 2000000
#define CHAINS 12 /* independent sums: latency times width of the multipliers */

typedef float v4 __attribute__((vector_size(16)));

/* Each peak_* runs `rounds` rounds, returns its operations and leaves something of its sums in *sink. */
typedef double peak_function(long rounds, volatile float *sink);

static double peak_portable(long rounds, volatile float *sink) {
    v4 sum[CHAINS] = {0}, x = {1e-9f, 1e-9f, 1e-9f, 1e-9f};
    for (long i = 0; i < rounds; i++)
#pragma GCC unroll 12
        for (int j = 0; j < CHAINS; j++) sum[j] = sum[j] * x + x;
    for (int j = 0; j < CHAINS; j++) *sink += sum[j][0];
    return 2.0 * 4 * CHAINS * (double)rounds;
}

#ifdef __x86_64__
#include <immintrin.h>

__attribute__((target("avx2,fma"))) static double peak_avx2(long rounds, volatile float *sink) {
    __m256 sum[CHAINS], x = _mm256_set1_ps(1e-9f);
    for (int j = 0; j < CHAINS; j++) sum[j] = x;
    for (long i = 0; i < rounds; i++)
#pragma GCC unroll 12
        for (int j = 0; j < CHAINS; j++) sum[j] = _mm256_fmadd_ps(sum[j], x, x);
    for (int j = 0; j < CHAINS; j++) *sink += _mm256_cvtss_f32(sum[j]);
    return 2.0 * 8 * CHAINS * (double)rounds;
}

__attribute__((target("avx512f"))) static double peak_avx512(long rounds, volatile float *sink) {
    __m512 sum[CHAINS], x = _mm512_set1_ps(1e-9f);
    for (int j = 0; j < CHAINS; j++) sum[j] = x;
    for (long i = 0; i < rounds; i++)
#pragma GCC unroll 12
        for (int j = 0; j < CHAINS; j++) sum[j] = _mm512_fmadd_ps(sum[j], x, x);
    for (int j = 0; j < CHAINS; j++) *sink += _mm512_cvtss_f32(sum[j]);
    return 2.0 * 16 * CHAINS * (double)rounds;
}

__attribute__((target("avx512f,avx512bf16"))) static double peak_avx512_bf16(long rounds, volatile float *sink) {
    __m512 sum[CHAINS];
    __m512bh x = _mm512_cvtne2ps_pbh(_mm512_set1_ps(1e-9f), _mm512_set1_ps(1e-9f));
    for (int j = 0; j < CHAINS; j++) sum[j] = _mm512_setzero_ps();
    for (long i = 0; i < rounds; i++)
#pragma GCC unroll 12
        for (int j = 0; j < CHAINS; j++) sum[j] = _mm512_dpbf16_ps(sum[j], x, x);
    for (int j = 0; j < CHAINS; j++) *sink += _mm512_cvtss_f32(sum[j]);
    return 2.0 * 32 * CHAINS * (double)rounds;
}

__attribute__((target("amx-tile,amx-bf16"))) static double peak_amx(long rounds, volatile float *sink) {
    struct tile_config config = tile_config_whole();
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (long i = 0; i < rounds / 8; i++) {
        _tile_dpbf16ps(0, 4, 5);
        _tile_dpbf16ps(1, 4, 5);
        _tile_dpbf16ps(2, 4, 5);
        _tile_dpbf16ps(3, 4, 5);
    }
    _tile_release();
    *sink += 0;
    return 2.0 * 16 * 16 * 32 * 4 * (double)(rounds / 8);
}
#endif

static peak_function *choose(enum dtype dtype) {
#ifdef __x86_64__
    if (dtype == DTYPE_BF16 && cpu_variant_supported(CPU_VARIANT_AMX)) return peak_amx;
    if (dtype == DTYPE_BF16 && __builtin_cpu_supports("avx512bf16")) return peak_avx512_bf16;
    if (__builtin_cpu_supports("avx512f")) return peak_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return peak_avx2;
#endif
    return peak_portable;
}

double machine_peak_flops(enum dtype dtype, int threads) {
    peak_function *peak = choose(dtype);
    double best = 0;
    for (int attempt = 0; attempt < 5; attempt++) {
        double operations = 0, start = clock_seconds();
#pragma omp parallel num_threads(threads) reduction(+ : operations)
        {
            volatile float sink = 0;
            operations += peak(ROUNDS, &sink);
        }
        double speed = operations / (clock_seconds() - start);
        best = speed > best ? speed : best;
    }
    return best;
}

double machine_peak_bandwidth(void) {
    const size_t count = (size_t)32 << 20; /* 256 MiB of 64-bit words: past every cache */
    uint64_t *words = malloc(count * sizeof *words);
    double best = 0;
    if (words == NULL) return 0;
    memset(words, 1, count * sizeof *words);
    for (int attempt = 0; attempt < 4; attempt++) {
        uint64_t sum = 0;
        double start = clock_seconds();
#pragma omp parallel for schedule(static) reduction(+ : sum) num_threads(threads_available())
        for (size_t i = 0; i < count; i++) sum += words[i];
        double speed = (double)(count * sizeof *words) / (clock_seconds() - start);
        best = sum != 0 && speed > best ? speed : best;
    }
    free(words);
    return best;
}
