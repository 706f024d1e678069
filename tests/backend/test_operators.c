/* Every operator of every kernel variant that this processor has, against a naive reference in float64.
 *
 * One list of cases per operator; each runs in F32 (relative L2 error at most 1e-5) and BF16 (1e-2)
 * with the best and the plain kernels of each instruction set. Guard bytes around each output catch
 * stray writes. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "backend/cpu/cpu.h"
#include "base/bf16.h"
#include "check.h"

#define GUARD 256
#define MAX_BUFFERS 32

struct bench {
    struct backend *backend;
    enum dtype dtype;
    void *buffers[MAX_BUFFERS]; /* freed by bench_end */
    int count;
    uint32_t random;
};

static float random_float(struct bench *t) {
    t->random = t->random * 1664525u + 1013904223u;
    return (float)(t->random >> 8) / 8388608.0f - 1.0f;
}

static struct tensor make(struct bench *t, enum dtype dtype, int ndim, const int64_t *shape) {
    struct tensor made = tensor_of(NULL, dtype, ndim, shape);
    size_t bytes = tensor_bytes(&made);
    char *memory = malloc(bytes + 2 * GUARD);
    if (memory == NULL || t->count >= MAX_BUFFERS) abort();
    t->buffers[t->count++] = memory;
    memset(memory, 0xa5, bytes + 2 * GUARD);
    made.data = memory + GUARD;
    return made;
}

static float get(const struct tensor *t, int64_t i) {
    return t->dtype == DTYPE_F32 ? ((const float *)t->data)[i] : bf16_widen(((const uint16_t *)t->data)[i]);
}

static struct tensor make_random(struct bench *t, enum dtype dtype, float size, int ndim, const int64_t *shape) {
    struct tensor made = make(t, dtype, ndim, shape);
    for (int64_t i = 0; i < tensor_count(&made); i++) {
        float x = size * random_float(t);
        if (dtype == DTYPE_F32)
            ((float *)made.data)[i] = x;
        else
            ((uint16_t *)made.data)[i] = bf16_round(x);
    }
    return made;
}

static bool guards_whole(const struct tensor *t) {
    const unsigned char *data = t->data;
    for (size_t i = 1; i <= GUARD; i++)
        if (data[-(ptrdiff_t)i] != 0xa5 || data[tensor_bytes(t) + i - 1] != 0xa5) return false;
    return true;
}

static void compare(struct bench *t, const char *what, const struct tensor *out, const double *expected) {
    double difference = 0, size = 0, limit = out->dtype == DTYPE_F32 ? 1e-5 : 1e-2;
    for (int64_t i = 0; i < tensor_count(out); i++) {
        double d = get(out, i) - expected[i];
        difference += d * d;
        size += expected[i] * expected[i];
    }
    double error = sqrt(difference / (size > 0 ? size : 1));
    CHECK(error <= limit, "%s, %s: relative error %g, at most %g", what, t->backend->kernel_path, error, limit);
    CHECK(guards_whole(out), "%s, %s: wrote outside its output", what, t->backend->kernel_path);
}

static double *expect(struct bench *t, int64_t count) {
    double *made = calloc((size_t)count + 1, sizeof *made);
    if (made == NULL || t->count >= MAX_BUFFERS) abort();
    t->buffers[t->count++] = made;
    return made;
}

static void bench_end(struct bench *t) {
    while (t->count > 0) free(t->buffers[--t->count]);
}

static double act_of(double x, enum activation act) {
    switch (act) {
    case ACTIVATION_GELU:
        return 0.5 * x * (1 + erf(x / sqrt(2.0)));
    case ACTIVATION_GELU_TANH:
        return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case ACTIVATION_QUICK_GELU:
        return x / (1 + exp(-1.702 * x));
    case ACTIVATION_SILU:
        return x / (1 + exp(-x));
    case ACTIVATION_RELU:
        return x > 0 ? x : 0;
    default:
        return x;
    }
}

static void test_linear(struct bench *t, int64_t m, int64_t k, int64_t o, bool has_bias, enum activation act) {
    struct tensor x = make_random(t, t->dtype, 1, SHAPE(1, m, k)), w = make_random(t, t->dtype, 1, SHAPE(o, k));
    struct tensor bias = make_random(t, DTYPE_F32, 1, SHAPE(o)), out = make(t, t->dtype, SHAPE(1, m, o));
    tessera_error error = {0};
    CHECK(t->backend->ops->linear(t->backend, &out, &x, &w, has_bias ? &bias : NULL, act, &error) == TESSERA_OK, "%s", error.message);
    double *expected = expect(t, m * o);
    for (int64_t i = 0; i < m * o; i++) {
        double sum = has_bias ? get(&bias, i % o) : 0;
        for (int64_t j = 0; j < k; j++) sum += (double)get(&x, i / o * k + j) * get(&w, i % o * k + j);
        expected[i] = act_of(sum, act);
    }
    compare(t, "linear", &out, expected);
    bench_end(t);
}

static double conv_at(const struct tensor *x, const struct tensor *w, struct conv2d_geometry g, int64_t b, int64_t y, int64_t xx,
                      int64_t o) {
    double sum = 0;
    int64_t channels = x->shape[3];
    for (int64_t i = 0; i < w->shape[1]; i++)
        for (int64_t j = 0; j < w->shape[2]; j++) {
            int64_t row = y * g.stride - g.pad_top + i, column = xx * g.stride - g.pad_left + j;
            if (row < 0 || row >= x->shape[1] || column < 0 || column >= x->shape[2]) continue;
            for (int64_t c = 0; c < channels; c++)
                sum += (double)get(x, ((b * x->shape[1] + row) * x->shape[2] + column) * channels + c) *
                       get(w, ((o * w->shape[1] + i) * w->shape[2] + j) * channels + c);
        }
    return sum;
}

static void test_conv2d(struct bench *t, int64_t h, int64_t width, int64_t c, int64_t o, int64_t kernel, struct conv2d_geometry g,
                        bool has_residual) {
    int64_t oh = (h + g.pad_top + g.pad_bottom - kernel) / g.stride + 1, ow = (width + g.pad_left + g.pad_right - kernel) / g.stride + 1;
    struct tensor x = make_random(t, t->dtype, 1, SHAPE(2, h, width, c)), w = make_random(t, t->dtype, 1, SHAPE(o, kernel, kernel, c));
    struct tensor bias = make_random(t, DTYPE_F32, 1, SHAPE(o)), residual = make_random(t, t->dtype, 1, SHAPE(2, oh, ow, o));
    struct tensor out = make(t, t->dtype, SHAPE(2, oh, ow, o));
    tessera_error error = {0};
    CHECK(t->backend->ops->conv2d(t->backend, &out, &x, &w, &bias, has_residual ? &residual : NULL, g, &error) == TESSERA_OK, "%s",
          error.message);
    double *expected = expect(t, tensor_count(&out));
    for (int64_t i = 0; i < tensor_count(&out); i++)
        expected[i] = conv_at(&x, &w, g, i / o / ow / oh, i / o / ow % oh, i / o % ow, i % o) + get(&bias, i % o) +
                      (has_residual ? get(&residual, i) : 0);
    compare(t, "conv2d", &out, expected);
    bench_end(t);
}

/* One query's output and log-sum-exp. */
static double attend(const struct attention_args *a, int64_t b, int64_t i, int64_t n, double *out) {
    int64_t sk = a->k->shape[1], heads = a->q->shape[2], d = a->q->shape[3], sq = a->q->shape[1];
    double *score = calloc((size_t)sk, sizeof *score), max = -INFINITY, sum = 0;
    for (int64_t j = 0; j < sk; j++) {
        for (int64_t c = 0; c < d; c++)
            score[j] += (double)get(a->q, ((b * sq + i) * heads + n) * d + c) * get(a->k, ((b * sk + j) * heads + n) * d + c);
        score[j] = score[j] * a->scale + (a->bias ? get(a->bias, (n * sq + i) * sk + j) : 0);
        if ((a->mask && get(a->mask, b * sk + j) == 0) || (a->causal && j > i)) score[j] = -INFINITY;
        max = fmax(max, score[j]);
    }
    memset(out, 0, (size_t)d * sizeof *out);
    for (int64_t j = 0; j < sk && max > -INFINITY; j++) sum += exp(score[j] - max);
    for (int64_t j = 0; j < sk && max > -INFINITY; j++)
        for (int64_t c = 0; c < d; c++) out[c] += exp(score[j] - max) / sum * get(a->v, ((b * sk + j) * heads + n) * d + c);
    free(score);
    return max + log(sum);
}

static void put(struct tensor *t, int64_t i, float x) {
    if (t->dtype == DTYPE_F32)
        ((float *)t->data)[i] = x;
    else
        ((uint16_t *)t->data)[i] = bf16_round(x);
}

/* A NaN in v spoils its column alone, an infinite score its row alone. */
static void test_attention_not_finite(struct bench *t) {
    const int64_t s = 103, d = 40, row = 5, column = 3;
    struct tensor q = make_random(t, t->dtype, 1, SHAPE(1, s, 1, d)), k = make_random(t, t->dtype, 1, SHAPE(1, s, 1, d));
    struct tensor v = make_random(t, t->dtype, 1, SHAPE(1, s, 1, d)), out = make(t, t->dtype, SHAPE(1, s, 1, d));
    put(&v, (s - 1) * d + column, NAN);
    put(&q, row * d, INFINITY);
    struct attention_args args = {.q = &q, .k = &k, .v = &v, .scale = 0.2f};
    tessera_error error = {0};
    CHECK(t->backend->ops->attention(t->backend, &out, NULL, &args, &error) == TESSERA_OK, "%s", error.message);
    for (int64_t i = 0; i < s * d; i++)
        CHECK(isnan(get(&out, i)) == (i / d == row || i % d == column), "attention, %s: row %lld, column %lld is %g",
              t->backend->kernel_path, (long long)(i / d), (long long)(i % d), get(&out, i));
    bench_end(t);
}

enum { WITH_BIAS = 1, WITH_MASK = 2, CAUSAL = 4, ALL_MASKED = 8 };

static void test_attention(struct bench *t, int64_t sq, int64_t sk, int64_t d, int flags) {
    const int64_t batch = 2, heads = 3;
    struct tensor q = make_random(t, t->dtype, 3, SHAPE(batch, sq, heads, d)), k = make_random(t, t->dtype, 3, SHAPE(batch, sk, heads, d));
    struct tensor v = make_random(t, t->dtype, 1, SHAPE(batch, sk, heads, d)), bias = make_random(t, DTYPE_F32, 2, SHAPE(heads, sq, sk));
    struct tensor mask = make_random(t, DTYPE_F32, 1, SHAPE(batch, sk)), out = make(t, t->dtype, SHAPE(batch, sq, heads, d));
    struct tensor lse = make(t, DTYPE_F32, SHAPE(batch, heads, sq));
    for (int64_t i = 0; i < batch * sk; i++)
        ((float *)mask.data)[i] = (flags & ALL_MASKED) && i < sk ? 0.0f : ((float *)mask.data)[i] > 0 ? 1.0f : 0.0f;
    struct attention_args args = {
        &q, &k, &v, flags & WITH_BIAS ? &bias : NULL, flags & WITH_MASK ? &mask : NULL, (flags & CAUSAL) != 0, 1 / sqrtf((float)d)};
    tessera_error error = {0};
    CHECK(t->backend->ops->attention(t->backend, &out, &lse, &args, &error) == TESSERA_OK, "%s", error.message);
    double *expected = expect(t, tensor_count(&out)), *expected_lse = expect(t, tensor_count(&lse));
    for (int64_t i = 0; i < batch * sq * heads; i++) {
        int64_t b = i / heads / sq, row = i / heads % sq, n = i % heads, at = (b * heads + n) * sq + row;
        expected_lse[at] = attend(&args, b, row, n, expected + i * d);
        if (expected_lse[at] == -INFINITY) {
            CHECK(get(&lse, at) == -INFINITY, "log-sum-exp of a masked row is %g", get(&lse, at));
            ((float *)lse.data)[at] = 0;
            expected_lse[at] = 0;
        }
    }
    compare(t, "attention", &out, expected);
    compare(t, "attention's log-sum-exp", &lse, expected_lse);
    bench_end(t);
}

static void test_norm(struct bench *t, int64_t s, int64_t c, enum norm_kind kind, int given) {
    struct tensor x = make_random(t, t->dtype, 2, SHAPE(2, s, c)), out = make(t, t->dtype, SHAPE(2, s, c));
    struct tensor weight = make_random(t, DTYPE_F32, 1, SHAPE(c)), bias = make_random(t, DTYPE_F32, 1, SHAPE(c));
    struct tensor scale = make_random(t, DTYPE_F32, 1, SHAPE(2, c)), shift = make_random(t, DTYPE_F32, 1, SHAPE(2, c));
    t->backend->ops->norm(t->backend, &out, &x, kind, given & 1 ? &weight : NULL, given & 2 ? &bias : NULL, given & 4 ? &scale : NULL,
                          given & 8 ? &shift : NULL, 1e-5f);
    double *expected = expect(t, 2 * s * c);
    for (int64_t r = 0; r < 2 * s; r++) {
        double mean = 0, variance = 0;
        for (int64_t i = 0; i < c && kind == NORM_LAYER; i++) mean += get(&x, r * c + i) / (double)c;
        for (int64_t i = 0; i < c; i++) variance += (get(&x, r * c + i) - mean) * (get(&x, r * c + i) - mean) / (double)c;
        for (int64_t i = 0; i < c; i++) {
            double y =
                (get(&x, r * c + i) - mean) / sqrt(variance + 1e-5) * (given & 1 ? get(&weight, i) : 1) + (given & 2 ? get(&bias, i) : 0);
            expected[r * c + i] = y * (given & 4 ? 1 + get(&scale, r / s * c + i) : 1) + (given & 8 ? get(&shift, r / s * c + i) : 0);
        }
    }
    compare(t, "norm", &out, expected);
    t->backend->ops->norm(t->backend, &x, &x, kind, given & 1 ? &weight : NULL, given & 2 ? &bias : NULL, given & 4 ? &scale : NULL,
                          given & 8 ? &shift : NULL, 1e-5f);
    compare(t, "norm in place", &x, expected);
    bench_end(t);
}

static void test_group_norm(struct bench *t, int64_t h, int64_t w, int64_t c, int64_t groups, enum activation act) {
    struct tensor x = make_random(t, t->dtype, 2, SHAPE(2, h, w, c)), out = make(t, t->dtype, SHAPE(2, h, w, c));
    struct tensor weight = make_random(t, DTYPE_F32, 1, SHAPE(c)), bias = make_random(t, DTYPE_F32, 1, SHAPE(c)),
                  stats = make(t, DTYPE_F32, SHAPE(2, groups, 2));
    t->backend->ops->group_stats(t->backend, &stats, &x);
    t->backend->ops->group_norm(t->backend, &out, &x, &stats, &weight, &bias, 1e-5f, act);
    double *expected = expect(t, 2 * h * w * c), *moments = expect(t, 4 * groups);
    int64_t width = c / groups, count = h * w * width;
    for (int64_t i = 0; i < 2 * h * w * c; i++) moments[(i / (h * w * c) * groups + i % c / width) * 2] += get(&x, i) / (double)count;
    for (int64_t i = 0; i < 2 * h * w * c; i++) {
        double *of = moments + (i / (h * w * c) * groups + i % c / width) * 2, d = get(&x, i) - of[0];
        of[1] += d * d / (double)count;
    }
    for (int64_t i = 0; i < 2 * h * w * c; i++) {
        double *of = moments + (i / (h * w * c) * groups + i % c / width) * 2;
        expected[i] = act_of((get(&x, i) - of[0]) / sqrt(of[1] + 1e-5) * get(&weight, i % c) + get(&bias, i % c), act);
    }
    compare(t, "group statistics", &stats, moments);
    compare(t, "group norm", &out, expected);
    bench_end(t);
}

/* a - b, and how far a is from b. */
static void test_differences(struct bench *t, const struct tensor *a, const struct tensor *b) {
    int64_t count = tensor_count(a);
    double *difference = expect(t, count), sums[2] = {0}, got[2] = {-1, -1};
    struct tensor out = make(t, t->dtype, a->ndim, a->shape), both = tensor_of(got, DTYPE_F64, SHAPE(2));
    for (int64_t i = 0; i < count; i++) {
        difference[i] = (double)get(a, i) - get(b, i);
        sums[0] += fabs(difference[i]);
        sums[1] += fabs((double)get(b, i));
    }
    t->backend->ops->subtract(t->backend, &out, a, b);
    compare(t, "subtract", &out, difference);
    t->backend->ops->distance(t->backend, &both, a, b);
    for (int i = 0; i < 2; i++) CHECK(fabs(got[i] - sums[i]) <= 1e-5 * (1 + sums[i]), "distance: sum %d is %g, not %g", i, got[i], sums[i]);
}

static void test_elementwise(struct bench *t, int64_t s, int64_t c, enum activation act) {
    const struct backend_ops *ops = t->backend->ops;
    struct tensor a = make_random(t, t->dtype, 4, SHAPE(2, s, c)), b = make_random(t, t->dtype, 4, SHAPE(2, s, c)),
                  out = make(t, t->dtype, SHAPE(2, s, c));
    struct tensor gate = make_random(t, DTYPE_F32, 1, SHAPE(2, c)),
                  other = make(t, t->dtype == DTYPE_F32 ? DTYPE_BF16 : DTYPE_F32, SHAPE(2, s, c));
    int64_t count = tensor_count(&a);
    double *activated = expect(t, count), *sum = expect(t, count), *product = expect(t, count), *gated = expect(t, count),
           *same = expect(t, count);
    for (int64_t i = 0; i < count; i++) {
        same[i] = get(&a, i);
        activated[i] = act_of(get(&a, i), act);
        sum[i] = get(&a, i) + get(&b, i);
        product[i] = activated[i] * get(&b, i);
        gated[i] = get(&a, i) + (double)get(&gate, i / (s * c) * c + i % c) * get(&b, i);
    }
    ops->activate(t->backend, &out, &a, act);
    compare(t, "activate", &out, activated);
    ops->add(t->backend, &out, &a, &b);
    compare(t, "add", &out, sum);
    ops->multiply(t->backend, &out, &a, &b, act);
    compare(t, "multiply", &out, product);
    ops->gated_add(t->backend, &out, &a, &b, &gate);
    compare(t, "gated_add", &out, gated);
    ops->cast(t->backend, &other, &a);
    compare(t, "cast", &other, same);
    test_differences(t, &a, &b);
    ops->multiply(t->backend, &b, &a, &b, act);
    compare(t, "multiply in place", &b, product);
    bench_end(t);
}

static void test_rotary(struct bench *t, int64_t tokens, int64_t heads, int64_t d) {
    struct tensor x = make_random(t, t->dtype, 2, SHAPE(2, tokens, heads, d)), out = make(t, t->dtype, SHAPE(2, tokens, heads, d));
    struct tensor cosines = make_random(t, DTYPE_F32, 1, SHAPE(tokens, d)), sines = make_random(t, DTYPE_F32, 1, SHAPE(tokens, d));
    int64_t count = tensor_count(&x);
    double *expected = expect(t, count);
    for (int64_t i = 0; i < count; i++) {
        int64_t angle = i / (heads * d) % tokens * d + i % d;
        double other = i % 2 == 0 ? -get(&x, i + 1) : get(&x, i - 1);
        expected[i] = (double)get(&x, i) * get(&cosines, angle) + other * get(&sines, angle);
    }
    t->backend->ops->rotary(t->backend, &out, &x, &cosines, &sines);
    compare(t, "rotary", &out, expected);
    t->backend->ops->rotary(t->backend, &x, &x, &cosines, &sines);
    compare(t, "rotary in place", &x, expected);
    bench_end(t);
}

static void test_moves(struct bench *t) {
    const struct backend_ops *ops = t->backend->ops;
    struct tensor x = make_random(t, t->dtype, 1, SHAPE(2, 3, 5, 7)), up = make(t, t->dtype, SHAPE(2, 6, 10, 7));
    struct tensor table = make_random(t, DTYPE_BF16, 1, SHAPE(11, 13)), rows = make(t, t->dtype, SHAPE(3, 13));
    double *expected = expect(t, 2 * 6 * 10 * 7), *found = expect(t, 39), *copied = expect(t, 2 * 4 * 7);
    int32_t ids[3] = {10, 0, 4};
    struct tensor index = tensor_of(ids, DTYPE_I32, SHAPE(3));
    for (int64_t i = 0; i < 2 * 6 * 10 * 7; i++) expected[i] = get(&x, ((i / 420 * 3 + i / 70 % 6 / 2) * 5 + i / 7 % 10 / 2) * 7 + i % 7);
    for (int64_t i = 0; i < 39; i++) found[i] = get(&table, ids[i / 13] * 13 + i % 13);
    ops->upsample(t->backend, &up, &x);
    compare(t, "upsample", &up, expected);
    struct tensor odd = make(t, t->dtype, SHAPE(2, 5, 9, 7));
    for (int64_t i = 0; i < 2 * 5 * 9 * 7; i++) expected[i] = get(&x, ((i / 315 * 3 + i / 63 % 5 / 2) * 5 + i / 7 % 9 / 2) * 7 + i % 7);
    ops->upsample(t->backend, &odd, &x);
    compare(t, "upsample to odd sides", &odd, expected);
    ops->embed(t->backend, &rows, &table, &index);
    compare(t, "embed", &rows, found);
    struct tensor from = tensor_reshape(x, SHAPE(2, 15, 7)), to = make_random(t, t->dtype, 1, SHAPE(2, 4, 7));
    for (int64_t i = 0; i < 2 * 4 * 7; i++)
        copied[i] = i / 7 % 4 == 1 || i / 7 % 4 == 2 ? get(&from, i / 28 * 105 + (i / 7 % 4 + 10) * 7 + i % 7) : get(&to, i);
    ops->copy_rows(t->backend, &to, 1, &from, 11, 2);
    compare(t, "copy_rows", &to, copied);
    bench_end(t);
}

static void test_backend(struct backend *backend, enum dtype dtype) {
    struct bench t = {.backend = backend, .dtype = dtype, .random = 1};
    for (int act = 0; act < ACTIVATION_COUNT; act++) {
        test_linear(&t, 5 + act, 33, 47, act != 1, (enum activation)act);
        test_elementwise(&t, 7, 1 + 40 * act, (enum activation)act);
        test_group_norm(&t, 3, 5, 64, 32, (enum activation)act);
    }
    test_linear(&t, 1, 320, 1280, true, ACTIVATION_SILU);
    test_linear(&t, 203, 301, 195, true, ACTIVATION_NONE);
    test_linear(&t, 77, 768, 320, false, ACTIVATION_NONE);
    test_linear(&t, 1, 1, 1, true, ACTIVATION_GELU);
    test_conv2d(&t, 9, 7, 4, 32, 3, (struct conv2d_geometry){1, 1, 1, 1, 1}, false);
    test_conv2d(&t, 9, 7, 32, 3, 3, (struct conv2d_geometry){1, 1, 1, 1, 1}, true);
    test_conv2d(&t, 8, 8, 33, 65, 3, (struct conv2d_geometry){2, 0, 1, 0, 1}, false);
    test_conv2d(&t, 11, 16, 64, 64, 3, (struct conv2d_geometry){2, 1, 1, 1, 1}, true);
    test_conv2d(&t, 6, 6, 64, 96, 1, (struct conv2d_geometry){1, 0, 0, 0, 0}, true);
    test_conv2d(&t, 8, 8, 16, 48, 2, (struct conv2d_geometry){2, 0, 0, 0, 0}, false);
    test_conv2d(&t, 8, 6, 64, 64, 3, (struct conv2d_geometry){1, 0, 1, 1, 1}, true);
    test_conv2d(&t, 2, 2, 512, 500, 3, (struct conv2d_geometry){1, 1, 1, 1, 1}, true); /* weights of more than one slice */
    const int64_t widths[] = {32, 40, 64, 72, 80, 88, 128, 160, 512, 7, 1};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) test_attention(&t, 61, 131, widths[i], 0);
    test_attention(&t, 401, 203, 64, 0); /* more than one block of queries, in either element type */
    test_attention(&t, 49, 97, 24, 0);
    test_attention_not_finite(&t);
    test_attention(&t, 77, 77, 64, CAUSAL);
    test_attention(&t, 230, 230, 32, CAUSAL | WITH_MASK);
    test_attention(&t, 100, 100, 64, WITH_BIAS | WITH_MASK);
    test_attention(&t, 33, 217, 40, WITH_MASK | ALL_MASKED);
    test_attention(&t, 1, 1, 64, 0);
    for (int given = 0; given < 16; given++) test_norm(&t, 3, 1 + 97 * given, given & 1 ? NORM_RMS : NORM_LAYER, given);
    test_norm(&t, 40, 1152, NORM_LAYER, 12);
    test_group_norm(&t, 17, 9, 1280, 32, ACTIVATION_SILU);
    test_group_norm(&t, 4, 4, 30, 3, ACTIVATION_NONE);
    test_group_norm(&t, 4, 4, 1056, 1, ACTIVATION_NONE);
    test_rotary(&t, 5, 3, 2);
    test_rotary(&t, 37, 4, 128);
    test_rotary(&t, 3, 2, 514);
    test_moves(&t);
}

int main(void) {
    for (int variant = 0; variant < CPU_VARIANT_COUNT; variant++)
        for (int kernels = CPU_KERNELS_BEST; kernels <= CPU_KERNELS_REPRODUCIBLE; kernels++) {
            if (!cpu_variant_supported((enum cpu_variant)variant)) continue;
            tessera_error error = {0};
            struct backend *backend =
                cpu_backend_open_variant(kernels == CPU_KERNELS_BEST ? 0 : 3, (enum cpu_kernels)kernels, (enum cpu_variant)variant, &error);
            CHECK(backend != NULL, "%s", error.message);
            if (backend == NULL) continue;
            test_backend(backend, DTYPE_F32);
            test_backend(backend, DTYPE_BF16);
            printf("%s: %d passed so far\n", backend->kernel_path, check_passed);
            backend_free(backend);
        }
    return CHECK_REPORT();
}
