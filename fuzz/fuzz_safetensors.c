/* libFuzzer target for the safetensors reader: any bytes either give an error or tensors whose
 * every byte can be read. */
#include <stdlib.h>

#include "tensor/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tessera_error error = {0};
    struct safetensors *file;
    tessera_status status = safetensors_parse("fuzz", data, size, &file, &error);
    if (status != TESSERA_OK) {
        if (file != NULL || error.message[0] == 0) abort();
        return 0;
    }
    volatile uint8_t sum = 0;
    for (int i = 0; i < safetensors_count(file); i++) {
        const struct safetensors_entry *entry = safetensors_at(file, i);
        if (safetensors_find(file, entry->name) != entry) abort();
        const uint8_t *bytes = entry->tensor.data;
        for (size_t j = 0; j < tensor_bytes(&entry->tensor); j++) sum = (uint8_t)(sum + bytes[j]);
    }
    safetensors_metadata(file, "format");
    safetensors_close(file);
    return 0;
}
