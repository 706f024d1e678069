/* The loader itself: its first error, what a name is below its prefix, its memory, and what its
 * mode lets layers have. */
#include "nn/loader.h"

#include <stdio.h>
#include <string.h>

#include "backend/memory.h"

const char *loader_where(const struct loader *loader) {
    return loader->weights != NULL ? weights_folder(loader->weights) : "model";
}

bool loader_records(const struct loader *loader) {
    return loader->hooks != NULL && loader->hooks->record != NULL;
}

bool loader_reads(const struct loader *loader) {
    return loader->mode == LOAD_READ && !loader_records(loader);
}

void *loader_take(struct loader *loader, size_t bytes) {
    void *data = arena_alloc(loader->arena, bytes);
    if (data == NULL && !load_failed(loader)) {
        error_set(&loader->error, TESSERA_ERROR_MEMORY, "%s: no memory for %zu bytes of weights", loader_where(loader), bytes);
    }
    return data;
}

bool load_failed(const struct loader *loader) {
    return loader->error.status != TESSERA_OK;
}

tessera_error *load_error(struct loader *loader) {
    return &loader->error;
}

void load_set_prefix(struct loader *loader, const char *prefix, ...) {
    va_list arguments;
    va_start(arguments, prefix);
    vsnprintf(loader->prefix, sizeof loader->prefix, prefix, arguments);
    va_end(arguments);
}

void loader_full_name(const struct loader *loader, char *out, const char *format, va_list arguments) {
    size_t used = (size_t)snprintf(out, NAME_CAPACITY, "%s", loader->prefix);
    vsnprintf(out + used, NAME_CAPACITY - used, format, arguments);
}

bool load_has(const struct loader *loader, const char *name, ...) {
    FULL_NAME(name);
    return loader_records(loader) || (loader->weights != NULL && weights_has(loader->weights, full));
}

void load_unused(struct loader *loader, int ndim, const int64_t *shape, const char *name, ...) {
    FULL_NAME(name);
    if (loader_records(loader) && !load_failed(loader)) loader->hooks->record(loader->hooks->user, full, ndim, shape);
}

struct tensor load_place(struct loader *loader, struct tensor host) {
    if (loader->memory == NULL || load_failed(loader) || host.data == NULL) return host;
    struct tensor t = host;
    t.device = loader->backend->device;
    t.data = arena_alloc(loader->memory, tensor_bytes(&t));
    if (t.data == NULL)
        error_set(&loader->error, TESSERA_ERROR_MEMORY, "%s: no memory for %zu bytes of weights on their device", loader_where(loader),
                  tensor_bytes(&t));
    else
        backend_upload(loader->backend, &t, host.data, &loader->error);
    return load_failed(loader) ? (struct tensor){0} : t;
}

struct tensor loader_keep(struct loader *loader, struct tensor t) {
    if (t.ndim > 0) loader->bytes += tensor_bytes(&t);
    return load_place(loader, t);
}

void *load_alloc(struct loader *loader, size_t bytes) {
    void *memory = load_failed(loader) ? NULL : arena_alloc(loader->arena, bytes);
    if (memory == NULL && !load_failed(loader))
        error_set(&loader->error, TESSERA_ERROR_MEMORY, "%s: no memory for the model's layers", loader_where(loader));
    return memory != NULL ? memset(memory, 0, bytes) : NULL;
}

struct tensor load_made(struct loader *loader, enum dtype dtype, int ndim, const int64_t *shape) {
    struct tensor t = tensor_of(NULL, dtype, ndim, shape);
    if (load_failed(loader)) return (struct tensor){0};
    loader->room += tensor_bytes(&t) + ARENA_SLACK;
    if (loader_reads(loader)) t.data = loader_take(loader, tensor_bytes(&t));
    return load_failed(loader) ? (struct tensor){0} : t;
}
