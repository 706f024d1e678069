/* States of blocks from strangers: a message is refused, or its tensors lie inside it or in the
 * job's store and have the expected forms. The first byte chooses which of four models expects it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "models/state.h"

enum { MODELS = 4, JOB = 3, ROOM = 4096 };

static void describe(const struct denoiser *denoiser, int index, struct denoiser_block_info *info) {
    *info = (struct denoiser_block_info){.carries = DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_TEXT | DENOISER_CARRIES_COND};
    (void)index;
    if (denoiser->row_unit > 0) info->out = (struct denoiser_map){1, 6};
}

static const struct denoiser_class class = {.name = "fuzzed", .describe = describe};
/* Text that blocks change; text that they read, and its mask; a convolutional model; the same, and
 * its skips. */
static const struct denoiser models[MODELS] = {
    {.class = &class, .form = {4, 4, 1, 4, false}, .patch_size = 1, .text_stream = true},
    {.class = &class, .form = {4, 4, 0, 4, true}, .patch_size = 1},
    {.class = &class, .form = {4, 4, 0, 4, false}, .patch_size = 1, .row_unit = 2},
    {.class = &class, .form = {4, 4, 0, 4, false}, .patch_size = 1, .row_unit = 2},
};

static struct denoiser_state expectation(struct backend *backend, int model) {
    static const struct denoiser_map maps[] = {{0, 0}, {1, 6}};
    static float mask[3];
    const struct denoiser_inputs in = {.latents = tensor_of(NULL, DTYPE_F32, SHAPE(1, 2, 2, 4)),
                                       .text = tensor_of(NULL, DTYPE_F32, SHAPE(1, 3, 4)),
                                       .text_mask = tensor_of(mask, DTYPE_F32, SHAPE(1, 3))};
    struct run run = {.backend = backend, .dtype = model % 2 == 0 ? DTYPE_F32 : DTYPE_BF16};
    unsigned parts = DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_TEXT | DENOISER_CARRIES_COND;
    return denoiser_state_expected(&models[model], &run, &in, 1, parts, maps, model == MODELS - 1 ? 2 : 0);
}

/* The constants of a state of zeros come, so that digests of them are known. */
static void fill_store(struct denoiser_state state, unsigned constants, struct state_store *store) {
    static const _Alignas(64) uint8_t zeros[ROOM];
    static _Alignas(64) uint8_t bytes[ROOM];
    struct state_message message = {.job = JOB, .constants = constants};
    struct denoiser_state out;
    struct tensor *const fields[] = {&state.picture, &state.text, &state.text_mask, &state.cond, &state.skips[0], &state.skips[1]};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) fields[i]->data = (void *)(uintptr_t)zeros;
    struct denoiser_state expected = state;
    if (denoiser_state_bytes(&state, 0) > sizeof bytes || denoiser_state_pack(&state, &message, NULL, bytes, NULL) != TESSERA_OK ||
        denoiser_state_unpack(bytes, denoiser_state_bytes(&state, 0), &expected, store, &out, &message, NULL) != TESSERA_OK)
        abort();
}

/* Each byte is read, so that the sanitizers see a tensor that lies elsewhere. */
static void look(const struct tensor *t) {
    volatile uint8_t sum = 0;
    for (size_t i = 0; t->ndim > 0 && i < tensor_bytes(t); i++) sum = (uint8_t)(sum + ((const uint8_t *)t->data)[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct backend *backend;
    if (backend == NULL) backend = cpu_backend_open(1, CPU_KERNELS_OWN, NULL);
    if (size == 0 || backend == NULL) return 0;
    int model = data[0] % MODELS;
    struct denoiser_state expected = expectation(backend, model), state;
    struct state_message message = {.job = JOB, .constants = denoiser_state_constants(&models[model])};
    struct state_store store = {.backend = backend};
    tessera_error error = {0};
    uint8_t *bytes = malloc(size); /* of its own, so that a read beyond the end is seen */
    if (bytes == NULL) return 0;
    memcpy(bytes, data + 1, size - 1);
    fill_store(expected, message.constants, &store);
    if (denoiser_state_unpack(bytes, size - 1, &expected, &store, &state, &message, &error) == TESSERA_OK) {
        const struct tensor *const fields[] = {&state.picture, &state.text,     &state.text_mask,
                                               &state.cond,    &state.skips[0], &state.skips[1]};
        if (state.num_skips != expected.num_skips || message.job != JOB) abort();
        for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) look(fields[i]);
    } else if (strstr(error.message, "field ") == NULL) {
        abort();
    }
    state_store_close(&store);
    free(bytes);
    return 0;
}
