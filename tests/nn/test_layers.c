/* Layers: shapes, the count of operations, rows and chunks, sinusoids, and group normalisation's
 * statistics. */
#include <math.h>

#include "check.h"
#include "nn/layers.h"

static struct tensor counting(struct run *run, int ndim, const int64_t *shape) {
    struct tensor t = run_tensor(run, DTYPE_F32, ndim, shape);
    for (int64_t i = 0; t.data != NULL && i < tensor_count(&t); i++) ((float *)t.data)[i] = (float)i;
    return t;
}

static float at(struct tensor t, int64_t i) {
    return ((const float *)t.data)[i];
}

static void test_rows(struct run *run) {
    struct tensor a = counting(run, SHAPE(2, 3, 4)), b = counting(run, SHAPE(2, 1, 4));
    struct tensor both = nn_concat_rows(run, a, b);
    CHECK(both.shape[1] == 4 && at(both, 12) == 0 && at(both, 16) == 12 && at(both, 28) == 4, "concatenated");
    struct tensor back = nn_slice_rows(run, both, 1, 2);
    CHECK(back.shape[1] == 2 && at(back, 0) == 4 && at(back, 8) == 16, "sliced");
    struct tensor part = nn_chunk(run, a, 2, 1);
    CHECK(part.shape[2] == 2 && at(part, 0) == 2 && at(part, 2) == 6 && at(part, 11) == 23, "chunked");
    CHECK(nn_cast(run, a, DTYPE_F32).data == a.data && nn_cast(run, a, DTYPE_BF16).dtype == DTYPE_BF16, "cast");
}

static void test_modulation(struct run *run) {
    struct tensor x = counting(run, SHAPE(2, 3, 4)), scale = counting(run, SHAPE(2, 4)), shift = counting(run, SHAPE(2, 4));
    struct tensor y = nn_modulate(run, x, scale, shift);
    for (int64_t i = 0; y.data != NULL && i < 24; i++) {
        float s = (float)(i / 12 * 4 + i % 4);
        CHECK(at(y, i) == (float)i * (1 + s) + s, "element %d: %g", (int)i, (double)at(y, i));
    }
    CHECK(y.ndim == 3 && y.shape[1] == 3 && nn_modulate(run, (struct tensor){0}, scale, shift).data == NULL, "shape, and of nothing");
}

static void test_products(struct run *run) {
    struct linear linear = {.weight = counting(run, SHAPE(5, 4))};
    run->operations = 0;
    struct tensor y = nn_linear(run, &linear, counting(run, SHAPE(2, 3, 4)), ACTIVATION_NONE);
    CHECK(y.shape[2] == 5 && fabsf(at(y, 1) - 38.0f) < 1e-4f && run->operations == 2.0 * 6 * 4 * 5, "linear: %g operations",
          run->operations);
    struct conv conv = {.weight = counting(run, SHAPE(2, 3, 3, 1)), .bias = counting(run, SHAPE(2))};
    run->operations = 0;
    y = nn_conv(run, &conv, counting(run, SHAPE(1, 3, 4, 1)), NULL);
    CHECK(y.shape[1] == 3 && y.shape[2] == 4 && y.shape[3] == 2 && run->operations == 2.0 * 12 * 2 * 9, "conv: %g operations",
          run->operations);
    CHECK(fabsf(at(y, 10) - 258.0f) < 1e-3f, "conv: %g", (double)at(y, 10));
    y = nn_conv_strided(run, &conv, counting(run, SHAPE(1, 4, 4, 1)), (struct conv2d_geometry){2, 0, 1, 0, 1});
    CHECK(y.shape[1] == 2 && y.shape[2] == 2, "strided");
    struct tensor q = counting(run, SHAPE(1, 2, 3, 4)), k = counting(run, SHAPE(1, 5, 3, 4));
    run->operations = 0;
    y = nn_attention(run, (struct attention_args){.q = &q, .k = &k, .v = &k, .scale = 0});
    CHECK(fabsf(at(y, 0) - 24.0f) < 1e-3f && run->operations == 4.0 * 2 * 5 * 3 * 4, "attention: %g, %g operations", (double)at(y, 0),
          run->operations);
}

static void test_embeddings(struct run *run) {
    struct tensor y = nn_embed(run, counting(run, SHAPE(4, 2)), (const int32_t[]){3, 0, 1, 1}, 2, 2);
    CHECK(y.shape[0] == 2 && y.shape[1] == 2 && at(y, 0) == 6 && at(y, 2) == 0 && at(y, 7) == 3, "rows of a table");
    const float timesteps[] = {0, 500};
    y = nn_timestep_embedding(run, timesteps, 2, 6);
    CHECK(at(y, 0) == 1 && at(y, 3) == 0 && fabsf(at(y, 6) - cosf(500)) < 1e-5f && fabsf(at(y, 9) - sinf(500)) < 1e-5f, "first frequency");
    CHECK(fabs((double)at(y, 7) - cos(500 * pow(10000, -1.0 / 3))) < 1e-5, "second frequency");
}

static void test_group_norm(struct run *run) {
    struct tensor one = counting(run, SHAPE(4)), zero = counting(run, SHAPE(4));
    for (int i = 0; i < 4; i++) ((float *)one.data)[i] = 1, ((float *)zero.data)[i] = 0;
    struct norm norm = {.weight = one, .bias = zero, .eps = 1e-6f};
    struct tensor y = nn_group_norm(run, &norm, 2, counting(run, SHAPE(2, 3, 5, 4)), ACTIVATION_NONE);
    for (int group = 0; group < 2; group++) {
        double sum = 0, squares = 0;
        for (int pixel = 0; pixel < 15; pixel++) {
            for (int c = 0; c < 2; c++) {
                double v = at(y, pixel * 4 + group * 2 + c);
                sum += v;
                squares += v * v;
            }
        }
        CHECK(fabs(sum) < 1e-4 && fabs(squares / 30 - 1) < 1e-3, "group %d: sum %g, squares %g", group, sum, squares);
    }
}

int main(void) {
    tessera_error error = {0};
    struct run run = {.backend = cpu_backend_open(1, CPU_KERNELS_OWN, &error), .arena = arena_new(1 << 24, &error), .dtype = DTYPE_F32};
    CHECK(run.backend != NULL && run.arena != NULL, "%s", error.message);
    if (run.backend != NULL && run.arena != NULL) {
        test_rows(&run);
        test_modulation(&run);
        test_products(&run);
        test_embeddings(&run);
        test_group_norm(&run);
    }
    CHECK(run.error.status == TESSERA_OK, "%s", run.error.message);
    arena_free(run.arena);
    backend_free(run.backend);
    return CHECK_REPORT();
}
