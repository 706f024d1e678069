/* See worker_metrics.h. */
#include "split/worker_metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void worker_metrics_open(struct worker_metrics *metrics) {
    memset(metrics, 0, sizeof *metrics);
    pthread_mutex_init(&metrics->guard, NULL);
}

void worker_metrics_close(struct worker_metrics *metrics) {
    pthread_mutex_destroy(&metrics->guard);
}

void worker_metrics_count(struct worker_metrics *metrics, enum worker_metric which) {
    pthread_mutex_lock(&metrics->guard);
    metrics->counts[which]++;
    pthread_mutex_unlock(&metrics->guard);
}

void worker_metrics_computed(struct worker_metrics *metrics, bool hashes, double seconds) {
    pthread_mutex_lock(&metrics->guard);
    metrics->computed[hashes]++;
    metrics->seconds[hashes] += seconds;
    pthread_mutex_unlock(&metrics->guard);
}

void worker_metrics_constants(struct worker_metrics *metrics, size_t bytes) {
    pthread_mutex_lock(&metrics->guard);
    metrics->constants = bytes;
    pthread_mutex_unlock(&metrics->guard);
}

static void metric(FILE *out, const char *name, bool is_counter, const char *help, double value) {
    fprintf(out, "# HELP tessera_worker_%s %s\n# TYPE tessera_worker_%s %s\ntessera_worker_%s %.17g\n", name, help, name,
            is_counter ? "counter" : "gauge", name, value);
}

static void print_work(FILE *out, const struct worker_metrics *m) {
    metric(out, "runs_total", true, "Requests that were computed.", (double)m->computed[0]);
    metric(out, "run_seconds_total", true, "Seconds that these took to compute.", m->seconds[0]);
    metric(out, "hashes_total", true, "Requests for the hashes after each block that were computed.", (double)m->computed[1]);
    metric(out, "hashes_seconds_total", true, "Seconds that these took to compute.", m->seconds[1]);
    metric(out, "retries_total", true, "Requests answered with a kept reply.", (double)m->counts[METRIC_AGAIN]);
    metric(out, "refused_total", true, "Requests that are none for this part.", (double)m->counts[METRIC_REFUSED]);
    metric(out, "failed_total", true, "Requests that could not be computed.", (double)m->counts[METRIC_FAILED]);
    metric(out, "unknown_constants_total", true, "Requests whose constants the client had to send whole.",
           (double)m->counts[METRIC_UNKNOWN_CONSTANTS]);
    metric(out, "constants_bytes", false, "Constants of jobs that are kept.", (double)m->constants);
}

static void print_server(FILE *out, const struct server_counts *c) {
    metric(out, "queue", false, "Requests that wait or are computed.", c->queued);
    metric(out, "body_bytes", false, "Memory of requests that are on their way, wait, or are computed.", (double)c->memory);
    metric(out, "received_bytes_total", true, "Bytes of request bodies.", (double)c->bytes_received);
    metric(out, "sent_bytes_total", true, "Bytes of reply bodies.", (double)c->bytes_sent);
    metric(out, "connections", false, "Open connections.", c->links.now);
    metric(out, "connections_total", true, "Connections that were opened.", (double)c->links.opened);
    metric(out, "connections_refused_total", true, "Connections of addresses with too many.", (double)c->links.refused);
    metric(out, "connections_displaced_total", true, "Connections without a token that went for newer ones.", (double)c->links.displaced);
    metric(out, "connections_late_total", true, "Connections that missed a deadline.", (double)c->links.late);
    metric(out, "unauthorized_total", true, "Requests without one of the tokens.", (double)c->unauthorized);
    metric(out, "too_many_total", true, "Requests refused by a rate or a full queue.", (double)c->too_many);
    fprintf(out,
            "# HELP tessera_worker_replies_total Replies by the class of their status.\n# TYPE tessera_worker_replies_total counter\n");
    for (int i = 2; i < 6; i++) fprintf(out, "tessera_worker_replies_total{class=\"%dxx\"} %llu\n", i, (unsigned long long)c->by_class[i]);
}

char *worker_metrics_text(struct worker_metrics *metrics, const struct server_counts *counts) {
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    if (out == NULL) return NULL;
    pthread_mutex_lock(&metrics->guard);
    struct worker_metrics copy = *metrics;
    pthread_mutex_unlock(&metrics->guard);
    print_work(out, &copy);
    print_server(out, counts);
    if (fclose(out) == 0) return text;
    free(text);
    return NULL;
}
