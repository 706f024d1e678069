/* See transfer.h. */
#include "parallel/transfer.h"

#include <stdlib.h>

struct transfer transfer_open(struct run *run, struct comm *group) {
    return (struct transfer){.run = run, .group = group};
}

static bool reserve(struct transfer *t, int64_t more) {
    if (t->count + more <= t->capacity) return true;
    int capacity = 2 * t->capacity + (int)more + 16;
    struct comm_request **requests = realloc(t->requests, (size_t)capacity * sizeof *requests);
    if (requests == NULL) {
        error_set(&t->run->error, TESSERA_ERROR_MEMORY, "out of memory for %d messages", capacity);
        return false;
    }
    t->requests = requests;
    t->capacity = capacity;
    return true;
}

/* Starts one message for each picture of the batch. */
static void start(struct transfer *t, int member, struct token_rows rows, bool sends) {
    int64_t batch = rows.x.shape[0];
    if (run_failed(t->run) || rows.count == 0 || tensor_count(&rows.x) == 0 || !reserve(t, batch)) return;
    size_t row = tensor_bytes(&rows.x) / (size_t)(batch * rows.x.shape[1]), bytes = row * (size_t)rows.count;
    for (int64_t b = 0; b < batch; b++) {
        char *at = (char *)rows.x.data + row * (size_t)(b * rows.x.shape[1] + rows.first);
        t->requests[t->count++] = sends ? comm_send_start(t->group, member, at, bytes) : comm_receive_start(t->group, member, at, bytes);
    }
}

void transfer_send(struct transfer *t, int to, struct token_rows rows) {
    start(t, to, rows, true);
}

void transfer_receive(struct transfer *t, int from, struct token_rows rows) {
    start(t, from, rows, false);
}

void transfer_wait(struct transfer *t) {
    for (int i = 0; i < t->count; i++) {
        tessera_error error = {0};
        if (comm_wait(t->group, t->requests[i], &error) != TESSERA_OK && !run_failed(t->run)) t->run->error = error;
    }
    free(t->requests);
    *t = (struct transfer){.run = t->run, .group = t->group};
}
