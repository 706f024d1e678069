/* The files of a pipeline; see hub_files.h.
 *
 * The choice is diffusers' (DiffusionPipeline.download): a component's folder that holds weights
 * gives its config.json, the weights of one kind, whole (NAME.safetensors) or in shards
 * (NAME-00001-of-00002.safetensors), and their index; a folder without weights (tokenizer,
 * scheduler) gives all it has. The kind is the requested variant, else safetensors without variant,
 * then with one (fp16 first), then PyTorch's files (.bin) in the same order. Beyond diffusers:
 * Tessera's own generation_defaults.json. Short of it: weights that lie in the repository's root,
 * and code. The safety checker and the image encoder, which the engine does not run, may lack
 * weights. */
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

/* What follows the name that diffusers or transformers give weights: ".safetensors",
 * "-00001-of-00002.safetensors", ".fp16..."; NULL if `name` does not begin so. */
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

enum { VARIANT_CAPACITY = 32 };

/* What the name of a weight file says. */
struct weight_name {
    enum { WEIGHT_SAFETENSORS, WEIGHT_BIN, WEIGHT_FORMATS } format;
    bool is_index;
    char variant[VARIANT_CAPACITY]; /* "": none */
};

/* Takes one word between dots; false if the name cannot be that of weights. */
static bool take_word(const char *word, size_t length, struct weight_name *out, bool *has_format, bool *has_json) {
    if (length == 11 && memcmp(word, "safetensors", length) == 0 && !*has_format)
        out->format = WEIGHT_SAFETENSORS, *has_format = true;
    else if (length == 3 && memcmp(word, "bin", length) == 0 && !*has_format)
        out->format = WEIGHT_BIN, *has_format = true;
    else if (length == 5 && memcmp(word, "index", length) == 0 && *has_format && !out->is_index)
        out->is_index = true;
    else if (length == 4 && memcmp(word, "json", length) == 0 && out->is_index && !*has_json)
        *has_json = true;
    else if (length > 0 && length < VARIANT_CAPACITY && out->variant[0] == 0)
        memcpy(out->variant, word, length);
    else
        return false;
    return true;
}

/* STEM[.VARIANT].safetensors, with -00001-of-00002 behind either;
 * STEM.safetensors.index[.VARIANT].json; the same with .bin. */
static bool read_weight_name(const char *name, struct weight_name *out) {
    bool has_format = false, has_json = false;
    const char *text = weight_suffix(name);
    *out = (struct weight_name){0};
    if (text == NULL) return false;
    for (text = skip_shard(text); *text == '.'; text = skip_shard(text)) {
        size_t length = strcspn(text + 1, ".-");
        if (!take_word(text + 1, length, out, &has_format, &has_json)) return false;
        text += 1 + length;
    }
    return *text == 0 && has_format && out->is_index == has_json;
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
    return error_set(
        error, TESSERA_ERROR_UNSUPPORTED,
        "%s has no weights that can be read, only %s: needed are .safetensors or .bin files; choose another revision or repository",
        component, other);
}

/* Is there a weight file of this format and variant? Of `variant` NULL: of any, *found the best
 * (fp16, else the first by its letters). */
static bool has_kind(const struct hub_listing *listing, const char *component, int format, const char *variant,
                     char found[VARIANT_CAPACITY]) {
    bool any = false;
    for (int i = 0; i < listing->count; i++) {
        struct weight_name weight;
        const char *name = inside(listing->files[i].path, component);
        if (name == NULL || !read_weight_name(name, &weight) || weight.is_index || (int)weight.format != format) continue;
        if (variant != NULL ? strcmp(weight.variant, variant) != 0 : weight.variant[0] == 0) continue;
        bool better = !any || (strcmp(found, "fp16") != 0 && (strcmp(weight.variant, "fp16") == 0 || strcmp(weight.variant, found) < 0));
        if (better) strcpy(found, weight.variant);
        any = true;
    }
    return any;
}

/* The format and the variant to take; false if the component has none that can be read. */
static bool choose_kind(const struct hub_listing *listing, const char *component, const char *asked, int *format,
                        char variant[VARIANT_CAPACITY]) {
    for (*format = 0; *format < WEIGHT_FORMATS && asked != NULL; ++*format)
        if (has_kind(listing, component, *format, asked, variant)) return true;
    for (*format = 0; *format < WEIGHT_FORMATS; ++*format)
        if (has_kind(listing, component, *format, "", variant) || has_kind(listing, component, *format, NULL, variant)) return true;
    return false;
}

static tessera_status select_component(struct hub_listing *listing, const char *component, const char *asked, tessera_error *error) {
    const char *other = NULL; /* a weight file */
    char variant[VARIANT_CAPACITY] = "";
    int format;
    for (int i = 0; i < listing->count && other == NULL; i++) {
        const char *name = inside(listing->files[i].path, component);
        if (name != NULL && strchr(name, '/') == NULL && is_weight(name)) other = listing->files[i].path;
    }
    bool readable = choose_kind(listing, component, asked, &format, variant);
    if (may_lack_weights(component) && format == WEIGHT_BIN) readable = false; /* what is not run is not worth the transfer */
    if (other != NULL && !readable && !may_lack_weights(component)) return no_weights(component, other, error);
    for (int i = 0; i < listing->count; i++) {
        struct weight_name weight;
        const char *name = inside(listing->files[i].path, component);
        if (name == NULL) continue;
        bool of_kind = readable && read_weight_name(name, &weight) && (int)weight.format == format && strcmp(weight.variant, variant) == 0;
        if (other != NULL ? strcmp(name, "config.json") == 0 || of_kind : !is_weight(name)) listing->files[i].wanted = true;
    }
    return TESSERA_OK;
}

/* A component is a pair [library, class]; [null, null] is one that the pipeline goes without. */
static bool is_component(const cJSON *item) {
    return cJSON_IsArray(item) && strcmp(item->string, "_class_name") != 0 && cJSON_IsString(cJSON_GetArrayItem(item, 0)) &&
           cJSON_IsString(cJSON_GetArrayItem(item, 1));
}

tessera_status hub_listing_select(struct hub_listing *listing, const struct json *index, const char *variant, tessera_error *error) {
    static const char *const root_files[] = {
        "model_index.json",         "scheduler_config.json", "config.json",         "tokenizer.json",         "tokenizer_config.json",
        "preprocessor_config.json", "processor_config.json", "chat_template.jinja", "generation_config.json", "generation_defaults.json"};
    for (size_t i = 0; i < sizeof root_files / sizeof *root_files; i++) {
        struct hub_file *file = hub_listing_find(listing, root_files[i]);
        if (file != NULL) file->wanted = true;
    }
    const cJSON *item;
    cJSON_ArrayForEach(item, json_root(index)) {
        if (is_component(item)) TRY(select_component(listing, item->string, variant, error));
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

/* Whether every shard that an index in this folder names is there; *missing (at most `capacity`
 * bytes) is the first that is not. */
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
        struct weight_name weight;
        any = true;
        if (!read_weight_name(entry->d_name, &weight)) continue;
        if (weight.is_index) whole = has_shards(folder, entry->d_name, missing, sizeof missing);
        weights = weights || !weight.is_index;
    }
    if (stream != NULL) closedir(stream);
    bool needed = class_has_weights(class_name) && !may_lack_weights(component);
    if (file_is_forbidden(folder)) {
        tessera_status status = error_set(error, TESSERA_ERROR_IO, "%s: no permission to open this folder of the cache", folder);
        free(folder);
        return status;
    }
    free(folder);
    if (any && needed && !weights && whole) snprintf(missing, sizeof missing, "its weights");
    if (any && whole && (weights || !needed)) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_IO, "the snapshot %s lacks %s of %s", snapshot, missing, component);
}

tessera_status hub_snapshot_check(const char *folder, tessera_error *error) {
    struct json *index = NULL;
    char *path = file_join(folder, "model_index.json");
    tessera_status status = TESSERA_OK;
    if (path == NULL) status = error_set(error, TESSERA_ERROR_MEMORY, "no memory for a path in the cache");
    if (path != NULL && file_is_forbidden(path))
        status = error_set(error, TESSERA_ERROR_IO, "%s: no permission to open this file of the cache", path);
    else if (path != NULL && !file_exists(path))
        status = error_set(error, TESSERA_ERROR_IO, "the snapshot %s lacks model_index.json", folder);
    if (status == TESSERA_OK) status = json_open(path, 0, &index, error);
    const cJSON *root = status == TESSERA_OK ? json_root(index) : NULL, *item;
    cJSON_ArrayForEach(item, root) {
        if (status == TESSERA_OK && is_component(item)) status = check_component(folder, item, error);
    }
    json_free(index);
    free(path);
    return status;
}
