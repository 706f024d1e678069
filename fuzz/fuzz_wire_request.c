/* Requests from strangers: a request is refused with the field's name, or it is one for this part,
 * and is computed. What a worker does with a body (src/split/worker.c), without HTTP: the head, the
 * length that follows from it, constants that are missing, the blocks. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "split/wire.h"

static struct split_part *open_part(void) {
    static const struct split_part_options options = {
        .kernels = TESSERA_KERNELS_REPRODUCIBLE, .dtype = DTYPE_F32, .threads = 1, .limits = {.batch = 2, .tokens = 64, .text_tokens = 32}};
    static const struct split_range range = {1, 2, false};
    struct split_part *part = NULL;
    if (split_part_open_model("tests/cases/pixart_sigma/model", &range, &options, &part, NULL) != TESSERA_OK) abort();
    return part;
}

static void must_name(tessera_status status, const tessera_error *error) {
    if (status != TESSERA_OK && strstr(error->message, "field ") == NULL) abort();
}

/* The body as it lies in memory: of its own, so that a read beyond its end is seen. */
static tessera_status receive(struct split_part *part, const uint8_t *body, size_t size, struct state_store *store, tessera_error *error) {
    struct wire_request head;
    uint8_t digest[STATE_DIGEST_BYTES];
    unsigned missing = 0;
    size_t whole = 0, first = size < WIRE_REQUEST_BYTES + SPLIT_HEAD_BYTES ? size : WIRE_REQUEST_BYTES + SPLIT_HEAD_BYTES;
    TRY(wire_request_read(body, first, size, &head, error));
    uint64_t job = split_job_number(head.job);
    const uint8_t *state = body + WIRE_REQUEST_BYTES;
    for (int f = 0; f < STATE_SKIPS; f++) wire_constant_digest(state, size - WIRE_REQUEST_BYTES, f, digest);
    TRY(split_part_request_bytes(part, state, first - WIRE_REQUEST_BYTES, job, &whole, error));
    if (whole > (size_t)1 << 24) abort(); /* more than the limits allow */
    if (whole != head.state_bytes) return error_set(error, TESSERA_ERROR_FORMAT, "field length");
    TRY(split_part_missing(part, state, size - WIRE_REQUEST_BYTES, job, store, &missing, error));
    if (missing != 0) return TESSERA_OK;
    struct split_answer answer;
    const struct split_request request = {
        .bytes = state, .size = size - WIRE_REQUEST_BYTES, .job = job, .store = store, .block_hashes = true};
    tessera_status status = split_part_compute(part, &request, &answer, error);
    split_answer_free(&answer);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct split_part *part;
    if (part == NULL) part = open_part();
    if (size == 0) return 0;
    struct state_store store = split_part_store(part);
    tessera_error error = {0};
    uint8_t *body = aligned_alloc(64, (size + 63) / 64 * 64);
    if (body == NULL) return 0;
    memcpy(body, data, size);
    must_name(receive(part, body, size, &store, &error), &error);
    state_store_close(&store);
    free(body);
    return 0;
}
