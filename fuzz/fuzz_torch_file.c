/* libFuzzer target for PyTorch's files: any bytes either give an error or tensors whose every byte
 * can be read. */
#include <stdlib.h>

#include "tensor/file_kind.h"
#include "tensor/torch_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tessera_error error = {0};
    struct torch_file *file;
    char text[160];
    file_kind(data, size, text, sizeof text);
    torch_file_is(data, size);
    if (torch_file_parse("fuzz", data, size, &file, &error) != TESSERA_OK) {
        if (file != NULL || error.message[0] == 0) abort();
        return 0;
    }
    volatile uint8_t sum = 0;
    for (int i = 0; i < torch_file_count(file); i++) {
        const struct tensor *tensor = &torch_file_at(file, i)->tensor;
        const uint8_t *bytes = tensor->data;
        for (size_t j = 0; j < tensor_bytes(tensor); j++) sum = (uint8_t)(sum + bytes[j]);
    }
    torch_file_close(file);
    return 0;
}
