/* Finding data files and the folders of published models; see published.h. */
#include "checkpoint/published.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"

enum { PROGRAM_PATH_CAPACITY = 4096 };

/* "<folder>/<name>" if that exists; *path stays NULL if not, or if memory is out. */
static void try_folder(const char *folder, const char *name, char **path) {
    if (*path != NULL) return;
    *path = file_join(folder, name);
    if (*path == NULL || file_exists(*path)) return;
    free(*path);
    *path = NULL;
}

/* As try_folder, in "../share/tessera" beside this program. */
static void try_beside_program(const char *name, char **path) {
    static const char beside[] = "/../share/tessera";
    char program[PROGRAM_PATH_CAPACITY + sizeof beside];
    ssize_t length = readlink("/proc/self/exe", program, PROGRAM_PATH_CAPACITY);
    if (length <= 0 || length >= PROGRAM_PATH_CAPACITY) return;
    program[length] = 0;
    char *slash = strrchr(program, '/');
    if (slash == NULL) return;
    memcpy(slash, beside, sizeof beside);
    try_folder(program, name, path);
}

tessera_status data_find(const char *name, char **path, tessera_error *error) {
    *path = NULL;
    const char *chosen = getenv("TESSERA_DATA_DIR");
    if (chosen != NULL && chosen[0] != 0) {
        try_folder(chosen, name, path);
        if (*path != NULL) return TESSERA_OK;
        return error_set(error, TESSERA_ERROR_IO, "%s/%s: not there; TESSERA_DATA_DIR must name the folder that holds Tessera's data files",
                         chosen, name);
    }
    try_beside_program(name, path);
    try_folder(TESSERA_SOURCE_DIR, name, path);
    try_folder(TESSERA_INSTALL_DATA_DIR, name, path);
    if (*path != NULL) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_IO, "%s: not found beside the program, in %s or in %s; set TESSERA_DATA_DIR to where it is", name,
                     TESSERA_SOURCE_DIR, TESSERA_INSTALL_DATA_DIR);
}

tessera_status embedded_model_find(const char *name, char **folder, tessera_error *error) {
    char *data = file_join("models", name);
    *folder = NULL;
    if (data == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    tessera_status status = data_find(data, folder, error);
    free(data);
    return status;
}

const char *const *published_names(void) {
    static const char *const names[] = {
        "sd15",         "sd21",       "sdxl",         "sd3-medium",   "sd35-medium", "sd35-large",      "flux-dev",
        "flux-schnell", "flux-depth", "pixart-alpha", "pixart-sigma", "hunyuandit",  "hunyuandit-v1.1", NULL};
    return names;
}

tessera_status published_folder(const char *class_name, char **folder, tessera_error *error) {
    *folder = NULL;
    char known[256] = "", name[128];
    size_t used = 0;
    for (const char *const *each = published_names(); *each != NULL; each++) {
        if (strcmp(*each, class_name) == 0) {
            snprintf(name, sizeof name, "assets/published/%s", class_name);
            return data_find(name, folder, error);
        }
        if (used < sizeof known) used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", used > 0 ? ", " : "", *each);
    }
    return error_set(error, TESSERA_ERROR_ARGUMENT, "\"%.64s\" is no published model that is known here; known are %s", class_name, known);
}

tessera_status published_vocabulary(const char *name, const char *json_path, char **folder, tessera_error *error) {
    *folder = NULL;
    if (!file_name_is_plain(name))
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: \"%.64s\" is not the name of a vocabulary: it must not be a path", json_path, name);
    char *file = file_join("assets/tokenizers", name);
    if (file == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", json_path);
    tessera_status status = data_find(file, folder, error);
    free(file);
    return status;
}

/* What tokenizers.json of the class says of the component: the document, and the name in it. */
static tessera_status read_tokenizer_name(const char *folder, const char *component, struct json **out, const char **name,
                                          tessera_error *error) {
    char *path = file_join(folder, "tokenizers.json");
    tessera_status status =
        path != NULL ? json_open(path, 0, out, error) : error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", folder);
    free(path);
    if (status == TESSERA_OK) status = json_string(*out, component, NULL, name, error);
    if (status == TESSERA_OK && *name == NULL)
        status = error_set(error, TESSERA_ERROR_ARGUMENT, "%s: the model has no \"%s\"", json_path(*out), component);
    return status;
}

tessera_status published_tokenizer(const char *class_name, const char *component, char **folder, tessera_error *error) {
    *folder = NULL;
    char *published;
    struct json *json = NULL;
    const char *name = NULL;
    TRY(published_folder(class_name, &published, error));
    tessera_status status = read_tokenizer_name(published, component, &json, &name, error);
    if (status == TESSERA_OK && strcmp(name, PUBLISHED_MADE_UP) == 0) {
        status = error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: the vocabulary of \"%s\" does not come with Tessera; use the model's own",
                           json_path(json), component);
    }
    if (status == TESSERA_OK) status = published_vocabulary(name, json_path(json), folder, error);
    json_free(json);
    free(published);
    return status;
}
