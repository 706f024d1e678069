/* libFuzzer target for LoRA files: any bytes either give an error or changes that can be merged
 * into weights of a fixed shape. */
#include <stdlib.h>

#include "checkpoint/lora.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ROWS = 4, INPUTS = 6, TAPS = 9 };

/* Merges into some rows and inputs of a weight of the component, if the file has a change for it. */
static void merge_piece(const struct load_hooks *hooks, const char *name, struct load_piece piece, int ndim) {
    float values[ROWS * INPUTS * TAPS] = {0};
    tessera_error error = {0};
    struct tensor weight = tensor_of(values, DTYPE_F32, ndim, piece.shape);
    weight.shape[0] = piece.rows.count;
    weight.shape[1] = piece.inputs.count;
    if (hooks->change(hooks->user, name, piece, &weight, &error) != TESSERA_OK && error.message[0] == 0) abort();
}

static void merge(struct lora_set *set, const char *component, const char *name, int ndim, const int64_t *shape) {
    tessera_error error = {0};
    struct load_hooks hooks;
    if (lora_hooks_for(set, component, NULL, &hooks, &error) != TESSERA_OK) abort();
    if (hooks.changes(hooks.user, name)) {
        merge_piece(&hooks, name, (struct load_piece){shape, {0, ROWS}, {0, INPUTS}}, ndim);
        if (!hooks.needs_whole(hooks.user, name))
            merge_piece(&hooks, name, (struct load_piece){shape, {1, ROWS - 1}, {2, INPUTS - 3}}, ndim);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tessera_error error = {0};
    struct lora_set *set;
    if (lora_set_parse("fuzz", data, size, 0.5f, &set, &error) != TESSERA_OK) {
        if (set != NULL || error.message[0] == 0) abort();
        return 0;
    }
    merge(set, "unet", "a.to_q.weight", SHAPE(ROWS, INPUTS));
    merge(set, "transformer", "conv.weight", SHAPE(ROWS, INPUTS, 3, 3));
    merge(set, "text_encoder", "text_model.q_proj.weight", SHAPE(ROWS, INPUTS));
    merge(set, "text_encoder_2", "q.weight", SHAPE(ROWS, INPUTS, 1, 1));
    char text[600];
    if (lora_set_check(set, &error) != TESSERA_OK && error.message[0] == 0) abort();
    if (lora_set_notice(set, 0, text, sizeof text) && text[0] == 0) abort();
    lora_set_close(set);
    return 0;
}
