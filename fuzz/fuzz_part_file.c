/* Part files from strangers: refused with the file's name, or opened, with blocks that the model has. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "split/part_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[64];
    struct part_file part;
    tessera_error error = {0};
    int descriptor = memfd_create("fuzzed", MFD_CLOEXEC);
    if (descriptor < 0 || write(descriptor, data, size) != (ssize_t)size) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    tessera_status status = part_file_open(path, DTYPE_F32, &part, &error);
    if (status == TESSERA_OK && split_range_check(&part.header.range, part.component.num_blocks, NULL) != TESSERA_OK) abort();
    if (status == TESSERA_ERROR_FORMAT && strstr(error.message, path) == NULL) abort();
    part_file_close(&part);
    close(descriptor);
    return 0;
}
