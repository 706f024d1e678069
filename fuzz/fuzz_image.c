/* Picture files, PNG and JPEG: what is read can be scaled. Each input is a file in memory. */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image/resample.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[48];
    int file = memfd_create("picture", 0);
    struct image image, scaled;
    if (file < 0) return 0;
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    bool good = write(file, data, size) == (ssize_t)size && image_file_read(path, &image, NULL) == TESSERA_OK;
    close(file);
    if (!good) return 0;
    if ((int64_t)image.width * image.height < 1 << 20 && resample_bytes(&image, 7, 9, RESAMPLE_LANCZOS, &scaled, NULL) == TESSERA_OK)
        image_free(&scaled);
    image_free(&image);
    return 0;
}
