/* Runs: scopes in an arena, and errors that stick.
 *
 * Leaving a scope moves what is kept down to the scope's start, lowest address first, so that
 * nothing is overwritten before it has been moved:
 *
 *     scope ^ [ temporaries | keep A | temporaries | keep B ]      before
 *     scope ^ [ keep A | keep B ]                                  after
 *
 * The arena's memory is the backend's, and so are the moves. */
#include <assert.h>

#include "backend/memory.h"
#include "nn/run.h"

enum { MAX_KEPT = 32, ALIGNMENT = 64 /* the arena's */ };

bool run_failed(const struct run *run) {
    return run->error.status != TESSERA_OK;
}

enum dtype run_dtype(const struct run *run) {
    return run->dtype;
}

tessera_error *run_error(struct run *run) {
    return &run->error;
}

tessera_status run_status(const struct run *run, tessera_error *error) {
    if (run_failed(run) && error != NULL) *error = run->error;
    return run->error.status;
}

struct tensor run_checked(struct run *run, tessera_status status, struct tensor out) {
    if (status == TESSERA_OK && !run_failed(run)) return out;
    if (!run_failed(run)) run->error.status = status;
    return (struct tensor){0};
}

struct tensor run_tensor(struct run *run, enum dtype dtype, int ndim, const int64_t *shape) {
    struct tensor empty = {0};
    if (run_failed(run)) return empty;
    struct tensor t = tensor_of(NULL, dtype, ndim, shape);
    t.device = run->backend->device;
    t.data = arena_alloc(run->arena, tensor_bytes(&t));
    if (t.data != NULL) return t;
    char text[128];
    error_set(&run->error, TESSERA_ERROR_MEMORY,
              "no memory for a %s tensor of shape %s: %zu bytes beside %zu of %zu in use; ask for a smaller picture", dtype_name(dtype),
              tensor_shape_text(ndim, shape, text, sizeof text), tensor_bytes(&t), arena_mark(run->arena), arena_limit(run->arena));
    return empty;
}

void *run_map(struct run *run, const struct tensor *t, unsigned use) {
    return run_failed(run) ? NULL : backend_map(run->backend, t, use, &run->error);
}

void run_unmap(struct run *run, const struct tensor *t, void *host, unsigned use) {
    if (run_failed(run))
        backend_drop_view(run->backend, t, host);
    else
        run_checked(run, backend_unmap(run->backend, t, host, use, &run->error), *t);
}

struct tensor run_upload(struct run *run, struct tensor host) {
    if (run_failed(run) || host.data == NULL) return (struct tensor){0};
    if (run->backend->shares_host || backend_holds(run->backend, &host)) return host;
    struct tensor t = run_tensor(run, host.dtype, host.ndim, host.shape);
    if (t.data == NULL) return t;
    return run_checked(run, backend_upload(run->backend, &t, host.data, &run->error), t);
}

struct tensor run_move(struct run *to, struct run *from, struct tensor t) {
    if (to->backend == from->backend || t.data == NULL) return t;
    struct tensor out = run_tensor(to, t.dtype, t.ndim, t.shape);
    if (out.data == NULL) return out;
    void *host = run_map(from, &t, MAP_READ);
    if (run_failed(from)) return run_checked(to, run_status(from, &to->error), out);
    to->backend->counts.moved += tensor_bytes(&t);
    out = run_checked(to, backend_upload(to->backend, &out, host, &to->error), out);
    run_unmap(from, &t, host, MAP_READ);
    return out;
}

size_t run_enter(struct run *run) {
    return arena_mark(run->arena);
}

struct tensor run_leave(struct run *run, size_t scope, struct tensor keep) {
    struct tensor *kept[] = {&keep};
    run_leave_all(run, scope, kept, 1);
    return keep;
}

static size_t aligned_bytes(const struct tensor *t) {
    return (tensor_bytes(t) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* The tensors that have memory, in the order of their addresses; returns how many. */
static int sort_by_address(struct tensor **order, struct tensor **keep, int count) {
    int filled = 0;
    for (int i = 0; i < count; i++) {
        if (keep[i]->data == NULL) continue;
        int at = filled++;
        for (; at > 0 && (uintptr_t)order[at - 1]->data > (uintptr_t)keep[i]->data; at--) order[at] = order[at - 1];
        order[at] = keep[i];
    }
    return filled;
}

/* Tensors below the scope's start stay: they are older than the scope, or not the arena's at all.
 * While moving, the whole scope is one allocation, large enough too for tensors that come from
 * elsewhere. */
void run_leave_all(struct run *run, size_t scope, struct tensor **keep, int count) {
    assert(count >= 0 && count <= MAX_KEPT);
    struct tensor *order[MAX_KEPT];
    int filled = sort_by_address(order, keep, count);
    size_t whole = arena_mark(run->arena) - scope, needed = 0, used = 0;
    for (int i = 0; i < filled; i++) needed += aligned_bytes(order[i]);
    arena_release(run->arena, scope);
    char *start = run_failed(run) ? NULL : arena_alloc(run->arena, whole > needed ? whole : needed);
    if (start == NULL) {
        if (!run_failed(run)) error_set(&run->error, TESSERA_ERROR_MEMORY, "no memory to keep %zu bytes", needed);
        for (int i = 0; i < count; i++) *keep[i] = (struct tensor){0};
        return;
    }
    for (int i = 0; i < filled; i++) {
        if ((uintptr_t)order[i]->data < (uintptr_t)start) continue;
        backend_copy_bytes(run->backend, start + used, order[i]->data, tensor_bytes(order[i]));
        order[i]->data = start + used;
        used += aligned_bytes(order[i]);
    }
    arena_release(run->arena, scope);
    if (used > 0) arena_alloc(run->arena, used); /* the same bytes: it cannot fail */
}
