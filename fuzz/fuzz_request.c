/* Requests to a part from strangers: refused with the field's name, or computed. The first byte
 * chooses the model. */
#include <stdlib.h>
#include <string.h>

#include "split/part.h"

enum { MODELS = 3, JOB = 7, ALIGNMENT = 64 };

static struct split_part *part_of(int model) {
    static const char *const folders[MODELS] = {"tests/cases/sd3/model", "tests/cases/pixart_sigma/model", "tests/cases/unet_sd15/model"};
    static const struct split_range ranges[MODELS] = {{1, 3, false}, {1, 4, true}, {5, 12, false}};
    static struct split_part *parts[MODELS];
    const struct split_part_options options = {.kernels = TESSERA_KERNELS_REPRODUCIBLE,
                                               .dtype = DTYPE_F32,
                                               .threads = 1,
                                               .limits = {.batch = 2, .tokens = 256, .text_tokens = 64}};
    tessera_error error = {0};
    if (parts[model] == NULL && split_part_open_model(folders[model], &ranges[model], &options, &parts[model], &error) != TESSERA_OK)
        abort();
    return parts[model];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    struct split_part *part = part_of(data[0] % MODELS);
    struct state_store store = split_part_store(part);
    struct split_answer answer = {0};
    tessera_error error = {0};
    size_t length = size - 1, whole = 0;
    unsigned missing;
    uint8_t *bytes = aligned_alloc(ALIGNMENT, (length + ALIGNMENT) / ALIGNMENT * ALIGNMENT);
    if (bytes == NULL) return 0;
    memcpy(bytes, data + 1, length);
    const struct split_request request = {.bytes = bytes, .size = length, .job = JOB, .store = &store, .block_hashes = true};
    bool fits =
        split_part_request_bytes(part, bytes, length < SPLIT_HEAD_BYTES ? length : SPLIT_HEAD_BYTES, JOB, &whole, &error) == TESSERA_OK;
    bool complete = split_part_missing(part, bytes, length, JOB, &store, &missing, &error) == TESSERA_OK;
    bool computed = split_part_compute(part, &request, &answer, &error) == TESSERA_OK;
    if (computed && (!fits || !complete || missing != 0 || whole != length)) abort();
    if (!computed && complete && missing == 0 && strstr(error.message, "infinities") == NULL && strstr(error.message, "flags") == NULL)
        abort();
    split_answer_free(&answer);
    state_store_close(&store);
    free(bytes);
    return 0;
}
