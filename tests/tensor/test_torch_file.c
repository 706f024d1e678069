/* PyTorch's files: what torch.save wrote (tests/tensor/make_torch_files.py), what is refused and by
 * which name, and files that are neither. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "check.h"
#include "tensor/safetensors.h"

#define FOLDER "tests/tensor/torch/"

static struct safetensors *open_file(const char *name) {
    char path[128];
    struct safetensors *file = NULL;
    tessera_error error = {0};
    snprintf(path, sizeof path, FOLDER "%s", name);
    CHECK(safetensors_open(path, &file, &error) == TESSERA_OK, "%s: %s", name, error.message);
    return file;
}

static bool same_tensor(struct tensor a, struct tensor b) {
    return a.dtype == b.dtype && a.ndim == b.ndim && memcmp(a.shape, b.shape, (size_t)a.ndim * sizeof *a.shape) == 0 &&
           memcmp(a.data, b.data, tensor_bytes(&a)) == 0;
}

/* The same tensors as the safetensors file that was written beside it: all types, strides, offsets,
 * shared storages. */
static void test_weights(const char *name) {
    struct safetensors *file = open_file(name), *expected = open_file("expected.safetensors");
    if (file == NULL || expected == NULL) return;
    CHECK(safetensors_count(file) == safetensors_count(expected) && safetensors_count(file) == 11, "%s: %d tensors", name,
          safetensors_count(file));
    for (int i = 0; i < safetensors_count(expected); i++) {
        const struct safetensors_entry *want = safetensors_at(expected, i), *have = safetensors_find(file, want->name);
        CHECK(have != NULL && same_tensor(have->tensor, want->tensor), "%s: %s", name, want->name);
        CHECK(have == NULL || (uintptr_t)have->tensor.data % dtype_size(have->tensor.dtype) == 0, "%s: %s is not aligned", name,
              want->name);
    }
    safetensors_close(file);
    safetensors_close(expected);
}

static void expect_names(const char *name, const char *const *names) {
    struct safetensors *file = open_file(name);
    int count = 0;
    for (; names[count] != NULL && file != NULL; count++) CHECK(safetensors_find(file, names[count]) != NULL, "%s: %s", name, names[count]);
    CHECK(file == NULL || safetensors_count(file) == count, "%s: %d tensors", name, safetensors_count(file));
    safetensors_close(file);
}

static void expect_refusal(const char *name, tessera_status status, const char *words) {
    char path[128];
    struct safetensors *file = NULL;
    tessera_error error = {0};
    snprintf(path, sizeof path, FOLDER "%s", name);
    CHECK(safetensors_open(path, &file, &error) == status && file == NULL, "%s: %d: %s", name, (int)error.status, error.message);
    CHECK(strstr(error.message, path) != NULL && strstr(error.message, words) != NULL, "%s: wants \"%s\": %s", name, words, error.message);
    safetensors_close(file);
}

/* Each beginning of the file is refused. */
static void test_cut(const char *name) {
    char path[128], cut[] = "/tmp/tessera-test-torch-XXXXXX", *data;
    size_t length;
    tessera_error error = {0};
    snprintf(path, sizeof path, FOLDER "%s", name);
    CHECK(file_read(path, 1 << 20, &data, &length, &error) == TESSERA_OK, "%s", error.message);
    int descriptor = mkstemp(cut);
    for (size_t n = 1; n < length; n += 37) {
        struct safetensors *file = NULL;
        CHECK(ftruncate(descriptor, 0) == 0 && pwrite(descriptor, data, n, 0) == (ssize_t)n, "%s", cut);
        CHECK(safetensors_open(cut, &file, &error) != TESSERA_OK && file == NULL, "%zu bytes of %s", n, name);
        safetensors_close(file);
    }
    close(descriptor);
    unlink(cut);
    free(data);
}

static void expect_kind(const char *text, size_t length, const char *words) {
    char path[] = "/tmp/tessera-test-kind-XXXXXX";
    struct safetensors *file = NULL;
    tessera_error error = {0};
    int descriptor = mkstemp(path);
    CHECK(write(descriptor, text, length) == (ssize_t)length, "%s", path);
    close(descriptor);
    CHECK(safetensors_open(path, &file, &error) == TESSERA_ERROR_FORMAT && strstr(error.message, words) != NULL, "wants \"%s\": %s", words,
          error.message);
    unlink(path);
}
#define KIND(text, words) expect_kind(text, sizeof text - 1, words)

static void test_kinds(void) {
    KIND("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "a Git LFS pointer");
    KIND("<!DOCTYPE html><html><head><title>Sign in</title>", "a web page");
    KIND("\n\n  <HTML lang=en>", "a web page");
    KIND("GGUF\3\0\0\0\0\0\0\0\0\0\0\0", "cut off");
    KIND("PK\3\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "a zip archive");
    KIND("\x1f\x8b\x08\0\0\0\0\0\0\3", "gzip");
    KIND("{\"weight_map\": {\"a\": \"model-00001-of-00002.safetensors\"}}", "JSON text");
    KIND("Invalid username or password.", "text that begins \"Invalid username or password.\"");
    KIND("Entry not found", "text that begins \"Entry not found\"");
    static const char zeros[4096];
    expect_kind(zeros, sizeof zeros, "zero bytes");
    KIND("\x89PNG\r\n\032\n\0\0\0\rIHDR", "a picture");
    KIND("\x80\4\x95\x0b\0\0\0\0\0\0\0}\x94\x8c\1a\x94K\1s.", "a Python pickle");
    KIND("\x80\2\0\0\0\0\0\0{\"a\":{}.", "header length");
    static char tar[512] = "pickle";
    memcpy(tar + 257, "ustar", 5);
    expect_kind(tar, sizeof tar, "a tar archive");
    KIND("\x20\0\0\0\0\0\0\0{\"a\":{\"dtype\":\"F32\"", "header length");
}

int main(void) {
    test_weights("weights.pt");
    test_weights("weights_legacy.pt");
    test_weights("weights_legacy_4.pt"); /* a pickle in frames */
    expect_names("nested.pt", (const char *const[]){"model.a", "model.list.0", "3", NULL});
    expect_names("training.ckpt", (const char *const[]){"w", NULL});
    expect_names("training_legacy.ckpt", (const char *const[]){"w", NULL});
    expect_names("tensor.pt", (const char *const[]){"tensor", NULL});
    expect_refusal("evil_system.pt", TESSERA_ERROR_UNSUPPORTED, "system\"");
    expect_refusal("evil_eval.pt", TESSERA_ERROR_UNSUPPORTED, "eval\"");
    expect_refusal("stack_global.pt", TESSERA_ERROR_UNSUPPORTED, "\"os.system\"");
    expect_refusal("module.pt", TESSERA_ERROR_UNSUPPORTED, "Linear");
    expect_refusal("script.pt", TESSERA_ERROR_UNSUPPORTED, "TorchScript");
    expect_refusal("inst.pt", TESSERA_ERROR_UNSUPPORTED, "STRING");
    expect_refusal("newobj.pt", TESSERA_ERROR_UNSUPPORTED, "NEWOBJ");
    expect_refusal("extension.pt", TESSERA_ERROR_UNSUPPORTED, "EXT1");
    expect_refusal("protocol0.pt", TESSERA_ERROR_UNSUPPORTED, "INT");
    expect_refusal("build.pt", TESSERA_ERROR_UNSUPPORTED, "BUILD");
    expect_refusal("compressed.pt", TESSERA_ERROR_UNSUPPORTED, "compressed");
    expect_refusal("big_endian.pt", TESSERA_ERROR_UNSUPPORTED, "big-endian");
    expect_refusal("short_storage.pt", TESSERA_ERROR_FORMAT, "beyond its storage");
    expect_refusal("one_beyond.pt", TESSERA_ERROR_FORMAT, "beyond its storage");
    expect_refusal("no_stop.pt", TESSERA_ERROR_FORMAT, "has no end");
    expect_refusal("memo.pt", TESSERA_ERROR_FORMAT, "memo");
    expect_refusal("self.pt", TESSERA_ERROR_FORMAT, "no tensors"); /* a dictionary in itself */
    CHECK(!file_exists("/tmp/tessera-was-here"), "something of a file was executed");
    test_cut("weights.pt");
    test_cut("weights_legacy.pt");
    test_kinds();
    return CHECK_REPORT();
}
