/* States of blocks from strangers: a message is refused, or its tensors lie inside it and have the expected forms. The first byte chooses
 * which of two models expects it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "models/state.h"

static struct denoiser_state expectation(bool convolutional) {
    struct denoiser_state s = {.rows = 2, .columns = 2, .text_tokens = convolutional ? 0 : 3};
    s.picture = convolutional ? tensor_of(NULL, DTYPE_BF16, SHAPE(1, 2, 2, 4)) : tensor_of(NULL, DTYPE_F32, SHAPE(1, 4, 4));
    s.cond = tensor_of(NULL, DTYPE_F32, SHAPE(1, 4));
    s.text = tensor_of(NULL, DTYPE_BF16, SHAPE(1, 3, 4));
    if (!convolutional) return s;
    s.num_skips = 2;
    s.skips[0] = s.skips[1] = s.picture;
    return s;
}

static const void *find_none(void *user, const uint8_t digest[STATE_DIGEST_BYTES], size_t bytes) {
    (void)user, (void)digest, (void)bytes;
    return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    struct denoiser_state expected = expectation(data[0] & 1), state;
    const struct state_store store = {find_none, NULL};
    struct state_message message;
    tessera_error error = {0};
    uint8_t *bytes = malloc(size); /* of its own, so that a read beyond the end is seen */
    if (bytes == NULL) return 0;
    memcpy(bytes, data + 1, size - 1);
    if (denoiser_state_unpack(bytes, size - 1, &expected, &store, &state, &message, &error) == TESSERA_OK) {
        const uint8_t *last = (const uint8_t *)state.cond.data + tensor_bytes(&state.cond);
        if ((const uint8_t *)state.picture.data < bytes || last > bytes + size - 1) abort();
    }
    free(bytes);
    return 0;
}
