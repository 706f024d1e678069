/* What was sent and how long it was waited for, per label: the name of the layer or phase that
 * caused it, set by the caller. Heartbeats are not counted. */
#ifndef TESSERA_COMM_STATS_H
#define TESSERA_COMM_STATS_H

#include <stdio.h>
#include "comm/comm.h"

enum { COMM_STATS_LABELS = 64, COMM_STATS_LABEL_LENGTH = 40 };

struct comm_stats_row {
    char label[COMM_STATS_LABEL_LENGTH];
    uint64_t bytes_sent, bytes_received, messages_sent;
    double seconds_waited; /* blocked in waits */
};

/* Counts what is started from now on, by any group of this process, under `label` (cut at 39 bytes;
 * the 65th label and later count as the first). Returns the label until now, to be set again; it
 * lives as long as the world. */
const char *comm_label(struct comm *comm, const char *label);

/* This rank's counts so far: of one label (zeros if it is unknown), or of all together (label
 * NULL). */
struct comm_stats_row comm_stats_read(struct comm *comm, const char *label);
void comm_stats_reset(struct comm *comm);

/* On all members: gathers the counts of all ranks and prints a table on member 0 (its `stream`; the
 * others' may be NULL). */
tessera_status comm_stats_print(struct comm *comm, FILE *stream, tessera_error *error);

#endif
