/* Fuzz target: a component's config.json, opened as every class that names itself in it (weights
 * are only recorded): it is refused with a message, or every tensor that the model asks for has a
 * sensible name and shape and every block can be described. */
#include <stdint.h>
#include <stdlib.h>

#include "models/registry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Extents are positive and the number of elements fits into int64. */
static void check_tensor(void *user, const char *name, int ndim, const int64_t *shape) {
    int64_t count = 1, *tensors = user;
    if (name[0] == 0 || ndim < 1 || ndim > TENSOR_MAX_DIMS) abort();
    for (int i = 0; i < ndim; i++)
        if (shape[i] < 1 || __builtin_mul_overflow(count, shape[i], &count)) abort();
    ++*tensors;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int64_t tensors = 0;
    const struct load_hooks hooks = {.user = &tensors, .record = check_tensor};
    struct component_source source = {.hooks = &hooks};
    struct component component;
    struct denoiser_block_info info;
    tessera_error error = {0};
    if (json_parse("config.json", (const char *)data, size, &source.config, NULL) != TESSERA_OK) return 0;
    if (component_open(&source, DTYPE_BF16, &component, &error) != TESSERA_OK) {
        if (error.message[0] == 0 || component.config != NULL) abort();
        return 0;
    }
    if (tensors == 0) abort();
    for (int i = 0; component.denoiser != NULL && i < component.denoiser->num_blocks; i++)
        component.denoiser->class->describe(component.denoiser, i, &info);
    component_close(&component);
    return 0;
}
