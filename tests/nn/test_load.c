/* Loading: what is lent, what is converted and re-ordered, and which errors name the tensor. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "check.h"
#include "nn/load.h"

static float values[24];

static void write_weights(const char *path) {
    static uint16_t halves[24];
    dtype_convert(halves, DTYPE_BF16, values, DTYPE_F32, 24);
    const struct safetensors_entry entries[] = {
        {"l.weight", tensor_of(values, DTYPE_F32, SHAPE(4, 6))},     {"l.bias", tensor_of(halves, DTYPE_BF16, SHAPE(4))},
        {"half.weight", tensor_of(halves, DTYPE_BF16, SHAPE(4, 6))}, {"c.weight", tensor_of(values, DTYPE_F32, SHAPE(2, 3, 2, 2))},
        {"c.bias", tensor_of(values, DTYPE_F32, SHAPE(2))},          {"ids.weight", tensor_of(values, DTYPE_I32, SHAPE(2, 2))},
    };
    tessera_error error = {0};
    CHECK(safetensors_write(path, entries, 6, &error) == TESSERA_OK, "%s", error.message);
}

static void test_good(struct loader *loader) {
    struct linear lent = load_linear(loader, 6, 4, true, "%s", "l");
    struct tensor stored = {0};
    CHECK(!load_failed(loader), "%s", loader->error.message);
    weights_get(loader->weights, "l.weight", &stored, &loader->error);
    CHECK(lent.weight.data == stored.data, "a matrix of the right type is not copied");
    CHECK(lent.bias.dtype == DTYPE_F32 && ((float *)lent.bias.data)[3] == values[3], "biases become F32");
    struct linear converted = load_linear(loader, 6, 4, false, "half");
    CHECK(converted.weight.dtype == DTYPE_F32 && memcmp(converted.weight.data, values, sizeof values) == 0, "BF16 becomes F32");
    CHECK(converted.bias.data == NULL && load_has(loader, "half.weight") && !load_has(loader, "half.bias"), "no bias");
    struct tensor table = load_table(loader, 4, 6, "half.weight");
    CHECK(table.dtype == DTYPE_BF16, "tables stay as stored");
    struct conv conv = load_conv(loader, 3, 2, 2, "c");
    const float *w = conv.weight.data;
    for (int o = 0; w != NULL && o < 2; o++) {
        for (int i = 0; i < 3; i++) {
            for (int tap = 0; tap < 4; tap++)
                CHECK(w[(o * 4 + tap) * 3 + i] == values[(o * 3 + i) * 4 + tap], "kernel %d %d %d", o, i, tap);
        }
    }
    CHECK(w != NULL && conv.weight.shape[3] == 3 && !load_failed(loader), "%s", loader->error.message);
}

static void check_error(struct loader *loader, tessera_status status, const char *names) {
    CHECK(loader->error.status == status && strstr(loader->error.message, names) != NULL, "%s: %s", names, loader->error.message);
    loader->error = (tessera_error){0};
}

static void test_wrong(struct loader *loader) {
    load_linear(loader, 6, 5, false, "l");
    load_linear(loader, 6, 4, false, "l");
    check_error(loader, TESSERA_ERROR_FORMAT, "\"l.weight\" has shape [4, 6], but config.json asks for [5, 6]");
    load_set_prefix(loader, "blocks.%d.", 3);
    load_norm(loader, NORM_LAYER, 4, 1e-5f, true, "norm");
    check_error(loader, TESSERA_ERROR_FORMAT, "blocks.3.norm.weight");
    load_set_prefix(loader, "%s", "");
    load_linear(loader, 2, 2, false, "ids");
    check_error(loader, TESSERA_ERROR_UNSUPPORTED, "I32");
}

struct heard {
    int count;
    char text[256]; /* "name [shape]; ..." */
};

static void hear(void *user, const char *name, int ndim, const int64_t *shape) {
    struct heard *heard = user;
    char shape_text[64];
    size_t used = strlen(heard->text);
    heard->count++;
    snprintf(heard->text + used, sizeof heard->text - used, "%s %s; ", name, tensor_shape_text(ndim, shape, shape_text, sizeof shape_text));
}

/* A recording hook hears of every tensor once, without any file; nothing is loaded. */
static void test_record(struct arena *arena) {
    struct heard heard = {0};
    struct load_hooks hooks = {.user = &heard, .record = hear};
    struct loader loader = {.hooks = &hooks, .arena = arena, .dtype = DTYPE_F32};
    load_set_prefix(&loader, "a.");
    struct linear linear = load_linear(&loader, 6, 4, true, "l%d", 1);
    struct conv conv = load_conv(&loader, 3, 2, 5, "c");
    load_unused(&loader, SHAPE(7), "rest");
    CHECK(linear.weight.data == NULL && conv.weight.data == NULL && !load_failed(&loader), "%s", loader.error.message);
    CHECK(heard.count == 5 &&
              strcmp(heard.text, "a.l1.weight [4, 6]; a.l1.bias [4]; a.c.weight [2, 3, 5, 5]; a.c.bias [2]; a.rest [7]; ") == 0,
          "%s", heard.text);
    CHECK(load_has(&loader, "anything"), "every name is there to be recorded");
}

int main(void) {
    char folder[] = "/tmp/tessera-test-XXXXXX";
    CHECK(mkdtemp(folder) != NULL, "no temporary folder");
    for (int i = 0; i < 24; i++) values[i] = 0.5f * (float)i - 3.0f;
    char *path = file_join(folder, "model.safetensors");
    write_weights(path);
    tessera_error error = {0};
    struct weights *weights = NULL;
    CHECK(weights_open(folder, &weights, &error) == TESSERA_OK, "%s", error.message);
    struct loader loader = {.weights = weights, .arena = arena_new(1 << 20, &error), .dtype = DTYPE_F32};
    if (weights != NULL && loader.arena != NULL) {
        test_good(&loader);
        test_wrong(&loader);
        test_record(loader.arena);
    }
    arena_free(loader.arena);
    weights_close(weights);
    unlink(path);
    rmdir(folder);
    free(path);
    return CHECK_REPORT();
}
