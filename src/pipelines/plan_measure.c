/* See plan_measure.h. A transformer's time goes into four kinds of products, C to C, C to 3 C, C to 4 C and 4 C to C, and attention:
 * these are timed. */
#include "pipelines/plan_measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "base/clock.h"

/* Long enough for clocks and caches to settle; more tokens than these say nothing new. */
#define MEASURED_SECONDS 0.2
enum { MEASURED_TOKENS = 1024, LEAST_ROUNDS = 3, STREAMED_BYTES = 64 << 20 };

struct bench {
    struct backend *backend;
    enum dtype dtype;
    int64_t tokens, width, heads;
    char *memory[3], *large; /* large: [2 STREAMED_BYTES], more than caches hold */
};

/* Not zero, so that no processor takes a short way. */
static bool allocate(struct bench *b, size_t elements) {
    b->large = calloc(2, STREAMED_BYTES);
    if (b->large == NULL) return false;
    memset(b->large, 1, STREAMED_BYTES); /* pages of zeros would be one page */
    for (int i = 0; i < 3; i++) {
        size_t bytes = elements * dtype_size(b->dtype);
        b->memory[i] = malloc(bytes);
        if (b->memory[i] == NULL) return false;
        for (size_t j = 0; j < elements; j++) {
            float value = (float)(j % 13) / 13.0f - 0.5f;
            dtype_convert(b->memory[i] + j * dtype_size(b->dtype), b->dtype, &value, DTYPE_F32, 1);
        }
    }
    return true;
}

static tessera_status product(struct bench *b, int64_t in, int64_t out, tessera_error *error) {
    struct tensor x = tensor_of(b->memory[0], b->dtype, 3, (const int64_t[]){1, b->tokens, in});
    struct tensor w = tensor_of(b->memory[1], b->dtype, 2, (const int64_t[]){out, in});
    struct tensor y = tensor_of(b->memory[2], b->dtype, 3, (const int64_t[]){1, b->tokens, out});
    return b->backend->ops->linear(b->backend, &y, &x, &w, NULL, ACTIVATION_NONE, error);
}

static tessera_status products(struct bench *b, double *operations, tessera_error *error) {
    int64_t c = b->width;
    TRY(product(b, c, c, error));
    TRY(product(b, c, 3 * c, error));
    TRY(product(b, c, 4 * c, error));
    TRY(product(b, 4 * c, c, error));
    *operations = 2.0 * (double)b->tokens * (double)(12 * c * c);
    return TESSERA_OK;
}

static tessera_status attention(struct bench *b, double *operations, tessera_error *error) {
    int64_t shape[] = {1, b->tokens, b->heads, b->width / b->heads};
    struct tensor q = tensor_of(b->memory[0], b->dtype, 4, shape), k = tensor_of(b->memory[1], b->dtype, 4, shape);
    struct tensor y = tensor_of(b->memory[2], b->dtype, 4, shape);
    struct attention_args args = {.q = &q, .k = &k, .v = &k, .scale = 1.0f / sqrtf((float)shape[3])};
    *operations = 4.0 * (double)b->tokens * (double)b->tokens * (double)b->width;
    return b->backend->ops->attention(b->backend, &y, NULL, &args, error);
}

static tessera_status norms(struct bench *b, double *elements, tessera_error *error) {
    struct tensor x = tensor_of(b->memory[0], b->dtype, 3, (const int64_t[]){1, b->tokens, b->width});
    struct tensor y = tensor_of(b->memory[2], b->dtype, 3, (const int64_t[]){1, b->tokens, b->width});
    b->backend->ops->norm(b->backend, &y, &x, NORM_LAYER, NULL, NULL, NULL, NULL, 1e-6f);
    b->backend->ops->add(b->backend, &y, &y, &x);
    *elements = 2.0 * (double)b->tokens * (double)b->width;
    return TESSERA_OK;
}

static tessera_status copies(struct bench *b, double *bytes, tessera_error *error) {
    memcpy(b->large + STREAMED_BYTES, b->large, STREAMED_BYTES);
    *bytes = STREAMED_BYTES;
    return TESSERA_OK;
}

/* The best rate of some rounds: what disturbs does not count, and ranks that crowd processors are counted elsewhere. */
static tessera_status rate_of(struct bench *b, tessera_status (*round)(struct bench *, double *, tessera_error *), double *rate,
                              tessera_error *error) {
    double began = clock_seconds(), operations = 0;
    *rate = 0;
    for (int i = 0; i < LEAST_ROUNDS || clock_seconds() - began < MEASURED_SECONDS; i++) {
        double start = clock_seconds();
        TRY(round(b, &operations, error));
        *rate = fmax(*rate, operations / fmax(clock_seconds() - start, 1e-9));
    }
    return TESSERA_OK;
}

tessera_status plan_measure_speed(const struct plan_model *m, int64_t positions, int threads, struct plan_speed *out,
                                  tessera_error *error) {
    struct bench b = {.dtype = m->element_bytes == 4 ? DTYPE_F32 : DTYPE_BF16, .heads = m->heads};
    b.tokens = positions < MEASURED_TOKENS ? positions : MEASURED_TOKENS;
    b.width = m->width / m->heads * m->heads;
    size_t largest = (size_t)(4 * b.width * (b.tokens > b.width ? b.tokens : b.width));
    double rate = 0;
    b.backend = cpu_backend_open(threads, CPU_KERNELS_BEST, error);
    if (b.backend == NULL) return error->status;
    tessera_status status = allocate(&b, largest) ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a measurement");
    if (status == TESSERA_OK) status = rate_of(&b, products, &out->operations, error);
    if (status == TESSERA_OK) status = rate_of(&b, attention, &rate, error);
    if (status == TESSERA_OK) out->attention_share = rate / out->operations;
    if (status == TESSERA_OK) status = rate_of(&b, norms, &out->elements, error);
    if (status == TESSERA_OK) status = rate_of(&b, copies, &out->streaming, error);
    free(b.large);
    for (int i = 0; i < 3; i++) free(b.memory[i]);
    backend_free(b.backend);
    return status;
}
