/* Activations by name (transformers' ACT2FN). */
#include <string.h>

#include "models/activation_name.h"

static const struct {
    const char *name;
    enum activation activation;
} names[] = {
    {"gelu", ACTIVATION_GELU},
    {"gelu_new", ACTIVATION_GELU_TANH},
    {"gelu_pytorch_tanh", ACTIVATION_GELU_TANH},
    {"quick_gelu", ACTIVATION_QUICK_GELU},
    {"relu", ACTIVATION_RELU},
    {"silu", ACTIVATION_SILU},
};

tessera_status activation_from_name(const struct json *config, const char *field, const char *name, enum activation *out,
                                    tessera_error *error) {
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i].name) != 0) continue;
        *out = names[i].activation;
        return TESSERA_OK;
    }
    return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                     "%s: %s is \"%.60s\"; known activations are gelu, gelu_new, gelu_pytorch_tanh, quick_gelu, relu and silu",
                     json_path(config), field, name);
}
