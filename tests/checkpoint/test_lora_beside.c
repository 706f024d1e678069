/* LoRA and its kin on matrices of small types: the weights stay as they are stored, and what the
 * change adds stands beside them. A linear then gives what it gives when the same weights are
 * dequantised and the change is merged; whole, and in the shares of two ranks. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "checkpoint/lora.h"
#include "nn/layers.h"
#include "safetensors_write.h"

#define FOLDER "tests/checkpoint/adapters/"
enum { SIDE = 64, RANK = 4, ROWS = 5, DEGREE = 2 };
static const char name[] = "square.weight";

/* Weights that are stored small, and the same ones dequantised. */
struct pair {
    struct weights *small, *wide;
    void *stored;
    float *numbers;
    int64_t side;
};

static struct weights *view_of(struct tensor t) {
    struct weights *view = NULL;
    tessera_error error = {0};
    CHECK(weights_view_new("weights", &view, &error) == TESSERA_OK && weights_view_add(view, name, &t, NULL, &error) == TESSERA_OK &&
              weights_view_finish(view, &error) == TESSERA_OK,
          "%s", error.message);
    return view;
}

static struct pair pair_of(const float *numbers, int64_t side, enum dtype dtype) {
    struct pair p = {
        .stored = malloc(dtype_bytes(dtype, side * side)), .numbers = malloc((size_t)(side * side) * sizeof(float)), .side = side};
    dtype_convert(p.stored, dtype, numbers, DTYPE_F32, (size_t)(side * side));
    dtype_convert(p.numbers, DTYPE_F32, p.stored, dtype, (size_t)(side * side));
    p.small = view_of(tensor_of(p.stored, dtype, SHAPE(side, side)));
    p.wide = view_of(tensor_of(p.numbers, DTYPE_F32, SHAPE(side, side)));
    return p;
}

static void pair_free(struct pair *p) {
    weights_close(p->small);
    weights_close(p->wide);
    free(p->stored);
    free(p->numbers);
}

/* Ways in which a layer takes its share. */
enum way { WHOLE, OUTPUTS, INPUTS, JOINED_INPUTS, PART, WAYS };

static struct linear load(struct loader *loader, enum way way, int64_t side) {
    switch (way) {
    case OUTPUTS:
        return load_linear_outputs(loader, side, side / 2, 2, false, "square");
    case INPUTS:
        return load_linear_inputs(loader, side / 4, 4, side, false, "square");
    case JOINED_INPUTS: /* half of the inputs are two units, the others channels */
        return load_linear_joined_inputs(loader, 2, side / 4, side / 2, side, false, "square");
    case PART:
        return load_linear_chunk(loader, side, 1, 2, side / 4, 2, false, "square");
    default:
        return load_linear(loader, side, side, false, "square");
    }
}

static double difference(struct tensor a, struct tensor b, double *largest) {
    double worst = 0;
    float x, y;
    for (int64_t i = 0; i < tensor_count(&b); i++) {
        dtype_convert(&x, DTYPE_F32, (char *)a.data + i * (int64_t)dtype_size(a.dtype), a.dtype, 1);
        dtype_convert(&y, DTYPE_F32, (char *)b.data + i * (int64_t)dtype_size(b.dtype), b.dtype, 1);
        worst = fmax(worst, fabs((double)x - y));
        *largest = fmax(*largest, fabs((double)y));
    }
    return worst;
}

/* One layer of both, with the same inputs. */
static void compare(const char *what, struct run *run, const struct pair *p, const struct load_hooks *hooks, enum way way, int rank) {
    tessera_error error = {0};
    size_t scope = run_enter(run);
    struct arena *arena = arena_new(16 << 20, &error);
    struct loader loaders[2];
    struct linear layers[2];
    for (int i = 0; i < 2; i++) {
        loaders[i] = (struct loader){.weights = i == 0 ? p->small : p->wide, .hooks = hooks, .arena = arena, .dtype = run->dtype};
        if (way != WHOLE) loaders[i].scope = (struct load_scope){rank, DEGREE, {0, 0}};
        loaders[i].mode = LOAD_DESCRIBE;
        load(&loaders[i], way, p->side);
        size_t described = loaders[i].bytes;
        loaders[i].bytes = 0;
        loaders[i].mode = LOAD_READ;
        layers[i] = load(&loaders[i], way, p->side);
        CHECK(!load_failed(&loaders[i]), "%s: %s", what, loaders[i].error.message);
        CHECK(loaders[i].bytes == described, "%s: %zu bytes described, %zu loaded", what, described, loaders[i].bytes);
    }
    CHECK(dtype_is_small(layers[0].weight.dtype) && layers[0].side != NULL, "%s: the weight is %s", what,
          dtype_name(layers[0].weight.dtype));
    CHECK(layers[1].weight.dtype == run->dtype && layers[1].side == NULL, "%s: wide weights are merged", what);
    struct tensor x = run_tensor(run, run->dtype, SHAPE(ROWS, layers[1].weight.shape[1]));
    for (int64_t i = 0; i < tensor_count(&x); i++) {
        float value = (float)(i * 37 % 41) / 20.0f - 1.0f;
        dtype_convert((char *)x.data + i * (int64_t)dtype_size(x.dtype), x.dtype, &value, DTYPE_F32, 1);
    }
    double largest = 0;
    struct linear plain = {.weight = layers[0].weight};
    struct tensor beside = nn_linear(run, &layers[0], x, ACTIVATION_GELU), merged = nn_linear(run, &layers[1], x, ACTIVATION_GELU);
    struct tensor without = nn_linear(run, &plain, x, ACTIVATION_GELU);
    CHECK(!run_failed(run), "%s: %s", what, run->error.message);
    double off = difference(beside, merged, &largest), change = difference(without, merged, &largest);
    CHECK(off < (run->dtype == DTYPE_F32 ? 1e-5 : 0.02) * largest, "%s, %s: off by %g of %g", what, dtype_name(run->dtype), off, largest);
    CHECK(change > 0.01 * largest, "%s: the change is next to nothing", what);
    arena_free(arena);
    arena_release(run->arena, scope);
}

static void compare_all(const char *what, struct run *run, const struct pair *p, const struct load_hooks *hooks, bool in_pieces) {
    compare(what, run, p, hooks, WHOLE, 0);
    for (int way = OUTPUTS; way < WAYS && in_pieces; way++)
        for (int rank = 0; rank < DEGREE; rank++) compare(what, run, p, hooks, (enum way)way, rank);
}

static void open_hooks(const char *path, struct lora_set **set, struct load_hooks *hooks) {
    tessera_error error = {0};
    tessera_lora lora = TESSERA_LORA;
    lora.path = path, lora.scale = 0.7f;
    CHECK(lora_set_open(&lora, 1, set, &error) == TESSERA_OK, "%s", error.message);
    if (*set != NULL) CHECK(lora_hooks_for(*set, "unet", NULL, hooks, &error) == TESSERA_OK, "%s", error.message);
}

/* LyCORIS' kinds, on weights of float8. */
static void test_kind(const char *kind, struct run *run) {
    char path[128];
    tessera_error error = {0};
    struct lora_set *set = NULL;
    struct load_hooks hooks = {0};
    struct safetensors *file = NULL;
    CHECK(safetensors_open(FOLDER "weights.safetensors", &file, &error) == TESSERA_OK, "%s", error.message);
    snprintf(path, sizeof path, FOLDER "%s.safetensors", kind);
    open_hooks(path, &set, &hooks);
    struct tensor square = safetensors_tensor(file, name);
    if (set != NULL && hooks.changes(hooks.user, name)) {
        struct pair p = pair_of(square.data, square.shape[0], DTYPE_F8_E4M3);
        compare_all(kind, run, &p, &hooks, strcmp(kind, "dora_inputs") != 0);
        pair_free(&p);
    }
    lora_set_close(set);
    safetensors_close(file);
}

/* A plain LoRA, on a type of blocks of 32. */
static void test_lora(enum dtype dtype, struct run *run) {
    static float numbers[SIDE * SIDE], down[RANK * SIDE], up[SIDE * RANK];
    char path[] = "/tmp/tessera-test-XXXXXX";
    tessera_error error = {0};
    struct lora_set *set = NULL;
    struct load_hooks hooks = {0};
    for (int i = 0; i < SIDE * SIDE; i++) numbers[i] = (float)(i * 29 % 61) / 100.0f - 0.3f;
    for (int i = 0; i < RANK * SIDE; i++) down[i] = (float)(i * 17 % 23) / 40.0f - 0.25f, up[i] = (float)(i * 13 % 19) / 40.0f - 0.2f;
    const struct safetensors_entry entries[] = {{"unet.square.lora_A.weight", tensor_of(down, DTYPE_F32, SHAPE(RANK, SIDE))},
                                                {"unet.square.lora_B.weight", tensor_of(up, DTYPE_F32, SHAPE(SIDE, RANK))}};
    int descriptor = mkstemp(path);
    CHECK(descriptor >= 0 && safetensors_write(path, entries, 2, &error) == TESSERA_OK, "%s", error.message);
    open_hooks(path, &set, &hooks);
    struct pair p = pair_of(numbers, SIDE, dtype);
    if (set != NULL) {
        CHECK(hooks.rank(hooks.user, name, 0) == RANK && hooks.rank(hooks.user, name, 1) == 0, "one product of its rank");
        compare_all(dtype_name(dtype), run, &p, &hooks, dtype_block(dtype) == 1);
        if (dtype_block(dtype) > 1)
            for (int rank = 0; rank < DEGREE; rank++) compare(dtype_name(dtype), run, &p, &hooks, OUTPUTS, rank);
    }
    pair_free(&p);
    lora_set_close(set);
    close(descriptor);
    unlink(path);
}

int main(void) {
    static const char *const kinds[] = {"loha", "lokr_full", "lokr_w1",     "lokr_w2",   "lokr_both",
                                        "diff", "dora",      "dora_inputs", "dora_loha", "dora_peft"};
    tessera_error error = {0};
    struct backend *backend = cpu_backend_open(1, CPU_KERNELS_BEST, &error);
    struct run run = {.backend = backend, .arena = arena_new(64 << 20, &error)};
    CHECK(backend != NULL && run.arena != NULL, "%s", error.message);
    for (int i = 0; i < 2; i++) {
        run.dtype = i == 0 ? DTYPE_F32 : DTYPE_BF16;
        test_lora(DTYPE_Q8_0, &run);
        test_lora(DTYPE_F8_E4M3, &run);
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) test_kind(kinds[k], &run);
    }
    arena_free(run.arena);
    backend_free(backend);
    return CHECK_REPORT();
}
