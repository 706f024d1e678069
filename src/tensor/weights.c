/* One component's weights: a safetensors file, or shards and the index that names them.
 *
 *     {"metadata": {"total_size": ...}, "weight_map": {"tensor name": "model-00001-of-00002.safetensors", ...}}
 *
 * Of sharded weights only the tensors that the index lists are shown. A shard lies beside the
 * index: a name with '/' or ".." is refused. */
#include "tensor/weights.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"

struct weights {
    char *folder;
    struct safetensors **shards;
    int shard_count;
    const struct safetensors_entry **entries; /* sorted by name */
    int count;
    struct view_entry *view; /* of a view: the entries, which it owns */
    int view_capacity;
};

struct view_entry {
    struct safetensors_entry entry;
    char *name;
    struct weights_recipe recipe;
};

static int compare_entries(const void *a, const void *b) {
    const struct safetensors_entry *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static int compare_key(const void *key, const void *element) {
    return strcmp(key, (*(const struct safetensors_entry *const *)element)->name);
}

static bool reserve(struct weights *weights, size_t shards, size_t entries) {
    weights->shards = calloc(shards + 1, sizeof *weights->shards);
    weights->entries = calloc(entries + 1, sizeof *weights->entries);
    return weights->shards != NULL && weights->entries != NULL;
}

static tessera_status open_single(struct weights *weights, const char *path, tessera_error *error) {
    struct safetensors *file;
    TRY(safetensors_open(path, &file, error));
    if (!reserve(weights, 1, (size_t)safetensors_count(file))) {
        safetensors_close(file);
        return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for its tensors", path);
    }
    weights->shards[weights->shard_count++] = file;
    for (int i = 0; i < safetensors_count(file); i++) weights->entries[weights->count++] = safetensors_at(file, i);
    return TESSERA_OK;
}

/* The shard `name` of this folder, opened on first use. */
static tessera_status open_shard(struct weights *weights, const char *index, const char *name, struct safetensors **out,
                                 tessera_error *error) {
    if (name[0] == 0 || strchr(name, '/') != NULL || strstr(name, "..") != NULL)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: weight_map: \"%s\" is not the name of a file in this folder", index, name);
    char *path = file_join(weights->folder, name);
    if (path == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory to open shard %s", index, name);
    tessera_status status = TESSERA_OK;
    *out = NULL;
    for (int i = 0; i < weights->shard_count && *out == NULL; i++)
        if (strcmp(safetensors_path(weights->shards[i]), path) == 0) *out = weights->shards[i];
    if (*out == NULL && !file_exists(path)) {
        status = error_set(error, TESSERA_ERROR_IO, "%s: weight_map: shard %s is missing: download it into the same folder", index, path);
    } else if (*out == NULL) {
        status = safetensors_open(path, out, error);
        if (status == TESSERA_OK) weights->shards[weights->shard_count++] = *out;
    }
    free(path);
    return status;
}

static tessera_status open_index(struct weights *weights, const struct json *index, tessera_error *error) {
    const char *path = json_path(index);
    const cJSON *map = json_find(index, "weight_map");
    if (!cJSON_IsObject(map)) return error_set(error, TESSERA_ERROR_FORMAT, "%s: weight_map: missing or not an object", path);
    size_t count = (size_t)cJSON_GetArraySize(map);
    if (!reserve(weights, count, count)) return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for %zu tensors", path, count);
    struct safetensors *shard = NULL;
    for (const cJSON *item = map->child; item != NULL; item = item->next) {
        if (!cJSON_IsString(item))
            return error_set(error, TESSERA_ERROR_FORMAT, "%s: weight_map: the shard of \"%s\" is not a string", path, item->string);
        TRY(open_shard(weights, path, item->valuestring, &shard, error));
        const struct safetensors_entry *entry = safetensors_find(shard, item->string);
        if (entry == NULL)
            return error_set(error, TESSERA_ERROR_FORMAT, "%s: weight_map: tensor \"%s\" is not in %s", path, item->string,
                             safetensors_path(shard));
        weights->entries[weights->count++] = entry;
    }
    return TESSERA_OK;
}

static tessera_status open_sharded(struct weights *weights, const char *path, tessera_error *error) {
    struct json *index;
    TRY(json_open(path, 0, &index, error));
    tessera_status status = open_index(weights, index, error);
    json_free(index);
    return status;
}

/* ---- which files ---- */

/* How weight files are called: STEM[.VARIANT]EXTENSION. */
static const struct {
    const char *stem, *extension;
} names[] = {
    {"diffusion_pytorch_model", ".safetensors"}, {"model", ".safetensors"}, {"diffusion_pytorch_model", ".bin"}, {"pytorch_model", ".bin"}};
enum { NAMES = sizeof names / sizeof *names, SAFETENSORS_NAMES = 2, NAME_CAPACITY = 160, VARIANT_CAPACITY = 32 };

/* A file of the folder that can be opened: weights, or an index. */
struct found {
    char name[NAME_CAPACITY];
    bool is_index;
};

static bool is_there(const char *folder, const char *name) {
    char *path = file_join(folder, name);
    bool there = path != NULL && file_exists(path);
    free(path);
    return there;
}

/* The file or the index of one name, with a variant or without (""). */
static bool find_name(const char *folder, int name, const char *variant, struct found *out) {
    const char *stem = names[name].stem, *extension = names[name].extension, *dot = variant[0] != 0 ? "." : "";
    snprintf(out->name, sizeof out->name, "%s%s%s%s", stem, dot, variant, extension);
    out->is_index = false;
    if (is_there(folder, out->name)) return true;
    out->is_index = true;
    snprintf(out->name, sizeof out->name, "%s%s.index%s%s.json", stem, extension, dot, variant);
    if (is_there(folder, out->name)) return true;
    snprintf(out->name, sizeof out->name, "%s%s%s%s.index.json", stem, dot, variant, extension);
    return variant[0] != 0 && is_there(folder, out->name);
}

static bool find_names(const char *folder, int first, int last, const char *variant, struct found *out) {
    for (int i = first; i < last; i++)
        if (find_name(folder, i, variant, out)) return true;
    return false;
}

/* The variant in a file's name, if it is the name of weights or of an index with one. */
static bool read_variant(const char *file, int name, char variant[VARIANT_CAPACITY]) {
    size_t stem = strlen(names[name].stem), extension = strlen(names[name].extension), length = strlen(file);
    static const char index[] = ".index.", json[] = ".json";
    const char *begin = NULL, *end = NULL;
    if (strncmp(file, names[name].stem, stem) != 0) return false;
    if (strncmp(file + stem, names[name].extension, extension) == 0 && strncmp(file + stem + extension, index, strlen(index)) == 0) {
        begin = file + stem + extension + strlen(index);
        end = file + length - (length > strlen(json) ? strlen(json) : 0);
        if (strcmp(end, json) != 0) return false;
    } else if (file[stem] == '.' && length > stem + 1 + extension && strcmp(file + length - extension, names[name].extension) == 0) {
        begin = file + stem + 1;
        end = file + length - extension;
    }
    if (begin == NULL || end <= begin || end - begin >= VARIANT_CAPACITY || memchr(begin, '-', (size_t)(end - begin)) != NULL) return false;
    memcpy(variant, begin, (size_t)(end - begin));
    variant[end - begin] = 0;
    return true;
}

/* The variant that the folder has of a name: fp16 if there are several, else the first by its
 * letters. */
static bool find_variant(const char *folder, int name, char best[VARIANT_CAPACITY]) {
    DIR *stream = opendir(folder);
    best[0] = 0;
    for (struct dirent *entry; stream != NULL && (entry = readdir(stream)) != NULL;) {
        char variant[VARIANT_CAPACITY];
        if (!read_variant(entry->d_name, name, variant) || strcmp(best, "fp16") == 0) continue;
        if (best[0] == 0 || strcmp(variant, "fp16") == 0 || strcmp(variant, best) < 0) strcpy(best, variant);
    }
    if (stream != NULL) closedir(stream);
    return best[0] != 0;
}

/* Chooses by the order in weights.h. */
static bool find_file(const char *folder, const char *variant, struct found *out) {
    char other[VARIANT_CAPACITY];
    if (variant != NULL && find_names(folder, 0, NAMES, variant, out)) return true;
    for (int first = 0; first < NAMES; first += SAFETENSORS_NAMES) {
        int last = first + SAFETENSORS_NAMES;
        if (find_names(folder, first, last, "", out)) return true;
        for (int i = first; i < last; i++)
            if (find_variant(folder, i, other) && find_name(folder, i, other, out)) return true;
    }
    return false;
}

static tessera_status open_found(struct weights *weights, const struct found *found, tessera_error *error) {
    char *path = file_join(weights->folder, found->name);
    if (path == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory to open weights", weights->folder);
    tessera_status status = found->is_index ? open_sharded(weights, path, error) : open_single(weights, path, error);
    free(path);
    return status;
}

/* Says why there are none. */
static tessera_status no_weights(const char *folder, tessera_error *error) {
    DIR *stream = opendir(folder);
    if (stream == NULL) return error_set_errno(error, "%s: cannot look for weights in this folder", folder);
    closedir(stream);
    if (file_is_forbidden(folder)) return error_set(error, TESSERA_ERROR_IO, "%s: no permission to open the files of this folder", folder);
    return error_set(
        error, TESSERA_ERROR_IO,
        "%s: no weights: neither diffusion_pytorch_model.safetensors nor model.safetensors, nor their .index.json, nor these with "
        "a variant (.fp16) or as .bin, is there",
        folder);
}

static tessera_status sort_entries(struct weights *weights, tessera_error *error) {
    qsort(weights->entries, (size_t)weights->count, sizeof *weights->entries, compare_entries);
    for (int i = 1; i < weights->count; i++)
        if (strcmp(weights->entries[i - 1]->name, weights->entries[i]->name) == 0)
            return error_set(error, TESSERA_ERROR_FORMAT, "%s: tensor \"%s\" occurs twice", weights->folder, weights->entries[i]->name);
    return TESSERA_OK;
}

bool weights_are_in(const char *folder) {
    struct found found;
    return find_file(folder, NULL, &found);
}

bool weights_have_variant(const char *folder, const char *variant) {
    struct found found;
    return find_names(folder, 0, NAMES, variant, &found);
}

tessera_status weights_open(const char *folder, struct weights **out, tessera_error *error) {
    return weights_open_variant(folder, NULL, out, error);
}

tessera_status weights_open_variant(const char *folder, const char *variant, struct weights **out, tessera_error *error) {
    *out = NULL;
    struct found found;
    struct weights *weights = calloc(1, sizeof *weights);
    tessera_status status = TESSERA_OK;
    if (weights == NULL || (weights->folder = strdup(folder)) == NULL)
        status = error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory to open weights", folder);
    else if (!find_file(folder, variant, &found))
        status = no_weights(folder, error);
    else
        status = open_found(weights, &found, error);
    if (status == TESSERA_OK) status = sort_entries(weights, error);
    if (status == TESSERA_OK)
        *out = weights;
    else
        weights_close(weights);
    return status;
}

void weights_close(struct weights *weights) {
    if (weights == NULL) return;
    for (int i = 0; weights->view != NULL && i < weights->count; i++) free(weights->view[i].name);
    for (int i = 0; i < weights->shard_count; i++) safetensors_close(weights->shards[i]);
    free(weights->view);
    free(weights->shards);
    free(weights->entries);
    free(weights->folder);
    free(weights);
}

tessera_status weights_check(const struct weights *weights, tessera_error *error) {
    for (int i = 0; weights != NULL && i < weights->shard_count; i++) TRY(safetensors_check(weights->shards[i], error));
    return TESSERA_OK;
}

tessera_status weights_view_new(const char *label, struct weights **out, tessera_error *error) {
    struct weights *weights = *out = calloc(1, sizeof *weights);
    if (weights != NULL && (weights->folder = strdup(label)) != NULL) return TESSERA_OK;
    weights_close(weights);
    *out = NULL;
    return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory to open weights", label);
}

/* Room for one more entry. */
static bool view_grow(struct weights *weights) {
    if (weights->count < weights->view_capacity) return true;
    int capacity = weights->view_capacity > 0 ? 2 * weights->view_capacity : 256;
    struct view_entry *view = realloc(weights->view, (size_t)capacity * sizeof *view);
    if (view == NULL) return false;
    weights->view = view;
    weights->view_capacity = capacity;
    return true;
}

tessera_status weights_view_add(struct weights *weights, const char *name, const struct tensor *tensor, const struct weights_recipe *recipe,
                                tessera_error *error) {
    char *copy = strdup(name);
    if (copy == NULL || !view_grow(weights)) {
        free(copy);
        return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for tensor \"%s\"", weights->folder, name);
    }
    assert((tensor->data == NULL) == (recipe != NULL));
    weights->view[weights->count++] = (struct view_entry){{copy, *tensor}, copy, recipe != NULL ? *recipe : (struct weights_recipe){0}};
    return TESSERA_OK;
}

tessera_status weights_view_keep(struct weights *weights, struct safetensors *file, tessera_error *error) {
    assert(weights->shards == NULL);
    weights->shards = calloc(1, sizeof *weights->shards);
    if (weights->shards == NULL) {
        safetensors_close(file);
        return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory to keep its file", weights->folder);
    }
    weights->shards[weights->shard_count++] = file;
    return TESSERA_OK;
}

tessera_status weights_view_finish(struct weights *weights, tessera_error *error) {
    weights->entries = calloc((size_t)weights->count + 1, sizeof *weights->entries);
    if (weights->entries == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for its tensors", weights->folder);
    for (int i = 0; i < weights->count; i++) weights->entries[i] = &weights->view[i].entry;
    return sort_entries(weights, error);
}

static const struct safetensors_entry *find(const struct weights *weights, const char *name) {
    const struct safetensors_entry **found = bsearch(name, weights->entries, (size_t)weights->count, sizeof *weights->entries, compare_key);
    return found == NULL ? NULL : *found;
}

tessera_status weights_get(const struct weights *weights, const char *name, struct tensor *out, tessera_error *error) {
    const struct safetensors_entry *entry = find(weights, name);
    if (entry == NULL)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: tensor \"%s\" is missing from the weights", weights->folder, name);
    *out = entry->tensor;
    return TESSERA_OK;
}

struct tensor weights_source(const struct weights *weights, const char *name) {
    const struct safetensors_entry *entry = find(weights, name);
    assert(entry != NULL);
    return entry->tensor.data != NULL ? entry->tensor : ((const struct view_entry *)entry)->recipe.source; /* only a view's have recipes */
}

void weights_read(const struct weights *weights, const char *name, const struct tensor *source, void *to) {
    const struct safetensors_entry *entry = find(weights, name);
    assert(entry != NULL);
    struct tensor own = weights_source(weights, name);
    if (source == NULL) source = &own;
    if (entry->tensor.data != NULL)
        memcpy(to, source->data, tensor_bytes(source));
    else
        ((const struct view_entry *)entry)->recipe.write(source, to);
    weights_forget(weights, source);
}

bool weights_locate(const struct weights *weights, const void *data, struct weights_place *out) {
    for (int i = 0; i < weights->shard_count; i++)
        if (safetensors_locate(weights->shards[i], data, &out->descriptor, &out->offset)) {
            out->path = safetensors_path(weights->shards[i]);
            return true;
        }
    return false;
}

int weights_files(const struct weights *weights) {
    return weights->shard_count;
}

const char *weights_file(const struct weights *weights, int index) {
    return safetensors_path(weights->shards[index]);
}

void weights_forget(const struct weights *weights, const struct tensor *tensor) {
    for (int i = 0; weights != NULL && i < weights->shard_count; i++) safetensors_forget(weights->shards[i], tensor);
}

const char *weights_type_name(const struct weights *weights, const char *name) {
    for (int i = 0; i < weights->shard_count && weights->view == NULL; i++) {
        const char *type = safetensors_type_name(weights->shards[i], name);
        if (type != NULL) return type;
    }
    const struct safetensors_entry *entry = find(weights, name);
    return entry != NULL ? dtype_name(entry->tensor.dtype) : "nothing";
}

bool weights_has(const struct weights *weights, const char *name) {
    return find(weights, name) != NULL;
}

const char *weights_folder(const struct weights *weights) {
    return weights->folder;
}

int weights_count(const struct weights *weights) {
    return weights->count;
}

const struct safetensors_entry *weights_at(const struct weights *weights, int index) {
    return weights->entries[index];
}

int64_t weights_parameters(const struct weights *weights) {
    int64_t parameters = 0;
    for (int i = 0; i < weights->count; i++) {
        const struct tensor *tensor = &weights->entries[i]->tensor;
        if (dtype_is_weight(tensor->dtype) || tensor->dtype == DTYPE_F64) parameters += tensor_count(tensor);
    }
    return parameters;
}

size_t weights_bytes(const struct weights *weights) {
    size_t bytes = 0;
    for (int i = 0; i < weights->count; i++) bytes += tensor_bytes(&weights->entries[i]->tensor);
    return bytes;
}

size_t weights_loaded_bytes(const struct weights *weights, enum dtype dtype) {
    size_t bytes = 0;
    for (int i = 0; i < weights->count; i++) {
        const struct tensor *tensor = &weights->entries[i]->tensor;
        bool kept = dtype_is_weight(tensor->dtype) && (dtype_is_small(tensor->dtype) || dtype_size(tensor->dtype) <= dtype_size(dtype));
        bool converted = !kept && (dtype_is_weight(tensor->dtype) || tensor->dtype == DTYPE_F64);
        bytes += kept ? tensor_bytes(tensor) : converted ? (size_t)tensor_count(tensor) * dtype_size(dtype) : 0;
    }
    return bytes;
}
