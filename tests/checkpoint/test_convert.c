/* There and back: a single file becomes a model folder, that folder a single file again, and both
 * hold the same tensors as at first. A failed conversion leaves nothing behind. */
#include "checkpoint/convert.h"

#include <dirent.h>
#include <ftw.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "check.h"
#include "checkpoint/required.h"
#include "safetensors_write.h"
#include "tensor/weights.h"

#define CASES "tests/cases/"

static bool same_tensor(const struct tensor *a, const struct tensor *b) {
    return a->dtype == b->dtype && a->ndim == b->ndim && memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof *a->shape) == 0 &&
           memcmp(a->data, b->data, tensor_bytes(a)) == 0;
}

static int remove_one(const char *path, const struct stat *about, int kind, struct FTW *place) {
    return remove(path);
}

static void join(char out[512], const char *folder, const char *name) {
    snprintf(out, 512, "%.400s/%.100s", folder, name);
}

/* Every tensor of `part` is the same in `whole`; returns how many there are. */
static int compare_files(const char *part_path, const char *whole_path) {
    struct safetensors *part = NULL, *whole = NULL;
    tessera_error error = {0};
    CHECK(safetensors_open(part_path, &part, &error) == TESSERA_OK, "%s", error.message);
    CHECK(safetensors_open(whole_path, &whole, &error) == TESSERA_OK, "%s", error.message);
    int count = part != NULL ? safetensors_count(part) : 0;
    for (int i = 0; i < count && whole != NULL; i++) {
        const struct safetensors_entry *entry = safetensors_at(part, i), *other = safetensors_find(whole, entry->name);
        CHECK(other != NULL && same_tensor(&entry->tensor, &other->tensor), "%s: %s is not as in %s", part_path, entry->name, whole_path);
    }
    safetensors_close(part);
    safetensors_close(whole);
    return count;
}

/* What the model asks for of `want` is the same in `got`, which names it as published folders do. */
static void compare_weights(const struct weights *got, const struct weights *want, const struct required *required) {
    for (int i = 0; i < weights_count(want); i++) {
        const struct safetensors_entry *entry = weights_at(want, i);
        const struct required_tensor *wanted = required_find(required, entry->name);
        struct tensor other;
        tessera_error error = {0};
        if (wanted == NULL) continue;
        CHECK(weights_get(got, wanted->name, &other, &error) == TESSERA_OK, "%s", error.message);
        CHECK(same_tensor(&entry->tensor, &other), "%s: %s differs", weights_folder(got), wanted->name);
    }
    CHECK(weights_count(got) == required->count, "%s: %d tensors, not %d", weights_folder(got), weights_count(got), required->count);
}

static void compare_component(const char *got_folder, const char *want_folder, const char *name) {
    struct weights *got = NULL, *want = NULL;
    struct required required = {0};
    char path[512];
    tessera_error error = {0};
    join(path, got_folder, name);
    CHECK(weights_open(path, &got, &error) == TESSERA_OK, "%s", error.message);
    CHECK(required_read(path, NULL, &required, &error) == TESSERA_OK, "%s", error.message);
    join(path, want_folder, name);
    CHECK(weights_open(path, &want, &error) == TESSERA_OK, "%s", error.message);
    if (got != NULL && want != NULL) compare_weights(got, want, &required);
    required_free(&required);
    weights_close(got);
    weights_close(want);
}

/* `extra`: tensors of the file that no model asks for. */
static void check_round_trip(const char *folder, const char *name, const char *config, const char *const *components, int extra) {
    char file[512], model[512], again[512];
    struct convert_report report = {0};
    tessera_error error = {0};
    snprintf(file, sizeof file, CASES "single_file/%s.safetensors", name);
    join(model, folder, name);
    snprintf(again, sizeof again, "%s/%s.safetensors", folder, name);
    CHECK(convert_to_folder(file, config, model, &report, &error) == TESSERA_OK, "%s", error.message);
    for (int i = 0; components[i] != NULL; i++) compare_component(model, config, components[i]);
    CHECK(convert_to_file(model, again, &report, &error) == TESSERA_OK, "%s", error.message);
    int count = compare_files(again, file);
    CHECK(count == report.tensors && compare_files(file, file) == count + extra, "%s: %d tensors came back", name, count);
    CHECK(convert_to_folder(file, config, model, &report, &error) == TESSERA_ERROR_ARGUMENT, "an existing folder was accepted");
}

/* A file without text encoders and autoencoder: the folder says what is missing. */
static void check_flux(const char *folder) {
    char model[512], path[512];
    struct convert_report report = {0};
    tessera_error error = {0};
    join(model, folder, "flux");
    CHECK(convert_to_folder(CASES "single_file/flux.safetensors", CASES "pipeline_flux/model", model, &report, &error) == TESSERA_OK, "%s",
          error.message);
    CHECK(strcmp(report.missing, "text_encoder, text_encoder_2, vae") == 0, "missing: %s", report.missing);
    compare_component(model, CASES "pipeline_flux/model", "transformer");
    join(path, model, "tokenizer_2/tokenizer.json");
    CHECK(file_exists(path), "no tokenizer in the folder");
    join(path, folder, "flux.safetensors");
    CHECK(convert_to_file(CASES "pipeline_flux/model", path, &report, &error) == TESSERA_OK, "%s", error.message);
    CHECK(report.missing[0] == 0, "missing: %s", report.missing);
}

static void check_failures(const char *folder) {
    char model[512], path[600];
    struct convert_report report = {0};
    tessera_error error = {0};
    join(model, folder, "failed");
    CHECK(convert_to_folder(CASES "single_file/sd3.safetensors", CASES "pipeline_sd3_dynamic/model", model, &report, &error) ==
              TESSERA_ERROR_FORMAT,
          "a file of another size was accepted");
    CHECK(!file_exists(model), "a failed conversion left %s", model);
    snprintf(path, sizeof path, "%s.%ld.0.tmp", model, (long)getpid());
    CHECK(!file_exists(path), "a failed conversion left %s", path);
    join(path, folder, "failed.safetensors");
    CHECK(convert_to_file(CASES "pipeline_pixart/model", path, &report, &error) == TESSERA_ERROR_UNSUPPORTED, "PixArt was accepted");
    CHECK(strstr(error.message, "PixArt") != NULL && !file_exists(path), "message: %s", error.message);
}

static int entries_in(const char *path) {
    int count = 0;
    DIR *folder = opendir(path);
    for (struct dirent *item; folder != NULL && (item = readdir(folder)) != NULL;) count += item->d_name[0] != '.';
    if (folder != NULL) closedir(folder);
    return count;
}

/* A folder, or a link to one, that somebody left under the name of the temporary folder: nothing is
 * written into it or removed from it. */
static void check_planted(const char *folder) {
    char victim[512], kept[600], model[512], planted[600];
    struct convert_report report = {0};
    tessera_error error = {0};
    join(victim, folder, "victim");
    join(kept, victim, "kept");
    join(model, folder, "planted");
    CHECK(mkdir(victim, 0777) == 0 && mkdir(kept, 0777) == 0, "no folders");
    snprintf(planted, sizeof planted, "%s.%ld.0.tmp", model, (long)getpid());
    CHECK(symlink(victim, planted) == 0, "no link");
    snprintf(planted, sizeof planted, "%s.%ld.1.tmp", model, (long)getpid());
    CHECK(mkdir(planted, 0777) == 0, "no folder");
    CHECK(convert_to_folder(CASES "single_file/flux.safetensors", CASES "pipeline_flux/model", model, &report, &error) == TESSERA_OK, "%s",
          error.message);
    CHECK(entries_in(victim) == 1 && entries_in(planted) == 0, "written into a folder that was there");
    join(model, folder, "planted2");
    snprintf(planted, sizeof planted, "%s.%ld.0.tmp", model, (long)getpid());
    CHECK(symlink(victim, planted) == 0, "no link");
    CHECK(convert_to_folder(CASES "single_file/sd3.safetensors", CASES "pipeline_sd3_dynamic/model", model, &report, &error) ==
              TESSERA_ERROR_FORMAT,
          "a file of another size was accepted");
    CHECK(entries_in(victim) == 1, "a failed conversion removed what was not its own");
}

/* ---- types ---- */

/* `got` holds the numbers of `want` in the type that it should have. */
static void compare_types(const char *got_path, const char *want_path, const struct convert_types *types) {
    struct safetensors *got = NULL, *want = NULL;
    tessera_error error = {0};
    int seen[DTYPE_COUNT] = {0};
    CHECK(safetensors_open(got_path, &got, &error) == TESSERA_OK, "%s", error.message);
    CHECK(safetensors_open(want_path, &want, &error) == TESSERA_OK, "%s", error.message);
    for (int i = 0; got != NULL && want != NULL && i < safetensors_count(want); i++) {
        const struct safetensors_entry *entry = safetensors_at(want, i);
        struct tensor t = safetensors_tensor(got, entry->name);
        enum dtype dtype;
        CHECK(convert_type_of(types, entry->name, &entry->tensor, &dtype, &error) == TESSERA_OK, "%s", error.message);
        CHECK(t.data != NULL && t.dtype == dtype && tensor_count(&t) == tensor_count(&entry->tensor), "%s is %s", entry->name,
              dtype_name(t.dtype));
        if (t.data == NULL || t.dtype != dtype) continue;
        void *bytes = malloc(tensor_bytes(&t) + 1);
        if (dtype_is_weight(dtype))
            dtype_convert(bytes, dtype, entry->tensor.data, entry->tensor.dtype, (size_t)tensor_count(&t));
        CHECK(!dtype_is_weight(dtype) || memcmp(bytes, t.data, tensor_bytes(&t)) == 0, "%s holds other numbers", entry->name);
        seen[dtype]++;
        free(bytes);
    }
    CHECK(seen[types->dtype] > 10 && seen[DTYPE_F16] == 2, "%d and %d tensors", seen[types->dtype], seen[DTYPE_F16]);
    safetensors_close(got);
    safetensors_close(want);
}

/* A model folder, and the file in its original layout, in small types and two tensors in F16. */
static void check_types(const char *folder) {
    static const enum dtype dtypes[] = {DTYPE_Q8_0, DTYPE_Q4_1, DTYPE_F8_E4M3, DTYPE_BF16};
    const struct convert_rule rules[] = {{"*time_embed.*.weight", DTYPE_F16}};
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        struct convert_types types = {true, dtypes[i], rules, 1};
        struct convert_report report = {.types = &types}, plain = {0};
        tessera_error error = {0};
        char small[512], wide[512], again[512];
        const char *ending = dtypes[i] == DTYPE_F8_E4M3 ? "safetensors" : "gguf";
        snprintf(small, sizeof small, "%s/small%zu.%s", folder, i, ending);
        snprintf(again, sizeof again, "%s/again%zu.%s", folder, i, ending);
        snprintf(wide, sizeof wide, "%s/wide%zu.safetensors", folder, i);
        CHECK(convert_to_file(CASES "pipeline_sd15/model", small, &report, &error) == TESSERA_OK, "%s", error.message);
        CHECK(convert_to_file(CASES "pipeline_sd15/model", wide, &plain, &error) == TESSERA_OK, "%s", error.message);
        compare_types(small, wide, &types);
        CHECK(convert_tensors(wide, again, &report, &error) == TESSERA_OK, "%s", error.message);
        CHECK(report.tensors == compare_files(again, small), "the file's own tensors, in the same types");
    }
}

static void check_type_rules(const char *folder) {
    struct convert_rule rules[] = {{"a.*", DTYPE_F32}, {"*.w", DTYPE_Q8_0}};
    struct convert_types types = {true, DTYPE_Q4_0, rules, 2};
    struct tensor matrix = tensor_of(NULL, DTYPE_BF16, SHAPE(2, 64)), vector = tensor_of(NULL, DTYPE_BF16, SHAPE(64)),
                  odd = tensor_of(NULL, DTYPE_BF16, SHAPE(64, 2)), ids = tensor_of(NULL, DTYPE_I64, SHAPE(2, 64));
    const struct {
        const char *name;
        const struct tensor *t;
        enum dtype want;
    } cases[] = {{"a.w", &matrix, DTYPE_F32},  {"b.w", &matrix, DTYPE_Q8_0}, {"b.v", &matrix, DTYPE_Q4_0}, {"b.v", &vector, DTYPE_BF16},
                 {"b.v", &odd, DTYPE_BF16},    {"b.w", &vector, DTYPE_Q8_0}, {"b.w", &ids, DTYPE_I64},     {"x.pos_embed", &matrix, DTYPE_BF16},
                 {"enc.blk.0.attn_rel_b.weight", &matrix, DTYPE_BF16},
                 {"block.0.relative_attention_bias.weight", &matrix, DTYPE_BF16},
                 {"text_model.embeddings.position_embedding.weight", &matrix, DTYPE_BF16},
                 {"positional_embedding", &matrix, DTYPE_BF16},
                 {"transformer_blocks.0.scale_shift_table", &matrix, DTYPE_BF16},
                 {"text_embedding_padding", &matrix, DTYPE_BF16},
                 {"embeddings.token_type_embeddings.weight", &matrix, DTYPE_BF16}};
    tessera_error error = {0};
    enum dtype got;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK(convert_type_of(&types, cases[i].name, cases[i].t, &got, &error) == TESSERA_OK && got == cases[i].want, "case %zu: %s", i,
              dtype_name(got));
    CHECK(convert_type_of(&types, "b.w", &odd, &got, &error) == TESSERA_ERROR_ARGUMENT && strstr(error.message, "[64, 2]") != NULL, "%s",
          error.message);
    /* numbers that the type cannot hold: a message, and no file */
    float numbers[64] = {1, 500};
    matrix = tensor_of(numbers, DTYPE_F32, SHAPE(1, 64));
    const struct safetensors_entry entry = {"m", matrix};
    const struct convert_types eighths = {true, DTYPE_F8_E4M3, NULL, 0};
    const struct convert_report report = {.types = &eighths};
    char path[512];
    join(path, folder, "narrow.safetensors");
    CHECK(convert_entries(path, NULL, &entry, 1, &report, &error) == TESSERA_ERROR_FORMAT && strstr(error.message, "\"m\"") != NULL &&
              strstr(error.message, "500") != NULL && !file_exists(path),
          "%s", error.message);
    join(path, folder, "bytes.gguf");
    const struct safetensors_entry eighth = {"e", tensor_of(numbers, DTYPE_F8_E4M3, SHAPE(1, 64))};
    CHECK(safetensors_write(path, &eighth, 1, &error) == TESSERA_ERROR_UNSUPPORTED && strstr(error.message, "GGUF") != NULL, "%s",
          error.message);
}

/* A tensor of more numbers than are converted at once, and one with a number beyond every type:
 * that stays what it is. */
static void check_pieces(const char *folder) {
    enum { ROWS = 5000, COLUMNS = 128, COUNT = ROWS * COLUMNS };
    float *numbers = malloc(COUNT * sizeof *numbers), *want = malloc(COUNT * sizeof *want);
    const struct safetensors_entry entry = {"m", tensor_of(numbers, DTYPE_F32, SHAPE(ROWS, COLUMNS))};
    const struct convert_types halves = {true, DTYPE_F16, NULL, 0};
    const struct convert_report report = {.types = &halves};
    struct safetensors *file = NULL;
    tessera_error error = {0};
    char path[512];
    for (int i = 0; i < COUNT; i++) want[i] = numbers[i] = (float)(i % 2039) / 2.0f + (float)(i / 262144);
    want[COUNT - 3] = numbers[COUNT - 3] = INFINITY;
    join(path, folder, "pieces.safetensors");
    CHECK(convert_entries(path, NULL, &entry, 1, &report, &error) == TESSERA_OK, "%s", error.message);
    CHECK(safetensors_open(path, &file, &error) == TESSERA_OK, "%s", error.message);
    struct tensor t = file != NULL ? safetensors_tensor(file, "m") : (struct tensor){0};
    CHECK(t.data != NULL && t.dtype == DTYPE_F16, "%s", error.message);
    if (t.data != NULL) dtype_convert(numbers, DTYPE_F32, t.data, DTYPE_F16, COUNT);
    CHECK(t.data != NULL && memcmp(numbers, want, COUNT * sizeof *want) == 0, "each number in its place");
    if (file != NULL) safetensors_close(file);
    free(numbers);
    free(want);
}

int main(void) {
    char folder[] = "/tmp/test_convert_XXXXXX";
    CHECK(mkdtemp(folder) != NULL, "no temporary folder");
    check_round_trip(folder, "sd15", CASES "pipeline_sd15/model", (const char *const[]){"unet", "vae", "text_encoder", NULL}, 3);
    check_round_trip(folder, "sdxl", CASES "pipeline_sdxl/model",
                     (const char *const[]){"unet", "vae", "text_encoder", "text_encoder_2", NULL}, 1);
    check_round_trip(folder, "sd3", CASES "pipeline_sd3/model",
                     (const char *const[]){"transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3", NULL}, 0);
    check_flux(folder);
    check_failures(folder);
    check_planted(folder);
    check_types(folder);
    check_type_rules(folder);
    check_pieces(folder);
    nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return CHECK_REPORT();
}
