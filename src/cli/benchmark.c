/* See benchmark.h. The time of a run is that of all ranks: they start it and end it together. */
#include "cli/benchmark.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include "base/error.h"
#include "base/order.h"
#include "cli/generate.h"

bool benchmark_wanted(const struct option_value *values) {
    return values[GENERATE_TEST_TIMES].given || values[GENERATE_WARMUP_TIMES].given;
}

tessera_status benchmark_open(const struct option_value *values, struct benchmark *out, tessera_error *error) {
    int runs = values[GENERATE_TEST_TIMES].given ? values[GENERATE_TEST_TIMES].integer : 1;
    *out = (struct benchmark){
        .warmup_runs = values[GENERATE_WARMUP_TIMES].integer, .runs = runs, .ignore_ratio = values[GENERATE_IGNORE_RATIO].number};
    out->seconds = calloc((size_t)runs, sizeof *out->seconds);
    return out->seconds != NULL ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "out of memory for %d times", runs);
}

void benchmark_free(struct benchmark *benchmark) {
    free(benchmark->seconds);
    *benchmark = (struct benchmark){0};
}

static int ignored_per_side(const struct benchmark *b) {
    return (int)(b->ignore_ratio * b->runs / 2);
}

double benchmark_mean(struct benchmark *b) {
    int first = ignored_per_side(b), end = b->runs - first;
    double sum = 0;
    qsort(b->seconds, (size_t)b->runs, sizeof *b->seconds, order_doubles);
    for (int i = first; i < end; i++) sum += b->seconds[i];
    return sum / (end - first);
}

void benchmark_print(struct benchmark *b, int pictures) {
    double mean = benchmark_mean(b);
    fprintf(stderr,
            "latency: %.5f s a picture: mean of %d of %d runs of %d picture%s, fastest run %.5f s, slowest %.5f s, after %d to warm up\n",
            mean / pictures, b->runs - 2 * ignored_per_side(b), b->runs, pictures, pictures == 1 ? "" : "s", b->seconds[0],
            b->seconds[b->runs - 1], b->warmup_runs);
}

void benchmark_add_report(struct benchmark *b, int pictures, cJSON *report) {
    cJSON *entry = cJSON_AddObjectToObject(report, "benchmark");
    cJSON_AddNumberToObject(entry, "seconds_per_picture", benchmark_mean(b) / pictures);
    cJSON_AddNumberToObject(entry, "pictures_per_run", pictures);
    cJSON_AddNumberToObject(entry, "warmup_runs", b->warmup_runs);
    cJSON_AddNumberToObject(entry, "runs_left_out", 2 * ignored_per_side(b));
    cJSON_AddItemToObject(entry, "seconds", cJSON_CreateDoubleArray(b->seconds, b->runs));
}
