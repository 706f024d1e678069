/* The fenced backend finds what it is there to find: a host that reads a device's bytes dies at
 * that line, an operator that is given a tensor of elsewhere says so, and what runs late has not
 * run before something waits for it. */
#include "fenced/fenced.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/memory.h"
#include "check.h"
#include "nn/layers.h"

enum { COUNT = 5 };

/* x on the backend: first, first + 1, ... */
static struct tensor numbers(struct run *run, float first) {
    struct tensor t = run_tensor(run, DTYPE_F32, SHAPE(1, COUNT));
    float *host = run_map(run, &t, MAP_WRITE);
    for (int i = 0; host != NULL && i < COUNT; i++) host[i] = first + (float)i;
    run_unmap(run, &t, host, MAP_WRITE);
    return t;
}

static bool holds(struct run *run, struct tensor t, float first, float step) {
    const float *host = run_map(run, &t, MAP_READ);
    bool same = host != NULL;
    for (int i = 0; same && i < COUNT; i++) same = host[i] == first + step * (float)i;
    run_unmap(run, &t, (void *)(uintptr_t)host, MAP_READ);
    return same;
}

static void test_moves(struct run *run) {
    struct backend *b = run->backend;
    b->counts = (struct backend_counts){0};
    size_t scope = run_enter(run);
    struct tensor x = numbers(run, 1), y = nn_add(run, x, x);
    CHECK(holds(run, x, 1, 1) && holds(run, y, 2, 2), "an operator computes on the device: %s", run->error.message);
    CHECK(b->counts.uploaded == 20 && b->counts.downloaded == 40 && b->counts.copied == 0 && b->counts.calls == 1, "bytes are counted");
    float values[COUNT] = {7, 8, 9, 10, 11};
    struct tensor given = run_upload(run, tensor_of(values, DTYPE_F32, SHAPE(1, COUNT)));
    values[0] = 0;
    CHECK(backend_holds(b, &given) && holds(run, given, 7, 1), "an upload takes what it was given");
    CHECK(run_upload(run, given).data == given.data, "what is there stays");
    given = run_leave(run, scope, given);
    CHECK(given.data == x.data && holds(run, given, 7, 1) && b->counts.copied == 20, "a scope's end moves on the device");
    b->ops->zero(b, given.data, tensor_bytes(&given));
    CHECK(holds(run, given, 0, 0), "zeros");
    run_leave_all(run, scope, NULL, 0);
}

/* A child that the signal ends, whatever a sanitizer would do with it. */
static int signal_of_read(const void *address) {
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        volatile char byte = *(const volatile char *)address;
        _exit(byte == 0 ? 0 : 1);
    }
    int status = 0;
    return child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void test_fence(struct run *run) {
    size_t scope = run_enter(run);
    struct tensor x = numbers(run, 1);
    CHECK(signal_of_read(x.data) == SIGSEGV, "a read of a device address by the host must end in SIGSEGV");
    void *alone = run->backend->ops->alloc(run->backend, 100, &run->error);
    CHECK(signal_of_read(alone) == SIGSEGV, "memory outside the arena, too");
    run->backend->ops->release(run->backend, alone, 100);
    CHECK(run->backend->ops->synchronize(run->backend, &run->error) == TESSERA_OK, "%s", run->error.message);
    CHECK(signal_of_read(alone) == SIGSEGV, "and after it is released");
    run_leave_all(run, scope, NULL, 0);
}

/* The error of work that was asked for before, and the run made good. */
static tessera_status failure(struct run *run, tessera_error *error) {
    tessera_status late = run->backend->ops->synchronize(run->backend, error), now = run->error.status;
    if (late == TESSERA_OK) *error = run->error;
    run->error = (tessera_error){0};
    return late != TESSERA_OK ? late : now;
}

static void test_strangers(struct run *run) {
    tessera_error error = {0};
    size_t scope = run_enter(run);
    float values[COUNT] = {0};
    struct tensor x = numbers(run, 1), host = tensor_of(values, DTYPE_F32, SHAPE(1, COUNT)),
                  out = run_tensor(run, DTYPE_F32, SHAPE(1, COUNT));
    run->backend->ops->add(run->backend, &out, &x, &host);
    CHECK(failure(run, &error) == TESSERA_ERROR_INTERNAL && strstr(error.message, "tensor 2 of add is not in") != NULL, "%s",
          error.message);
    struct tensor gone = x;
    gone.data = run->backend->ops->alloc(run->backend, sizeof values, &error);
    run->backend->ops->release(run->backend, gone.data, sizeof values);
    run->backend->ops->add(run->backend, &out, &x, &gone);
    CHECK(failure(run, &error) == TESSERA_ERROR_INTERNAL && strstr(error.message, "released") != NULL, "%s", error.message);
    CHECK(holds(run, x, 1, 1), "a failure that was told is over");
    run_leave_all(run, scope, NULL, 0);
}

/* An operator's result is not there before something waits for it; its failure is told then. */
static void test_late(struct run *run) {
    tessera_error error = {0};
    size_t scope = run_enter(run);
    struct tensor x = numbers(run, 1);
    CHECK(holds(run, x, 1, 1), "%s", run->error.message);
    run->backend->ops->add(run->backend, &x, &x, &x);
    const float *there = fenced_peek(run->backend, x.data);
    CHECK(there != NULL && there[0] == 1.0f, "a read before completion sees what was there before");
    CHECK(run->backend->ops->synchronize(run->backend, &error) == TESSERA_OK && there[0] == 2.0f, "and the result after it");
    float value = 0;
    struct tensor host = tensor_of(&value, DTYPE_F32, SHAPE(1, 1)), one = run_tensor(run, DTYPE_F32, SHAPE(1, 1));
    run->backend->ops->activate(run->backend, &one, &host, ACTIVATION_RELU);
    CHECK(run->error.status == TESSERA_OK && run_map(run, &one, MAP_READ) == NULL && run->error.status == TESSERA_ERROR_INTERNAL,
          "a failure is told by what waits for it");
    run->error = (tessera_error){0};
    run_leave_all(run, scope, NULL, 0);
}

int main(void) {
    for (int late = 0; late < 2; late++) {
        tessera_error error = {0};
        struct backend *backend = fenced_backend_open(1, late, &error);
        struct run run = {.backend = backend, .dtype = DTYPE_F32};
        if (backend != NULL) run.arena = backend->ops->arena(backend, 1 << 20, &error);
        CHECK(run.arena != NULL, "%s", error.message);
        if (run.arena != NULL) {
            test_moves(&run);
            test_fence(&run);
            test_strangers(&run);
            if (late) test_late(&run);
        }
        arena_free(run.arena);
        backend_free(backend);
    }
    return CHECK_REPORT();
}
