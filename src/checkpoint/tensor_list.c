/* Listing the tensors of a component; see tensor_list.h. */
#include "checkpoint/tensor_list.h"

#include <stdlib.h>
#include <string.h>

#include "models/registry.h"

static bool grow(struct tensor_list *list) {
    if (list->count < list->capacity) return true;
    int capacity = list->capacity > 0 ? 2 * list->capacity : 256;
    struct safetensors_entry *entries = realloc(list->entries, (size_t)capacity * sizeof *entries);
    if (entries == NULL) return false;
    list->entries = entries;
    list->capacity = capacity;
    return true;
}

/* load_hooks.record */
static void add(void *user, const char *name, int ndim, const int64_t *shape) {
    struct tensor_list *list = user;
    char *copy = strdup(name);
    if (copy == NULL || !grow(list)) {
        free(copy);
        list->incomplete = true;
        return;
    }
    list->entries[list->count++] = (struct safetensors_entry){copy, tensor_of(NULL, DTYPE_BF16, ndim, shape)};
}

tessera_status tensor_list_read(struct tensor_list *list, const char *folder, tessera_error *error) {
    struct load_hooks hooks = {.user = list, .record = add};
    struct component_source source = {.folder = folder, .hooks = &hooks};
    struct component component;
    TRY(component_open(&source, DTYPE_BF16, &component, error));
    component_close(&component);
    if (list->incomplete) return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for its list of tensors", folder);
    return TESSERA_OK;
}

void tensor_list_clear(struct tensor_list *list) {
    for (int i = 0; i < list->count; i++) free((char *)list->entries[i].name);
    free(list->entries);
    *list = (struct tensor_list){0};
}

bool tensor_list_is_buffer(const char *name) {
    return strcmp(name, "pos_embed.pos_embed") == 0;
}

size_t tensor_list_bytes(const struct tensor_list *list) {
    size_t sum = 0;
    for (int i = 0; i < list->count; i++) sum += tensor_bytes(&list->entries[i].tensor);
    return sum;
}
