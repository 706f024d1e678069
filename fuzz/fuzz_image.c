/* Picture files of all kinds that are read: what is read can be scaled. Each input is a file's bytes. */
#include "image/resample.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct image image, scaled;
    if (image_read("picture", data, size, &image, NULL) != TESSERA_OK) return 0;
    if ((int64_t)image.width * image.height < 1 << 20 && resample_bytes(&image, 7, 9, RESAMPLE_LANCZOS, &scaled, NULL) == TESSERA_OK)
        image_free(&scaled);
    image_free(&image);
    return 0;
}
