/* LoRA files that people really had (tests/reports, from public reports and made anew of random
 * numbers): each is applied, and right.
 *
 *     05-xlabs-lora, 07-lora-alpha-type, 17-dora-loha-lokr */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "checkpoint/lora.h"

#define FOLDER "tests/reports/"

static struct lora_set *open_set(const char *path, float scale) {
    struct lora_set *set = NULL;
    tessera_error error = {0};
    CHECK(lora_set_open(&(tessera_lora){.path = path, .scale = scale}, 1, &set, &error) == TESSERA_OK, "%s", error.message);
    return set;
}

static void change(const struct load_hooks *hooks, const char *name, const int64_t *shape, float *values) {
    tessera_error error = {0};
    struct tensor t = tensor_of(values, DTYPE_F32, 2, shape);
    struct load_piece all = {shape, {0, shape[0]}, {0, shape[1]}};
    CHECK(hooks->changes(hooks->user, name), "%s is not changed", name);
    CHECK(hooks->change(hooks->user, name, all, &t, &error) == TESSERA_OK, "%s: %s", name, error.message);
}

/* Rows `first` on of the product of two tensors of the file are what a weight of zeros becomes. */
static void check_product(const struct safetensors *file, const struct load_hooks *hooks, const char *name, const char *key, int first) {
    enum { WIDTH = 64 };
    char down_name[128], up_name[128];
    float values[WIDTH * WIDTH] = {0};
    snprintf(down_name, sizeof down_name, "%s.down.weight", key);
    snprintf(up_name, sizeof up_name, "%s.up.weight", key);
    struct tensor down = safetensors_tensor(file, down_name), up = safetensors_tensor(file, up_name);
    CHECK(down.data != NULL && up.data != NULL, "%s", key);
    if (down.data == NULL || up.data == NULL) return;
    change(hooks, name, (int64_t[]){WIDTH, WIDTH}, values);
    int64_t rank = down.shape[0];
    double worst = 0;
    for (int i = 0; i < WIDTH * WIDTH; i++) {
        double sum = 0;
        for (int64_t r = 0; r < rank; r++)
            sum += (double)((float *)up.data)[(first + i / WIDTH) * rank + r] * ((float *)down.data)[r * WIDTH + i % WIDTH];
        worst = fmax(worst, fabs(sum - values[i]));
    }
    CHECK(worst < 1e-5, "%s is off by %g", name, worst);
}

static void test_xlabs(const char *name, bool single) {
    struct safetensors *file = NULL;
    struct load_hooks hooks = {0};
    tessera_error error = {0};
    struct lora_set *set = open_set(name, 1);
    CHECK(safetensors_open(name, &file, &error) == TESSERA_OK, "%s", error.message);
    if (set == NULL || file == NULL) return;
    CHECK(lora_hooks_for(set, "transformer", "tests/cases/flux_dev/model", &hooks, &error) == TESSERA_OK, "%s", error.message);
    check_product(file, &hooks, "transformer_blocks.0.attn.to_q.weight", "double_blocks.0.processor.qkv_lora1", 0);
    check_product(file, &hooks, "transformer_blocks.0.attn.to_v.weight", "double_blocks.0.processor.qkv_lora1", 128);
    check_product(file, &hooks, "transformer_blocks.1.attn.add_k_proj.weight", "double_blocks.1.processor.qkv_lora2", 64);
    check_product(file, &hooks, "transformer_blocks.1.attn.to_out.0.weight", "double_blocks.1.processor.proj_lora1", 0);
    check_product(file, &hooks, "transformer_blocks.1.attn.to_add_out.weight", "double_blocks.1.processor.proj_lora2", 0);
    if (single) {
        check_product(file, &hooks, "single_transformer_blocks.1.attn.to_q.weight", "single_blocks.1.processor.qkv_lora", 0);
        check_product(file, &hooks, "single_transformer_blocks.1.attn.to_k.weight", "single_blocks.1.processor.qkv_lora", 64);
    }
    CHECK(!hooks.changes(hooks.user, "single_transformer_blocks.1.proj_mlp.weight"), "query, key and value alone");
    lora_set_close(set);
    safetensors_close(file);
}

/* The weights and what they become lie in NAME_expected.safetensors
 * (tests/cases/make_adapter_cases.py). */
static void test_expected(const char *name, const char *component) {
    char path[128];
    struct safetensors *file = NULL;
    struct load_hooks hooks = {0};
    tessera_error error = {0};
    snprintf(path, sizeof path, FOLDER "%s.safetensors", name);
    struct lora_set *set = open_set(path, 0.7f);
    snprintf(path, sizeof path, FOLDER "%s_expected.safetensors", name);
    CHECK(safetensors_open(path, &file, &error) == TESSERA_OK, "%s", error.message);
    if (set == NULL || file == NULL) return;
    CHECK(lora_hooks_for(set, component, NULL, &hooks, &error) == TESSERA_OK, "%s", error.message);
    for (int i = 0; i < safetensors_count(file); i++) {
        const struct safetensors_entry *entry = safetensors_at(file, i);
        char *merged = strdup(entry->name), *end = strstr(merged, ".weight");
        if (end != NULL) {
            strcpy(end, ".merged");
            struct tensor want = safetensors_tensor(file, merged);
            float *values = malloc(tensor_bytes(&want));
            double worst = 0;
            memcpy(values, entry->tensor.data, tensor_bytes(&want));
            change(&hooks, entry->name, want.shape, values);
            for (int64_t k = 0; k < tensor_count(&want); k++) worst = fmax(worst, fabs((double)values[k] - ((float *)want.data)[k]));
            CHECK(worst < 2e-5, "%s: %s is off by %g", name, entry->name, worst);
            free(values);
        }
        free(merged);
    }
    lora_set_close(set);
    safetensors_close(file);
}

int main(void) {
    test_xlabs(FOLDER "05-xlabs-lora/xlabs.safetensors", false);
    test_xlabs(FOLDER "05-xlabs-lora/xlabs-single.safetensors", true);
    test_expected("07-lora-alpha-type/alpha-f64", "unet");
    test_expected("07-lora-alpha-type/alpha-i64", "unet");
    test_expected("17-dora-loha-lokr/dora-kohya", "unet");
    test_expected("17-dora-loha-lokr/dora-peft", "transformer");
    test_expected("17-dora-loha-lokr/loha", "unet");
    test_expected("17-dora-loha-lokr/lokr", "unet");
    return CHECK_REPORT();
}
