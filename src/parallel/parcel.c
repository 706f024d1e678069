/* See parcel.h. Received parcels alternate between two buffers: one is read, the other filled. Sent ones have a buffer each, given back
 * once the message has gone; the receiver's pace bounds how many there are. */
#include "parallel/parcel.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "backend/memory.h"
#include "comm/stats.h"

enum { ALIGNMENT = 64 };

struct parcel_shapes {
    int32_t count;
    int32_t present[PARCEL_MAX_TENSORS], dtype[PARCEL_MAX_TENSORS], ndim[PARCEL_MAX_TENSORS];
    int64_t shape[PARCEL_MAX_TENSORS][TENSOR_MAX_DIMS];
};

/* What goes before a parcel's tensors. */
union parcel_head {
    int32_t skipped;
    char bytes[PARCEL_HEAD_BYTES];
};

/* A message on its way out. */
struct sending {
    struct sending *next;
    struct comm_request *request;
    char data[];
};

struct parcel_line {
    struct comm *comm;
    const char *label;
    int peer, num_kinds;
    struct parcel_shapes *kinds; /* [num_kinds]; count -1: not known yet */
    struct sending *sendings;
    char *buffers[2];
    size_t capacities[2];
    int filling;                  /* which of them */
    struct comm_request *arrival; /* into it; NULL: none is expected */
};

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for what pipeline stages send each other");
}

struct parcel_line *parcel_line_open(struct comm *comm, int peer, int kinds, const char *label) {
    struct parcel_line *line = calloc(1, sizeof *line);
    if (line == NULL) return NULL;
    *line = (struct parcel_line){
        .comm = comm, .label = label, .peer = peer, .num_kinds = kinds, .kinds = calloc((size_t)kinds, sizeof *line->kinds)};
    for (int i = 0; line->kinds != NULL && i < kinds; i++) line->kinds[i].count = -1;
    if (line->kinds != NULL) return line;
    free(line);
    return NULL;
}

/* Gives back what has gone; all of it if `wait`. */
static tessera_status reap(struct parcel_line *line, bool wait, tessera_error *error) {
    tessera_status status = TESSERA_OK;
    struct sending **at = &line->sendings;
    while (*at != NULL) {
        struct sending *s = *at;
        if (!wait && !comm_test(line->comm, s->request)) {
            at = &s->next;
            continue;
        }
        tessera_status one = comm_wait(line->comm, s->request, status == TESSERA_OK ? error : NULL);
        if (status == TESSERA_OK) status = one;
        *at = s->next;
        free(s);
    }
    return status;
}

void parcel_line_close(struct parcel_line *line) {
    if (line == NULL) return;
    reap(line, true, NULL);
    if (line->arrival != NULL) comm_wait(line->comm, line->arrival, NULL);
    free(line->buffers[0]);
    free(line->buffers[1]);
    free(line->kinds);
    free(line);
}

static size_t aligned(size_t bytes) {
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static struct tensor tensor_at(const struct parcel_shapes *shapes, int i, char *data) {
    if (!shapes->present[i]) return (struct tensor){0};
    return tensor_of(data, (enum dtype)shapes->dtype[i], shapes->ndim[i], shapes->shape[i]);
}

static size_t parcel_bytes(const struct parcel_shapes *shapes) {
    size_t bytes = PARCEL_HEAD_BYTES;
    for (int i = 0; i < shapes->count; i++) {
        struct tensor t = tensor_at(shapes, i, NULL);
        if (shapes->present[i]) bytes += aligned(tensor_bytes(&t));
    }
    return bytes;
}

static struct parcel_shapes shapes_of(const struct parcel *parcel) {
    struct parcel_shapes shapes;
    memset(&shapes, 0, sizeof shapes); /* as it is sent */
    shapes.count = parcel->count;
    for (int i = 0; i < parcel->count; i++) {
        const struct tensor *t = &parcel->tensors[i];
        shapes.present[i] = t->data != NULL;
        shapes.dtype[i] = (int32_t)t->dtype;
        shapes.ndim[i] = t->ndim;
        for (int j = 0; j < t->ndim; j++) shapes.shape[i][j] = t->shape[j];
    }
    return shapes;
}

/* Starts sending `bytes` that `fill` is to write: its memory, or NULL. */
static struct sending *new_sending(struct parcel_line *line, size_t bytes) {
    struct sending *s = malloc(sizeof *s + bytes);
    if (s == NULL) return NULL;
    s->next = line->sendings;
    s->request = NULL;
    line->sendings = s;
    return s;
}

static tessera_status send_shapes(struct parcel_line *line, const struct parcel_shapes *shapes, tessera_error *error) {
    struct sending *s = new_sending(line, sizeof *shapes);
    if (s == NULL) return out_of_memory(error);
    memcpy(s->data, shapes, sizeof *shapes);
    comm_label(line->comm, line->label);
    s->request = comm_send_start(line->comm, line->peer, s->data, sizeof *shapes);
    return TESSERA_OK;
}

tessera_status parcel_send(struct parcel_line *line, int kind, const struct parcel *parcel, tessera_error *error) {
    assert(kind >= 0 && kind < line->num_kinds && parcel->count <= PARCEL_MAX_TENSORS);
    TRY(reap(line, false, error));
    struct parcel_shapes shapes = shapes_of(parcel), *known = &line->kinds[kind];
    if (known->count < 0) {
        *known = shapes;
        TRY(send_shapes(line, known, error));
    }
    assert(memcmp(known, &shapes, sizeof shapes) == 0);
    size_t bytes = parcel_bytes(known);
    struct sending *s = new_sending(line, bytes);
    if (s == NULL) return out_of_memory(error);
    memset(s->data, 0, bytes); /* gaps between tensors are sent, too */
    memcpy(s->data, &(union parcel_head){.skipped = parcel->skipped}, sizeof(int32_t));
    char *to = s->data + PARCEL_HEAD_BYTES;
    for (int i = 0; i < parcel->count; i++) {
        const struct tensor *t = &parcel->tensors[i];
        if (t->data == NULL) continue;
        if (parcel->backend != NULL && !parcel->backend->shares_host && backend_holds(parcel->backend, t))
            TRY(backend_download(parcel->backend, to, t, error));
        else
            memcpy(to, t->data, tensor_bytes(t));
        to += aligned(tensor_bytes(t));
    }
    comm_label(line->comm, line->label);
    s->request = comm_send_start(line->comm, line->peer, s->data, bytes);
    return TESSERA_OK;
}

tessera_status parcel_expect(struct parcel_line *line, int kind, tessera_error *error) {
    assert(kind >= 0 && kind < line->num_kinds);
    if (line->arrival != NULL || line->kinds[kind].count < 0) return TESSERA_OK;
    size_t bytes = parcel_bytes(&line->kinds[kind]), *capacity = &line->capacities[line->filling];
    if (*capacity < bytes) {
        free(line->buffers[line->filling]);
        line->buffers[line->filling] = aligned_alloc(ALIGNMENT, aligned(bytes));
        *capacity = line->buffers[line->filling] != NULL ? bytes : 0;
        if (*capacity == 0) return out_of_memory(error);
    }
    comm_label(line->comm, line->label);
    line->arrival = comm_receive_start(line->comm, line->peer, line->buffers[line->filling], bytes);
    return TESSERA_OK;
}

/* The shapes come from a rank of the same program with the same options, over the same model: they are believed. */
static tessera_status learn_shapes(struct parcel_line *line, struct parcel_shapes *kind, tessera_error *error) {
    struct parcel_shapes *shapes = malloc(sizeof *shapes);
    if (shapes == NULL) return out_of_memory(error);
    comm_label(line->comm, line->label);
    struct comm_request *request = comm_receive_start(line->comm, line->peer, shapes, sizeof *shapes);
    tessera_status status = comm_wait(line->comm, request, error);
    if (status == TESSERA_OK) *kind = *shapes;
    free(shapes);
    return status;
}

tessera_status parcel_receive(struct parcel_line *line, int kind, struct parcel *out, tessera_error *error) {
    struct parcel_shapes *shapes = &line->kinds[kind];
    if (shapes->count < 0) TRY(learn_shapes(line, shapes, error));
    TRY(parcel_expect(line, kind, error));
    struct comm_request *arrival = line->arrival;
    line->arrival = NULL;
    TRY(comm_wait(line->comm, arrival, error));
    char *from = line->buffers[line->filling];
    line->filling = 1 - line->filling;
    union parcel_head head;
    memcpy(&head, from, sizeof head);
    *out = (struct parcel){.skipped = head.skipped != 0, .count = shapes->count};
    from += PARCEL_HEAD_BYTES;
    for (int i = 0; i < shapes->count; i++) {
        out->tensors[i] = tensor_at(shapes, i, from);
        if (shapes->present[i]) from += aligned(tensor_bytes(&out->tensors[i]));
    }
    return TESSERA_OK;
}
