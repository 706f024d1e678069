/* Merging LoRA files: the product W + B A for a weight of Flux's size, checked against float64,
 * then its speed at the ranks in use.
 *
 *     bench_lora_merge [THREADS]
 *
 * The last column is what all weights of Flux.1 (11.9e9) would take. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/random.h"
#include "checkpoint/lora_merge.h"
#include "machine_peak.h"

enum { ROWS = 12288, COLUMNS = 3072, MAX_RANK = 128, TIMES = 5, CHECKED = 1000 };
static const double flux_weights = 11.9e9;

static float *normal(struct random_generator *generator, size_t count) {
    float *out = malloc(count * sizeof *out);
    if (out != NULL) random_normal(generator, out, count);
    return out;
}

/* The largest difference from float64 in some elements of a product that was added to zeros. */
static double check(const float *weight, const float *up, const float *down, int rank) {
    double worst = 0;
    for (int n = 0; n < CHECKED; n++) {
        size_t row = (size_t)n * 7919 % ROWS, column = (size_t)n * 104729 % COLUMNS;
        double sum = 0;
        for (int r = 0; r < rank; r++) sum += (double)up[row * (size_t)rank + (size_t)r] * down[(size_t)r * COLUMNS + column];
        worst = fmax(worst, fabs(weight[row * COLUMNS + column] - sum));
    }
    return worst;
}

static bool bench(int rank, float *weight, float *up, float *down, double peak) {
    struct span rows = {0, ROWS}, inputs = {0, COLUMNS};
    struct lora_product product = {.factor = 1};
    product.down = tensor_of(down, DTYPE_F32, SHAPE(rank, COLUMNS));
    product.up = tensor_of(up, DTYPE_F32, SHAPE(ROWS, rank));
    memset(weight, 0, (size_t)ROWS * COLUMNS * sizeof *weight);
    if (lora_merge_piece(&product, rows, inputs, weight, NULL) != TESSERA_OK) return false;
    double error = check(weight, up, down, rank), best = INFINITY;
    for (int i = 0; i < TIMES; i++) {
        double start = clock_seconds();
        lora_merge_piece(&product, rows, inputs, weight, NULL);
        best = fmin(best, clock_seconds() - start);
    }
    double rate = 2.0 * ROWS * COLUMNS * rank / best;
    printf("rank %3d: %7.1f ms, %6.1f GFLOP/s, %4.1f %% of the peak, error %.1e, Flux %6.1f s\n", rank, best * 1e3, rate / 1e9,
           100 * rate / peak, error, best * flux_weights / ((double)ROWS * COLUMNS));
    return error < 1e-4;
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : threads_available();
    if (threads < 1) threads = 1;
    omp_set_num_threads(threads);
    double peak = machine_peak_flops(DTYPE_F32, threads);
    printf("[%d, %d], %d threads, peak %.0f GFLOP/s\n", ROWS, COLUMNS, threads, peak / 1e9);
    struct random_generator generator;
    random_seed(&generator, 1);
    float *weight = malloc((size_t)ROWS * COLUMNS * sizeof *weight);
    float *up = normal(&generator, (size_t)ROWS * MAX_RANK), *down = normal(&generator, (size_t)MAX_RANK * COLUMNS);
    bool good = weight != NULL && up != NULL && down != NULL;
    for (int rank = 4; good && rank <= MAX_RANK; rank *= 2) good = bench(rank, weight, up, down, peak);
    free(weight);
    free(up);
    free(down);
    return good ? 0 : 1;
}
