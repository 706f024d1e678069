/* There and back: a single file becomes a model folder, that folder a single file again, and both hold the same tensors as at first. A
 * failed conversion leaves nothing behind. */
#include "checkpoint/convert.h"

#include <dirent.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "check.h"
#include "checkpoint/required.h"
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

/* A folder, or a link to one, that somebody left under the name of the temporary folder: nothing is written into it or removed from it. */
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
    nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return CHECK_REPORT();
}
