/* Adapters of all kinds merged into weights, against what LyCORIS and peft make of the same files
 * (tests/cases/make_adapter_cases.py), and through the loader: a change that needs the whole weight
 * where only a piece is kept. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "checkpoint/lora.h"

#define FOLDER "tests/checkpoint/adapters/"
static const float scale = 0.7f;

static struct safetensors *open_file(const char *name, const char *ending) {
    char path[128];
    struct safetensors *file = NULL;
    tessera_error error = {0};
    snprintf(path, sizeof path, FOLDER "%s%s", name, ending);
    CHECK(safetensors_open(path, &file, &error) == TESSERA_OK, "%s", error.message);
    return file;
}

static double worst(const float *have, const float *want, int64_t count) {
    double error = 0;
    for (int64_t i = 0; i < count; i++) error = fmax(error, isnan(have[i]) ? INFINITY : fabs((double)have[i] - want[i]));
    return error;
}

/* The change of one weight, whole; then, where it does not depend on the whole, in pieces with the
 * same bits. */
static void check_weight(const char *name, const struct load_hooks *hooks, const struct safetensors_entry *before,
                         const struct tensor *want) {
    const struct tensor *w = &before->tensor;
    int64_t count = tensor_count(w), columns = count / w->shape[0], taps = columns / w->shape[1];
    float *whole = malloc(tensor_bytes(w)), *piece = malloc(tensor_bytes(w));
    tessera_error error = {0};
    struct tensor t = tensor_of(whole, DTYPE_F32, w->ndim, w->shape);
    struct load_piece all = {w->shape, {0, w->shape[0]}, {0, w->shape[1]}};
    memcpy(whole, w->data, tensor_bytes(w));
    CHECK(hooks->changes(hooks->user, before->name), "%s: %s is not changed", name, before->name);
    CHECK(hooks->change(hooks->user, before->name, all, &t, &error) == TESSERA_OK, "%s: %s: %s", name, before->name, error.message);
    double off = worst(whole, want->data, count);
    CHECK(off < 2e-5, "%s: %s is off by %g", name, before->name, off);
    CHECK(worst(w->data, want->data, count) > 0.05, "%s: the change of %s is next to nothing", name, before->name);
    if (!hooks->needs_whole(hooks->user, before->name)) {
        struct load_piece some = {w->shape, {3, w->shape[0] - 5}, {1, w->shape[1] - 3}};
        t = tensor_of(piece, DTYPE_F32, w->ndim, w->shape);
        t.shape[0] = some.rows.count, t.shape[1] = some.inputs.count;
        for (int64_t r = 0; r < some.rows.count; r++)
            memcpy(piece + r * some.inputs.count * taps, (float *)w->data + (r + 3) * columns + taps,
                   (size_t)(some.inputs.count * taps) * sizeof *piece);
        CHECK(hooks->change(hooks->user, before->name, some, &t, &error) == TESSERA_OK, "%s: %s", name, error.message);
        for (int64_t r = 0; r < some.rows.count; r++)
            CHECK(memcmp(piece + r * some.inputs.count * taps, whole + (r + 3) * columns + taps,
                         (size_t)(some.inputs.count * taps) * sizeof *piece) == 0,
                  "%s: row %d of a piece of %s", name, (int)r, before->name);
    }
    free(whole);
    free(piece);
}

static void test_kind(const char *name) {
    char path[128];
    tessera_error error = {0};
    struct lora_set *set = NULL;
    struct load_hooks hooks = {0};
    struct safetensors *weights = open_file("weights", ".safetensors"), *expected = open_file(name, "_expected.safetensors");
    snprintf(path, sizeof path, FOLDER "%s.safetensors", name);
    CHECK(lora_set_open(&(tessera_lora){.path = path, .scale = scale}, 1, &set, &error) == TESSERA_OK, "%s", error.message);
    if (set == NULL || weights == NULL || expected == NULL) return;
    CHECK(lora_hooks_for(set, "unet", NULL, &hooks, &error) == TESSERA_OK, "%s", error.message);
    for (int i = 0; i < safetensors_count(expected); i++) {
        const struct safetensors_entry *want = safetensors_at(expected, i), *before = safetensors_find(weights, want->name);
        check_weight(name, &hooks, before, &want->tensor);
    }
    CHECK(lora_set_check(set, &error) == TESSERA_OK, "%s", error.message);
    lora_set_close(set);
    safetensors_close(weights);
    safetensors_close(expected);
}

/* A rank of two keeps some inputs of a weight whose change depends on all of it (DoRA): it gets
 * those of the whole. */
static void test_share(void) {
    tessera_error error = {0};
    struct lora_set *set = NULL;
    struct load_hooks hooks = {0};
    struct weights *weights = NULL;
    struct safetensors *file = open_file("weights", ".safetensors"), *expected = open_file("dora", "_expected.safetensors");
    CHECK(lora_set_open(&(tessera_lora){.path = FOLDER "dora.safetensors", .scale = scale}, 1, &set, &error) == TESSERA_OK, "%s",
          error.message);
    CHECK(lora_hooks_for(set, "unet", NULL, &hooks, &error) == TESSERA_OK, "%s", error.message);
    CHECK(weights_view_new("weights", &weights, &error) == TESSERA_OK, "%s", error.message);
    const struct safetensors_entry *square = safetensors_find(file, "square.weight");
    CHECK(weights_view_add(weights, square->name, &square->tensor, NULL, &error) == TESSERA_OK, "%s", error.message);
    CHECK(weights_view_finish(weights, &error) == TESSERA_OK, "%s", error.message);
    struct arena *arena = arena_new(1 << 20, &error);
    struct loader loader = {.scope = {.index = 1, .count = 2}, .weights = weights, .hooks = &hooks, .arena = arena, .dtype = DTYPE_F32};
    struct linear layer = load_linear_inputs(&loader, 16, 1, 16, false, "square");
    CHECK(!load_failed(&loader), "%s", loader.error.message);
    const float *want = safetensors_tensor(expected, "square.weight").data, *have = layer.weight.data;
    for (int row = 0; row < 16 && have != NULL; row++)
        CHECK(worst(have + row * 8, want + row * 16 + 8, 8) < 2e-5, "row %d of a share", row);
    arena_free(arena);
    weights_close(weights);
    lora_set_close(set);
    safetensors_close(file);
    safetensors_close(expected);
}

int main(void) {
    static const char *const kinds[] = {"loha",        "loha_tucker", "lokr_full", "lokr_w1",     "lokr_w2",   "lokr_both",
                                        "lokr_tucker", "diff",        "dora",      "dora_inputs", "dora_loha", "dora_peft"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) test_kind(kinds[i]);
    test_share();
    return CHECK_REPORT();
}
