/* Views and moves over a backend's copies, and the host's memory as a backend's. A copy that the
 * host works on is malloc's. */
#include "backend/memory.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- moves ---- */

bool backend_holds(const struct backend *backend, const struct tensor *t) {
    return t->device.kind == backend->device.kind && t->device.index == backend->device.index;
}

tessera_status backend_upload(struct backend *backend, const struct tensor *to, const void *from, tessera_error *error) {
    assert(backend_holds(backend, to));
    backend->counts.uploaded += tensor_bytes(to);
    return backend->ops->upload(backend, to->data, from, tensor_bytes(to), error);
}

tessera_status backend_download(struct backend *backend, void *to, const struct tensor *from, tessera_error *error) {
    assert(backend_holds(backend, from));
    backend->counts.downloaded += tensor_bytes(from);
    return backend->ops->download(backend, to, from->data, tensor_bytes(from), error);
}

void backend_copy_bytes(struct backend *backend, void *to, const void *from, size_t bytes) {
    if (to == from || bytes == 0) return;
    backend->counts.copied += bytes;
    backend->ops->copy(backend, to, from, bytes);
}

void backend_copy(struct backend *backend, const struct tensor *to, const struct tensor *from) {
    assert(tensor_bytes(to) == tensor_bytes(from) && backend_holds(backend, to) && backend_holds(backend, from));
    backend_copy_bytes(backend, to->data, from->data, tensor_bytes(to));
}

void backend_copy_rows(struct backend *backend, struct tensor *out, int64_t to, const struct tensor *x, int64_t from, int64_t rows) {
    if (rows > 0) backend->counts.copied += tensor_bytes(x) / (size_t)x->shape[1] * (size_t)rows;
    backend->ops->copy_rows(backend, out, to, x, from, rows);
}

/* ---- views ---- */

/* May the host follow the tensor's address? */
static bool is_of_host(const struct backend *backend, const struct tensor *t) {
    return backend->shares_host || t->device.kind == DEVICE_CPU;
}

void *backend_map(struct backend *backend, const struct tensor *t, unsigned use, tessera_error *error) {
    if (is_of_host(backend, t) || t->data == NULL) return t->data;
    size_t bytes = tensor_bytes(t);
    void *host = malloc(bytes > 0 ? bytes : 1);
    if (host == NULL) {
        error_set(error, TESSERA_ERROR_MEMORY, "no memory for a copy of %zu bytes on the host", bytes);
        return NULL;
    }
    if (!(use & MAP_READ) || backend_download(backend, host, t, error) == TESSERA_OK) return host;
    free(host);
    return NULL;
}

tessera_status backend_unmap(struct backend *backend, const struct tensor *t, void *host, unsigned use, tessera_error *error) {
    if (is_of_host(backend, t) || host == NULL) return TESSERA_OK;
    tessera_status status = use & MAP_WRITE ? backend_upload(backend, t, host, error) : TESSERA_OK;
    free(host);
    return status;
}

void backend_drop_view(struct backend *backend, const struct tensor *t, void *host) {
    if (!is_of_host(backend, t)) free(host);
}

/* ---- the host's memory ---- */

static struct arena *host_arena(struct backend *backend, size_t limit, tessera_error *error) {
    return arena_new(limit, error);
}

static void *host_alloc(struct backend *backend, size_t bytes, tessera_error *error) {
    enum { ALIGNMENT = 64 };
    void *memory = NULL;
    if (posix_memalign(&memory, ALIGNMENT, bytes > 0 ? bytes : 1) == 0) return memory;
    error_set(error, TESSERA_ERROR_MEMORY, "no memory for %zu bytes", bytes);
    return NULL;
}

static void host_release(struct backend *backend, void *memory, size_t bytes) {
    free(memory);
}

static tessera_status host_move(struct backend *backend, void *to, const void *from, size_t bytes, tessera_error *error) {
    memmove(to, from, bytes);
    return TESSERA_OK;
}

static void host_copy(struct backend *backend, void *to, const void *from, size_t bytes) {
    memmove(to, from, bytes);
}

static void host_zero(struct backend *backend, void *to, size_t bytes) {
    memset(to, 0, bytes);
}

static tessera_status host_synchronize(struct backend *backend, tessera_error *error) {
    return TESSERA_OK;
}

void backend_fill_host_memory(struct backend_ops *ops) {
    ops->arena = host_arena;
    ops->alloc = host_alloc;
    ops->release = host_release;
    ops->upload = ops->download = host_move;
    ops->copy = host_copy;
    ops->zero = host_zero;
    ops->synchronize = host_synchronize;
}
