/* The collectives of collectives.h, made of point-to-point messages. An operation is the list of
 * its requests and, where it has one, the second half that runs once the first has ended. A group
 * keeps one operation and its scratch memory for all that it does. */
#include "comm/collectives.h"

#include "base/bf16.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "comm/comm_state.h"

static void out_of_memory(struct comm *comm) {
    comm_job_fail(comm, &(tessera_error){TESSERA_ERROR_MEMORY, "no memory for a collective operation"});
}

/* The group's operation, for a new one; NULL when memory is out, and then the job has failed. */
static struct comm_operation *operation_take(struct comm *comm) {
    if (comm->operation == NULL)
        comm->operation = calloc(1, sizeof *comm->operation + 2 * (size_t)comm->size * sizeof comm->operation->requests[0]);
    if (comm->operation == NULL) {
        out_of_memory(comm);
        return NULL;
    }
    comm->operation->count = 0;
    comm->operation->second_half = NULL;
    return comm->operation;
}

static bool reserve_scratch(struct comm *comm, struct comm_operation *operation, size_t bytes) {
    if (bytes <= operation->scratch_bytes) return true;
    void *scratch = realloc(operation->scratch, bytes);
    if (scratch == NULL) {
        out_of_memory(comm);
        return false;
    }
    operation->scratch = scratch;
    operation->scratch_bytes = bytes;
    return true;
}

static void send(struct comm *comm, struct comm_operation *operation, int to, const void *data, size_t bytes) {
    if (bytes == 0) return;
    assert(operation->count < 2 * comm->size);
    operation->requests[operation->count++] = comm_send_start(comm, to, data, bytes);
}

static void receive(struct comm *comm, struct comm_operation *operation, int from, void *data, size_t bytes) {
    if (bytes == 0) return;
    assert(operation->count < 2 * comm->size);
    operation->requests[operation->count++] = comm_receive_start(comm, from, data, bytes);
}

/* Waits for all requests, also after a failure, so that each is given back. */
static tessera_status wait_all(struct comm *comm, struct comm_operation *operation, tessera_error *error) {
    tessera_status status = engine_status(comm->jobs, error);
    for (int i = 0; i < operation->count; i++) {
        tessera_status one = comm_wait(comm, operation->requests[i], status == TESSERA_OK ? error : NULL);
        if (status == TESSERA_OK) status = one;
    }
    operation->count = 0;
    return status;
}

static tessera_status finish(struct comm *comm, struct comm_operation *operation, tessera_error *error) {
    if (operation == NULL) return comm_wait(comm, NULL, error);
    tessera_status status = wait_all(comm, operation, error);
    if (status == TESSERA_OK && operation->second_half != NULL) {
        operation->second_half(comm, operation);
        status = wait_all(comm, operation, error);
    }
    return status;
}

static size_t sum_before(const size_t *bytes, int rank) {
    size_t sum = 0;
    for (int i = 0; i < rank; i++) sum += bytes[i];
    return sum;
}

/* Nothing to copy, or the same place, is fine. */
static void copy(void *to, const void *from, size_t bytes) {
    if (bytes > 0 && to != from) memmove(to, from, bytes);
}

static struct comm_operation *start_all_gather(struct comm *comm, const void *mine, void *all, const size_t *bytes) {
    struct comm_operation *operation = operation_take(comm);
    if (operation == NULL) return NULL;
    size_t my_bytes = bytes[comm->rank];
    copy((uint8_t *)all + sum_before(bytes, comm->rank), mine, my_bytes);
    for (int step = 1; step < comm->size; step++) { /* each starts with another partner */
        int to = (comm->rank + step) % comm->size, from = (comm->rank - step + comm->size) % comm->size;
        receive(comm, operation, from, (uint8_t *)all + sum_before(bytes, from), bytes[from]);
        send(comm, operation, to, mine, my_bytes);
    }
    return operation;
}

static struct comm_operation *start_all_to_all(struct comm *comm, const void *out, const size_t *out_bytes, void *in,
                                             const size_t *in_bytes) {
    struct comm_operation *operation = operation_take(comm);
    if (operation == NULL) return NULL;
    const uint8_t *from_me = out;
    uint8_t *to_me = in;
    assert(out_bytes[comm->rank] == in_bytes[comm->rank]);
    copy(to_me + sum_before(in_bytes, comm->rank), from_me + sum_before(out_bytes, comm->rank), in_bytes[comm->rank]);
    for (int step = 1; step < comm->size; step++) {
        int to = (comm->rank + step) % comm->size, from = (comm->rank - step + comm->size) % comm->size;
        receive(comm, operation, from, to_me + sum_before(in_bytes, from), in_bytes[from]);
        send(comm, operation, to, from_me + sum_before(out_bytes, to), out_bytes[to]);
    }
    return operation;
}

/* ---- all_reduce ---- */

enum { REDUCE_BLOCK = 1024 };

static size_t type_bytes(enum comm_type type) {
    return type == COMM_BF16 ? 2 : type == COMM_F32 ? 4 : 8;
}

/* Slice i of the data, in elements: [i length / n, (i + 1) length / n). */
static size_t slice_start(const struct comm_operation *operation, int size, int i) {
    size_t n = (size_t)size, k = (size_t)i;
    return operation->length / n * k + operation->length % n * k / n;
}

static size_t slice_length(const struct comm_operation *operation, int size, int i) {
    return slice_start(operation, size, i + 1) - slice_start(operation, size, i);
}

/* out[i] = sum over r of inputs[r][i], in the order of r. `out` may be one of the inputs. */
static void sum_f32(float *out, const uint8_t *const *inputs, int num_inputs, size_t start, size_t count) {
    float sum[REDUCE_BLOCK];
    memcpy(sum, (const float *)inputs[0] + start, count * sizeof *sum);
    for (int r = 1; r < num_inputs; r++) {
        const float *input = (const float *)inputs[r] + start;
        for (size_t i = 0; i < count; i++) sum[i] += input[i];
    }
    memcpy(out + start, sum, count * sizeof *sum);
}

static void sum_f64(double *out, const uint8_t *const *inputs, int num_inputs, size_t start, size_t count) {
    double sum[REDUCE_BLOCK];
    memcpy(sum, (const double *)inputs[0] + start, count * sizeof *sum);
    for (int r = 1; r < num_inputs; r++) {
        const double *input = (const double *)inputs[r] + start;
        for (size_t i = 0; i < count; i++) sum[i] += input[i];
    }
    memcpy(out + start, sum, count * sizeof *sum);
}

static void sum_bf16(uint16_t *out, const uint8_t *const *inputs, int num_inputs, size_t start, size_t count) {
    float sum[REDUCE_BLOCK] = {0};
    for (int r = 0; r < num_inputs; r++) {
        const uint16_t *input = (const uint16_t *)inputs[r] + start;
        for (size_t i = 0; i < count; i++) sum[i] += bf16_widen(input[i]);
    }
    for (size_t i = 0; i < count; i++) out[start + i] = bf16_round(sum[i]);
}

static void sum_slice(const struct comm_operation *operation, uint8_t *out, const uint8_t *const *inputs, int num_inputs, size_t count) {
    for (size_t start = 0; start < count; start += REDUCE_BLOCK) {
        size_t block = count - start < REDUCE_BLOCK ? count - start : REDUCE_BLOCK;
        if (operation->type == COMM_F32)
            sum_f32((float *)out, inputs, num_inputs, start, block);
        else if (operation->type == COMM_BF16)
            sum_bf16((uint16_t *)out, inputs, num_inputs, start, block);
        else
            sum_f64((double *)out, inputs, num_inputs, start, block);
    }
}

/* The slices of this rank's share, in the scratch after the pointers to them: those of the other
 * ranks in rank order. */
static const uint8_t **scratch_inputs(const struct comm *comm, struct comm_operation *operation, size_t slice_bytes) {
    const uint8_t **inputs = (const uint8_t **)operation->scratch;
    uint8_t *place = operation->scratch + (size_t)comm->size * sizeof *inputs;
    size_t element = type_bytes(operation->type);
    for (int r = 0; r < comm->size; r++) {
        if (r == comm->rank) {
            inputs[r] = operation->data + slice_start(operation, comm->size, r) * element;
            continue;
        }
        inputs[r] = place;
        place += (slice_bytes + 63) / 64 * 64;
    }
    return inputs;
}

/* Sums this rank's slice and sends it to all. */
static void all_reduce_second_half(struct comm *comm, struct comm_operation *operation) {
    size_t element = type_bytes(operation->type), count = slice_length(operation, comm->size, comm->rank);
    uint8_t *mine = operation->data + slice_start(operation, comm->size, comm->rank) * element;
    sum_slice(operation, mine, (const uint8_t *const *)operation->scratch, comm->size, count);
    for (int step = 1; step < comm->size; step++) {
        int to = (comm->rank + step) % comm->size, from = (comm->rank - step + comm->size) % comm->size;
        uint8_t *theirs = operation->data + slice_start(operation, comm->size, from) * element;
        receive(comm, operation, from, theirs, slice_length(operation, comm->size, from) * element);
        send(comm, operation, to, mine, count * element);
    }
}

static struct comm_operation *start_all_reduce(struct comm *comm, void *data, size_t count, enum comm_type type) {
    struct comm_operation *operation = operation_take(comm);
    if (operation == NULL || comm->size == 1) return operation;
    operation->data = data;
    operation->length = count;
    operation->type = type;
    size_t element = type_bytes(type), slice_bytes = slice_length(operation, comm->size, comm->rank) * element;
    size_t scratch = (size_t)comm->size * (sizeof(uint8_t *) + (slice_bytes + 63) / 64 * 64);
    if (!reserve_scratch(comm, operation, scratch)) return operation;
    const uint8_t **inputs = scratch_inputs(comm, operation, slice_bytes);
    for (int step = 1; step < comm->size; step++) {
        int to = (comm->rank + step) % comm->size, from = (comm->rank - step + comm->size) % comm->size;
        receive(comm, operation, from, (uint8_t *)(uintptr_t)inputs[from], slice_bytes);
        send(comm, operation, to, operation->data + slice_start(operation, comm->size, to) * element,
             slice_length(operation, comm->size, to) * element);
    }
    operation->second_half = all_reduce_second_half;
    return operation;
}

/* ---- broadcast ---- */

/* With ranks counted from the root, the parent of v is v without its lowest set bit; its children
 * are v + 1, v + 2, v + 4, ... below it. */
static void send_to_children(struct comm *comm, struct comm_operation *operation) {
    int v = (comm->rank - operation->root + comm->size) % comm->size;
    int limit = v == 0 ? comm->size : v & -v, first = 1;
    while (first < limit && v + first < comm->size) first *= 2;
    for (int bit = first; bit > 0; bit /= 2) /* the largest subtree first */
        if (bit < limit && v + bit < comm->size)
            send(comm, operation, (v + bit + operation->root) % comm->size, operation->data, operation->length);
}

static struct comm_operation *start_broadcast(struct comm *comm, int root, void *data, size_t bytes) {
    struct comm_operation *operation = operation_take(comm);
    if (operation == NULL) return NULL;
    operation->root = root;
    operation->data = data;
    operation->length = bytes;
    int v = (comm->rank - root + comm->size) % comm->size;
    if (v == 0) {
        send_to_children(comm, operation);
    } else {
        receive(comm, operation, ((v & (v - 1)) + root) % comm->size, data, bytes);
        operation->second_half = send_to_children;
    }
    return operation;
}

/* ---- started and waited for ---- */

tessera_status comm_all_gather(struct comm *comm, const void *mine, void *all, const size_t *bytes, tessera_error *error) {
    return finish(comm, start_all_gather(comm, mine, all, bytes), error);
}

tessera_status comm_all_to_all(struct comm *comm, const void *out, const size_t *out_bytes, void *in, const size_t *in_bytes,
                               tessera_error *error) {
    return finish(comm, start_all_to_all(comm, out, out_bytes, in, in_bytes), error);
}

tessera_status comm_all_reduce(struct comm *comm, void *data, size_t count, enum comm_type type, tessera_error *error) {
    return finish(comm, start_all_reduce(comm, data, count, type), error);
}

tessera_status comm_broadcast(struct comm *comm, int root, void *data, size_t bytes, tessera_error *error) {
    return finish(comm, start_broadcast(comm, root, data, bytes), error);
}

tessera_status comm_barrier(struct comm *comm, tessera_error *error) {
    for (int distance = 1; distance < comm->size; distance *= 2) {
        int to = (comm->rank + distance) % comm->size, from = (comm->rank - distance + comm->size) % comm->size;
        struct comm_request *out = comm_send_start(comm, to, NULL, 0), *in = comm_receive_start(comm, from, NULL, 0);
        tessera_status sent = comm_wait(comm, out, error);
        TRY(comm_wait(comm, in, error));
        TRY(sent);
    }
    return engine_status(comm->jobs, error);
}
