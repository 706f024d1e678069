/* Replies from strangers: what a client does with a body (src/split/remote.c), without HTTP. A
 * reply is refused, or its state has the form that the model expects and lies in the reply.
 * Signatures are checked as they come, and are wrong nearly always. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "split/wire.h"

static const struct split_range range = {1, 2, false};

static struct split_part *open_part(void) {
    static const struct split_part_options options = {
        .kernels = TESSERA_KERNELS_REPRODUCIBLE, .dtype = DTYPE_F32, .threads = 1, .streamed = true};
    struct split_part *part = NULL;
    if (split_part_open_model("tests/cases/sd3/model", &range, &options, &part, NULL) != TESSERA_OK) abort();
    return part;
}

/* Each byte is read, so that the sanitizers see a tensor that lies elsewhere. */
static void look(const struct tensor *t) {
    volatile uint8_t sum = 0;
    for (size_t i = 0; t->ndim > 0 && i < tensor_bytes(t); i++) sum = (uint8_t)(sum + ((const uint8_t *)t->data)[i]);
}

static void read_state(struct split_part *part, const uint8_t *bytes, size_t size, uint64_t job) {
    const struct split_shape shape = {.batch = 2, .rows = 4, .columns = 4, .text_tokens = 8};
    struct run run = {.backend = split_part_run_of(part)->backend, .dtype = DTYPE_F32};
    struct denoiser_state answer;
    tessera_error error = {0};
    if (split_answer_read(split_part_denoiser(part), &run, &range, &shape, job, bytes, size, &answer, &error) == TESSERA_OK) {
        look(&answer.picture);
        look(&answer.text);
    } else if (strstr(error.message, "field ") == NULL) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct split_part *part;
    struct wire_reply reply;
    tessera_error error = {0};
    if (part == NULL) part = open_part();
    uint8_t *body = aligned_alloc(64, (size + 64) / 64 * 64);
    if (body == NULL) return 0;
    memcpy(body, data, size);
    if (wire_reply_read(body, size, &reply, &error) == TESSERA_OK) {
        struct wire_request request = {.step = reply.signed_fields.step, .row = reply.signed_fields.row};
        char pin[IDENTITY_PIN_CHARS];
        memcpy(request.id, reply.id, sizeof request.id);
        memcpy(request.job, reply.signed_fields.job, sizeof request.job);
        memcpy(request.part_digest, reply.signed_fields.part_digest, sizeof request.part_digest);
        identity_pin(&reply.worker, pin);
        const uint8_t(*hashes)[CANONICAL_HASH_BYTES] =
            (const uint8_t(*)[CANONICAL_HASH_BYTES])(body + WIRE_REPLY_BYTES + reply.state_bytes);
        wire_reply_check(&reply, &request, reply.signed_fields.specification, pin, hashes, &error);
        read_state(part, body + WIRE_REPLY_BYTES, (size_t)reply.state_bytes, split_job_number(request.job));
    } else if (strstr(error.message, "field ") == NULL) {
        abort();
    }
    free(body);
    return 0;
}
