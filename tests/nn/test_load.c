/* Loading: what is lent, what is converted and re-ordered, and which errors name the tensor. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "check.h"
#include "nn/load.h"
#include "safetensors_write.h"

static float values[24];

static void write_weights(const char *path) {
    static uint16_t halves[24];
    dtype_convert(halves, DTYPE_BF16, values, DTYPE_F32, 24);
    const struct safetensors_entry entries[] = {
        {"l.weight", tensor_of(values, DTYPE_F32, SHAPE(4, 6))},     {"l.bias", tensor_of(halves, DTYPE_BF16, SHAPE(4))},
        {"half.weight", tensor_of(halves, DTYPE_BF16, SHAPE(4, 6))}, {"c.weight", tensor_of(values, DTYPE_F32, SHAPE(2, 3, 2, 2))},
        {"c.bias", tensor_of(values, DTYPE_F32, SHAPE(2))},          {"ids.weight", tensor_of(values, DTYPE_I32, SHAPE(2, 2))},
        {"c_norm.weight", tensor_of(values, DTYPE_F32, SHAPE(2))},   {"c_norm.bias", tensor_of(values, DTYPE_F32, SHAPE(2))},
        {"flat.weight", tensor_of(values, DTYPE_F32, SHAPE(2, 12))}, {"flat.bias", tensor_of(values, DTYPE_F32, SHAPE(2))},
    };
    tessera_error error = {0};
    CHECK(safetensors_write(path, entries, sizeof entries / sizeof entries[0], &error) == TESSERA_OK, "%s", error.message);
}

static void test_good(struct loader *loader) {
    struct linear lent = load_linear(loader, 6, 4, true, "%s", "l");
    struct tensor stored = {0};
    CHECK(!load_failed(loader), "%s", loader->error.message);
    weights_get(loader->weights, "l.weight", &stored, &loader->error);
    CHECK(lent.weight.data == stored.data, "a matrix of the right type is not copied");
    CHECK(lent.bias.dtype == DTYPE_F32 && ((float *)lent.bias.data)[3] == values[3], "biases become F32");
    struct linear converted = load_linear(loader, 6, 4, false, "half");
    weights_get(loader->weights, "half.weight", &stored, &loader->error);
    CHECK(converted.weight.dtype == DTYPE_BF16 && converted.weight.data == stored.data, "BF16 stays as it is where F32 is computed");
    loader->dtype = DTYPE_BF16;
    converted = load_linear(loader, 6, 4, false, "l");
    loader->dtype = DTYPE_F32;
    CHECK(converted.weight.dtype == DTYPE_BF16 && memcmp(converted.weight.data, stored.data, tensor_bytes(&stored)) == 0, "F32 becomes BF16");
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
    struct conv flat = load_conv_flat(loader, 3, 2, 2, "flat");
    CHECK(flat.weight.ndim == 4 && w != NULL && memcmp(flat.weight.data, w, sizeof values) == 0 &&
              ((float *)flat.bias.data)[1] == values[1],
          "a matrix of patches is the same kernels");
}

/* Does `conv` have the kernels of c.weight from output `o0` and input `i0` on, times `factor`? */
static void check_kernels(const char *what, struct conv conv, int64_t outputs, int64_t o0, int64_t inputs, int64_t i0, float factor) {
    const int64_t *shape = conv.weight.shape;
    CHECK(conv.weight.data != NULL && shape[0] == outputs && shape[3] == inputs && conv.first_input == i0, "%s: its share", what);
    for (int64_t at = 0; conv.weight.data != NULL && at < tensor_count(&conv.weight); at++) {
        int64_t i = at % inputs, tap = at / inputs % 4, o = at / inputs / 4;
        CHECK(((float *)conv.weight.data)[at] == factor * values[((o0 + o) * 3 + i0 + i) * 4 + tap], "%s: element %d", what, (int)at);
    }
}

/* The second of two ranks: outputs 1.., inputs 1.. */
static void check_second_share(struct loader *loader, float factor) {
    struct conv outputs = load_conv_outputs(loader, 3, 2, 1, 2, "c"), inputs = load_conv_inputs(loader, 3, 1, 2, 2, "c");
    check_kernels("outputs", outputs, 1, 1, 3, 0, factor);
    check_kernels("inputs", inputs, 2, 0, 2, 1, factor);
    CHECK(tensor_count(&outputs.bias) == 1 && ((float *)outputs.bias.data)[0] == values[1], "the bias of its outputs");
    CHECK(inputs.bias.data == NULL, "a bias is added once");
    struct linear part = load_linear_chunk(loader, 6, 1, 2, 2, 1, true, "l");
    CHECK(part.weight.data != NULL && part.weight.shape[0] == 1 && ((float *)part.weight.data)[0] == factor * values[18] &&
              ((float *)part.bias.data)[0] == values[3],
          "the second row of the second half");
    const int columns[] = {1, 4, 5};
    struct linear joined = load_linear_joined_inputs(loader, 2, 1, 4, 4, true, "l");
    CHECK(joined.weight.data != NULL && joined.weight.shape[1] == 3 && joined.bias.data == NULL, "half of both ranges of inputs");
    for (int at = 0; joined.weight.data != NULL && at < 12; at++)
        CHECK(((float *)joined.weight.data)[at] == factor * values[at / 3 * 6 + columns[at % 3]], "joined inputs: element %d", at);
    struct norm norm = load_norm_slice(loader, NORM_LAYER, 2, 1, 1e-5f, true, "c_norm");
    CHECK(norm.weight.data != NULL && norm.weight.shape[0] == 1 && ((float *)norm.bias.data)[0] == values[1], "its channels of a norm");
    CHECK(!load_failed(loader), "%s", loader->error.message);
}

static bool changes_all(void *user, const char *name) {
    (void)user;
    return strstr(name, "weight") != NULL;
}

static tessera_status double_weight(void *user, const char *name, struct load_piece piece, struct tensor *weight, tessera_error *error) {
    (void)user, (void)name, (void)piece, (void)error;
    for (int64_t i = 0; i < tensor_count(weight); i++) ((float *)weight->data)[i] *= 2.0f;
    return TESSERA_OK;
}

static void test_shares(struct loader loader) {
    struct load_hooks hooks = {.changes = changes_all, .change = double_weight};
    loader.scope = (struct load_scope){1, 2, {0, 0}};
    check_second_share(&loader, 1.0f);
    loader.hooks = &hooks;
    check_second_share(&loader, 2.0f);
    loader.scope = (struct load_scope){0, 1, {0, 0}};
    loader.hooks = NULL;
    check_kernels("all outputs", load_conv_outputs(&loader, 3, 2, 1, 2, "c"), 2, 0, 3, 0, 1.0f);
    check_kernels("all inputs", load_conv_inputs(&loader, 3, 1, 2, 2, "c"), 2, 0, 3, 0, 1.0f);
    loader.scope = (struct load_scope){0, 5, {0, 0}};
    load_units(&loader, 4);
    CHECK(strstr(loader.error.message, "at most 4 are possible") != NULL, "%s", loader.error.message);
}

/* ---- pieces: what a rank loads is what it would cut out of the whole, and no more is changed ---- */

enum { OUT = 6, IN = 9, UNITS = 3, TAPS = 4, ELEMENTS = OUT * IN * TAPS };

/* Adds what an element's place in the whole weight says; `user` is the largest piece so far. */
static tessera_status add_place(void *user, const char *name, struct load_piece piece, struct tensor *weight, tessera_error *error) {
    int64_t *largest = user, count = tensor_count(weight), taps = count / (piece.rows.count * piece.inputs.count);
    float *value = weight->data;
    CHECK(piece.shape[0] == OUT && piece.shape[1] == IN && weight->dtype == DTYPE_F32, "%s: the whole's shape", name);
    CHECK(weight->shape[0] == piece.rows.count && weight->shape[1] == piece.inputs.count, "%s: the piece's shape", name);
    for (int64_t at = 0; at < count; at++) {
        int64_t row = piece.rows.first + at / taps / piece.inputs.count, input = piece.inputs.first + at / taps % piece.inputs.count;
        value[at] += (float)(row * 37 + input * 4 + at % taps) / 8.0f;
    }
    if (count > *largest) *largest = count;
    (void)error;
    return TESSERA_OK;
}

/* Is `part` the rows from `first` on, and two ranges of columns, of `whole`? The columns are the
 * last dimension, the rows all others. */
static void check_piece(const char *what, struct tensor whole, struct tensor part, int64_t first, const struct span columns[2]) {
    CHECK(whole.data != NULL && part.data != NULL && whole.dtype == part.dtype, "%s is loaded", what);
    if (whole.data == NULL || part.data == NULL) return;
    int64_t width = part.shape[part.ndim - 1], stride = whole.shape[whole.ndim - 1], rows = tensor_count(&part) / width;
    size_t size = dtype_size(part.dtype);
    CHECK(width == columns[0].count + columns[1].count, "%s: %d columns", what, (int)width);
    bool same = true;
    for (int64_t at = 0; at < rows * width; at++) {
        int64_t c = at % width;
        c = c < columns[0].count ? columns[0].first + c : columns[1].first + c - columns[0].count;
        int64_t from = (first + at / width) * stride + c;
        same = same && memcmp((char *)part.data + (size_t)at * size, (char *)whole.data + (size_t)from * size, size) == 0;
    }
    CHECK(same, "%s: the whole's bits", what);
}

static void check_linears(struct loader *alone, struct loader *loader, const char *name, int64_t *largest) {
    struct span mine = load_span(loader, UNITS);
    struct tensor whole = load_linear(alone, IN, OUT, false, "%s", name).weight;
    *largest = 0;
    check_piece("outputs", whole, load_linear_outputs(loader, IN, UNITS, OUT / UNITS, false, "%s", name).weight, mine.first * OUT / UNITS,
                (struct span[2]){{0, IN}, {0, 0}});
    check_piece("part", whole, load_linear_chunk(loader, IN, 1, 2, UNITS, 1, false, "%s", name).weight, OUT / 2 + mine.first,
                (struct span[2]){{0, IN}, {0, 0}});
    CHECK(*largest <= OUT / UNITS * IN, "%s: only rows that are kept are changed", name);
    *largest = 0;
    check_piece("inputs", whole, load_linear_inputs(loader, UNITS, IN / UNITS, OUT, false, "%s", name).weight, 0,
                (struct span[2]){{mine.first * IN / UNITS, IN / UNITS}, {0, 0}});
    struct span rest = load_span(loader, IN - UNITS);
    check_piece("joined inputs", whole, load_linear_joined_inputs(loader, UNITS, 1, IN - UNITS, OUT, false, "%s", name).weight, 0,
                (struct span[2]){mine, {UNITS + rest.first, rest.count}});
    CHECK(*largest <= OUT * IN / UNITS, "%s: only inputs that are kept are changed", name);
}

static void check_convs(struct loader *alone, struct loader *loader, const char *name, int kernel, int64_t *largest) {
    int taps = kernel * kernel;
    struct span mine = load_span(loader, UNITS);
    struct tensor whole = load_conv(alone, IN, OUT, kernel, "%s", name).weight;
    *largest = 0;
    check_piece("kernels of outputs", whole, load_conv_outputs(loader, IN, UNITS, OUT / UNITS, kernel, "%s", name).weight,
                mine.first * OUT / UNITS * taps, (struct span[2]){{0, IN}, {0, 0}});
    check_piece("kernels of inputs", whole, load_conv_inputs(loader, UNITS, IN / UNITS, OUT, kernel, "%s", name).weight, 0,
                (struct span[2]){{mine.first * IN / UNITS, IN / UNITS}, {0, 0}});
    CHECK(*largest <= OUT * IN * taps / UNITS, "%s: only kernels that are kept are changed", name);
}

/* Weights of both types at an address that is aligned, or not. */
static void test_pieces(struct arena *arena, size_t shift) {
    static float numbers[ELEMENTS];
    static _Alignas(8) char floats[ELEMENTS * 4 + 8], halves[ELEMENTS * 2 + 8];
    for (int i = 0; i < ELEMENTS; i++) numbers[i] = (float)(i * 29 % 61) / 16.0f;
    dtype_convert(halves, DTYPE_BF16, numbers, DTYPE_F32, ELEMENTS);
    memmove(halves + shift, halves, ELEMENTS * 2);
    memcpy(floats + shift, numbers, sizeof numbers);
    tessera_error error = {0};
    struct weights *weights = NULL;
    CHECK(weights_view_new("pieces", &weights, &error) == TESSERA_OK, "%s", error.message);
    const struct safetensors_entry entries[] = {
        {"f.weight", tensor_of(floats + shift, DTYPE_F32, SHAPE(OUT, IN))},
        {"h.weight", tensor_of(halves + shift, DTYPE_BF16, SHAPE(OUT, IN))},
        {"fc.weight", tensor_of(floats + shift, DTYPE_F32, SHAPE(OUT, IN, 2, 2))},
        {"hc.weight", tensor_of(halves + shift, DTYPE_BF16, SHAPE(OUT, IN, 2, 2))},
        {"f1.weight", tensor_of(floats + shift, DTYPE_F32, SHAPE(OUT, IN, 1, 1))},
        {"fc.bias", tensor_of(floats + shift, DTYPE_F32, SHAPE(OUT))},
        {"hc.bias", tensor_of(halves + shift, DTYPE_BF16, SHAPE(OUT))},
        {"f1.bias", tensor_of(floats + shift, DTYPE_F32, SHAPE(OUT))},
    };
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++)
        CHECK(weights_view_add(weights, entries[i].name, &entries[i].tensor, NULL, &error) == TESSERA_OK, "%s", error.message);
    CHECK(weights_view_finish(weights, &error) == TESSERA_OK, "%s", error.message);
    int64_t largest;
    const struct load_hooks hooks = {.user = &largest, .changes = changes_all, .change = add_place};
    for (int variant = 0; variant < UNITS * 4; variant++) {
        struct loader alone = {.weights = weights, .arena = arena, .dtype = variant & 1 ? DTYPE_BF16 : DTYPE_F32};
        if (variant & 2) alone.hooks = &hooks;
        struct loader loader = alone;
        loader.scope = (struct load_scope){variant / 4, UNITS, {0, 0}};
        check_linears(&alone, &loader, "f", &largest);
        check_linears(&alone, &loader, "h", &largest);
        check_linears(&alone, &loader, "f1", &largest);
        check_convs(&alone, &loader, "fc", 2, &largest);
        check_convs(&alone, &loader, "hc", 2, &largest);
        check_convs(&alone, &loader, "f1", 1, &largest);
        CHECK(!load_failed(&alone) && !load_failed(&loader), "%s%s", alone.error.message, loader.error.message);
    }
    weights_close(weights);
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
    load_linear_chunk(&loader, 6, 0, 2, 4, 1, false, "both");
    load_linear_chunk(&loader, 6, 1, 2, 4, 1, false, "both");
    load_unused(&loader, SHAPE(7), "rest");
    CHECK(linear.weight.data == NULL && conv.weight.data == NULL && !load_failed(&loader), "%s", loader.error.message);
    CHECK(heard.count == 6 &&
              strcmp(heard.text,
                     "a.l1.weight [4, 6]; a.l1.bias [4]; a.c.weight [2, 3, 5, 5]; a.c.bias [2]; a.both.weight [8, 6]; a.rest [7]; ") == 0,
          "%s", heard.text);
    CHECK(load_has(&loader, "anything"), "every name is there to be recorded");
}

/* ---- weights that were read into a buffer ---- */

enum { MOST_NUMBERS = 260 * 64 };

/* `linear`, whatever its type, as float32. */
static void widen(struct linear linear, float out[MOST_NUMBERS]) {
    if (linear.weight.data != NULL) dtype_convert(out, DTYPE_F32, linear.weight.data, linear.weight.dtype, (size_t)tensor_count(&linear.weight));
}

/* The loader's spans one after the other in a buffer. */
static struct load_copies copy_spans(const struct loader *loader) {
    struct load_copies copies = {.list = calloc((size_t)loader->num_spans, sizeof *copies.list), .count = loader->num_spans};
    for (int i = 0; i < loader->num_spans; i++) copies.bytes += loader->spans[i].bytes;
    copies.memory = malloc(copies.bytes);
    size_t at = 0;
    for (int i = 0; i < loader->num_spans; i++) {
        int place = i; /* by address */
        while (place > 0 && copies.list[place - 1].from > loader->spans[i].data) copies.list[place] = copies.list[place - 1], place--;
        copies.list[place] = (struct load_copy){loader->spans[i].data, loader->spans[i].bytes, at, false};
        memcpy(copies.memory + at, loader->spans[i].data, loader->spans[i].bytes);
        at += loader->spans[i].bytes;
    }
    return copies;
}

/* Weights with scales of their own come from the buffer, codes and scales, even if the file's bytes
 * are gone: int8 with a scale for each row, nf4 with quantised ones and with float32. */
static void test_scaled_copies(struct arena *arena, const char *name) {
    tessera_error error = {0};
    struct safetensors *file = NULL;
    struct weights *weights = NULL;
    CHECK(safetensors_open("tests/tensor/scaled_weights.safetensors", &file, &error) == TESSERA_OK, "%s", error.message);
    CHECK(weights_view_new("folder", &weights, &error) == TESSERA_OK, "%s", error.message);
    char *mine[64] = {0};
    size_t bytes[64] = {0};
    int count = safetensors_count(file);
    for (int i = 0; i < count && i < 64; i++) {
        struct safetensors_entry entry = *safetensors_at(file, i);
        bytes[i] = tensor_bytes(&entry.tensor);
        mine[i] = malloc(bytes[i] + 1);
        memcpy(mine[i], entry.tensor.data, bytes[i]);
        entry.tensor.data = mine[i];
        weights_view_add(weights, entry.name, &entry.tensor, NULL, &error);
    }
    weights_view_finish(weights, &error);
    char full[64];
    struct tensor shape = {0};
    snprintf(full, sizeof full, "%s.values", name);
    CHECK(weights_get(weights, full, &shape, &error) == TESSERA_OK && tensor_count(&shape) <= MOST_NUMBERS, "%s", full);
    struct loader loader = {.weights = weights, .arena = arena, .dtype = DTYPE_F32, .mode = LOAD_DESCRIBE, .notes_spans = true};
    load_linear(&loader, shape.shape[1], shape.shape[0], false, "%s", name);
    loader.mode = LOAD_READ;
    static float before[MOST_NUMBERS], after[MOST_NUMBERS];
    memset(before, 0, sizeof before);
    memset(after, 0, sizeof after);
    widen(load_linear(&loader, shape.shape[1], shape.shape[0], false, "%s", name), before);
    struct load_copies copies = copy_spans(&loader);
    for (int i = 0; i < count && i < 64; i++) /* what is read when the weight is found stays */
        if (strstr(safetensors_at(file, i)->name, "quant_") == NULL || strstr(safetensors_at(file, i)->name, "nested_quant") != NULL)
            memset(mine[i], 0, bytes[i]);
    loader.copies = &copies;
    widen(load_linear(&loader, shape.shape[1], shape.shape[0], false, "%s", name), after);
    CHECK(!load_failed(&loader), "%s", loader.error.message);
    CHECK(before[1] != 0 && memcmp(before, after, sizeof before) == 0, "%s: %g, from the buffer %g", name, (double)before[1], (double)after[1]);
    for (int i = 0; i < count && i < 64; i++) free(mine[i]);
    free(copies.memory);
    free(copies.list);
    free(loader.spans);
    weights_close(weights);
    safetensors_close(file);
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
        test_shares(loader);
        test_pieces(loader.arena, 0);
        test_pieces(loader.arena, 1);
        test_record(loader.arena);
        test_scaled_copies(loader.arena, "int8");
        test_scaled_copies(loader.arena, "nf4");
        test_scaled_copies(loader.arena, "nf4_wide");
    }
    arena_free(loader.arena);
    weights_close(weights);
    unlink(path);
    rmdir(folder);
    free(path);
    return CHECK_REPORT();
}
