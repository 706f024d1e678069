/* `tessera generate --test-times N`: the same pictures again and again, and what one of them takes. */
#ifndef TESSERA_CLI_BENCHMARK_H
#define TESSERA_CLI_BENCHMARK_H

#include "cli/options.h"

struct cJSON;

struct benchmark {
    int warmup_runs, runs; /* before time is taken; with it */
    double ignore_ratio;   /* the share of the runs that is left out, half of it slowest and half fastest */
    double *seconds;       /* [runs], owned */
};

/* From the options of generate.h: one run without any. Free with benchmark_free either way. */
tessera_status benchmark_open(const struct option_value *values, struct benchmark *out, tessera_error *error);
void benchmark_free(struct benchmark *benchmark);

/* Whether the options request times. */
bool benchmark_wanted(const struct option_value *values);

/* Mean of the runs, which it sorts, without those that are left out: int(ignore_ratio runs / 2) on
 * each side, as in DistriFusion. */
double benchmark_mean(struct benchmark *benchmark);

/* One line on stderr, or the entry "benchmark" of `report`, about runs of so many pictures. */
void benchmark_print(struct benchmark *benchmark, int pictures);
void benchmark_add_report(struct benchmark *benchmark, int pictures, struct cJSON *report);

#endif
