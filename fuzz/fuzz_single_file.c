/* libFuzzer target for single-file checkpoints: any bytes either give an error or views that hold
 * what a model asks for. The configs are those of tiny models; run it in the repository root. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "checkpoint/single_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void open_components(const char *path, const char *config) {
    static const char *const names[] = {"unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"};
    struct single_file *file = NULL;
    tessera_error error = {0};
    if (single_file_open(path, config, &file, &error) != TESSERA_OK) {
        if (file != NULL || error.message[0] == 0) abort();
        return;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct weights *weights = NULL;
        if (single_file_weights(file, names[i], &weights, &error) != TESSERA_OK && error.message[0] == 0) abort();
        weights_close(weights);
    }
    single_file_close(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const configs[] = {NULL, "tests/cases/pipeline_sd15/model", "tests/cases/pipeline_sdxl/model",
                                          "tests/cases/pipeline_sd3/model", "tests/cases/pipeline_flux/model"};
    char path[64];
    int descriptor = memfd_create("fuzz", 0);
    if (descriptor < 0 || write(descriptor, data, size) != (ssize_t)size) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) open_components(path, configs[i]);
    close(descriptor);
    return 0;
}
