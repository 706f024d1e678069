/* libFuzzer target for the GGUF reader: any bytes either give an error or tensors whose every byte
 * can be read. */
#include <stdlib.h>

#include "tensor/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tessera_error error = {0};
    struct safetensors *file;
    tessera_status status = gguf_is(data, size) ? gguf_parse("fuzz", data, size, &file, &error) : TESSERA_ERROR_FORMAT;
    if (status != TESSERA_OK) return 0;
    volatile uint8_t sum = 0;
    for (int i = 0; i < safetensors_count(file); i++) {
        const struct safetensors_entry *entry = safetensors_at(file, i);
        if (safetensors_find(file, entry->name) != entry) abort();
        const uint8_t *bytes = entry->tensor.data;
        for (size_t j = 0; j < tensor_bytes(&entry->tensor); j++) sum = (uint8_t)(sum + bytes[j]);
    }
    safetensors_close(file);
    return 0;
}
