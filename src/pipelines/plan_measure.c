/* See plan_measure.h. A transformer's time goes into three kinds of products, C to C, C to 4 C and
 * 4 C to C, and attention. These are timed: the products with many tokens and with few, which tells
 * the cost of a token from the cost of a weight. */
#include "pipelines/plan_measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "base/clock.h"
#include "base/order.h"

#define MEASURED_SECONDS 0.25 /* of each kind of operation, in some turns */
enum { LEAST_TOKENS = 64, MOST_TOKENS = 1024, THIN_TOKENS = 8, TURNS = 5, MOST_ROUNDS = 4096, MOST_WEIGHT_BYTES = 128 << 20 };
#define LEAST_SHARE 0.01 /* of a time that what belongs to it must have, whatever was measured */

struct bench {
    struct backend *backend;
    enum dtype dtype;
    double (*clock)(void);
    int64_t tokens, width, heads;
    char *memory[3];
    char *weights; /* [weight_bytes] of products: as many as the model's, so that they come from where its own do */
    size_t weight_bytes, used;
};

/* The sums that a block adds to the picture tell what its layers are; NULL: none. */
static const struct meeting *sum_of(const struct plan_block *block) {
    for (int i = 0; i < block->num_meetings; i++)
        if (block->meetings[i].kind == MEETING_SUM && (block->meetings[i].of & MEETING_PICTURE)) return &block->meetings[i];
    return NULL;
}

static bool has_layer(const struct plan_block *block, const struct meeting *like) {
    const struct meeting *sum = sum_of(block);
    return sum != NULL && sum->level == like->level && sum->units * sum->width == like->units * like->width;
}

/* Of all blocks that have such layers. */
static double operations_of(const struct plan_model *m, const struct meeting *like) {
    double operations = 0;
    for (int i = 0; i < m->num_blocks; i++)
        if (has_layer(&m->blocks[i], like)) operations += m->blocks[i].picture_operations;
    return operations;
}

static int64_t heads_of(const struct plan_model *m, const struct meeting *like) {
    for (int i = 0; i < m->num_blocks; i++)
        for (int j = 0; j < m->blocks[i].num_meetings && has_layer(&m->blocks[i], like); j++)
            if (m->blocks[i].meetings[j].kind == MEETING_ATTENTION) return m->blocks[i].meetings[j].units;
    return m->heads;
}

struct plan_layer plan_busiest_layer(const struct plan_model *m) {
    const struct meeting *busiest = NULL;
    double most = 0;
    for (int i = 0; i < m->num_blocks; i++) {
        const struct meeting *sum = sum_of(&m->blocks[i]);
        double operations = sum != NULL ? operations_of(m, sum) : 0;
        if (operations > most) most = operations, busiest = sum;
    }
    if (busiest == NULL) return (struct plan_layer){m->width, m->heads, 0};
    return (struct plan_layer){busiest->units * busiest->width, heads_of(m, busiest), busiest->level};
}

int64_t plan_measured_tokens(struct plan_layer layer, int64_t positions) {
    int64_t tokens = positions >> 2 * layer.level;
    return tokens < LEAST_TOKENS ? LEAST_TOKENS : tokens > MOST_TOKENS ? MOST_TOKENS : tokens;
}

/* Not zero, so that no processor takes a short way. */
static void fill(const struct bench *b, char *memory, size_t bytes) {
    size_t size = dtype_size(b->dtype);
    for (size_t j = 0; j < bytes / size; j++) {
        float value = (float)(j % 13) / 13.0f - 0.5f;
        dtype_convert(memory + j * size, b->dtype, &value, DTYPE_F32, 1);
    }
}

static bool allocate(struct bench *b, size_t elements) {
    size_t bytes = elements * dtype_size(b->dtype);
    b->weights = malloc(b->weight_bytes);
    if (b->weights == NULL) return false;
    fill(b, b->weights, b->weight_bytes);
    for (int i = 0; i < 3; i++) {
        b->memory[i] = malloc(bytes);
        if (b->memory[i] == NULL) return false;
        fill(b, b->memory[i], bytes);
    }
    return true;
}

/* Each product has weights of its own, until all have been used. */
static tessera_status product(struct bench *b, int64_t tokens, int64_t in, int64_t out, tessera_error *error) {
    size_t bytes = (size_t)(in * out) * dtype_size(b->dtype);
    if (b->used + bytes > b->weight_bytes) b->used = 0;
    struct tensor x = tensor_of(b->memory[0], b->dtype, 3, (const int64_t[]){1, tokens, in});
    struct tensor w = tensor_of(b->weights + b->used, b->dtype, 2, (const int64_t[]){out, in});
    struct tensor y = tensor_of(b->memory[2], b->dtype, 3, (const int64_t[]){1, tokens, out});
    b->used += bytes;
    return b->backend->ops->linear(b->backend, &y, &x, &w, NULL, ACTIVATION_NONE, error);
}

static tessera_status products_of(struct bench *b, int64_t tokens, tessera_error *error) {
    int64_t c = b->width;
    for (int i = 0; i < 4; i++) TRY(product(b, tokens, c, c, error)); /* queries, keys, values, output */
    TRY(product(b, tokens, c, 4 * c, error));
    return product(b, tokens, 4 * c, c, error);
}

static double weights_of_products(const struct bench *b) {
    return 12.0 * (double)(b->width * b->width);
}

static tessera_status products(struct bench *b, double *operations, tessera_error *error) {
    *operations = 2.0 * (double)b->tokens * weights_of_products(b);
    return products_of(b, b->tokens, error);
}

/* With so few tokens the time goes into reading weights, and into what a product costs at all. */
static tessera_status thin_products(struct bench *b, double *bytes, tessera_error *error) {
    *bytes = weights_of_products(b) * (double)dtype_size(b->dtype);
    return products_of(b, THIN_TOKENS, error);
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

/* ---- rates ---- */

/* One kind of operation, and the rates of its rounds. */
struct kind {
    tessera_status (*round)(struct bench *, double *, tessera_error *);
    double rates[MOST_ROUNDS];
    int rounds;
};
enum { PRODUCTS, THIN_PRODUCTS, ATTENTION, NORMS, KINDS };

/* Some more rounds of a kind. */
static tessera_status measure_kind(struct bench *b, struct kind *kind, double seconds, tessera_error *error) {
    double began = b->clock(), operations = 0;
    do {
        double start = b->clock();
        TRY(kind->round(b, &operations, error));
        if (kind->rounds < MOST_ROUNDS) kind->rates[kind->rounds++] = operations / fmax(b->clock() - start, 1e-9);
    } while (b->clock() - began < seconds);
    return TESSERA_OK;
}

/* The kinds take turns: where a machine is faster at one moment than at the next, that is in all of
 * them. */
static tessera_status measure_kinds(struct bench *b, struct kind kinds[KINDS], tessera_error *error) {
    for (int turn = 0; turn < TURNS; turn++)
        for (int i = 0; i < KINDS; i++) TRY(measure_kind(b, &kinds[i], MEASURED_SECONDS / TURNS, error));
    return TESSERA_OK;
}

/* The median, as a step meets it: neither what disturbs once counts nor what a machine does at its
 * best. */
static double rate_of(struct kind *kind) {
    qsort(kind->rates, (size_t)kind->rounds, sizeof *kind->rates, order_doubles);
    return kind->rates[kind->rounds / 2];
}

/* Products as a line over their tokens: seconds = weight bytes / streaming + operations / rate,
 * through the two numbers of tokens. */
static void fit_products(const struct bench *b, double rate, double thin_rate, struct plan_speed *out) {
    double bytes = weights_of_products(b) * (double)dtype_size(b->dtype), token = 2.0 * weights_of_products(b);
    double seconds = (double)b->tokens * token / rate, thin = bytes / thin_rate, more = (double)(b->tokens - THIN_TOKENS);
    out->operations = more * token / fmax(seconds - thin, seconds * LEAST_SHARE);
    out->streaming = bytes / fmax(thin - THIN_TOKENS * token / out->operations, thin * LEAST_SHARE);
}

static tessera_status measure(struct bench *b, struct plan_speed *out, tessera_error *error) {
    struct kind *kinds = calloc(KINDS, sizeof *kinds);
    if (kinds == NULL || !allocate(b, (size_t)(4 * b->width * b->tokens))) {
        free(kinds);
        return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a measurement");
    }
    kinds[PRODUCTS].round = products;
    kinds[THIN_PRODUCTS].round = thin_products;
    kinds[ATTENTION].round = attention;
    kinds[NORMS].round = norms;
    tessera_status status = measure_kinds(b, kinds, error);
    if (status == TESSERA_OK) {
        fit_products(b, rate_of(&kinds[PRODUCTS]), rate_of(&kinds[THIN_PRODUCTS]), out);
        out->attention_share = rate_of(&kinds[ATTENTION]) / out->operations;
        out->elements = rate_of(&kinds[NORMS]);
    }
    free(kinds);
    return status;
}

/* Of all blocks, as far as there is room for a measurement. */
static size_t weight_bytes_of(const struct plan_model *m, const struct bench *b) {
    double bytes = 0, least = weights_of_products(b) * (double)dtype_size(b->dtype);
    for (int i = 0; i < m->num_blocks; i++) bytes += m->blocks[i].weight_bytes;
    return (size_t)fmax(fmin(bytes, MOST_WEIGHT_BYTES), least);
}

/* The type that computes with elements of so many bytes. */
static tessera_status dtype_of(int element_bytes, enum dtype *out, tessera_error *error) {
    switch (element_bytes) {
    case 4:
        *out = DTYPE_F32;
        return TESSERA_OK;
    case 2:
        *out = DTYPE_BF16;
        return TESSERA_OK;
    default:
        return error_set(error, TESSERA_ERROR_INTERNAL, "no products of elements of %d bytes are measured", element_bytes);
    }
}

tessera_status plan_measure_speed(const struct plan_model *m, int64_t positions, struct plan_measurer measurer, struct plan_speed *out,
                                  tessera_error *error) {
    struct plan_layer layer = plan_busiest_layer(m);
    struct bench b = {.heads = layer.heads};
    TRY(dtype_of(m->element_bytes, &b.dtype, error));
    b.tokens = plan_measured_tokens(layer, positions);
    b.clock = measurer.crowded && measurer.threads == 1 ? clock_thread_seconds : clock_seconds;
    b.width = layer.width / layer.heads * layer.heads;
    b.weight_bytes = weight_bytes_of(m, &b);
    b.backend = cpu_backend_open(measurer.threads, CPU_KERNELS_BEST, error);
    if (b.backend == NULL) return error->status;
    tessera_status status = measure(&b, out, error);
    free(b.weights);
    for (int i = 0; i < 3; i++) free(b.memory[i]);
    backend_free(b.backend);
    return status;
}
