/* Weights in one file, in shards, and in folders where something is missing. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "check.h"
#include "safetensors_write.h"
#include "tensor/weights.h"

static char folder[] = "/tmp/tessera-test-XXXXXX";

static void write_tensor(const char *file, const char *name, float *values, int64_t count) {
    tessera_error error = {0};
    char *path = file_join(folder, file);
    struct safetensors_entry entry = {name, tensor_of(values, DTYPE_F32, SHAPE(count))};
    CHECK(safetensors_write(path, &entry, 1, &error) == TESSERA_OK, "%s", error.message);
    free(path);
}

static void remove_file(const char *file) {
    char *path = file_join(folder, file);
    unlink(path);
    free(path);
}

static void write_index(const char *map) {
    char *path = file_join(folder, "model.safetensors.index.json");
    FILE *stream = fopen(path, "w");
    fprintf(stream, "{\"weight_map\": %s}", map);
    fclose(stream);
    free(path);
}

static void expect_failure(tessera_status expected, const char *words) {
    tessera_error error = {0};
    struct weights *weights;
    tessera_status status = weights_open(folder, &weights, &error);
    CHECK(status == expected && weights == NULL && strstr(error.message, folder) != NULL && strstr(error.message, words) != NULL,
          "%d, expected \"%s\": \"%s\"", status, words, error.message);
    weights_close(weights);
}

static void expect_tensors(int count) {
    tessera_error error = {0};
    struct weights *weights;
    struct tensor tensor;
    CHECK(weights_open(folder, &weights, &error) == TESSERA_OK, "%s", error.message);
    if (weights == NULL) return;
    CHECK(weights_count(weights) == count && weights_parameters(weights) == 2 * count && weights_bytes(weights) == (size_t)count * 8,
          "sizes");
    CHECK(weights_get(weights, "a", &tensor, &error) == TESSERA_OK && ((float *)tensor.data)[1] == 2, "%s", error.message);
    CHECK(weights_has(weights, "b") == (count == 2), "b");
    CHECK(weights_get(weights, "none", &tensor, &error) == TESSERA_ERROR_FORMAT && strstr(error.message, "\"none\"") != NULL, "%s",
          error.message);
    CHECK(strcmp(weights_folder(weights), folder) == 0 && strcmp(weights_at(weights, 0)->name, "a") == 0, "folder");
    weights_close(weights);
}

static void write_negative(const struct tensor *source, void *to) {
    *(float *)to = -*(float *)source->data;
}

/* A view: other names, data that are lent or made, sorted; a name that occurs twice is refused. */
static void check_view(void) {
    float lent[] = {1, 2, 3, 4}, made = 0;
    struct weights *view = NULL;
    struct tensor tensor = tensor_of(lent + 2, DTYPE_F32, 1, (int64_t[]){2}), single = tensor_of(NULL, DTYPE_F32, 1, (int64_t[]){1});
    struct weights_recipe recipe = {write_negative, tensor_of(lent + 1, DTYPE_F32, 1, (int64_t[]){1})};
    tessera_error error = {0};
    CHECK(weights_view_new("file.safetensors", &view, &error) == TESSERA_OK, "%s", error.message);
    CHECK(weights_view_add(view, "z", &tensor, NULL, &error) == TESSERA_OK, "%s", error.message);
    CHECK(weights_view_add(view, "a", &single, &recipe, &error) == TESSERA_OK, "%s", error.message);
    CHECK(weights_view_finish(view, &error) == TESSERA_OK, "%s", error.message);
    CHECK(weights_count(view) == 2 && strcmp(weights_at(view, 0)->name, "a") == 0, "order");
    CHECK(weights_get(view, "z", &tensor, &error) == TESSERA_OK && ((float *)tensor.data)[1] == 4, "z");
    CHECK(weights_get(view, "a", &tensor, &error) == TESSERA_OK && tensor.data == NULL && tensor.shape[0] == 1,
          "a is made when it is read");
    weights_read(view, "a", NULL, &made);
    CHECK(made == -2, "a is %g", (double)made);
    weights_read(view, "z", NULL, lent);
    CHECK(lent[0] == 3 && lent[1] == 4, "what is lent is copied");
    CHECK(weights_get(view, "none", &tensor, &error) != TESSERA_OK && strstr(error.message, "file.safetensors") != NULL, "%s",
          error.message);
    weights_close(view);
    CHECK(weights_view_new("file.safetensors", &view, &error) == TESSERA_OK, "%s", error.message);
    for (int i = 0; i < 2; i++) weights_view_add(view, "twice", &recipe.source, NULL, &error);
    CHECK(weights_view_finish(view, &error) == TESSERA_ERROR_FORMAT && strstr(error.message, "twice") != NULL, "%s", error.message);
    weights_close(view);
}

static void expect_variant(const char *variant, float first) {
    tessera_error error = {0};
    struct weights *weights;
    struct tensor tensor;
    CHECK(weights_open_variant(folder, variant, &weights, &error) == TESSERA_OK, "%s", error.message);
    CHECK(weights != NULL && weights_get(weights, "a", &tensor, &error) == TESSERA_OK && ((float *)tensor.data)[0] == first, "%s: %s",
          variant, error.message);
    weights_close(weights);
}

/* A variant is found where nothing else is, and preferred where it is asked for. */
static void check_variants(void) {
    float fp16[] = {3, 4}, other[] = {5, 6}, plain[] = {1, 2};
    write_tensor("diffusion_pytorch_model.ema.safetensors", "a", other, 2);
    expect_variant(NULL, 5);
    write_tensor("diffusion_pytorch_model.fp16.safetensors", "a", fp16, 2);
    expect_variant(NULL, 3);
    expect_variant("ema", 5);
    write_tensor("diffusion_pytorch_model.safetensors", "a", plain, 2);
    expect_variant(NULL, 1);
    expect_variant("fp16", 3);
    expect_variant("bf16", 1);
    CHECK(weights_are_in(folder), "there are weights");
    remove_file("diffusion_pytorch_model.safetensors");
    remove_file("diffusion_pytorch_model.fp16.safetensors");
    remove_file("diffusion_pytorch_model.ema.safetensors");
    write_tensor("one.fp16.safetensors", "a", fp16, 2);
    char *from = file_join(folder, "model.safetensors.index.json"), *to = file_join(folder, "model.safetensors.index.fp16.json");
    write_index("{\"a\": \"one.fp16.safetensors\"}");
    CHECK(rename(from, to) == 0, "rename");
    expect_variant(NULL, 3);
    unlink(to);
    remove_file("one.fp16.safetensors");
    free(from);
    free(to);
}

/* A folder that may not be read is not one without weights. */
static void check_permission(void) {
    bool root = geteuid() == 0;
    chmod(folder, 0);
    CHECK(!root || seteuid(65534) == 0, "another user");
    expect_failure(TESSERA_ERROR_IO, "ermission");
    CHECK(!root || seteuid(0) == 0, "root again");
    chmod(folder, 0700);
}

/* A pipe without a writer must not be waited for. */
static void check_pipe(void) {
    char *path = file_join(folder, "model.safetensors");
    CHECK(mkfifo(path, 0600) == 0, "%s", path);
    expect_failure(TESSERA_ERROR_IO, "not a regular file");
    unlink(path);
    free(path);
    path = file_join(folder, "model.safetensors.index.json");
    CHECK(mkfifo(path, 0600) == 0, "%s", path);
    expect_failure(TESSERA_ERROR_IO, "not a regular file");
    unlink(path);
    free(path);
}

int main(void) {
    float values[] = {1, 2};
    if (mkdtemp(folder) == NULL) return 1;
    expect_failure(TESSERA_ERROR_IO, "no weights");
    write_tensor("diffusion_pytorch_model.safetensors", "a", values, 2);
    expect_tensors(1);
    remove_file("diffusion_pytorch_model.safetensors");
    write_tensor("one.safetensors", "a", values, 2);
    write_tensor("two.safetensors", "b", values, 2);
    write_index("{\"b\": \"two.safetensors\", \"a\": \"one.safetensors\"}");
    expect_tensors(2);
    write_index("{\"a\": \"two.safetensors\"}");
    expect_failure(TESSERA_ERROR_FORMAT, "\"a\" is not in");
    write_index("{\"a\": \"../one.safetensors\"}");
    expect_failure(TESSERA_ERROR_FORMAT, "weight_map");
    write_index("{\"a\": \"./one.safetensors\"}"); /* a file of this folder, and yet a path */
    expect_failure(TESSERA_ERROR_FORMAT, "is not the name of a file in this folder");
    write_index("{\"a\": 3}");
    expect_failure(TESSERA_ERROR_FORMAT, "weight_map");
    write_index("[]");
    expect_failure(TESSERA_ERROR_FORMAT, "weight_map");
    write_index("{\"a\": \"one.safetensors\", \"a\": \"one.safetensors\"}");
    expect_failure(TESSERA_ERROR_FORMAT, "occurs twice");
    write_index("{\"a\": \"one.safetensors\", \"b\": \"two.safetensors\"}");
    remove_file("two.safetensors");
    expect_failure(TESSERA_ERROR_IO, "two.safetensors is missing");
    remove_file("one.safetensors");
    remove_file("model.safetensors.index.json");
    check_variants();
    check_permission();
    check_pipe();
    rmdir(folder);
    check_view();
    return CHECK_REPORT();
}
