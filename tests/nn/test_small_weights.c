/* Weights of small types: lent as they are stored, cut between blocks, and multiplied as their
 * float32 values are; a type that is not known hurts only who asks for the tensor. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/f16.h"
#include "base/file.h"
#include "check.h"
#include "nn/layers.h"
#include "nn/load.h"

/* Two tiles of the composite (nn/small_weights.c), and rows of whole blocks of any type. */
enum { IN = 512, OUT = 9000, ROWS = 2 };

static const enum dtype types[] = {DTYPE_F8_E4M3, DTYPE_F8_E5M2, DTYPE_Q8_0, DTYPE_Q4_0, DTYPE_Q4_1, DTYPE_Q5_0,
                                   DTYPE_Q5_1,    DTYPE_Q2_K,    DTYPE_Q3_K, DTYPE_Q4_K, DTYPE_Q5_K, DTYPE_Q6_K};
enum { TYPES = sizeof types / sizeof *types };

/* Blocks of a type: those of tests/tensor/small_weights.safetensors, over and over, each row with
 * others first. */
static char *make_blocks(const struct safetensors *file, enum dtype dtype, int64_t count) {
    char name[32];
    snprintf(name, sizeof name, "%s.bytes", dtype_name(dtype));
    struct tensor bytes = safetensors_tensor(file, name);
    size_t length = dtype_bytes(dtype, count), block = dtype_bytes(dtype, dtype_block(dtype)), all = tensor_bytes(&bytes) / block;
    char *blocks = malloc(length);
    for (size_t i = 0; i < length / block; i++) memcpy(blocks + i * block, (char *)bytes.data + (i * 7 + i / 16) % all * block, block);
    if (dtype == DTYPE_F8_E4M3 || dtype == DTYPE_F8_E5M2)
        for (size_t i = 0; i < length; i++) blocks[i] = (char)(blocks[i] & 0xbf); /* neither large nor NaN */
    return blocks;
}

static void check_equal(const char *what, const struct tensor *a, const struct tensor *b) {
    CHECK(a->data != NULL && b->data != NULL && tensor_bytes(a) == tensor_bytes(b) && memcmp(a->data, b->data, tensor_bytes(a)) == 0,
          "%s: another product than of the values in a wide type", what);
}

/* The composite rounds a product before the residual is added. */
static void check_near(const char *what, const struct tensor *a, const struct tensor *b) {
    double step = a->dtype == DTYPE_F32 ? 1e-6 : 1.0 / 64, worst = 0;
    for (int64_t i = 0; i < tensor_count(a); i++) {
        float x, y;
        dtype_convert(&x, DTYPE_F32, (char *)a->data + (size_t)i * dtype_size(a->dtype), a->dtype, 1);
        dtype_convert(&y, DTYPE_F32, (char *)b->data + (size_t)i * dtype_size(b->dtype), b->dtype, 1);
        worst = fmax(worst, fabs((double)x - (double)y) / (8 + fabs((double)y)));
    }
    CHECK(worst <= step, "%s: a convolution with a residual differs by %g", what, worst);
}

/* Linear, convolution with a residual, and look-up, with small weights and with the same values in
 * the run's type. */
static void test_products(struct run *run, const struct safetensors *file, enum dtype dtype) {
    char *blocks = make_blocks(file, dtype, (int64_t)OUT * IN);
    size_t scope = run_enter(run);
    struct tensor small = tensor_of(blocks, dtype, SHAPE(OUT, IN)), wide = run_tensor(run, run->dtype, SHAPE(OUT, IN));
    struct tensor bias = run_tensor(run, DTYPE_F32, SHAPE(OUT)), x = run_tensor(run, run->dtype, SHAPE(ROWS, IN));
    dtype_convert(wide.data, wide.dtype, blocks, dtype, (size_t)OUT * IN);
    float *numbers = malloc(IN * ROWS * sizeof *numbers);
    for (int i = 0; i < OUT; i++) ((float *)bias.data)[i] = (float)(i % 5);
    for (int i = 0; i < ROWS * IN; i++) numbers[i] = (float)(i % 23) / 16.0f - 0.5f;
    dtype_convert(x.data, x.dtype, numbers, DTYPE_F32, ROWS * IN);
    struct linear layers[] = {{.weight = small, .bias = bias}, {.weight = wide, .bias = bias}};
    struct tensor a = nn_linear(run, &layers[0], x, ACTIVATION_SILU), b = nn_linear(run, &layers[1], x, ACTIVATION_SILU);
    check_equal(dtype_name(dtype), &a, &b);
    const int32_t ids[] = {0, OUT - 1, 17};
    a = nn_embed(run, small, ids, 1, 3), b = nn_embed(run, wide, ids, 1, 3);
    check_equal(dtype_name(dtype), &a, &b);
    struct conv convs[] = {{nn_reshape(small, SHAPE(OUT, 1, 1, IN)), bias, 0}, {nn_reshape(wide, SHAPE(OUT, 1, 1, IN)), bias, 0}};
    struct tensor map = nn_reshape(x, SHAPE(1, 1, ROWS, IN)), residual = run_tensor(run, run->dtype, SHAPE(1, 1, ROWS, OUT));
    float *added = malloc(OUT * ROWS * sizeof *added);
    for (int i = 0; i < OUT * ROWS; i++) added[i] = (float)(i % 7 - 3) * 4.0f;
    dtype_convert(residual.data, residual.dtype, added, DTYPE_F32, OUT * ROWS);
    a = nn_conv(run, &convs[0], map, &residual), b = nn_conv(run, &convs[1], map, &residual);
    check_near(dtype_name(dtype), &a, &b);
    a = nn_conv(run, &convs[0], map, NULL), b = nn_conv(run, &convs[1], map, NULL);
    check_equal(dtype_name(dtype), &a, &b);
    CHECK(!run_failed(run), "%s", run->error.message);
    arena_release(run->arena, scope);
    free(added);
    free(numbers);
    free(blocks);
}

/* Every float16, cast by the backend as dtype_convert has it; and a product with such weights. */
static void test_halves(struct run *run) {
    enum { ALL = 1 << 16 };
    size_t scope = run_enter(run);
    struct tensor halves = run_tensor(run, DTYPE_F16, SHAPE(256, 256)), want = run_tensor(run, run->dtype, SHAPE(256, 256));
    for (int i = 0; i < ALL; i++) ((uint16_t *)halves.data)[i] = (uint16_t)i;
    struct tensor got = nn_cast(run, halves, run->dtype);
    dtype_convert(want.data, want.dtype, halves.data, DTYPE_F16, ALL);
    for (int i = 0; i < ALL; i++) {
        float x, y;
        size_t at = (size_t)i * dtype_size(run->dtype);
        dtype_convert(&x, DTYPE_F32, (char *)got.data + at, got.dtype, 1);
        dtype_convert(&y, DTYPE_F32, (char *)want.data + at, want.dtype, 1);
        bool same = memcmp((char *)got.data + at, (char *)want.data + at, dtype_size(run->dtype)) == 0;
        CHECK(same || (isnan(x) && isnan(y)), "half %04x becomes %g, not %g", (unsigned)i, (double)x, (double)y);
    }
    for (int i = 0; i < ALL; i++) ((uint16_t *)halves.data)[i] = f16_round((float)(i % 251) / 128.0f - 1.0f);
    dtype_convert(want.data, want.dtype, halves.data, DTYPE_F16, ALL);
    struct linear narrow = {.weight = halves}, wide = {.weight = want};
    struct tensor x = nn_reshape(nn_slice_rows(run, nn_reshape(got, SHAPE(1, 256, 256)), 60, 8), SHAPE(8, 256));
    struct tensor a = nn_linear(run, &narrow, x, ACTIVATION_NONE), b = nn_linear(run, &wide, x, ACTIVATION_NONE);
    check_equal("a product with F16", &a, &b);
    arena_release(run->arena, scope);
}

static void test_runs(const struct safetensors *file) {
    for (int kind = 0; kind < 2; kind++) {
        tessera_error error = {0};
        struct run run = {.backend = cpu_backend_open(2, CPU_KERNELS_OWN, &error),
                          .arena = arena_new((size_t)1 << 28, &error),
                          .dtype = kind == 0 ? DTYPE_F32 : DTYPE_BF16};
        for (int i = 0; i < TYPES; i++) test_products(&run, file, types[i]);
        test_halves(&run);
        arena_free(run.arena);
        backend_free(run.backend);
    }
}

/* ---- loading ---- */

/* Tensors of a hand-written header: "q.weight" Q4_0 [4, 128], "f.weight" F8_E4M3 [2, 3, 2, 2],
 * "odd" of a type that is not known, "s.weight" F8_E4M3 with a scale of 0.25. */
static void write_model(const char *path) {
    static const char header[] = "{\"q.weight\":{\"dtype\":\"Q4_0\",\"shape\":[4,128],\"data_offsets\":[0,288]},"
                                 "\"f.weight\":{\"dtype\":\"F8_E4M3\",\"shape\":[2,3,2,2],\"data_offsets\":[288,312]},"
                                 "\"f.bias\":{\"dtype\":\"F8_E4M3\",\"shape\":[2],\"data_offsets\":[312,314]},"
                                 "\"odd.weight\":{\"dtype\":\"F6_E2M3\",\"shape\":[4,128],\"data_offsets\":[314,320]},"
                                 "\"s.weight\":{\"dtype\":\"F8_E4M3\",\"shape\":[2,3],\"data_offsets\":[320,326]},"
                                 "\"s.scale_weight\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[326,330]}}  ";
    FILE *file = fopen(path, "wb");
    uint64_t length = sizeof header - 1;
    fwrite(&length, sizeof length, 1, file);
    fwrite(header, 1, sizeof header - 1, file);
    for (int i = 0; i < 320; i++) fputc(i < 288 && i % 18 == 1 ? 0x2c : i * 37 % 64, file); /* scales of 2^-4 and a little */
    for (int i = 0; i < 6; i++) fputc(0x38 + i, file); /* 1, 1.125, .. */
    fwrite(&(float){0.25f}, sizeof(float), 1, file);
    fclose(file);
}

static void test_lent(struct loader *loader) {
    struct tensor stored = {0};
    struct linear q = load_linear(loader, 128, 4, false, "q");
    weights_get(loader->weights, "q.weight", &stored, &loader->error);
    CHECK(q.weight.data == stored.data && q.weight.dtype == DTYPE_Q4_0, "blocks stay where they are");
    struct tensor table = load_table(loader, 4, 128, "q.weight");
    CHECK(table.data == stored.data, "a table, too");
    struct conv f = load_conv(loader, 3, 2, 2, "f");
    weights_get(loader->weights, "f.weight", &stored, &loader->error);
    CHECK(f.weight.dtype == DTYPE_F8_E4M3 && f.bias.dtype == DTYPE_F32, "re-ordered kernels stay small");
    const uint8_t *to = f.weight.data, *from = stored.data;
    for (int i = 0; to != NULL && i < 24; i++) CHECK(to[i] == from[i / 12 * 12 + i % 3 * 4 + i % 12 / 3], "number %d", i);
    CHECK(!load_failed(loader), "%s", loader->error.message);
}

/* 128 inputs in 8 units of 16: halves and quarters end between blocks of 32, eighths do not. */
static void test_cut(struct loader *loader) {
    loader->scope = (struct load_scope){1, 4, {0, 0}};
    struct linear rows = load_linear_outputs(loader, 128, 4, 1, false, "q"), inputs = load_linear_inputs(loader, 8, 16, 4, false, "q");
    struct tensor stored = {0};
    weights_get(loader->weights, "q.weight", &stored, &loader->error);
    CHECK(rows.weight.data == (char *)stored.data + 72 && rows.weight.shape[0] == 1, "a row is lent");
    CHECK(inputs.weight.dtype == DTYPE_Q4_0 && inputs.weight.shape[1] == 32 && inputs.weight.data != NULL, "a quarter of the inputs");
    for (int r = 0; inputs.weight.data != NULL && r < 4; r++)
        CHECK(memcmp((char *)inputs.weight.data + r * 18, (char *)stored.data + r * 72 + 18, 18) == 0, "the second block of row %d", r);
    loader->scope = (struct load_scope){1, 8, {0, 0}};
    load_linear_inputs(loader, 8, 16, 4, false, "q");
    CHECK(loader->error.status == TESSERA_ERROR_UNSUPPORTED && strstr(loader->error.message, "q.weight") != NULL &&
              strstr(loader->error.message, "1, 2, 4 fit") != NULL,
          "%s", loader->error.message);
    loader->scope = (struct load_scope){0};
    loader->error = (tessera_error){0};
}

/* A float8 weight is its numbers times its scale. */
static void test_scaled(struct loader *loader) {
    struct linear s = load_linear(loader, 3, 2, false, "s");
    CHECK(!load_failed(loader) && s.weight.dtype == loader->dtype, "%s", loader->error.message);
    float numbers[6] = {0};
    if (s.weight.data != NULL) dtype_convert(numbers, DTYPE_F32, s.weight.data, s.weight.dtype, 6);
    for (int i = 0; i < 6; i++) CHECK(numbers[i] == 0.25f * (1 + (float)i / 8), "number %d: %g", i, (double)numbers[i]);
}

static bool changes_all(void *user, const char *name) {
    (void)user, (void)name;
    return true;
}
static tessera_status leave(void *user, const char *name, struct load_piece piece, struct tensor *weight, tessera_error *error) {
    (void)user, (void)name, (void)piece, (void)weight, (void)error;
    return TESSERA_OK;
}

/* What a hook changes becomes wide, cut anywhere. */
static void test_changed(struct loader *loader) {
    const struct load_hooks hooks = {.changes = changes_all, .change = leave};
    struct tensor stored = {0};
    float want[512];
    weights_get(loader->weights, "q.weight", &stored, &loader->error);
    dtype_convert(want, DTYPE_F32, stored.data, DTYPE_Q4_0, 512);
    loader->hooks = &hooks;
    loader->scope = (struct load_scope){1, 8, {0, 0}};
    struct linear inputs = load_linear_inputs(loader, 8, 16, 4, false, "q");
    CHECK(!load_failed(loader) && inputs.weight.dtype == DTYPE_F32 && inputs.weight.shape[1] == 16, "%s", loader->error.message);
    for (int i = 0; inputs.weight.data != NULL && i < 64; i++)
        CHECK(((float *)inputs.weight.data)[i] == want[i / 16 * 128 + 16 + i % 16], "number %d", i);
    loader->scope = (struct load_scope){0};
    loader->hooks = NULL;
}

static void test_unknown(struct loader *loader) {
    struct tensor stored = {0};
    CHECK(weights_get(loader->weights, "odd.weight", &stored, &loader->error) == TESSERA_OK && stored.dtype == DTYPE_UNKNOWN,
          "it is there");
    load_linear(loader, 128, 4, false, "odd");
    CHECK(loader->error.status == TESSERA_ERROR_UNSUPPORTED && strstr(loader->error.message, "odd.weight") != NULL &&
              strstr(loader->error.message, "F6_E2M3") != NULL,
          "%s", loader->error.message);
}

/* Described layers have shapes and types, and no data; what they announce is room enough. */
static void test_described(struct loader loader) {
    loader.mode = LOAD_DESCRIBE;
    struct linear q = load_linear(&loader, 128, 4, false, "q");
    struct conv f = load_conv(&loader, 3, 2, 2, "f");
    CHECK(q.weight.data == NULL && q.weight.dtype == DTYPE_Q4_0 && q.weight.shape[1] == 128, "a matrix");
    CHECK(f.weight.data == NULL && f.weight.shape[3] == 3 && f.bias.data == NULL && f.bias.ndim == 1, "a kernel");
    load_linear(&loader, 127, 4, false, "q");
    CHECK(loader.error.status == TESSERA_ERROR_FORMAT, "shapes are checked");
}

/* ---- weights with scales ---- */

/* Opens one file as weights. */
static struct weights *open_file(const char *path, tessera_error *error) {
    struct safetensors *file = NULL;
    struct weights *weights = NULL;
    if (safetensors_open(path, &file, error) != TESSERA_OK || weights_view_new(path, &weights, error) != TESSERA_OK) return NULL;
    for (int i = 0; i < safetensors_count(file); i++)
        weights_view_add(weights, safetensors_at(file, i)->name, &safetensors_at(file, i)->tensor, NULL, error);
    weights_view_keep(weights, file, error);
    weights_view_finish(weights, error);
    return weights;
}

/* Is `got` rows [first, ..) and columns [column, ..) of the reference's numbers? */
static void check_numbers(struct loader *loader, const char *name, const struct tensor *got, int64_t first, int64_t column) {
    char values_name[64];
    struct tensor want = {0};
    snprintf(values_name, sizeof values_name, "%s.values", name);
    CHECK(!load_failed(loader) && weights_get(loader->weights, values_name, &want, &loader->error) == TESSERA_OK && got->data != NULL, "%s: %s",
          name, loader->error.message);
    if (got->data == NULL || want.data == NULL) return;
    int64_t count = tensor_count(got), rows = got->shape[0], width = got->shape[1], wrong = 0;
    float *numbers = malloc((size_t)count * sizeof *numbers);
    dtype_convert(numbers, DTYPE_F32, got->data, got->dtype, (size_t)count);
    for (int64_t r = 0; r < rows; r++)
        wrong += memcmp(numbers + r * width, (float *)want.data + (first + r) * want.shape[1] + column, (size_t)width * sizeof(float)) != 0;
    CHECK(wrong == 0, "%s: %d of %d rows differ", name, (int)wrong, (int)rows);
    free(numbers);
}

static void test_scales(struct loader loader) {
    static const struct {
        const char *name;
        int64_t out, in;
        enum dtype dtype;
    } cases[] = {{"int8", 6, 128, DTYPE_I8_SCALED},     {"int8_odd", 4, 96, DTYPE_F32}, {"nf4", 260, 64, DTYPE_NF4},
                 {"nf4_plain", 3, 64, DTYPE_NF4},       {"nf4_flat", 6, 96, DTYPE_NF4}, {"nf4_odd", 3, 33, DTYPE_F32},
                 {"nf4_wide", 4, 192, DTYPE_NF4},       {"e4m3", 4, 64, DTYPE_F8_E4M3_SCALED},
                 {"e5m2", 4, 64, DTYPE_F8_E5M2_SCALED}, {"e4m3_odd", 3, 5, DTYPE_F32}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct linear layer = load_linear(&loader, cases[i].in, cases[i].out, false, "%s", cases[i].name);
        CHECK(layer.weight.dtype == cases[i].dtype, "%s is held as %s", cases[i].name, dtype_name(layer.weight.dtype));
        check_numbers(&loader, cases[i].name, &layer.weight, 0, 0);
        loader.scope = (struct load_scope){1, 2, {0, 0}};
        layer = load_linear_outputs(&loader, cases[i].in, cases[i].out, 1, false, "%s", cases[i].name);
        check_numbers(&loader, cases[i].name, &layer.weight, cases[i].out / 2, 0);
        loader.scope = (struct load_scope){0};
    }
    loader.scope = (struct load_scope){1, 2, {0, 0}};
    struct linear layer = load_linear_inputs(&loader, 2, 64, 6, false, "int8");
    CHECK(layer.weight.dtype == DTYPE_I8_SCALED, "half of the inputs stays small");
    check_numbers(&loader, "int8", &layer.weight, 0, 64);
    layer = load_linear_inputs(&loader, 2, 48, 6, false, "nf4_flat");
    check_numbers(&loader, "nf4_flat", &layer.weight, 0, 48);
    loader.scope = (struct load_scope){0};
    const struct load_hooks hooks = {.changes = changes_all, .change = leave};
    loader.hooks = &hooks;
    layer = load_linear(&loader, 96, 6, false, "nf4_flat");
    CHECK(layer.weight.dtype == DTYPE_F32, "what a hook changes is wide");
    check_numbers(&loader, "nf4_flat", &layer.weight, 0, 0);
    loader.hooks = NULL;
    struct tensor table = load_table(&loader, 260, 64, "nf4.weight");
    check_numbers(&loader, "nf4", &table, 0, 0);
    loader.mode = LOAD_DESCRIBE;
    layer = load_linear(&loader, 64, 260, false, "nf4");
    CHECK(!load_failed(&loader) && layer.weight.data == NULL && layer.weight.dtype == DTYPE_NF4, "described");
}

/* Blocks that cross rows: a product in several tiles. */
static void test_crossing(void) {
    enum { HIGH = 4608, WIDE = 1000 };
    tessera_error error = {0};
    struct run run = {.backend = cpu_backend_open(2, CPU_KERNELS_OWN, &error), .arena = arena_new((size_t)1 << 28, &error), .dtype = DTYPE_F32};
    struct tensor small = run_tensor(&run, DTYPE_Q8_0, SHAPE(HIGH, WIDE)), wide = run_tensor(&run, DTYPE_F32, SHAPE(HIGH, WIDE));
    struct tensor x = run_tensor(&run, DTYPE_F32, SHAPE(2, WIDE));
    for (int64_t i = 0; i < (int64_t)HIGH * WIDE; i++) ((float *)wide.data)[i] = (float)(i % 251) / 64 - 2;
    for (int64_t i = 0; i < 2 * WIDE; i++) ((float *)x.data)[i] = (float)(i % 17) / 8 - 1;
    dtype_convert(small.data, DTYPE_Q8_0, wide.data, DTYPE_F32, (size_t)HIGH * WIDE);
    dtype_convert(wide.data, DTYPE_F32, small.data, DTYPE_Q8_0, (size_t)HIGH * WIDE);
    struct linear layers[] = {{.weight = small}, {.weight = wide}};
    struct tensor a = nn_linear(&run, &layers[0], x, ACTIVATION_NONE), b = nn_linear(&run, &layers[1], x, ACTIVATION_NONE);
    check_equal("blocks that cross rows", &a, &b);
    arena_free(run.arena);
    backend_free(run.backend);
}

/* Kernels that were flattened, so that blocks cross them: all of them, and the outputs and inputs
 * of a rank. */
static void test_flattened(struct loader *loader) {
    enum { OUTPUTS = 4, INPUTS = 8, TAPS = 9, COUNT = OUTPUTS * INPUTS * TAPS };
    float numbers[COUNT];
    uint8_t blocks[COUNT / 32 * 34];
    for (int i = 0; i < COUNT; i++) numbers[i] = (float)(i % 37) / 16 - 1;
    dtype_convert(blocks, DTYPE_Q8_0, numbers, DTYPE_F32, COUNT);
    dtype_convert(numbers, DTYPE_F32, blocks, DTYPE_Q8_0, COUNT);
    struct weights *weights = NULL;
    const struct tensor kernel = tensor_of(blocks, DTYPE_Q8_0, SHAPE(OUTPUTS, INPUTS, 3, 3)), bias = tensor_of(numbers, DTYPE_F32, SHAPE(OUTPUTS));
    CHECK(weights_view_new("view", &weights, &loader->error) == TESSERA_OK, "%s", loader->error.message);
    weights_view_add(weights, "c.weight", &kernel, NULL, &loader->error);
    weights_view_add(weights, "c.bias", &bias, NULL, &loader->error);
    weights_view_finish(weights, &loader->error);
    loader->weights = weights;
    for (int part = 0; part < 3; part++) { /* all, a half of the outputs, a half of the inputs */
        loader->scope = part == 0 ? (struct load_scope){0} : (struct load_scope){1, 2, {0, 0}};
        struct conv c = part == 0   ? load_conv(loader, INPUTS, OUTPUTS, 3, "c")
                        : part == 1 ? load_conv_outputs(loader, INPUTS, OUTPUTS, 1, 3, "c")
                                    : load_conv_inputs(loader, INPUTS, 1, OUTPUTS, 3, "c");
        int first_out = part == 1 ? OUTPUTS / 2 : 0, first_in = part == 2 ? INPUTS / 2 : 0, wrong = 0;
        CHECK(!load_failed(loader) && c.weight.dtype == DTYPE_F32, "%s", loader->error.message);
        for (int64_t o = 0; c.weight.data != NULL && o < c.weight.shape[0]; o++)
            for (int64_t tap = 0; tap < TAPS; tap++)
                for (int64_t i = 0; i < c.weight.shape[3]; i++)
                    wrong += ((float *)c.weight.data)[(o * TAPS + tap) * c.weight.shape[3] + i] !=
                             numbers[((o + first_out) * INPUTS + i + first_in) * TAPS + tap];
        CHECK(wrong == 0, "part %d: %d numbers", part, wrong);
    }
    loader->scope = (struct load_scope){0};
    weights_close(weights);
}

int main(void) {
    char folder[] = "/tmp/tessera-test-XXXXXX";
    struct safetensors *file = NULL;
    tessera_error error = {0};
    CHECK(mkdtemp(folder) != NULL, "no temporary folder");
    CHECK(safetensors_open("tests/tensor/small_weights.safetensors", &file, &error) == TESSERA_OK, "%s", error.message);
    if (file != NULL) test_runs(file);
    char *path = file_join(folder, "model.safetensors");
    write_model(path);
    struct weights *weights = NULL;
    CHECK(weights_open(folder, &weights, &error) == TESSERA_OK, "%s", error.message);
    struct loader loader = {.weights = weights, .arena = arena_new(1 << 20, &error), .dtype = DTYPE_F32};
    if (weights != NULL && loader.arena != NULL) {
        test_lent(&loader);
        test_scaled(&loader);
        test_cut(&loader);
        test_changed(&loader);
        test_described(loader);
        test_unknown(&loader);
    }
    weights_close(weights);
    loader = (struct loader){.weights = open_file("tests/tensor/scaled_weights.safetensors", &error), .arena = loader.arena, .dtype = DTYPE_F32};
    CHECK(loader.weights != NULL && error.status == TESSERA_OK, "%s", error.message);
    if (loader.weights != NULL) test_scales(loader);
    weights_close((struct weights *)loader.weights);
    test_crossing();
    test_flattened(&loader);
    arena_free(loader.arena);
    safetensors_close(file);
    unlink(path);
    rmdir(folder);
    free(path);
    return CHECK_REPORT();
}
