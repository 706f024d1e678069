/* See parcel.h. Received messages alternate between two buffers: the caller reads one while the
 * other fills. Each sent message has a buffer, which is freed once the message has gone; the
 * receiver's pace bounds how many there are. A line to this member itself hands the buffers over.
 */
#include "parallel/parcel.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "comm/stats.h"

enum { ALIGNMENT = 64 };

/* A message under way, or one that the sender fills. */
struct sending {
    struct sending *next;
    struct comm_request *request;
    size_t bytes;
    _Alignas(ALIGNMENT) char data[];
};

struct parcel_line {
    struct comm *comm;
    const char *label;
    struct comm_explanation explanation;
    int peer;
    struct sending *sendings, *room; /* room: not sent yet, or NULL */
    struct sending *held, **held_end; /* the oldest first */
    struct sending *taken[2];         /* of a line to oneself: received, the last one first */
    bool is_own;
    void *buffers[2];
    size_t capacities[2];
    int filling;                  /* which of them */
    size_t expected;              /* bytes */
    struct comm_request *arrival; /* into it; NULL: none is expected */
};

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for what pipeline stages send each other");
}

static void *new_memory(size_t bytes) {
    return aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
}

struct parcel_line *parcel_line_open(struct comm *comm, int peer, const char *label) {
    struct parcel_line *line = calloc(1, sizeof *line);
    if (line == NULL) return NULL;
    *line = (struct parcel_line){.comm = comm, .label = label, .peer = peer, .is_own = peer == comm_rank(comm)};
    line->held_end = &line->held;
    return line;
}

void parcel_line_explain(struct parcel_line *line, struct comm_explanation explanation) {
    line->explanation = explanation;
}

/* Frees the messages that have gone; all of them if `wait`. */
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

/* Takes the oldest message that is held; there must be one. */
static struct sending *take_held(struct parcel_line *line) {
    struct sending *s = line->held;
    line->held = s->next;
    if (line->held == NULL) line->held_end = &line->held;
    return s;
}

void parcel_line_close(struct parcel_line *line) {
    if (line == NULL) return;
    reap(line, true, NULL);
    if (line->arrival != NULL) comm_wait(line->comm, line->arrival, NULL);
    while (line->held != NULL) free(take_held(line));
    free(line->taken[0]);
    free(line->taken[1]);
    free(line->room);
    free(line->buffers[0]);
    free(line->buffers[1]);
    free(line);
}

void *parcel_room(struct parcel_line *line, size_t bytes, tessera_error *error) {
    assert(line->room == NULL);
    if (reap(line, false, error) != TESSERA_OK) return NULL;
    line->room = new_memory(sizeof *line->room + bytes);
    if (line->room == NULL) {
        out_of_memory(error);
        return NULL;
    }
    line->room->bytes = bytes;
    return line->room->data;
}

void parcel_hold(struct parcel_line *line) {
    struct sending *s = line->room;
    line->room = NULL;
    s->next = NULL;
    *line->held_end = s;
    line->held_end = &s->next;
}

void parcel_send_held(struct parcel_line *line) {
    if (line->held == NULL || line->is_own) return;
    struct sending *s = take_held(line);
    s->next = line->sendings;
    line->sendings = s;
    comm_label(line->comm, line->label);
    s->request = comm_send_start(line->comm, line->peer, s->data, s->bytes);
}

void parcel_send(struct parcel_line *line) {
    parcel_hold(line);
    parcel_send_held(line);
}

tessera_status parcel_expect(struct parcel_line *line, size_t bytes, tessera_error *error) {
    size_t *capacity = &line->capacities[line->filling];
    void **buffer = &line->buffers[line->filling];
    if (line->arrival != NULL || line->is_own) return TESSERA_OK;
    if (*capacity < bytes) {
        free(*buffer);
        *buffer = new_memory(bytes);
        *capacity = *buffer != NULL ? bytes : 0;
        if (*buffer == NULL) return out_of_memory(error);
    }
    comm_label(line->comm, line->label);
    line->expected = bytes;
    memset(*buffer, 0, bytes < ALIGNMENT ? bytes : ALIGNMENT); /* what explains it takes nothing of an earlier one for its beginning */
    line->arrival = comm_receive_explained(line->comm, line->peer, *buffer, bytes, line->explanation);
    return TESSERA_OK;
}

/* Receives from this member itself. */
static void receive_own(struct parcel_line *line, size_t bytes, const void **out) {
    assert(line->held != NULL && line->held->bytes == bytes);
    free(line->taken[1]);
    line->taken[1] = line->taken[0];
    line->taken[0] = take_held(line);
    *out = line->taken[0]->data;
}

tessera_status parcel_receive(struct parcel_line *line, size_t bytes, const void **out, tessera_error *error) {
    if (line->is_own) {
        receive_own(line, bytes, out);
        return TESSERA_OK;
    }
    TRY(parcel_expect(line, bytes, error));
    assert(line->expected == bytes);
    struct comm_request *arrival = line->arrival;
    line->arrival = NULL;
    TRY(comm_wait(line->comm, arrival, error));
    *out = line->buffers[line->filling];
    line->filling = 1 - line->filling;
    return TESSERA_OK;
}
