/* A single file as a model folder: configs, tokenizers and scheduler from the folder that serves
 * the file (single_file.h), each component's weights from its view. All of it is written to a new
 * folder OUTPUT.PID.N.tmp, which then gets its name. */
#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/convert.h"
#include "checkpoint/single_file.h"

#define MAX_COPIED_FILE (64u << 20) /* the largest tokenizer.json are half of that */
enum { MOST_ATTEMPTS = 100 };       /* at a name for the temporary folder */

static tessera_status no_memory(const char *path, tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory to write it", path);
}

/* A folder, or a link to one, that is there already is somebody else's: nothing is written into it. */
static tessera_status make_folder(const char *path, tessera_error *error) {
    return mkdir(path, 0777) == 0 ? TESSERA_OK : error_set_errno(error, "%s: cannot create", path);
}

/* Makes a new folder beside `path`; *out is the caller's to free. */
static tessera_status make_folder_beside(const char *path, char **out, tessera_error *error) {
    for (int attempt = 0; attempt < MOST_ATTEMPTS; attempt++) {
        if (asprintf(out, "%s.%ld.%d.tmp", path, (long)getpid(), attempt) < 0) return no_memory(path, error);
        if (mkdir(*out, 0777) == 0) return TESSERA_OK;
        int number = errno;
        free(*out);
        errno = number;
        if (number != EEXIST) break;
    }
    return error_set_errno(error, "%s: cannot create a folder beside it", path);
}

static int remove_one(const char *path, const struct stat *about, int kind, struct FTW *place) {
    return remove(path);
}

static void remove_folder(const char *path) {
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static tessera_status copy_file(const char *from, const char *to, tessera_error *error) {
    char *data;
    size_t length;
    struct file_output output;
    TRY(file_read(from, MAX_COPIED_FILE, &data, &length, error));
    tessera_status status = file_output_open(to, &output, error);
    if (status == TESSERA_OK) {
        fwrite(data, 1, length, output.stream); /* an error is found by commit */
        status = file_output_commit(&output, error);
    }
    free(data);
    return status;
}

/* Is it one of the small files that a component consists of beside its weights? */
static bool is_copied(const char *name) {
    static const char *const endings[] = {".json", ".txt", ".model"};
    size_t length = strlen(name);
    if (length > 11 && strcmp(name + length - 11, ".index.json") == 0) return false;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t ending = strlen(endings[i]);
        if (length > ending && strcmp(name + length - ending, endings[i]) == 0) return true;
    }
    return false;
}

static tessera_status copy_small_files(const char *from, const char *to, tessera_error *error) {
    DIR *folder = opendir(from);
    if (folder == NULL) return error_set_errno(error, "%s: cannot list", from);
    tessera_status status = TESSERA_OK;
    for (struct dirent *item; status == TESSERA_OK && (item = readdir(folder)) != NULL;) {
        if (!is_copied(item->d_name)) continue;
        char *source = file_join(from, item->d_name), *target = file_join(to, item->d_name);
        status = source == NULL || target == NULL ? no_memory(to, error) : copy_file(source, target, error);
        free(source);
        free(target);
    }
    closedir(folder);
    return status;
}

static tessera_status write_weights(const struct weights *weights, const char *path, const struct convert_report *report,
                                    tessera_error *error) {
    int count = weights_count(weights);
    struct safetensors_entry *entries = calloc((size_t)count + 1, sizeof *entries);
    if (entries == NULL) return no_memory(path, error);
    for (int i = 0; i < count; i++) entries[i] = *weights_at(weights, i);
    tessera_status status = convert_entries(path, weights, entries, count, report, error);
    free(entries);
    return status;
}

/* Writes FOLDER/NAME anew and frees the document. */
static tessera_status replace_json(struct json *config, const char *folder, const char *name, tessera_error *error) {
    struct file_output output;
    char *path = file_join(folder, name), *text = cJSON_Print(json_root(config));
    tessera_status status = path == NULL || text == NULL ? no_memory(folder, error) : file_output_open(path, &output, error);
    if (status == TESSERA_OK) {
        fprintf(output.stream, "%s\n", text);
        status = file_output_commit(&output, error);
    }
    cJSON_free(text);
    free(path);
    json_free(config);
    return status;
}

/* Replaces the copied config.json where the file shows other counts. */
static tessera_status write_config(const struct single_file *file, const char *name, const char *folder, tessera_error *error) {
    struct json *config;
    TRY(single_file_config(file, name, &config, error));
    return config != NULL ? replace_json(config, folder, "config.json", error) : TESSERA_OK;
}

/* The same for the scheduler, where marks in the file change it. */
static tessera_status write_scheduler(const struct single_file *file, const char *folder, tessera_error *error) {
    struct json *config;
    TRY(single_file_scheduler(file, &config, error));
    return config != NULL ? replace_json(config, folder, "scheduler_config.json", error) : TESSERA_OK;
}

/* The weights of one component into its new folder. */
static tessera_status convert_component(const struct single_file *file, const char *name, bool transformers, const char *folder,
                                        struct convert_report *report, tessera_error *error) {
    struct weights *weights;
    TRY(write_config(file, name, folder, error));
    TRY(single_file_weights(file, name, &weights, error));
    char *path = file_join(folder, transformers ? "model.safetensors" : "diffusion_pytorch_model.safetensors");
    tessera_status status = path == NULL ? no_memory(folder, error) : write_weights(weights, path, report, error);
    report->tensors += weights_count(weights);
    free(path);
    weights_close(weights);
    return status;
}

static bool has_weights(const char *name) {
    return strstr(name, "tokenizer") == NULL && strcmp(name, "scheduler") != 0 && strcmp(name, "feature_extractor") != 0 &&
           strcmp(name, "safety_checker") != 0 && strcmp(name, "image_encoder") != 0;
}

/* One entry of model_index.json: "vae": ["diffusers", "AutoencoderKL"]. */
static tessera_status convert_named(const struct single_file *file, const cJSON *item, const char *output, struct convert_report *report,
                                    tessera_error *error) {
    const cJSON *library = cJSON_GetArrayItem(item, 0);
    const char *name = item->string;
    if (!cJSON_IsString(library)) return TESSERA_OK; /* a setting, or a component that the model does without */
    if (!file_name_is_plain(name))
        return error_set(error, TESSERA_ERROR_FORMAT, "%s/model_index.json: \"%s\" is not the name of a folder", single_file_folder(file),
                         name);
    bool held = single_file_has(file, name);
    if (!held && has_weights(name)) convert_report_missing(report, name);
    char *source = NULL, *target = file_join(output, name);
    tessera_status status = target == NULL ? no_memory(output, error) : single_file_folder_of(file, name, &source, error);
    if (status == TESSERA_ERROR_IO && !held) { /* the configs do without it as well (safety_checker) */
        free(target);
        return TESSERA_OK;
    }
    if (status == TESSERA_OK) status = make_folder(target, error);
    if (status == TESSERA_OK) status = copy_small_files(source, target, error);
    if (status == TESSERA_OK && strcmp(name, "scheduler") == 0) status = write_scheduler(file, target, error);
    if (status == TESSERA_OK && held)
        status = convert_component(file, name, strcmp(library->valuestring, "transformers") == 0, target, report, error);
    free(source);
    free(target);
    return status;
}

/* An SD3 file without T5 becomes a model that does without: its model_index.json says so as
 * diffusers does, with [null, null]. */
static tessera_status leave_out_t5(const struct single_file *file, struct json *index, struct convert_report *report,
                                   tessera_error *error) {
    static const char *const names[] = {"text_encoder_3", "tokenizer_3"};
    cJSON *root = (cJSON *)json_root(index);
    if (cJSON_GetObjectItemCaseSensitive(root, names[0]) == NULL || single_file_has(file, names[0])) return TESSERA_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        cJSON *none = cJSON_CreateArray();
        bool added = none != NULL && cJSON_AddItemToArray(none, cJSON_CreateNull()) && cJSON_AddItemToArray(none, cJSON_CreateNull());
        if (!added || !cJSON_ReplaceItemInObjectCaseSensitive(root, names[i], none))
            return error_set(error, TESSERA_ERROR_MEMORY, "no memory for model_index.json");
    }
    convert_report_missing(report, names[0]);
    return TESSERA_OK;
}

static tessera_status fill_folder(const struct single_file *file, const char *output, struct convert_report *report, tessera_error *error) {
    struct json *index = NULL;
    char *from = file_join(single_file_folder(file), "model_index.json");
    tessera_status status = from == NULL ? no_memory(output, error) : json_open(from, 0, &index, error);
    if (status == TESSERA_OK) status = leave_out_t5(file, index, report, error);
    const cJSON *item = index != NULL ? json_root(index)->child : NULL;
    for (; item != NULL && status == TESSERA_OK; item = item->next)
        if (cJSON_IsArray(item)) status = convert_named(file, item, output, report, error);
    free(from);
    if (status == TESSERA_OK) return replace_json(index, output, "model_index.json", error);
    json_free(index);
    return status;
}

/* Fills in a new folder beside `output` and gives it that name. */
static tessera_status write_folder(const struct single_file *file, const char *output, struct convert_report *report,
                                   tessera_error *error) {
    char *temporary;
    TRY(make_folder_beside(output, &temporary, error));
    tessera_status status = fill_folder(file, temporary, report, error);
    if (status == TESSERA_OK && rename(temporary, output) != 0) status = error_set_errno(error, "%s: cannot name it so", output);
    if (status != TESSERA_OK) remove_folder(temporary);
    free(temporary);
    return status;
}

tessera_status convert_to_folder(const char *input, const char *config, const char *output, struct convert_report *report,
                                 tessera_error *error) {
    *report = (struct convert_report){.stop = report->stop, .types = report->types};
    struct single_file *file;
    char *target = strdup(output); /* without a '/' at the end: the temporary folder lies beside it */
    if (target == NULL) return no_memory(output, error);
    for (size_t n = strlen(target); n > 1 && target[n - 1] == '/'; n--) target[n - 1] = 0;
    tessera_status status = TESSERA_OK;
    if (file_exists(target)) status = error_set(error, TESSERA_ERROR_ARGUMENT, "%s: exists; name a new folder", target);
    if (status == TESSERA_OK && (status = single_file_open(input, config, &file, error)) == TESSERA_OK) {
        status = write_folder(file, target, report, error);
        single_file_close(file);
    }
    free(target);
    return status;
}
