/* See transfer.h. */
#include "parallel/transfer.h"

#include <stdlib.h>

#include "backend/memory.h"
#include "parallel/exchange.h"

struct transfer_message {
    struct comm_request *request;
    void *staged;         /* the host's copy, where the backend's memory is not the host's */
    struct tensor target; /* of a staged one that is received */
};

struct token_span token_span_all(struct tensor x) {
    return (struct token_span){tensor_reshape(x, SHAPE(1, 1, tensor_count(&x))), 0, 1};
}

static bool reserve(struct run *run, struct transfer *t, int64_t more) {
    if (t->count + more <= t->capacity) return true;
    int capacity = 2 * t->capacity + (int)more + 8;
    struct transfer_message *messages = realloc(t->messages, (size_t)capacity * sizeof *messages);
    if (messages == NULL) {
        error_set(&run->error, TESSERA_ERROR_MEMORY, "out of memory for %d messages", capacity);
        return false;
    }
    t->messages = messages;
    t->capacity = capacity;
    return true;
}

/* Host memory for a message: the tensor's own, or a copy. NULL and an error without memory. */
static void *host_of(struct run *run, const struct tensor *piece, bool sends, struct transfer_message *message) {
    if (run->backend->shares_host) return piece->data;
    message->staged = malloc(tensor_bytes(piece));
    message->target = sends ? (struct tensor){0} : *piece;
    if (message->staged == NULL)
        error_set(&run->error, TESSERA_ERROR_MEMORY, "out of memory for a message of %zu bytes", tensor_bytes(piece));
    if (message->staged != NULL && sends) backend_download(run->backend, message->staged, piece, &run->error);
    return message->staged;
}

/* Starts one message for each picture of the batch. */
static void start(struct run *run, struct transfer *t, int member, struct token_span span, bool sends) {
    int64_t batch = span.x.shape[0];
    if (run_failed(run) || span.count == 0 || tensor_count(&span.x) == 0 || !reserve(run, t, batch)) return;
    int64_t width = tensor_count(&span.x) / (batch * span.x.shape[1]);
    struct tensor piece = tensor_reshape(span.x, SHAPE(batch * span.x.shape[1], width));
    size_t row = tensor_bytes(&piece) / (size_t)piece.shape[0];
    piece.shape[0] = span.count;
    for (int64_t b = 0; b < batch && !run_failed(run); b++) {
        struct transfer_message message = {0};
        piece.data = (char *)span.x.data + row * (size_t)(b * span.x.shape[1] + span.first);
        void *host = host_of(run, &piece, sends, &message);
        if (run_failed(run)) {
            free(message.staged);
            return;
        }
        message.request = sends ? comm_send_start(t->group, member, host, tensor_bytes(&piece))
                                : comm_receive_start(t->group, member, host, tensor_bytes(&piece));
        t->messages[t->count++] = message;
    }
}

void transfer_send(struct run *run, struct transfer *t, int to, struct token_span span) {
    start(run, t, to, span, true);
}

void transfer_receive(struct run *run, struct transfer *t, int from, struct token_span span) {
    start(run, t, from, span, false);
}

void transfer_wait(struct run *run, struct transfer *t) {
    for (int i = 0; i < t->count; i++) {
        struct transfer_message *m = &t->messages[i];
        tessera_error error = {0};
        tessera_status status = comm_wait(t->group, m->request, &error);
        if (status == TESSERA_OK && m->staged != NULL && m->target.data != NULL)
            status = backend_upload(run->backend, &m->target, m->staged, &error);
        if (status != TESSERA_OK && !run_failed(run)) run->error = error;
        free(m->staged);
    }
    free(t->messages);
    *t = (struct transfer){.group = t->group};
}
