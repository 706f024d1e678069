/* Speed of products, convolutions and attention at the sizes that the models use, as a share of the
 * machine's peak.
 *
 *     bench_kernels [--quick] [--kernels best|own|reproducible] [--only OPERATOR] [--busy]
 *
 * OPERATOR is linear, conv2d or attention; the environment variable TESSERA_ISA chooses the
 * instruction set.
 * --busy is for a machine that does other work too: one thread, timed by the processor time that it got.
 * Before a shape is timed, some of its outputs are checked against float64. The best of a few
 * repeats counts. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "backend/backend.h"
#include "base/bf16.h"
#include "machine_peak.h"

struct linear_shape {
    const char *name;
    int64_t m, n, k;
    bool quick;
};
struct conv_shape {
    const char *name;
    int64_t side, in, out;
    int kernel, stride;
    bool quick;
};
struct attention_shape {
    const char *name;
    int64_t heads, queries, keys, width;
    bool quick;
};

static const struct linear_shape linears[] = {
    {"SD1.5 512 qkv", 4096, 320, 320, true},        {"SD1.5 512 ff", 4096, 2560, 320, false},
    {"SD1.5 512 mid", 64, 1280, 1280, false},       {"SDXL 512 ff", 256, 10240, 1280, false},
    {"SDXL 1024 qkv", 1024, 1280, 1280, true},      {"SDXL 1024 ff", 1024, 10240, 1280, false},
    {"SD3 512 qkv", 1024, 1536, 1536, true},        {"SD3 1024 ff", 4096, 6144, 1536, false},
    {"Flux 512 qkv", 1024, 3072, 3072, false},      {"Flux 512 ff", 1024, 12288, 3072, true},
    {"Flux 1024 single", 4608, 21504, 3072, false}, {"time embedding", 1, 1280, 1280, false},
    {"SDXL 256 ff of 4", 32, 10240, 1280, false},
};
static const struct conv_shape convs[] = {
    {"SD U-Net 64", 64, 320, 320, 3, 1, true},  {"SD U-Net 32", 32, 640, 640, 3, 1, false},   {"SD U-Net 16", 16, 1280, 1280, 3, 1, true},
    {"SD U-Net 8", 8, 1280, 1280, 3, 1, false}, {"SD U-Net down", 64, 320, 320, 3, 2, false}, {"SDXL U-Net 128", 128, 320, 320, 3, 1, false},
    {"U-Net in", 64, 4, 320, 3, 1, false},      {"VAE 64", 64, 512, 512, 3, 1, true},        {"VAE 256", 256, 256, 256, 3, 1, false},
    {"VAE 512", 512, 128, 128, 3, 1, false},   {"VAE out", 512, 128, 3, 3, 1, false},       {"SD U-Net 4", 4, 1280, 1280, 3, 1, false},
};
static const struct attention_shape attentions[] = {
    {"SD1.5 512 self", 8, 4096, 4096, 40, true},   {"SD1.5 512 cross", 8, 4096, 77, 40, false},
    {"SDXL 1024 self", 10, 4096, 4096, 64, false}, {"SDXL 1024 mid", 20, 1024, 1024, 64, true},
    {"SD3 512 joint", 24, 1357, 1357, 64, false},  {"SD3 1024 joint", 24, 4429, 4429, 64, false},
    {"Flux 512 joint", 24, 1536, 1536, 128, true}, {"Flux 1024 joint", 24, 4608, 4608, 128, false},
};

struct run {
    struct backend *backend;
    enum dtype dtype;
    double peak;
    clockid_t clock; /* of the timing */
    uint32_t random;
};

static struct tensor make(struct run *run, enum dtype dtype, int ndim, const int64_t *shape) {
    struct tensor t = tensor_of(NULL, dtype, ndim, shape);
    t.data = aligned_alloc(64, (tensor_bytes(&t) + 63) / 64 * 64);
    if (t.data == NULL) {
        fprintf(stderr, "bench_kernels: out of memory\n");
        exit(1);
    }
    for (int64_t i = 0; i < tensor_count(&t); i++) {
        run->random = run->random * 1664525u + 1013904223u;
        float x = (float)(run->random >> 8) / 8388608.0f - 1.0f;
        if (dtype == DTYPE_F32)
            ((float *)t.data)[i] = x;
        else
            ((uint16_t *)t.data)[i] = bf16_round(x);
    }
    return t;
}

static double get(const struct tensor *t, int64_t i) {
    return t->dtype == DTYPE_F32 ? ((const float *)t->data)[i] : bf16_widen(((const uint16_t *)t->data)[i]);
}

static void release(struct tensor *tensors, int count) {
    for (int i = 0; i < count; i++) free(tensors[i].data);
}

/* What one shape needs: tensors t[0] = out, then inputs; the call; one output element in float64. */
struct subject {
    struct tensor t[4];
    struct conv2d_geometry geometry;
    void (*call)(struct run *, struct subject *);
    double (*expect)(struct subject *, int64_t at);
    double operations;
    const char *name;
    char shape[64];
};

static void must(tessera_status status, const tessera_error *error) {
    if (status == TESSERA_OK) return;
    fprintf(stderr, "bench_kernels: %s\n", error->message);
    exit(1);
}

static void call_linear(struct run *run, struct subject *s) {
    tessera_error error = {0};
    must(run->backend->ops->linear(run->backend, &s->t[0], &s->t[1], &s->t[2], NULL, ACTIVATION_NONE, &error), &error);
}

static double expect_linear(struct subject *s, int64_t at) {
    int64_t k = s->t[1].shape[1], n = s->t[2].shape[0];
    double sum = 0;
    for (int64_t i = 0; i < k; i++) sum += get(&s->t[1], at / n * k + i) * get(&s->t[2], at % n * k + i);
    return sum;
}

static void call_conv(struct run *run, struct subject *s) {
    tessera_error error = {0};
    must(run->backend->ops->conv2d(run->backend, &s->t[0], &s->t[1], &s->t[2], NULL, NULL, s->geometry, &error), &error);
}

static double expect_conv(struct subject *s, int64_t at) {
    const int64_t *x = s->t[1].shape, *w = s->t[2].shape, *out = s->t[0].shape;
    double sum = 0;
    for (int64_t i = 0; i < w[1] * w[2] * w[3]; i++) {
        int64_t row = at / out[3] / out[2] * s->geometry.stride - s->geometry.pad_top + i / w[3] / w[2];
        int64_t column = at / out[3] % out[2] * s->geometry.stride - s->geometry.pad_left + i / w[3] % w[2];
        if (row >= 0 && row < x[1] && column >= 0 && column < x[2])
            sum += get(&s->t[1], (row * x[2] + column) * x[3] + i % w[3]) * get(&s->t[2], at % out[3] * w[1] * w[2] * w[3] + i);
    }
    return sum;
}

static void call_attention(struct run *run, struct subject *s) {
    tessera_error error = {0};
    struct attention_args args = {.q = &s->t[1], .k = &s->t[2], .v = &s->t[3], .scale = 1 / sqrtf((float)s->t[1].shape[3])};
    must(run->backend->ops->attention(run->backend, &s->t[0], NULL, &args, &error), &error);
}

static double expect_attention(struct subject *s, int64_t at) {
    int64_t heads = s->t[1].shape[2], width = s->t[1].shape[3], row = at / width, head = row % heads;
    double sum = 0, total = 0;
    for (int64_t j = 0; j < s->t[2].shape[1]; j++) {
        double score = 0;
        for (int64_t d = 0; d < width; d++) score += get(&s->t[1], row * width + d) * get(&s->t[2], (j * heads + head) * width + d);
        double weight = exp(score / sqrt((double)width));
        total += weight;
        sum += weight * get(&s->t[3], (j * heads + head) * width + at % width);
    }
    return sum / total;
}

/* Relative error over a sample of outputs. */
static double sample_error(struct subject *s) {
    int64_t count = tensor_count(&s->t[0]), step = count / 61 + 1;
    double difference = 0, size = 1e-30;
    for (int64_t i = 0; i < count; i += step) {
        double expected = s->expect(s, i), d = get(&s->t[0], i) - expected;
        difference += d * d;
        size += expected * expected;
    }
    return sqrt(difference / size);
}

static double seconds_of(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Prints one line; frees the tensors; false if the result is wrong. */
static bool measure(struct run *run, struct subject *s) {
    s->call(run, s);
    double error = sample_error(s), best = INFINITY, spent = 0;
    bool good = error < (run->dtype == DTYPE_F32 ? 1e-4 : 2e-2);
    for (int i = 0; i < 20 && (i < 2 || spent < 0.3); i++) {
        double start = seconds_of(run->clock);
        s->call(run, s);
        double seconds = seconds_of(run->clock) - start;
        spent += seconds;
        best = seconds < best ? seconds : best;
    }
    printf("%-18s %-26s %-5s %9.2f ms %8.1f GFLOP/s %5.1f%%%s\n", s->name, s->shape, dtype_name(run->dtype), best * 1e3,
           s->operations / best * 1e-9, 100 * s->operations / best / run->peak, good ? "" : "  WRONG");
    release(s->t, 4);
    return good;
}

static bool measure_linear(struct run *run, const struct linear_shape *l) {
    struct subject s = {.name = l->name, .call = call_linear, .expect = expect_linear, .operations = 2.0 * (double)(l->m * l->n * l->k)};
    s.t[0] = make(run, run->dtype, SHAPE(l->m, l->n));
    s.t[1] = make(run, run->dtype, SHAPE(l->m, l->k));
    s.t[2] = make(run, run->dtype, SHAPE(l->n, l->k));
    snprintf(s.shape, sizeof s.shape, "%lld x %lld x %lld", (long long)l->m, (long long)l->n, (long long)l->k);
    return measure(run, &s);
}

static bool measure_conv(struct run *run, const struct conv_shape *c) {
    int64_t side = c->side / c->stride, taps = (int64_t)c->kernel * c->kernel;
    struct subject s = {.name = c->name,
                        .call = call_conv,
                        .expect = expect_conv,
                        .geometry = {c->stride, 1, 1, 1, 1},
                        .operations = 2.0 * (double)(side * side * c->out * c->in * taps)};
    s.t[0] = make(run, run->dtype, SHAPE(1, side, side, c->out));
    s.t[1] = make(run, run->dtype, SHAPE(1, c->side, c->side, c->in));
    s.t[2] = make(run, run->dtype, SHAPE(c->out, c->kernel, c->kernel, c->in));
    snprintf(s.shape, sizeof s.shape, "%lld^2 %lld -> %lld /%d", (long long)c->side, (long long)c->in, (long long)c->out, c->stride);
    return measure(run, &s);
}

static bool measure_attention(struct run *run, const struct attention_shape *a) {
    struct subject s = {.name = a->name,
                        .call = call_attention,
                        .expect = expect_attention,
                        .operations = 4.0 * (double)(a->heads * a->queries * a->keys * a->width)};
    s.t[0] = make(run, run->dtype, SHAPE(1, a->queries, a->heads, a->width));
    s.t[1] = make(run, run->dtype, SHAPE(1, a->queries, a->heads, a->width));
    s.t[2] = make(run, run->dtype, SHAPE(1, a->keys, a->heads, a->width));
    s.t[3] = make(run, run->dtype, SHAPE(1, a->keys, a->heads, a->width));
    snprintf(s.shape, sizeof s.shape, "%lld x (%lld x %lld) x %lld", (long long)a->heads, (long long)a->queries, (long long)a->keys,
             (long long)a->width);
    return measure(run, &s);
}

#define COUNT(list) (sizeof(list) / sizeof(list)[0])

static bool chosen(const char *name, const char *only) {
    return only == NULL || strcmp(name, only) == 0;
}

/* only: one operator's name, or NULL for all. */
static bool measure_all(struct run *run, bool quick, const char *only) {
    bool good = true;
    for (size_t i = 0; i < COUNT(linears); i++)
        if ((!quick || linears[i].quick) && chosen("linear", only)) good = measure_linear(run, &linears[i]) && good;
    for (size_t i = 0; i < COUNT(convs); i++)
        if ((!quick || convs[i].quick) && chosen("conv2d", only)) good = measure_conv(run, &convs[i]) && good;
    for (size_t i = 0; i < COUNT(attentions); i++)
        if ((!quick || attentions[i].quick) && chosen("attention", only)) good = measure_attention(run, &attentions[i]) && good;
    return good;
}

int main(int argc, char **argv) {
    bool quick = false, busy = false, good = true, known = true;
    enum cpu_kernels kernels = CPU_KERNELS_BEST;
    const char *only = NULL;
    for (int i = 1; i < argc; i++) {
        quick = quick || strcmp(argv[i], "--quick") == 0;
        busy = busy || strcmp(argv[i], "--busy") == 0;
        if (strcmp(argv[i - 1], "--kernels") == 0) known = cpu_kernels_from_name(argv[i], &kernels);
        only = i > 1 && strcmp(argv[i - 1], "--only") == 0 ? argv[i] : only;
    }
    if (!known) {
        fprintf(stderr, "bench_kernels: --kernels takes best, own or reproducible\n");
        return 1;
    }
    tessera_error error = {0};
    struct backend *backend = cpu_backend_open(busy ? 1 : 0, kernels, &error);
    if (backend == NULL) {
        fprintf(stderr, "bench_kernels: %s\n", error.message);
        return 1;
    }
    printf("%s, %d threads, memory %.1f GB/s\n", backend->kernel_path, backend->threads, machine_peak_bandwidth() * 1e-9);
    const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16};
    for (int i = 0; i < 2; i++) {
        struct run run = {.backend = backend,
                          .dtype = dtypes[i],
                          .peak = machine_peak_flops(dtypes[i], backend->threads),
                          .clock = busy ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC,
                          .random = 1};
        printf("%s peak %.1f GFLOP/s\n", dtype_name(dtypes[i]), run.peak * 1e-9);
        good = measure_all(&run, quick, only) && good;
    }
    backend_free(backend);
    return good ? 0 : 1;
}
