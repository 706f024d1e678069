/* GGUF: a file that llama.cpp's own Python code wrote, files made here, and hostile ones, each with
 * the field that its message names. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "tensor/gguf.h"

/* A file in the making. */
struct bytes {
    uint8_t data[4096];
    size_t length;
};

static void put(struct bytes *b, int size, uint64_t value) {
    for (int i = 0; i < size; i++) b->data[b->length++] = (uint8_t)(value >> 8 * i);
}

static void put_text(struct bytes *b, const char *text) {
    put(b, 8, strlen(text));
    memcpy(b->data + b->length, text, strlen(text));
    b->length += strlen(text);
}

static struct bytes start(uint32_t version, uint64_t tensors, uint64_t pairs) {
    struct bytes b = {.length = 0};
    memcpy(b.data, "GGUF", 4);
    b.length = 4;
    put(&b, 4, version);
    put(&b, 8, tensors);
    put(&b, 8, pairs);
    return b;
}

static void put_tensor(struct bytes *b, const char *name, uint64_t columns, uint64_t rows, uint32_t type, uint64_t offset) {
    put_text(b, name);
    put(b, 4, 2);
    put(b, 8, columns);
    put(b, 8, rows);
    put(b, 4, type);
    put(b, 8, offset);
}

static void put_data(struct bytes *b, size_t alignment, size_t count) {
    while (b->length % alignment != 0) put(b, 1, 0);
    for (size_t i = 0; i < count; i++) put(b, 1, i);
}

/* Values of many types before two tensors, one of which was flattened, and one of a type that is
 * not known. */
static void test_good(void) {
    struct bytes b = start(3, 3, 4);
    tessera_error error = {0};
    struct safetensors *file;
    put_text(&b, "general.alignment"), put(&b, 4, 4), put(&b, 4, 64);
    put_text(&b, "words"), put(&b, 4, 9), put(&b, 4, 8), put(&b, 8, 2), put_text(&b, "a"), put_text(&b, "bc");
    put_text(&b, "comfy.gguf.orig_shape.k"), put(&b, 4, 9), put(&b, 4, 5), put(&b, 8, 3), put(&b, 4, 4), put(&b, 4, 1), put(&b, 4, 16);
    put_text(&b, "ratio"), put(&b, 4, 6), put(&b, 4, 0);
    put_tensor(&b, "w", 3, 2, 0, 0);
    put_tensor(&b, "k", 64, 1, 8, 64);
    put_tensor(&b, "odd", 256, 1, 16, 192);
    put_data(&b, 64, 256);
    CHECK(gguf_is(b.data, b.length) && gguf_parse("f.gguf", b.data, b.length, &file, &error) == TESSERA_OK, "%s", error.message);
    if (file == NULL) return;
    struct tensor w = safetensors_tensor(file, "w"), k = safetensors_tensor(file, "k"), odd = safetensors_tensor(file, "odd");
    CHECK(w.dtype == DTYPE_F32 && w.ndim == 2 && w.shape[0] == 2 && w.shape[1] == 3, "extents, slowest first");
    CHECK(((uint8_t *)w.data)[5] == 5, "the first tensor's bytes");
    CHECK(k.dtype == DTYPE_Q8_0 && k.ndim == 3 && k.shape[0] == 4 && k.shape[2] == 16 && ((uint8_t *)k.data)[1] == 65,
          "its shape comes back, whose rows are half a block");
    CHECK(odd.dtype == DTYPE_UNKNOWN && tensor_bytes(&odd) == 0, "a type that is not known hurts nobody");
    CHECK(safetensors_metadata(file, "format") == NULL && strcmp(safetensors_type_name(file, "k"), "Q8_0") == 0, "by name");
    safetensors_close(file);
}

/* The header of a file with one tensor whose description is `type` and so on. */
static struct bytes with_tensor(uint64_t columns, uint64_t rows, uint32_t type, uint64_t offset) {
    struct bytes b = start(3, 1, 0);
    put_tensor(&b, "w", columns, rows, type, offset);
    put_data(&b, 32, 64);
    return b;
}

static void check_refused(const char *what, struct bytes b, const char *names) {
    tessera_error error = {0};
    struct safetensors *file;
    /* on the heap, where sanitizers see a step beyond its end */
    uint8_t *exact = malloc(b.length);
    memcpy(exact, b.data, b.length);
    CHECK(gguf_parse("f.gguf", exact, b.length, &file, &error) == TESSERA_ERROR_FORMAT && file == NULL &&
              strstr(error.message, "f.gguf") != NULL && strstr(error.message, names) != NULL,
          "%s: %s", what, error.message);
    free(exact);
}

static void check_read(const char *what, struct bytes b) {
    tessera_error error = {0};
    struct safetensors *file;
    CHECK(gguf_parse("f.gguf", b.data, b.length, &file, &error) == TESSERA_OK, "%s: %s", what, error.message);
    safetensors_close(file);
}

/* A value that is an array of one array, and so on; the innermost holds two bytes. */
static struct bytes with_arrays(int count) {
    struct bytes b = start(3, 0, 1);
    put_text(&b, "k"), put(&b, 4, 9);
    for (int i = 0; i + 1 < count; i++) put(&b, 4, 9), put(&b, 8, 1);
    put(&b, 4, 0), put(&b, 8, 2), put(&b, 2, 0);
    put_data(&b, 1, 32);
    return b;
}

static void test_hostile(void) {
    struct bytes b = with_tensor(3, 2, 0, 0);
    tessera_error error = {0};
    struct safetensors *file;
    for (size_t length = 0; length < b.length; length++) { /* cut anywhere before the tensor's last byte */
        uint8_t *exact = malloc(length > 0 ? length : 1);
        memcpy(exact, b.data, length);
        bool whole = length >= b.length - 64 + 24;
        CHECK((gguf_parse("f", exact, length, &file, &error) == TESSERA_OK) == whole, "%zu of %zu bytes", length, b.length);
        safetensors_close(file);
        free(exact);
    }
    check_refused("version", start(1, 0, 0), "version");
    check_refused("counts", start(3, UINT64_MAX, 0), "counts more");
    check_refused("pairs", start(3, 0, UINT64_MAX), "counts more");
    b = start(3, 0, 1), put(&b, 8, UINT64_MAX - 3), put_data(&b, 1, 32);
    check_refused("a key without end", b, "cut off");
    b = start(3, 0, 1), put_text(&b, "k"), put(&b, 4, 13), put_data(&b, 1, 32);
    check_refused("a value's type", b, "not known");
    b = start(3, 0, 1), put_text(&b, "k"), put(&b, 4, 9), put(&b, 4, 10), put(&b, 8, (uint64_t)1 << 61), put_data(&b, 1, 32);
    check_refused("an array's length", b, "longer than the file");
    b = start(3, 0, 1), put_text(&b, "k"), put(&b, 4, 9);
    for (int i = 0; i < 8; i++) put(&b, 4, 9), put(&b, 8, 1);
    put_data(&b, 1, 32);
    check_refused("arrays of arrays", b, "nested");
    b = start(3, 0, 1), put_text(&b, "general.alignment"), put(&b, 4, 4), put(&b, 4, 0), put_data(&b, 1, 32);
    check_refused("an alignment of 0", b, "general.alignment");
    b = start(3, 0, 1), put_text(&b, "general.alignment"), put(&b, 4, 4), put(&b, 4, 1 << 21), put_data(&b, 1, 32);
    check_refused("an alignment of 2 MiB", b, "general.alignment");
    check_refused("elements", with_tensor((uint64_t)1 << 40, (uint64_t)1 << 40, 0, 0), "more elements");
    b = start(3, 1, 0), put_text(&b, "w"), put(&b, 4, 3), put(&b, 8, 0), put(&b, 8, (uint64_t)1 << 40), put(&b, 8, (uint64_t)1 << 40);
    put(&b, 4, 0), put(&b, 8, 0), put_data(&b, 32, 64);
    check_refused("elements, none of them there", b, "more elements");
    check_refused("rows of blocks", with_tensor(31, 1, 2, 0), "whole blocks");
    check_refused("an offset", with_tensor(3, 2, 0, 4), "alignment");
    check_refused("beyond the end", with_tensor(3, 2, 0, 64), "beyond the file");
    check_refused("far beyond the end", with_tensor(3, 2, 0, UINT64_MAX - 31), "beyond the file");
    b = start(3, 2, 0), put_tensor(&b, "w", 1, 1, 0, 0), put_tensor(&b, "w", 1, 1, 0, 32), put_data(&b, 32, 64);
    check_refused("two of a name", b, "twice");
    b = start(3, 1, 0), put_text(&b, "w"), put(&b, 4, 6), put_data(&b, 32, 64);
    check_refused("dimensions", b, "too many dimensions");
    check_refused("bytes that no number holds", with_tensor((uint64_t)1 << 40, (uint64_t)1 << 21, 0, 0), "more elements");
    b = start(3, 0, 1), put_text(&b, "comfy.gguf.orig_shape.w"), put(&b, 4, 9), put(&b, 4, 5), put(&b, 8, 1), put(&b, 4, UINT32_MAX);
    check_refused("a negative extent", b, "negative");
    check_refused("one array too many", with_arrays(5), "nested");
}

/* At the bounds of what is allowed. */
static void test_bounds(void) {
    check_read("arrays in arrays", with_arrays(4));
    check_read("version 2", start(2, 0, 0));
    struct bytes b = start(3, 0, 1);
    put_text(&b, "k"), put(&b, 4, 0), put(&b, 1, 7);
    check_read("no tensors, and no padding before them", b);
    /* a shape that is not of as many numbers is not this tensor's */
    tessera_error error = {0};
    struct safetensors *file;
    b = start(3, 1, 1), put_text(&b, "comfy.gguf.orig_shape.w"), put(&b, 4, 9), put(&b, 4, 5), put(&b, 8, 2), put(&b, 4, 5), put(&b, 4, 1);
    put_tensor(&b, "w", 3, 2, 0, 0), put_data(&b, 32, 64);
    CHECK(gguf_parse("f.gguf", b.data, b.length, &file, &error) == TESSERA_OK, "%s", error.message);
    if (file == NULL) return;
    struct tensor w = safetensors_tensor(file, "w");
    CHECK(w.ndim == 2 && w.shape[0] == 2 && w.shape[1] == 3, "its own shape stays");
    safetensors_close(file);
}

/* Quantised tensors, and beside each the reference's values in float32. */
static void test_reference(const char *path) {
    tessera_error error = {0};
    struct safetensors *file = NULL;
    CHECK(safetensors_open(path, &file, &error) == TESSERA_OK, "%s", error.message);
    int compared = 0;
    for (int i = 0; file != NULL && i < safetensors_count(file); i++) {
        const struct safetensors_entry *entry = safetensors_at(file, i);
        char name[64];
        float got[2048];
        snprintf(name, sizeof name, "%s.values", entry->name);
        struct tensor want = safetensors_tensor(file, name);
        if (want.data == NULL || tensor_count(&want) > 2048) continue;
        bool same_shape = want.ndim == entry->tensor.ndim && want.shape[0] == entry->tensor.shape[0];
        dtype_convert(got, DTYPE_F32, entry->tensor.data, entry->tensor.dtype, (size_t)tensor_count(&want));
        CHECK(same_shape && memcmp(got, want.data, tensor_bytes(&want)) == 0, "%s", entry->name);
        compared++;
    }
    CHECK(compared == 9, "%d tensors compared", compared);
    if (file != NULL) safetensors_close(file);
}

int main(void) {
    test_good();
    test_hostile();
    test_bounds();
    test_reference("tests/tensor/small.gguf");
    return CHECK_REPORT();
}
