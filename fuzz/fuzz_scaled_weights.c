/* libFuzzer target for weights with scales of their own (bitsandbytes, float8): whatever tensors a
 * safetensors file holds, each weight either gives an error or can be read to its last number. */
#include <stdlib.h>

#include "tensor/scaled_weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_all(const struct scaled_weight *w) {
    int64_t count = tensor_count(&w->tensor);
    if (count > 1 << 20) return;
    void *numbers = malloc(tensor_bytes(&w->tensor) + 1);
    if (numbers != NULL) scaled_weight_read(w, 0, count, numbers);
    free(numbers);
}

static void find_all(const struct safetensors *file, struct weights *weights) {
    tessera_error error = {0};
    for (int i = 0; i < safetensors_count(file); i++)
        weights_view_add(weights, safetensors_at(file, i)->name, &safetensors_at(file, i)->tensor, NULL, &error);
    if (weights_view_finish(weights, &error) != TESSERA_OK) return;
    for (int i = 0; i < safetensors_count(file); i++) {
        struct scaled_weight w;
        bool found = false;
        tessera_error local = {0};
        tessera_status status = scaled_weight_find(weights, safetensors_at(file, i)->name, &found, &w, &local);
        if (status != TESSERA_OK && local.message[0] == 0) abort();
        if (status == TESSERA_OK && found) read_all(&w);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tessera_error error = {0};
    struct safetensors *file;
    struct weights *weights = NULL;
    if (safetensors_parse("fuzz", data, size, &file, &error) != TESSERA_OK) return 0;
    if (weights_view_new("fuzz", &weights, &error) == TESSERA_OK) find_all(file, weights);
    weights_close(weights);
    safetensors_close(file);
    return 0;
}
