/* Weights with scales of their own: the references' numbers bit for bit, and files whose tensors do
 * not belong together. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "tensor/scaled_weights.h"

static const char path[] = "tests/tensor/scaled_weights.safetensors";

/* The file's tensors; where `name` is one of them, `other` (NULL: nothing) in its place. */
static struct weights *view_of(const struct safetensors *file, const char *name, const struct tensor *other) {
    struct weights *weights = NULL;
    tessera_error error = {0};
    if (weights_view_new("folder", &weights, &error) != TESSERA_OK) return NULL;
    for (int i = 0; i < safetensors_count(file); i++) {
        const struct safetensors_entry *entry = safetensors_at(file, i);
        bool replaced = strcmp(entry->name, name) == 0;
        if (!replaced) weights_view_add(weights, entry->name, &entry->tensor, NULL, &error);
        if (replaced && other != NULL) weights_view_add(weights, entry->name, other, NULL, &error);
    }
    weights_view_finish(weights, &error);
    CHECK(error.status == TESSERA_OK, "%s", error.message);
    return weights;
}

static void test_values(const struct safetensors *file) {
    struct weights *weights = view_of(file, "", NULL);
    tessera_error error = {0};
    int compared = 0;
    for (int i = 0; i < safetensors_count(file); i++) {
        struct scaled_weight w;
        bool found = false;
        char name[64];
        const char *ending = strstr(safetensors_at(file, i)->name, ".values");
        if (ending == NULL) continue;
        struct tensor want = safetensors_at(file, i)->tensor;
        int64_t count = tensor_count(&want);
        snprintf(name, sizeof name, "%.*s.weight", (int)(ending - safetensors_at(file, i)->name), safetensors_at(file, i)->name);
        CHECK(scaled_weight_find(weights, name, &found, &w, &error) == TESSERA_OK && found, "%s: %s", name, error.message);
        CHECK(found && w.tensor.ndim == want.ndim && memcmp(w.tensor.shape, want.shape, (size_t)want.ndim * sizeof *want.shape) == 0, "%s: shape",
              name);
        if (!found) continue;
        char *bytes = malloc(tensor_bytes(&w.tensor));
        float *numbers = malloc((size_t)count * sizeof *numbers);
        scaled_weight_read(&w, 0, count, bytes);
        dtype_convert(numbers, DTYPE_F32, bytes, w.tensor.dtype, (size_t)count);
        CHECK(memcmp(numbers, want.data, tensor_bytes(&want)) == 0, "%s as %s", name, dtype_name(w.tensor.dtype));
        free(numbers);
        free(bytes);
        compared++;
    }
    CHECK(compared == 10, "%d weights compared", compared);
    weights_close(weights);
}

/* With `other` in the place of tensor `name`, the weight `weight` is refused, and the message has
 * `words`. */
static void check_refused(const struct safetensors *file, const char *weight, const char *name, const struct tensor *other, tessera_status status,
                          const char *words) {
    struct weights *weights = view_of(file, name, other);
    struct scaled_weight w;
    bool found;
    tessera_error error = {0};
    CHECK(scaled_weight_find(weights, weight, &found, &w, &error) == status && strstr(error.message, "folder") != NULL &&
              strstr(error.message, weight) != NULL && strstr(error.message, words) != NULL,
          "%s: %d: %s", name, error.status, error.message);
    weights_close(weights);
}

static struct tensor text_of(const char *text) {
    return tensor_of((char *)text, DTYPE_U8, SHAPE((int64_t)strlen(text)));
}

static void test_states(const struct safetensors *file) {
    static const char name[] = "nf4.weight.quant_state.bitsandbytes__nf4";
    static const struct {
        const char *text, *words;
        tessera_status status;
    } cases[] = {
        {"nothing", "not JSON", TESSERA_ERROR_FORMAT},
        {"{}", "shape", TESSERA_ERROR_FORMAT},
        {"{\"shape\": [260, 64]}", "blocksize", TESSERA_ERROR_UNSUPPORTED},
        {"{\"shape\": [260, 64], \"blocksize\": 32}", "blocksize", TESSERA_ERROR_UNSUPPORTED},
        {"{\"shape\": [260, 64], \"blocksize\": -64}", "blocksize", TESSERA_ERROR_FORMAT},
        {"{\"shape\": [260, 64], \"blocksize\": 128, \"nested_blocksize\": 256, \"nested_offset\": 0}", "absmax", TESSERA_ERROR_FORMAT},
        {"{\"shape\": [261, 64], \"blocksize\": 64}", "bytes", TESSERA_ERROR_FORMAT},
        {"{\"shape\": [2147483648, 2147483648, 2147483648], \"blocksize\": 64}", "more elements", TESSERA_ERROR_FORMAT},
        {"{\"shape\": [260, -64], \"blocksize\": 64}", "shape", TESSERA_ERROR_FORMAT},
        {"{\"shape\": [260, 64], \"blocksize\": 64}", "absmax", TESSERA_ERROR_FORMAT},
        {"{\"shape\": [260, 64], \"blocksize\": 64, \"nested_offset\": 0}", "nested_blocksize", TESSERA_ERROR_UNSUPPORTED},
        {"{\"shape\": [260, 64], \"blocksize\": 64, \"nested_offset\": 0, \"nested_blocksize\": 64}", "nested_absmax", TESSERA_ERROR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tensor text = text_of(cases[i].text);
        check_refused(file, "nf4.weight", name, &text, cases[i].status, cases[i].words);
    }
}

static void test_hostile(const struct safetensors *file) {
    float zeros[256] = {0};
    const struct tensor few = tensor_of(zeros, DTYPE_F32, SHAPE(3)), map = tensor_of(zeros, DTYPE_F32, SHAPE(16)),
                        one = tensor_of(zeros, DTYPE_U8, SHAPE(1)), none = tensor_of(zeros, DTYPE_F32, SHAPE(0));
    uint8_t column = 1;
    const struct tensor format = tensor_of(&column, DTYPE_U8, SHAPE(1));
    check_refused(file, "nf4.weight", "nf4.weight.absmax", NULL, TESSERA_ERROR_FORMAT, "absmax");
    check_refused(file, "nf4.weight", "nf4.weight.absmax", &few, TESSERA_ERROR_FORMAT, "absmax");
    check_refused(file, "nf4.weight", "nf4.weight.nested_absmax", NULL, TESSERA_ERROR_FORMAT, "nested_absmax");
    check_refused(file, "nf4.weight", "nf4.weight.nested_absmax", &few, TESSERA_ERROR_FORMAT, "nested_absmax");
    check_refused(file, "nf4.weight", "nf4.weight.nested_quant_map", &few, TESSERA_ERROR_FORMAT, "nested_quant_map");
    check_refused(file, "nf4.weight", "nf4.weight.quant_map", &map, TESSERA_ERROR_FORMAT, "quant_map");
    check_refused(file, "nf4.weight", "nf4.weight", &one, TESSERA_ERROR_FORMAT, "bytes");
    check_refused(file, "nf4_plain.weight", "nf4_plain.weight.absmax", &one, TESSERA_ERROR_FORMAT, "absmax");
    check_refused(file, "int8.weight", "int8.SCB", &few, TESSERA_ERROR_FORMAT, "one for each row");
    check_refused(file, "int8.weight", "int8.weight_format", &format, TESSERA_ERROR_UNSUPPORTED, "weight_format");
    check_refused(file, "e4m3.weight", "e4m3.scale_weight", &few, TESSERA_ERROR_FORMAT, "one for each row");
    check_refused(file, "e4m3.weight", "e4m3.weight", &none, TESSERA_ERROR_FORMAT, "scale");
    test_states(file);
}

/* fp4 is named; an int8 weight without scales is none of these, and neither is what is no weight. */
static void test_others(const struct safetensors *file) {
    struct weights *weights = view_of(file, "int8.SCB", NULL);
    struct scaled_weight w;
    bool found = true;
    tessera_error error = {0};
    struct tensor text = text_of("{}");
    CHECK(scaled_weight_find(weights, "int8.weight", &found, &w, &error) == TESSERA_OK && !found, "int8 without scales");
    CHECK(scaled_weight_find(weights, "nf4.values", &found, &w, &error) == TESSERA_OK && !found, "no weight");
    weights_close(weights);
    CHECK(weights_view_new("folder", &weights, &error) == TESSERA_OK, "%s", error.message);
    weights_view_add(weights, "a.weight", &text, NULL, &error);
    weights_view_add(weights, "a.weight.quant_state.bitsandbytes__fp4", &text, NULL, &error);
    weights_view_finish(weights, &error);
    CHECK(scaled_weight_find(weights, "a.weight", &found, &w, &error) == TESSERA_ERROR_UNSUPPORTED && strstr(error.message, "fp4") != NULL, "%s",
          error.message);
    weights_close(weights);
}

int main(void) {
    struct safetensors *file = NULL;
    tessera_error error = {0};
    CHECK(safetensors_open(path, &file, &error) == TESSERA_OK, "%s", error.message);
    if (file != NULL) {
        test_values(file);
        test_hostile(file);
        test_others(file);
    }
    safetensors_close(file);
    return CHECK_REPORT();
}
