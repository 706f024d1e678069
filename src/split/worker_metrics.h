/* What a worker counts beside its server, and the text in which Prometheus reads both
 * (https://prometheus.io/docs/instrumenting/exposition_formats). */
#ifndef TESSERA_SPLIT_WORKER_METRICS_H
#define TESSERA_SPLIT_WORKER_METRICS_H

#include "split/server.h"

enum worker_metric {
    METRIC_REFUSED,           /* requests that are none for this part */
    METRIC_FAILED,            /* requests that passed the first check and could not be computed */
    METRIC_UNKNOWN_CONSTANTS, /* requests whose constants must be sent whole */
    METRIC_AGAIN,             /* retries, answered with a kept reply */
    METRIC_COUNT
};

/* For several threads. */
struct worker_metrics {
    pthread_mutex_t guard;
    uint64_t counts[METRIC_COUNT];
    uint64_t computed[2]; /* runs, and hashes of blocks */
    double seconds[2];    /* that these took */
    size_t constants;     /* bytes */
};

void worker_metrics_open(struct worker_metrics *metrics);
void worker_metrics_close(struct worker_metrics *metrics);
void worker_metrics_count(struct worker_metrics *metrics, enum worker_metric which);
void worker_metrics_computed(struct worker_metrics *metrics, bool hashes, double seconds);
void worker_metrics_constants(struct worker_metrics *metrics, size_t bytes);
/* The caller frees; NULL when memory is out. */
char *worker_metrics_text(struct worker_metrics *metrics, const struct server_counts *counts);

#endif
