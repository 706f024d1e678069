/* Making a model folder; see make_model.h.
 *
 * First everything small is written (configs, tokenizers), then each component's own model
 * description lists its tensors, and once the total is known and fits on the disk, the weights
 * follow. */
#include "checkpoint/make_model.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/made_up_tokenizer.h"
#include "checkpoint/published.h"
#include "checkpoint/random_component.h"

#define DEFAULT_SHARD_BYTES ((size_t)5000000000)
enum { MAX_COMPONENTS = 8, SMALL_FILE_BYTES = 16 << 20 };

/* A component with weights. */
struct made_component {
    const char *name; /* borrowed from model_index.json */
    bool of_transformers;
    struct tensor_list list;
};

struct making {
    const struct make_model_options *options;
    char *source, *configs;   /* published folders: the model's, and where config.json of each component lies */
    char *target, *temporary; /* folders: to be made, and until it is complete */
    struct json *index, *tokenizers;
    struct made_component components[MAX_COMPONENTS];
    int num_components;
    size_t done, total; /* bytes of weights */
};

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "make-model: out of memory");
}

/* ---- small files ---- */

static tessera_status open_json(const char *folder, const char *name, struct json **out, tessera_error *error) {
    char *path = file_join(folder, name);
    tessera_status status = path != NULL ? json_open(path, 0, out, error) : out_of_memory(error);
    free(path);
    return status;
}

static tessera_status write_file(const char *path, const char *data, size_t length, tessera_error *error) {
    struct file_output output;
    TRY(file_output_open(path, &output, error));
    fwrite(data, 1, length, output.stream);
    return file_output_commit(&output, error);
}

/* Copies a file that must exist, or (optional) may be missing. */
static tessera_status copy_file(const char *from_folder, const char *to_folder, const char *name, bool optional, tessera_error *error) {
    char *from = file_join(from_folder, name), *to = file_join(to_folder, name), *data = NULL;
    size_t length;
    tessera_status status = from != NULL && to != NULL ? TESSERA_OK : out_of_memory(error);
    if (status == TESSERA_OK && !(optional && !file_exists(from))) {
        status = file_read_regular(from, SMALL_FILE_BYTES, &data, &length, error);
        if (status == TESSERA_OK) status = write_file(to, data, length, error);
    }
    free(data);
    free(from);
    free(to);
    return status;
}

/* ---- components ---- */

/* A made-up vocabulary is as large as its text encoder's, which is named alike: "tokenizer_2" and
 * "text_encoder_2". */
static tessera_status make_up_tokenizer(const struct making *m, const char *name, const char *to, tessera_error *error) {
    char encoder[64];
    struct json *config = NULL;
    int64_t size = 0;
    snprintf(encoder, sizeof encoder, "text_encoder%s", name + strlen("tokenizer"));
    char *folder = file_join(m->configs, encoder);
    tessera_status status = folder != NULL ? open_json(folder, "config.json", &config, error) : out_of_memory(error);
    if (status == TESSERA_OK) status = json_int(config, "vocab_size", 0, 1, 1 << 24, &size, error);
    if (status == TESSERA_OK) status = made_up_tokenizer_write(to, size, error);
    json_free(config);
    free(folder);
    return status;
}

static tessera_status copy_tokenizer(const struct making *m, const char *name, const char *kind, const char *to, tessera_error *error) {
    static const char *const files[] = {
        "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt", "tokenizer.json", "spiece.model", "vocab.txt"};
    if (strcmp(kind, PUBLISHED_MADE_UP) == 0) return make_up_tokenizer(m, name, to, error);
    char *from;
    TRY(published_tokenizer(m->options->class_name, name, &from, error));
    tessera_status status = TESSERA_OK;
    for (size_t i = 0; i < sizeof files / sizeof *files && status == TESSERA_OK; i++) status = copy_file(from, to, files[i], true, error);
    free(from);
    return status;
}

/* Everything of a component but its weights; one that has weights is listed in m->components. */
static tessera_status begin_component(struct making *m, const char *name, const char *library, const char *to, tessera_error *error) {
    const char *kind;
    TRY(json_string(m->tokenizers, name, NULL, &kind, error));
    if (kind != NULL) return copy_tokenizer(m, name, kind, to, error);
    bool scheduler = strcmp(name, "scheduler") == 0;
    char *from = file_join(scheduler ? m->source : m->configs, name);
    if (from == NULL) return out_of_memory(error);
    tessera_status status;
    if (scheduler) {
        status = copy_file(from, to, "scheduler_config.json", false, error);
    } else if (m->num_components == MAX_COMPONENTS) {
        status = error_set(error, TESSERA_ERROR_FORMAT, "%s: more than %d components", json_path(m->index), MAX_COMPONENTS);
    } else {
        struct made_component *component = &m->components[m->num_components++];
        *component = (struct made_component){.name = name, .of_transformers = strcmp(library, "transformers") == 0};
        status = copy_file(from, to, "config.json", false, error);
        if (status == TESSERA_OK) status = tensor_list_read(&component->list, to, error);
        m->total += tensor_list_bytes(&component->list);
    }
    free(from);
    return status;
}

static tessera_status begin_components(struct making *m, tessera_error *error) {
    for (const struct cJSON *item = json_root(m->index)->child; item != NULL; item = item->next) {
        const char *library = cJSON_GetStringValue(cJSON_GetArrayItem(item, 0));
        if (library == NULL) continue; /* a setting, or a component that the pipeline goes without */
        char *folder = file_join(m->temporary, item->string);
        tessera_status status = folder != NULL ? TESSERA_OK : out_of_memory(error);
        if (status == TESSERA_OK && mkdir(folder, 0777) != 0) status = error_set_errno(error, "%s: cannot create", folder);
        if (status == TESSERA_OK) status = begin_component(m, item->string, library, folder, error);
        free(folder);
        TRY(status);
    }
    return TESSERA_OK;
}

/* ---- weights ---- */

static tessera_status check_room(const struct making *m, tessera_error *error) {
    struct statvfs about;
    if (statvfs(m->temporary, &about) != 0) return error_set_errno(error, "%s: cannot ask for the free space", m->temporary);
    double room = (double)about.f_bavail * (double)about.f_frsize;
    if ((double)m->total <= room) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_IO, "%s: the weights need %.1f GB, but only %.1f GB are free there", m->options->folder,
                     (double)m->total / 1e9, room / 1e9);
}

/* random_component.wrote */
static bool count_bytes(void *user, size_t bytes) {
    struct making *m = user;
    m->done += bytes;
    return m->options->progress == NULL || m->options->progress(m->options->user, m->done, m->total);
}

static tessera_status write_weights(struct making *m, const struct made_component *made, tessera_error *error) {
    char *folder = file_join(m->temporary, made->name);
    if (folder == NULL) return out_of_memory(error);
    struct random_component component = {
        .folder = folder,
        .name = made->name,
        .stem = made->of_transformers ? "model" : "diffusion_pytorch_model",
        .list = &made->list,
        .seed = m->options->seed,
        .max_shard_bytes = m->options->max_shard_bytes > 0 ? m->options->max_shard_bytes : DEFAULT_SHARD_BYTES,
        .wrote = count_bytes,
        .user = m,
    };
    tessera_status status = random_component_write(&component, error);
    free(folder);
    return status;
}

/* ---- the folder ---- */

static tessera_status write_record(const struct making *m, tessera_error *error) {
    char text[512];
    int length = snprintf(
        text, sizeof text, "{\n  \"class\": \"%s\",\n  \"scale\": \"%s\",\n  \"seed\": \"%llu\",\n  \"tessera_version\": \"%s\"\n}\n",
        m->options->class_name, m->options->tiny ? "tiny" : "full", (unsigned long long)m->options->seed, TESSERA_VERSION);
    char *path = file_join(m->temporary, "make-model.json");
    tessera_status status = path != NULL ? write_file(path, text, (size_t)length, error) : out_of_memory(error);
    free(path);
    return status;
}

static tessera_status open_sources(struct making *m, tessera_error *error) {
    TRY(published_folder(m->options->class_name, &m->source, error));
    TRY(open_json(m->source, "model_index.json", &m->index, error));
    TRY(open_json(m->source, "tokenizers.json", &m->tokenizers, error));
    m->configs = m->options->tiny ? file_join(m->source, "tiny") : strdup(m->source);
    return m->configs != NULL ? TESSERA_OK : out_of_memory(error);
}

static bool is_empty_folder(const char *path) {
    DIR *listing = opendir(path);
    int entries = 0;
    if (listing == NULL) return false;
    while (readdir(listing) != NULL) entries++;
    closedir(listing);
    return entries <= 2; /* "." and ".." */
}

/* The target's name without slashes at its end, and the temporary folder beside it. */
static tessera_status create_folder(struct making *m, tessera_error *error) {
    m->target = strdup(m->options->folder);
    if (m->target == NULL) return out_of_memory(error);
    for (size_t n = strlen(m->target); n > 1 && m->target[n - 1] == '/'; n--) m->target[n - 1] = 0;
    if (m->target[0] == 0) return error_set(error, TESSERA_ERROR_ARGUMENT, "make-model: the folder's name is empty");
    if (file_exists(m->target) && !is_empty_folder(m->target))
        return error_set(error, TESSERA_ERROR_IO, "%s: exists and is not an empty folder; name one that does not exist", m->target);
    char *temporary = NULL;
    if (asprintf(&temporary, "%s.%ld.partial", m->target, (long)getpid()) < 0) return out_of_memory(error);
    if (mkdir(temporary, 0777) != 0) {
        error_set_errno(error, "%s: cannot create", temporary);
        free(temporary);
        return TESSERA_ERROR_IO;
    }
    m->temporary = temporary;
    return TESSERA_OK;
}

static tessera_status fill_folder(struct making *m, tessera_error *error) {
    TRY(begin_components(m, error));
    TRY(check_room(m, error));
    for (int i = 0; i < m->num_components; i++) TRY(write_weights(m, &m->components[i], error));
    TRY(copy_file(m->configs, m->temporary, "generation_defaults.json", true, error));
    TRY(write_record(m, error));
    TRY(copy_file(m->source, m->temporary, "model_index.json", false, error));
    if (rename(m->temporary, m->target) != 0) return error_set_errno(error, "%s: cannot rename to %s", m->temporary, m->target);
    return TESSERA_OK;
}

static int remove_entry(const char *path, const struct stat *about, int type, struct FTW *where) {
    return remove(path);
}

tessera_status make_model(const struct make_model_options *options, tessera_error *error) {
    struct making m = {.options = options};
    tessera_status status = open_sources(&m, error);
    if (status == TESSERA_OK) status = create_folder(&m, error);
    if (status == TESSERA_OK) status = fill_folder(&m, error);
    if (status != TESSERA_OK && m.temporary != NULL) nftw(m.temporary, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    for (int i = 0; i < m.num_components; i++) tensor_list_clear(&m.components[i].list);
    json_free(m.tokenizers);
    json_free(m.index);
    free(m.temporary);
    free(m.target);
    free(m.configs);
    free(m.source);
    return status;
}
