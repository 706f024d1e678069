/* The table of --comm-stats: every rank's rows are gathered on member 0, whose table has a line per
 * label and rank. */
#include "comm/stats.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "comm/collectives.h"
#include "comm/comm_state.h"

const char *comm_label(struct comm *comm, const char *label) {
    return comm != NULL ? engine_label(comm->engine, label) : label; /* a process alone sends nothing */
}

void comm_stats_reset(struct comm *comm) {
    engine_stats_reset(comm->engine);
}

static void add_row(struct comm_stats_row *sum, const struct comm_stats_row *row) {
    sum->bytes_sent += row->bytes_sent;
    sum->bytes_received += row->bytes_received;
    sum->messages_sent += row->messages_sent;
    sum->seconds_waited += row->seconds_waited;
}

struct comm_stats_row comm_stats_read(struct comm *comm, const char *label) {
    struct comm_stats_row rows[COMM_STATS_LABELS], sum = {.label = "total"};
    int count = engine_stats(comm->engine, rows);
    for (int i = 0; i < count; i++)
        if (label == NULL || strncmp(rows[i].label, label, COMM_STATS_LABEL_LENGTH - 1) == 0) add_row(&sum, &rows[i]);
    return sum;
}

static void print_row(FILE *stream, const char *label, int rank, const struct comm_stats_row *row) {
    fprintf(stream, "%-32s %5d %12" PRIu64 " %16" PRIu64 " %16" PRIu64 " %12.6f\n", label, rank, row->messages_sent, row->bytes_sent,
            row->bytes_received, row->seconds_waited);
}

/* One label's lines: those of the ranks (`rows` of rank r from starts[r] to starts[r + 1]) that
 * used it. */
static void print_label(FILE *stream, const char *label, const struct comm_stats_row *rows, const size_t *starts, int size) {
    for (int rank = 0; rank < size; rank++)
        for (size_t i = starts[rank]; i < starts[rank + 1]; i++)
            if (strcmp(rows[i].label, label) == 0 && (rows[i].messages_sent > 0 || rows[i].bytes_received > 0))
                print_row(stream, label, rank, &rows[i]);
}

static void print_table(FILE *stream, const struct comm_stats_row *rows, const size_t *starts, int size) {
    fprintf(stream, "%-32s %5s %12s %16s %16s %12s\n", "layer", "rank", "messages", "bytes sent", "bytes received", "waited (s)");
    for (size_t i = 0; i < starts[size]; i++) {
        bool printed = false;
        for (size_t j = 0; j < i && !printed; j++) printed = strcmp(rows[i].label, rows[j].label) == 0;
        if (!printed) print_label(stream, rows[i].label, rows, starts, size);
    }
    for (int rank = 0; rank < size; rank++) {
        struct comm_stats_row sum = {{0}, 0, 0, 0, 0};
        for (size_t i = starts[rank]; i < starts[rank + 1]; i++) add_row(&sum, &rows[i]);
        print_row(stream, "total", rank, &sum);
    }
}

static tessera_status no_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "no memory for the table of messages");
}

static tessera_status gather_and_print(struct comm *comm, FILE *stream, tessera_error *error) {
    struct comm_stats_row mine[COMM_STATS_LABELS], *all = NULL;
    size_t size = (size_t)comm->size, count = (size_t)engine_stats(comm->engine, mine);
    size_t *arrays = calloc(3 * size + 1, sizeof *arrays); /* sizes, then what each sends, then where each rank's rows start */
    if (arrays == NULL) return no_memory(error);
    size_t *sizes = arrays, *out_bytes = arrays + size, *starts = arrays + 2 * size;
    for (size_t i = 0; i < size; i++) sizes[i] = sizeof count;
    tessera_status status = comm_all_gather(comm, &count, starts, sizes, error);
    if (status != TESSERA_OK) {
        free(arrays);
        return status;
    }
    size_t total = 0;
    for (size_t i = 0; i < size; i++) {
        size_t rows = starts[i];
        sizes[i] = comm->rank == 0 ? rows * sizeof *mine : 0;
        starts[i] = total;
        total += rows;
    }
    starts[size] = total;
    out_bytes[0] = count * sizeof *mine;
    all = malloc((total > 0 ? total : 1) * sizeof *all);
    status = all == NULL ? no_memory(error) : comm_all_to_all(comm, mine, out_bytes, all, sizes, error);
    if (status == TESSERA_OK && comm->rank == 0) print_table(stream, all, starts, comm->size);
    free(all);
    free(arrays);
    return status;
}

tessera_status comm_stats_print(struct comm *comm, FILE *stream, tessera_error *error) {
    tessera_error own;
    if (error == NULL) error = &own;
    tessera_status status = comm_job_begin(comm, error);
    if (status == TESSERA_OK) status = gather_and_print(comm, stream, error);
    return comm_job_end(comm, status, error);
}
