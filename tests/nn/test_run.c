/* Scopes of a run: what is kept keeps its values and its place at the scope's start; errors stick. */
#include <string.h>

#include "check.h"
#include "nn/run.h"

static struct tensor filled(struct run *run, int64_t count, float first) {
    struct tensor t = run_tensor(run, DTYPE_F32, SHAPE(count));
    for (int64_t i = 0; t.data != NULL && i < count; i++) ((float *)t.data)[i] = first + (float)i;
    return t;
}

static bool holds(struct tensor t, int64_t count, float first) {
    bool same = t.data != NULL && t.shape[0] == count;
    for (int64_t i = 0; same && i < count; i++) same = ((float *)t.data)[i] == first + (float)i;
    return same;
}

static void test_leave(struct run *run) {
    struct tensor older = filled(run, 10, 0);
    size_t scope = run_enter(run);
    filled(run, 100, 1);
    struct tensor a = filled(run, 33, 1000), none = {0};
    filled(run, 5, 2);
    struct tensor b = filled(run, 7, 2000);
    float outside_values[3] = {5, 6, 7};
    struct tensor outside = tensor_of(outside_values, DTYPE_F32, SHAPE(3)), same = older;
    run_leave_all(run, scope, (struct tensor *[]){&b, &none, &outside, &a, &same}, 5);
    CHECK(holds(a, 33, 1000) && holds(b, 7, 2000) && holds(outside, 3, 5) && holds(same, 10, 0), "values are kept");
    CHECK(none.data == NULL && same.data == older.data, "empty and older tensors stay as they are");
    CHECK((char *)a.data - (char *)older.data == 64 && (char *)b.data - (char *)a.data == 192, "moved down, one after the other");
    scope = run_enter(run);
    struct tensor c = filled(run, 4, 1);
    struct tensor d = run_leave(run, scope, filled(run, 6, 3));
    CHECK(d.data == c.data && holds(d, 6, 3), "run_leave moves down");
}

static void test_errors(struct run *run) {
    struct tensor large = run_tensor(run, DTYPE_F32, SHAPE(1 << 20, 16));
    CHECK(large.data == NULL && run->error.status == TESSERA_ERROR_MEMORY && strstr(run->error.message, "[1048576, 16]") != NULL, "%s",
          run->error.message);
    CHECK(run_failed(run) && run_tensor(run, DTYPE_F32, SHAPE(1)).data == NULL, "the error sticks");
    run->error = (tessera_error){0};
    struct tensor t = filled(run, 1, 0);
    CHECK(run_checked(run, TESSERA_OK, t).data == t.data, "no failure");
    CHECK(run_checked(run, TESSERA_ERROR_INTERNAL, t).data == NULL && run->error.status == TESSERA_ERROR_INTERNAL,
          "a status becomes the run's");
    t = run_leave(run, run_enter(run), t);
    CHECK(t.data == NULL, "a failed run keeps nothing");
}

int main(void) {
    tessera_error error = {0};
    struct run run = {.backend = cpu_backend_open(1, CPU_KERNELS_OWN, &error), .arena = arena_new(1 << 20, &error), .dtype = DTYPE_F32};
    CHECK(run.backend != NULL && run.arena != NULL, "%s", error.message);
    if (run.backend != NULL && run.arena != NULL) {
        test_leave(&run);
        test_errors(&run);
    }
    arena_free(run.arena);
    backend_free(run.backend);
    return CHECK_REPORT();
}
