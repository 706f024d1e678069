/* The keys and values that PipeFusion keeps from step to step: a layer whose form changes between
 * two steps is our mistake, and is said to be one, with both forms. */
#include <string.h>

#include "check.h"
#include "nn/layers.h"
#include "nn/run.h"
#include "parallel/exchange.h"

enum { ROWS = 2, COLUMNS = 3, WIDTH = 8 };

static void attend(struct run *run, int64_t heads) {
    struct tensor x = run_tensor(run, DTYPE_F32, SHAPE(1, ROWS * COLUMNS, heads, WIDTH));
    tessera_error error = {0};
    struct cut *cut = NULL;
    CHECK(cut_tokens(ROWS, COLUMNS, (struct span){0, ROWS}, 1, 0, NULL, &cut, &error) == TESSERA_OK, "%s", error.message);
    memset(x.data, 0, tensor_bytes(&x));
    parallel_begin(run->parallel, &(struct strategy_moment){.steps = 3, .patch = PATCHES_WHOLE, .predictions = 1});
    nn_joint_attention(run, (struct attention_args){.q = &x, .k = &x, .v = &x, .scale = 1}, cut, (struct text_span){0});
    cut_free(cut);
}

int main(void) {
    tessera_error error = {0};
    struct parallel parallel;
    struct comm *alone[MESH_GROUPS] = {NULL};
    struct strategy_choice choice = {.patches = 2};
    for (int a = 0; a < MESH_AXES; a++) choice.degrees[a] = 1;
    struct arena *arena = arena_new(1 << 20, &error);
    struct run run = {.backend = cpu_backend_open(1, CPU_KERNELS_OWN, &error), .arena = arena, .dtype = DTYPE_F32, .parallel = &parallel};
    CHECK(arena != NULL && run.backend != NULL, "%s", error.message);
    CHECK(parallel_compose(&choice, alone, &parallel, &error) == TESSERA_OK, "%s", error.message);
    attend(&run, 4);
    attend(&run, 4);
    CHECK(!run_failed(&run), "%s", run.error.message);
    attend(&run, 2);
    CHECK(run.error.status == TESSERA_ERROR_INTERNAL, "status %d", (int)run.error.status);
    CHECK(strstr(run.error.message, "[1, 6, 2, 8]") != NULL && strstr(run.error.message, "[1, 6, 4, 8]") != NULL, "%s", run.error.message);
    parallel_free(&parallel);
    backend_free(run.backend);
    arena_free(arena);
    return CHECK_REPORT();
}
