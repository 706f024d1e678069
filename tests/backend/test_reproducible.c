/* The reproducible operators and the host's own functions against stored hashes of their bits, on
 * every instruction set of this processor and 1, 2, 3 and 8 threads.
 *
 * The program needs neither MPI nor any library but OpenMP and libm, so that
 * test_reproducible_builds.sh can compile it for other processors and with other flags. Inputs are
 * drawn by integer arithmetic. A hash is FNV-1a of 64 bits over the results' bytes; where one
 * differs the message has what was computed. Stored values change only with the definition in
 * docs/reproducible.md. */
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/float_control.h"
#include "base/random.h"
#include "check.h"

enum { MOST_TENSORS = 32 };

struct bench {
    struct backend *backend;
    enum dtype dtype;
    uint64_t random;
    void *memory[MOST_TENSORS];
    int used;
    tessera_error error;
};

static const struct stored {
    const char *name;
    uint64_t f32, bf16;
} stored[] = {
#include "backend/reproducible_hashes.h"
};

/* ---- inputs ---- */

/* A multiple of 2^-23 in [-1, 1) (Vigna's splitmix64). */
static float draw(struct bench *t) {
    uint64_t z = t->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (float)((int64_t)((z ^ (z >> 31)) >> 40) - (1 << 23)) * 0x1p-23f;
}

static struct tensor room(struct bench *t, enum dtype dtype, int ndim, const int64_t *shape) {
    struct tensor out = tensor_of(NULL, dtype, ndim, shape);
    CHECK(t->used < MOST_TENSORS, "room for tensors");
    out.data = t->memory[t->used++] = calloc(1, tensor_bytes(&out) + 1);
    return out;
}

/* Numbers of [-scale, scale); every 50th is a million times smaller, so that some products are
 * denormal. */
static struct tensor numbers(struct bench *t, enum dtype dtype, float scale, int ndim, const int64_t *shape) {
    struct tensor out = room(t, dtype, ndim, shape);
    for (int64_t i = 0; i < tensor_count(&out); i++) {
        float x = draw(t) * scale * (i % 50 == 49 ? 0x1p-120f : 1.0f);
        dtype_convert((char *)out.data + (size_t)i * dtype_size(dtype), dtype, &x, DTYPE_F32, 1);
    }
    return out;
}

/* ---- hashes ---- */

static uint64_t hash_of(const void *data, size_t bytes) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ ((const unsigned char *)data)[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static void check_bits(const char *name, const char *path, bool bf16, const void *data, size_t bytes) {
    uint64_t got = hash_of(data, bytes), want = 0;
    for (size_t i = 0; i < sizeof stored / sizeof *stored; i++)
        if (strcmp(stored[i].name, name) == 0) want = bf16 ? stored[i].bf16 : stored[i].f32;
    CHECK(got == want, "%s, %s, %s: 0x%016llx is not the stored hash", name, path, bf16 ? "bf16" : "f32", (unsigned long long)got);
}

static void check_tensor(struct bench *t, const char *name, const struct tensor *x) {
    CHECK(t->error.status == TESSERA_OK, "%s: %s", name, t->error.message);
    check_bits(name, t->backend->kernel_path, t->dtype == DTYPE_BF16, x->data, tensor_bytes(x));
}

static void start(struct bench *t) {
    while (t->used > 0) free(t->memory[--t->used]);
    t->random = 1;
    t->error = (tessera_error){0};
}

/* ---- operators ---- */

static void test_products(struct bench *t) {
    const struct backend_ops *ops = t->backend->ops;
    start(t);
    struct tensor x = numbers(t, t->dtype, 2, 2, (int64_t[]){77, 517}), w = numbers(t, t->dtype, 0.25f, 2, (int64_t[]){203, 517});
    struct tensor bias = numbers(t, DTYPE_F32, 1, 1, (int64_t[]){203}), out = room(t, t->dtype, 2, (int64_t[]){77, 203});
    static const char *const names[ACTIVATION_COUNT] = {[ACTIVATION_NONE] = "linear",
                                                        [ACTIVATION_GELU] = "linear gelu",
                                                        [ACTIVATION_GELU_TANH] = "linear gelu tanh",
                                                        [ACTIVATION_QUICK_GELU] = "linear quick gelu",
                                                        [ACTIVATION_SILU] = "linear silu",
                                                        [ACTIVATION_RELU] = "linear relu"};
    for (int act = 0; act < ACTIVATION_COUNT; act++) {
        ops->linear(t->backend, &out, &x, &w, &bias, (enum activation)act, &t->error);
        check_tensor(t, names[act], &out);
    }
    start(t);
    struct tensor picture = numbers(t, t->dtype, 2, 4, (int64_t[]){2, 9, 7, 30}),
                  kernel = numbers(t, t->dtype, 0.25f, 4, (int64_t[]){50, 3, 3, 30});
    struct tensor residual = numbers(t, t->dtype, 1, 4, (int64_t[]){2, 9, 7, 50}), made = room(t, t->dtype, 4, (int64_t[]){2, 9, 7, 50});
    ops->conv2d(t->backend, &made, &picture, &kernel, NULL, &residual, (struct conv2d_geometry){1, 1, 1, 1, 1}, &t->error);
    check_tensor(t, "conv2d", &made);
}

static void test_attention(struct bench *t) {
    start(t);
    int64_t heads = 2, queries = 67, keys = 141, width = 40;
    struct tensor q = numbers(t, t->dtype, 4, 4, (int64_t[]){2, queries, heads, width}),
                  k = numbers(t, t->dtype, 4, 4, (int64_t[]){2, keys, heads, width});
    struct tensor v = numbers(t, t->dtype, 4, 4, (int64_t[]){2, keys, heads, width}), out = room(t, t->dtype, 4, q.shape);
    struct tensor bias = numbers(t, DTYPE_F32, 1, 3, (int64_t[]){heads, queries, keys}), mask = room(t, DTYPE_F32, 2, (int64_t[]){2, keys});
    for (int64_t i = 0; i < 2 * keys; i++) ((float *)mask.data)[i] = i % 3 == 0 || i > keys + 80 ? 0.0f : 1.0f;
    struct attention_args args = {.q = &q, .k = &k, .v = &v, .scale = 0.158113883f};
    t->backend->ops->attention(t->backend, &out, NULL, &args, &t->error);
    check_tensor(t, "attention", &out);
    args.causal = true;
    t->backend->ops->attention(t->backend, &out, NULL, &args, &t->error);
    check_tensor(t, "attention causal", &out);
    args.causal = false, args.bias = &bias, args.mask = &mask;
    t->backend->ops->attention(t->backend, &out, NULL, &args, &t->error);
    check_tensor(t, "attention masked", &out);
}

static void test_norms(struct bench *t) {
    const struct backend_ops *ops = t->backend->ops;
    start(t);
    struct tensor x = numbers(t, t->dtype, 3, 3, (int64_t[]){2, 33, 691}), out = room(t, t->dtype, 3, x.shape);
    struct tensor weight = numbers(t, DTYPE_F32, 1, 1, (int64_t[]){691}), bias = numbers(t, DTYPE_F32, 1, 1, (int64_t[]){691});
    struct tensor scale = numbers(t, DTYPE_F32, 1, 2, (int64_t[]){2, 691}), shift = numbers(t, DTYPE_F32, 1, 2, (int64_t[]){2, 691});
    ops->norm(t->backend, &out, &x, NORM_LAYER, &weight, &bias, &scale, &shift, 1e-6f);
    check_tensor(t, "norm", &out);
    ops->norm(t->backend, &out, &x, NORM_RMS, &weight, NULL, NULL, NULL, 1e-6f);
    check_tensor(t, "norm rms", &out);
    start(t);
    struct tensor picture = numbers(t, t->dtype, 3, 4, (int64_t[]){2, 5, 11, 96}), normed = room(t, t->dtype, 4, picture.shape);
    struct tensor stats = room(t, DTYPE_F32, 3, (int64_t[]){2, 4, 2}), w = numbers(t, DTYPE_F32, 1, 1, (int64_t[]){96});
    ops->group_stats(t->backend, &stats, &picture);
    ops->group_norm(t->backend, &normed, &picture, &stats, &w, NULL, 1e-5f, ACTIVATION_SILU);
    check_tensor(t, "group norm", &normed);
}

static void test_elementwise(struct bench *t) {
    const struct backend_ops *ops = t->backend->ops;
    start(t);
    struct tensor a = numbers(t, t->dtype, 5, 3, (int64_t[]){2, 31, 333}), b = numbers(t, t->dtype, 5, 3, a.shape),
                  out = room(t, t->dtype, 3, a.shape);
    struct tensor gate = numbers(t, DTYPE_F32, 1, 2, (int64_t[]){2, 333});
    ops->add(t->backend, &out, &a, &b);
    check_tensor(t, "add", &out);
    ops->multiply(t->backend, &out, &a, &b, ACTIVATION_GELU);
    check_tensor(t, "multiply gelu", &out);
    ops->activate(t->backend, &out, &a, ACTIVATION_SILU);
    check_tensor(t, "activate silu", &out);
    ops->gated_add(t->backend, &out, &a, &b, &gate);
    check_tensor(t, "gated add", &out);
    start(t);
    struct tensor x = numbers(t, t->dtype, 5, 4, (int64_t[]){2, 19, 3, 46}), turned = room(t, t->dtype, 4, x.shape);
    struct tensor cosines = numbers(t, DTYPE_F32, 1, 2, (int64_t[]){19, 46}), sines = numbers(t, DTYPE_F32, 1, 2, (int64_t[]){19, 46});
    ops->rotary(t->backend, &turned, &x, &cosines, &sines);
    check_tensor(t, "rotary", &turned);
}

static void test_operators(struct backend *backend) {
    for (int i = 0; i < 2; i++) {
        struct bench t = {.backend = backend, .dtype = i == 0 ? DTYPE_F32 : DTYPE_BF16};
        test_products(&t);
        test_attention(&t);
        test_norms(&t);
        test_elementwise(&t);
        start(&t);
    }
}

/* ---- the host ---- */

static void test_functions(void) {
    enum { COUNT = 4096 };
    struct bench t = {.random = 1};
    const struct elementary *f = elementary_of(true);
    static double doubles[COUNT][6];
    static float floats[COUNT][6];
    for (int i = 0; i < COUNT; i++) {
        float x = draw(&t);
        double big = (double)x * 700, positive = (double)(x + 1) * (i % 2 == 0 ? 4 : 0x1p-20) + 0x1p-30;
        double values[] = {f->exp(big), f->log(positive), f->log1p((double)x), f->sin(big), f->cos(big), f->pow(positive, (double)x * 8)};
        float rounded[] = {f->expf(x * 80),   f->logf((float)positive), f->expm1f(x * 8),
                           f->sinf(x * 1000), f->cosf(x * 1000),        f->powf((float)positive, x)};
        memcpy(doubles[i], values, sizeof values);
        memcpy(floats[i], rounded, sizeof rounded);
    }
    check_bits("functions of float64", "host", false, doubles, sizeof doubles);
    check_bits("functions of float32", "host", false, floats, sizeof floats);
}

static void test_noise(void) {
    static float noise[1003], few[9];
    struct random_generator generator;
    random_seed(&generator, 5489);
    generator.functions = elementary_of(true);
    random_normal(&generator, noise, sizeof noise / sizeof *noise);
    check_bits("noise", "host", false, noise, sizeof noise);
    random_normal(&generator, few, sizeof few / sizeof *few);
    check_bits("little noise", "host", false, few, sizeof few);
}

#ifdef __SSE__
/* A thread that flushes denormals is noticed. */
static void test_float_control(void) {
    tessera_error error = {0};
    struct backend *backend = cpu_backend_open_variant(1, CPU_KERNELS_REPRODUCIBLE, CPU_VARIANT_PLAIN, &error);
    struct bench t = {.backend = backend, .dtype = DTYPE_F32};
    struct tensor x = numbers(&t, DTYPE_F32, 1, 2, (int64_t[]){1, 1}), out = room(&t, DTYPE_F32, 2, x.shape);
    unsigned control = _mm_getcsr();
    CHECK(float_control_is_ieee(), "the control register as programs find it");
    _mm_setcsr(control | 1u << 15);
    tessera_status status = backend->ops->linear(backend, &out, &x, &x, NULL, ACTIVATION_NONE, &error);
    _mm_setcsr(control);
    CHECK(status == TESSERA_ERROR_INTERNAL && strstr(error.message, "MXCSR") != NULL, "flushing to zero goes unnoticed: %s", error.message);
    start(&t);
    backend_free(backend);
}
#endif

int main(void) {
    for (int variant = 0; variant < CPU_VARIANT_COUNT; variant++)
        for (int threads = 1; threads <= 8; threads += threads == 3 ? 5 : 1) {
            tessera_error error = {0};
            if (!cpu_variant_supported((enum cpu_variant)variant)) continue;
            struct backend *backend = cpu_backend_open_variant(threads, CPU_KERNELS_REPRODUCIBLE, (enum cpu_variant)variant, &error);
            CHECK(backend != NULL, "%s", error.message);
            if (backend != NULL) test_operators(backend);
            backend_free(backend);
        }
    test_functions();
    test_noise();
#ifdef __SSE__
    test_float_control();
#endif
    return CHECK_REPORT();
}
