/* Listing what a model asks for: the component is opened without weights while a hook writes down
 * every request. */
#include "checkpoint/required.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "models/registry.h"

static void record(void *user, const char *name, int ndim, const int64_t *shape) {
    struct required *list = user;
    if (list->count == list->capacity) {
        int capacity = list->capacity > 0 ? 2 * list->capacity : 256;
        struct required_tensor *tensors = realloc(list->tensors, (size_t)capacity * sizeof *tensors);
        if (tensors == NULL) {
            list->out_of_memory = true;
            return;
        }
        list->tensors = tensors;
        list->capacity = capacity;
    }
    struct required_tensor *tensor = &list->tensors[list->count];
    *tensor = (struct required_tensor){.name = strdup(name), .ndim = ndim};
    if (tensor->name == NULL) {
        list->out_of_memory = true;
        return;
    }
    memcpy(tensor->shape, shape, (size_t)ndim * sizeof *shape);
    list->count++;
}

static int compare_tensors(const void *a, const void *b) {
    const struct required_tensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

tessera_status required_read(const char *folder, struct json *config, struct required *out, tessera_error *error) {
    *out = (struct required){0};
    const struct load_hooks hooks = {.user = out, .record = record};
    const struct component_source source = {.folder = folder, .config = config, .hooks = &hooks};
    struct component component;
    TRY(component_open(&source, DTYPE_F32, &component, error));
    component_close(&component);
    if (out->out_of_memory) return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for the list of its tensors", folder);
    if (out->count > 0) qsort(out->tensors, (size_t)out->count, sizeof *out->tensors, compare_tensors);
    int count = 0; /* a tensor that two layers share comes twice */
    for (int i = 0; i < out->count; i++) {
        if (count > 0 && strcmp(out->tensors[count - 1].name, out->tensors[i].name) == 0)
            free(out->tensors[i].name);
        else
            out->tensors[count++] = out->tensors[i];
    }
    out->count = count;
    return TESSERA_OK;
}

void required_free(struct required *required) {
    for (int i = 0; i < required->count; i++) free(required->tensors[i].name);
    free(required->tensors);
    *required = (struct required){0};
}

static struct required_tensor *find_exact(const struct required *required, const char *name) {
    const struct required_tensor key = {.name = (char *)name};
    if (required->count == 0) return NULL;
    return bsearch(&key, required->tensors, (size_t)required->count, sizeof *required->tensors, compare_tensors);
}

struct required_tensor *required_find(const struct required *required, const char *name) {
    static const char *const others[][2] = {
        {".attentions.0.query.", ".attentions.0.to_q."},
        {".attentions.0.key.", ".attentions.0.to_k."},
        {".attentions.0.value.", ".attentions.0.to_v."},
        {".attentions.0.proj_attn.", ".attentions.0.to_out.0."},
        {"encoder.embed_tokens.", "shared."},
    };
    struct required_tensor *found = find_exact(required, name);
    char text[256];
    if (found == NULL && snprintf(text, sizeof text, "text_model.%s", name) < (int)sizeof text) found = find_exact(required, text);
    for (size_t i = 0; i < sizeof others / sizeof *others && found == NULL; i++) {
        const char *at = strstr(name, others[i][0]);
        if (at == NULL) continue;
        int length = snprintf(text, sizeof text, "%.*s%s%s", (int)(at - name), name, others[i][1], at + strlen(others[i][0]));
        if (length < (int)sizeof text) found = find_exact(required, text);
    }
    return found;
}

/* The dimensions without the [1, 1] of a 1x1 convolution, and without those of 1 at the beginning,
 * which GGUF files leave out. */
static struct tensor plain_shape(int ndim, const int64_t *shape) {
    if (ndim == 4 && shape[2] == 1 && shape[3] == 1) ndim = 2;
    while (ndim > 1 && shape[0] == 1) ndim--, shape++;
    return tensor_of(NULL, DTYPE_F32, ndim, shape);
}

bool required_fits(const struct required_tensor *required, const struct tensor *stored) {
    struct tensor want = plain_shape(required->ndim, required->shape), have = plain_shape(stored->ndim, stored->shape);
    if (want.ndim != have.ndim) return false;
    for (int i = 0; i < want.ndim; i++)
        if (want.shape[i] != have.shape[i]) return false;
    return true;
}
