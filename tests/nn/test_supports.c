/* Who multiplies with small weights: the backend itself where it says that it supports their type,
 * otherwise the composite of its other operators; both with the same result. */
#include "nn/layers.h"

#include <string.h>

#include "check.h"

enum { ROWS = 3, DEPTH = 64, OUTPUTS = 96 };

static const struct backend_ops *plain;
static int products, small_products;

static bool supports_all(const struct backend *backend, enum backend_product product, enum dtype x, enum dtype w) {
    return product == PRODUCT_LINEAR || x == w;
}

/* A product of the device's own: here by way of the composite's tile, made at once. */
static tessera_status own_linear(struct backend *backend, struct tensor *out, const struct tensor *x, const struct tensor *w,
                                 const struct tensor *bias, enum activation act, tessera_error *error) {
    static float room[OUTPUTS * DEPTH];
    struct tensor wide = tensor_of(room, DTYPE_F32, SHAPE(OUTPUTS, DEPTH));
    products++;
    if (w->dtype == x->dtype) return plain->linear(backend, out, x, w, bias, act, error);
    small_products++;
    plain->cast(backend, &wide, w);
    return plain->linear(backend, out, x, &wide, bias, act, error);
}

/* x w^T of made up numbers, by whichever way the backend's table leads. */
static struct tensor product(struct run *run, uint8_t *weights) {
    static float values[ROWS * DEPTH];
    for (int i = 0; i < ROWS * DEPTH; i++) values[i] = (float)(i % 17) / 8.0f - 1.0f;
    for (size_t i = 0; i < OUTPUTS * DEPTH; i++) weights[i] = (uint8_t)(i * 7 % 120); /* float8: no NaN among them */
    struct linear layer = {.weight = tensor_of(weights, DTYPE_F8_E4M3, SHAPE(OUTPUTS, DEPTH))};
    return nn_linear(run, &layer, tensor_of(values, DTYPE_F32, SHAPE(ROWS, DEPTH)), ACTIVATION_NONE);
}

int main(void) {
    static uint8_t weights[OUTPUTS * DEPTH];
    tessera_error error = {0};
    struct backend *backend = cpu_backend_open(1, CPU_KERNELS_BEST, &error);
    CHECK(backend != NULL, "%s", error.message);
    if (backend == NULL) return CHECK_REPORT();
    struct arena *arena = arena_new((size_t)1 << 24, &error);
    struct run run = {.backend = backend, .arena = arena, .dtype = DTYPE_F32};
    CHECK(!backend->ops->supports(backend, PRODUCT_LINEAR, DTYPE_F32, DTYPE_F8_E4M3), "the CPU has no product with float8");
    CHECK(backend->ops->supports(backend, PRODUCT_CONV2D, DTYPE_BF16, DTYPE_BF16), "every backend has products of equal types");
    struct tensor composite = product(&run, weights);
    plain = backend->ops;
    struct backend_ops table = *plain;
    table.supports = supports_all, table.linear = own_linear;
    backend->ops = &table;
    struct tensor own = product(&run, weights);
    CHECK(products == 1 && small_products == 1, "%d products, %d of them with small weights", products, small_products);
    CHECK(own.data != NULL && composite.data != NULL && memcmp(own.data, composite.data, tensor_bytes(&own)) == 0, "%s", run.error.message);
    backend->ops = plain;
    arena_free(arena);
    backend_free(backend);
    return CHECK_REPORT();
}
