/* See lora_options.h. */
#include "cli/lora_options.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* "style.safetensors:0.8" */
static bool read_one(const char *text, tessera_lora *out) {
    char *path = strdup(text), *end;
    *out = (tessera_lora)TESSERA_LORA;
    out->path = path;
    char *colon = path != NULL ? strrchr(path, ':') : NULL;
    if (colon == NULL || colon == path) return path != NULL;
    float scale = strtof(colon + 1, &end);
    if (end == colon + 1 || *end != 0) return true;
    out->scale = scale;
    *colon = 0;
    return true;
}

tessera_status lora_options_read(const struct option_value *lora, tessera_lora **out, tessera_error *error) {
    tessera_lora *loras = calloc((size_t)lora->count + 1, sizeof *loras);
    bool good = loras != NULL;
    for (int i = 0; i < lora->count && good; i++) good = read_one(lora->texts[i], &loras[i]);
    *out = loras;
    return good ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
}

void lora_options_free(tessera_lora *loras, int count) {
    for (int i = 0; loras != NULL && i < count; i++) free((char *)loras[i].path);
    free(loras);
}
