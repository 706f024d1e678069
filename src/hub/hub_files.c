/* The files of a pipeline; see hub_files.h.
 *
 * The choice is diffusers' (DiffusionPipeline.download) for safetensors without variant: a component's folder that holds weights in
 * any format gives its config.json, NAME.safetensors or its shards NAME-00001-of-00002.safetensors, and their index; a folder without
 * weights (tokenizer, scheduler) gives all it has. Beyond diffusers: Tessera's own generation_defaults.json. Short of it: weights that
 * lie in the repository's root, and code. The safety checker and the image encoder, which the engine does not run, may lack weights. */
#include "hub/hub_files.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "hub/hub_settings.h"

#define MAX_FILES 100000

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* ---- the hub's list ---- */

static const char *string_of(const cJSON *object, const char *key) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
    return text != NULL ? text : "";
}

static int64_t size_of(const cJSON *object) {
    const cJSON *size = cJSON_GetObjectItemCaseSensitive(object, "size");
    return cJSON_IsNumber(size) && size->valuedouble >= 0 && size->valuedouble < 0x1p53 ? (int64_t)size->valuedouble : -1;
}

/* {"rfilename": ..., "size": ..., "blobId": git's SHA-1, "lfs": {"sha256": ..., "size": ...}} */
static tessera_status read_file_entry(const char *name, const cJSON *entry, struct hub_file *file, tessera_error *error) {
    const char *path = string_of(entry, "rfilename");
    const cJSON *lfs = cJSON_GetObjectItemCaseSensitive(entry, "lfs");
    bool large = cJSON_IsObject(lfs);
    const char *digest = large ? string_of(lfs, "sha256") : string_of(entry, "blobId");
    if (!hub_cache_safe_path(path))
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: siblings: a file name that is empty or leaves the folder: '%.200s'", name, path);
    file->size = size_of(large ? lfs : entry);
    if (hub_checksum_is(digest)) strcpy(file->digest, digest);
    file->path = strdup(path);
    return file->path != NULL ? TESSERA_OK : error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for the list of files", name);
}

tessera_status hub_listing_parse(const char *name, const char *text, size_t length, struct hub_listing *listing, tessera_error *error) {
    struct json *json = NULL;
    *listing = (struct hub_listing){0};
    TRY(json_parse(name, text, length, &json, error));
    tessera_status status = TESSERA_OK;
    const cJSON *entries = cJSON_GetObjectItemCaseSensitive(json_root(json), "siblings"), *entry;
    const char *commit = string_of(json_root(json), "sha");
    int count = cJSON_GetArraySize(entries);
    if (!hub_is_commit(commit) || !cJSON_IsArray(entries) || count > MAX_FILES) {
        status = error_set(error, TESSERA_ERROR_FORMAT,
                           "%s: the answer has no commit (sha) or no list of files (siblings): is HF_ENDPOINT a "
                           "Hugging Face hub?",
                           name);
    } else {
        strcpy(listing->commit, commit);
        listing->files = calloc((size_t)count + 1, sizeof *listing->files);
        if (listing->files == NULL) status = error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for the list of files", name);
    }
    if (status == TESSERA_OK) cJSON_ArrayForEach(entry, entries) {
            status = read_file_entry(name, entry, &listing->files[listing->count], error);
            if (status != TESSERA_OK) break;
            listing->count++;
        }
    json_free(json);
    return status;
}

void hub_listing_free(struct hub_listing *listing) {
    for (int i = 0; i < listing->count; i++) free(listing->files[i].path);
    free(listing->files);
    *listing = (struct hub_listing){0};
}

struct hub_file *hub_listing_find(struct hub_listing *listing, const char *path) {
    for (int i = 0; i < listing->count; i++)
        if (strcmp(listing->files[i].path, path) == 0) return &listing->files[i];
    return NULL;
}

/* ---- names of weight files ---- */

static const char *const weight_formats[] = {".safetensors", ".bin", ".msgpack", ".onnx", ".pb", ".ckpt", ".h5", ".flashpack"};

static bool is_weight(const char *name) {
    for (size_t i = 0; i < sizeof weight_formats / sizeof *weight_formats; i++)
        if (ends_with(name, weight_formats[i])) return true;
    return false;
}

/* What follows the name that diffusers or transformers give weights: ".safetensors", "-00001-of-00002.safetensors", ".fp16..."; NULL
 * if `name` does not begin so. */
static const char *weight_suffix(const char *name) {
    static const char *const stems[] = {"diffusion_pytorch_model", "pytorch_model", "model"};
    for (size_t i = 0; i < sizeof stems / sizeof *stems; i++)
        if (strncmp(name, stems[i], strlen(stems[i])) == 0) return name + strlen(stems[i]);
    return NULL;
}

/* "-00001-of-00002" at the beginning of `text` is stepped over. */
static const char *skip_shard(const char *text) {
    static const char pattern[] = "-#####-of-#####";
    for (size_t i = 0; pattern[i] != 0; i++) {
        bool digit = text[i] >= '0' && text[i] <= '9';
        if (pattern[i] == '#' ? !digit : text[i] != pattern[i]) return text;
    }
    return text + sizeof pattern - 1;
}

static bool is_plain_weight(const char *name) {
    const char *suffix = weight_suffix(name);
    return suffix != NULL && strcmp(skip_shard(suffix), ".safetensors") == 0;
}

static bool is_plain_index(const char *name) {
    const char *suffix = weight_suffix(name);
    return suffix != NULL && strcmp(suffix, ".safetensors.index.json") == 0;
}

/* ---- the choice ---- */

/* The rest of `path` behind "COMPONENT/", or NULL. */
static const char *inside(const char *path, const char *component) {
    size_t n = strlen(component);
    return strncmp(path, component, n) == 0 && path[n] == '/' ? path + n + 1 : NULL;
}

static bool may_lack_weights(const char *component) {
    return strcmp(component, "safety_checker") == 0 || strcmp(component, "image_encoder") == 0;
}

static tessera_status no_weights(const char *component, const char *other, tessera_error *error) {
    return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                     "%s has no weights that can be read, only %s: needed are .safetensors files without a variant such as .fp16 in their "
                     "name; choose another revision or repository",
                     component, other);
}

static tessera_status select_component(struct hub_listing *listing, const char *component, tessera_error *error) {
    const char *other = NULL; /* a weight file that is of no use */
    bool model = false, readable = false;
    for (int i = 0; i < listing->count; i++) {
        const char *name = inside(listing->files[i].path, component);
        if (name == NULL || strchr(name, '/') != NULL || !is_weight(name)) continue;
        model = true;
        readable = readable || is_plain_weight(name);
        if (!is_plain_weight(name)) other = listing->files[i].path;
    }
    if (model && !readable && !may_lack_weights(component)) return no_weights(component, other, error);
    for (int i = 0; i < listing->count; i++) {
        const char *name = inside(listing->files[i].path, component);
        if (name == NULL) continue;
        bool of_model = strcmp(name, "config.json") == 0 || is_plain_weight(name) || is_plain_index(name);
        if (model ? of_model : !is_weight(name)) listing->files[i].wanted = true;
    }
    return TESSERA_OK;
}

/* A component is a pair [library, class]; [null, null] is one that the pipeline goes without. */
static bool is_component(const cJSON *item) {
    return cJSON_IsArray(item) && strcmp(item->string, "_class_name") != 0 && cJSON_IsString(cJSON_GetArrayItem(item, 0)) &&
           cJSON_IsString(cJSON_GetArrayItem(item, 1));
}

tessera_status hub_listing_select(struct hub_listing *listing, const struct json *index, tessera_error *error) {
    static const char *const root_files[] = {
        "model_index.json",         "scheduler_config.json", "config.json",         "tokenizer.json",         "tokenizer_config.json",
        "preprocessor_config.json", "processor_config.json", "chat_template.jinja", "generation_config.json", "generation_defaults.json"};
    for (size_t i = 0; i < sizeof root_files / sizeof *root_files; i++) {
        struct hub_file *file = hub_listing_find(listing, root_files[i]);
        if (file != NULL) file->wanted = true;
    }
    const cJSON *item;
    cJSON_ArrayForEach(item, json_root(index)) {
        if (is_component(item)) TRY(select_component(listing, item->string, error));
    }
    return TESSERA_OK;
}

/* ---- what a snapshot has ---- */

static bool has_file(const char *folder, const char *name) {
    char *path = file_join(folder, name);
    bool there = path != NULL && file_exists(path);
    free(path);
    return there;
}

/* Whether every shard that an index in this folder names is there; *missing (at most `capacity` bytes) is the first that is not. */
static bool has_shards(const char *folder, const char *index_name, char *missing, size_t capacity) {
    char *path = file_join(folder, index_name);
    struct json *index = NULL;
    bool complete = path != NULL && json_open(path, 0, &index, NULL) == TESSERA_OK;
    snprintf(missing, capacity, "%s", index_name);
    const cJSON *shards = complete ? json_find(index, "weight_map") : NULL, *shard;
    cJSON_ArrayForEach(shard, shards) {
        const char *name = cJSON_GetStringValue(shard);
        if (!complete || (name != NULL && has_file(folder, name))) continue;
        snprintf(missing, capacity, "%s", name != NULL ? name : index_name);
        complete = false;
    }
    json_free(index);
    free(path);
    return complete;
}

/* Whether a component of this class has weights at all. */
static bool class_has_weights(const char *class_name) {
    return strstr(class_name, "Tokenizer") == NULL && strstr(class_name, "Scheduler") == NULL && strstr(class_name, "Processor") == NULL &&
           strstr(class_name, "FeatureExtractor") == NULL;
}

/* Looks through one component's folder. */
static tessera_status check_component(const char *snapshot, const cJSON *item, tessera_error *error) {
    const char *component = item->string, *class_name = cJSON_GetArrayItem(item, 1)->valuestring;
    char missing[256] = "its files";
    char *folder = file_join(snapshot, component);
    DIR *stream = folder != NULL && hub_cache_safe_path(component) ? opendir(folder) : NULL;
    bool whole = true, weights = false, any = false;
    for (struct dirent *entry; whole && stream != NULL && (entry = readdir(stream)) != NULL;) {
        if (entry->d_name[0] == '.' || !has_file(folder, entry->d_name)) continue;
        any = true;
        if (is_plain_index(entry->d_name)) whole = has_shards(folder, entry->d_name, missing, sizeof missing);
        weights = weights || is_plain_weight(entry->d_name);
    }
    if (stream != NULL) closedir(stream);
    free(folder);
    bool needed = class_has_weights(class_name) && !may_lack_weights(component);
    if (any && needed && !weights && whole) snprintf(missing, sizeof missing, "its weights");
    if (any && whole && (weights || !needed)) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_IO, "the snapshot %s lacks %s of %s", snapshot, missing, component);
}

tessera_status hub_snapshot_check(const char *folder, tessera_error *error) {
    struct json *index = NULL;
    char *path = file_join(folder, "model_index.json");
    tessera_status status = TESSERA_OK;
    if (path == NULL) status = error_set(error, TESSERA_ERROR_MEMORY, "no memory for a path in the cache");
    if (path != NULL && !file_exists(path)) status = error_set(error, TESSERA_ERROR_IO, "the snapshot %s lacks model_index.json", folder);
    if (status == TESSERA_OK) status = json_open(path, 0, &index, error);
    const cJSON *root = status == TESSERA_OK ? json_root(index) : NULL, *item;
    cJSON_ArrayForEach(item, root) {
        if (status == TESSERA_OK && is_component(item)) status = check_component(folder, item, error);
    }
    json_free(index);
    free(path);
    return status;
}
