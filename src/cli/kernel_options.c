/* See kernel_options.h. */
#include "cli/kernel_options.h"

#include <string.h>

tessera_kernels kernel_options_read(const struct option_value *value) {
    if (value->text != NULL && strcmp(value->text, "reproducible") == 0) return TESSERA_KERNELS_REPRODUCIBLE;
    return value->text != NULL && strcmp(value->text, "own") == 0 ? TESSERA_KERNELS_OWN : TESSERA_KERNELS_BEST;
}
