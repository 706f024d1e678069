/* See part_file.h. */
#include "split/part_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/file.h"
#include "split/identity.h"
#include "split/known_digests.h"
#include "tensor/scaled_weights.h"

enum { MOST_BLOCKS = 1 << 16 };

void part_header_free(struct part_header *header) {
    free(header->class_name);
    free(header->configuration);
    *header = (struct part_header){0};
}

void part_file_close(struct part_file *file) {
    component_close(&file->component);
    part_header_free(&file->header);
    *file = (struct part_file){0};
}

static tessera_status out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for a part of a model");
}

/* ---- names ---- */

struct names {
    char **names; /* sorted, each once; owned */
    int count, capacity;
    bool out_of_memory;
};

static void add_name(void *user, const char *name, int ndim, const int64_t *shape) {
    struct names *list = user;
    (void)ndim, (void)shape;
    if (list->count == list->capacity) {
        int capacity = list->capacity > 0 ? 2 * list->capacity : 64;
        char **names = realloc(list->names, (size_t)capacity * sizeof *names);
        list->out_of_memory |= names == NULL;
        if (names == NULL) return;
        list->names = names;
        list->capacity = capacity;
    }
    if ((list->names[list->count] = strdup(name)) == NULL)
        list->out_of_memory = true;
    else
        list->count++;
}

static void names_free(struct names *list) {
    for (int i = 0; i < list->count; i++) free(list->names[i]);
    free(list->names);
    *list = (struct names){0};
}

static int by_bytes(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* What the blocks of the range, or all others (`rest`), ask their file for; free it either way.
 * `described`: without weights. */
static tessera_status list_names(struct component *described, const struct split_range *range, bool rest, struct names *out,
                                 tessera_error *error) {
    const struct load_hooks hooks = {.user = out, .record = add_name};
    *out = (struct names){0};
    for (int i = COMPONENT_EMBED; i <= described->num_blocks; i++) {
        bool inside = i >= range->first && i < range->end + range->finish;
        if (inside != rest) TRY(component_ask(described, i, &hooks, error));
    }
    if (out->out_of_memory) return out_of_memory(error);
    if (out->count > 0) qsort(out->names, (size_t)out->count, sizeof *out->names, by_bytes);
    int count = 0; /* a tensor that two layers share comes twice */
    for (int i = 0; i < out->count; i++) {
        if (count > 0 && strcmp(out->names[count - 1], out->names[i]) == 0)
            free(out->names[i]);
        else
            out->names[count++] = out->names[i];
    }
    out->count = count;
    return TESSERA_OK;
}

/* ---- tensors as they are stored ---- */

/* The tensor with its data; *made is what is to be freed behind it. */
static tessera_status stored_tensor(const struct weights *weights, const char *name, struct tensor *out, void **made,
                                    tessera_error *error) {
    struct scaled_weight scaled;
    bool has_scales = false;
    *made = NULL;
    TRY(weights_get(weights, name, out, error));
    TRY(scaled_weight_find(weights, name, &has_scales, &scaled, error));
    if (has_scales || out->dtype == DTYPE_UNKNOWN || out->dtype >= DTYPE_Q8_0)
        return error_set(
            error, TESSERA_ERROR_UNSUPPORTED,
            "%s: tensor \"%s\" is stored in blocks, or with scales beside it, which parts cannot hold: convert the model first "
            "(tessera convert --type bf16)",
            weights_folder(weights), name);
    if (out->data != NULL) return TESSERA_OK;
    *made = out->data = malloc(tensor_bytes(out) + 1);
    if (*made == NULL) return out_of_memory(error);
    weights_read(weights, name, NULL, *made);
    return TESSERA_OK;
}

/* The entries of these tensors; made[i] is to be freed behind entry i. */
static tessera_status fill_entries(const struct weights *weights, const struct names *names, struct safetensors_entry *entries, void **made,
                                   tessera_error *error) {
    for (int i = 0; i < names->count; i++) {
        entries[i].name = names->names[i];
        TRY(stored_tensor(weights, names->names[i], &entries[i].tensor, &made[i], error));
    }
    return TESSERA_OK;
}

static void add_tensor(struct canonical *digest, const char *name, const struct tensor *t) {
    canonical_text(digest, name);
    canonical_text(digest, dtype_name(t->dtype));
    canonical_u32(digest, (uint32_t)t->ndim);
    for (int i = 0; i < t->ndim; i++) canonical_u64(digest, (uint64_t)t->shape[i]);
    canonical_u64(digest, tensor_bytes(t));
    canonical_bytes(digest, t->data, tensor_bytes(t));
}

/* Layers may know a tensor that a model's file can do without (SD3's last block). */
static void keep_present(const struct weights *weights, struct names *names) {
    int count = 0;
    for (int i = 0; i < names->count; i++) {
        if (weights_has(weights, names->names[i]))
            names->names[count++] = names->names[i];
        else
            free(names->names[i]);
    }
    names->count = count;
}

static tessera_status compute_digest(struct part_file *file, const struct names *names, tessera_error *error) {
    struct part_header *h = &file->header;
    uint8_t configuration[CANONICAL_HASH_BYTES];
    struct canonical digest;
    canonical_hash(h->configuration, strlen(h->configuration), configuration);
    canonical_begin(&digest, "tessera-part-1");
    canonical_text(&digest, h->class_name);
    canonical_bytes(&digest, configuration, sizeof configuration);
    canonical_u32(&digest, (uint32_t)h->range.first);
    canonical_u32(&digest, (uint32_t)h->range.end - 1);
    canonical_u32(&digest, h->range.finish);
    canonical_u32(&digest, (uint32_t)names->count);
    file->bytes = 0;
    for (int i = 0; i < names->count; i++) {
        struct tensor t;
        void *made;
        TRY(stored_tensor(file->component.weights, names->names[i], &t, &made, error));
        add_tensor(&digest, names->names[i], &t);
        file->bytes += tensor_bytes(&t);
        weights_forget(file->component.weights, &t);
        free(made);
    }
    canonical_end(&digest, h->digest);
    return TESSERA_OK;
}

/* ---- opening ---- */

/* A denoiser of this configuration, whose class is told. */
static tessera_status check_class(const struct component *c, struct part_header *header, const char *path, tessera_error *error) {
    if (c->denoiser == NULL)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: configuration: of no denoiser (a transformer or a U-Net)", path);
    if (header->class_name == NULL) {
        header->class_name = strdup(c->denoiser->class->name);
        return header->class_name != NULL ? TESSERA_OK : out_of_memory(error);
    }
    if (strcmp(header->class_name, c->denoiser->class->name) == 0) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: class: it says %.60s, but its configuration is of %s", path, header->class_name,
                     c->denoiser->class->name);
}

/* The names that the range (or, `rest`, what is not of it) asks for, of a model with the header's
 * configuration; free them either way. Checks class and range. */
static tessera_status read_names(const char *path, struct part_header *header, bool rest, struct names *names, tessera_error *error) {
    struct component_source source = {.folder = path};
    struct component described = {0};
    *names = (struct names){0};
    TRY(json_parse(path, header->configuration, strlen(header->configuration), &source.config, error));
    TRY(component_describe(&source, DTYPE_F32, &described, error));
    tessera_status status = check_class(&described, header, path, error);
    if (status == TESSERA_OK) status = split_range_check(&header->range, described.num_blocks, error);
    if (status == TESSERA_OK) status = list_names(&described, &header->range, rest, names, error);
    component_close(&described);
    return status;
}

/* The header's digest: the one that was kept under this key, where there is one. Files of a folder
 * that change meanwhile have no key. */
static tessera_status know_digest(struct part_file *file, const char *folder, const struct names *names, tessera_error *error) {
    struct part_header *h = &file->header;
    char before[KNOWN_KEY_CHARS], after[KNOWN_KEY_CHARS];
    bool keyed = known_digest_key(folder, &h->range, before);
    if (keyed && known_digest_find(before, h->digest)) return TESSERA_OK;
    TRY(compute_digest(file, names, error));
    if (keyed && known_digest_key(folder, &h->range, after) && strcmp(before, after) == 0) known_digest_keep(before, h->digest);
    return TESSERA_OK;
}

/* Weights that become the component's, of the header's range and configuration; then the digest. */
static tessera_status open_component(const char *path, struct weights *weights, bool scope_only, enum dtype dtype, bool known,
                                     struct names *names, struct part_file *file, tessera_error *error) {
    const struct split_range *range = &file->header.range;
    struct component_source source = {.folder = path,
                                      .weights = weights,
                                      .scope.blocks = {range->first, range->end - range->first},
                                      .scope_only = scope_only,
                                      .no_embed = true,
                                      .no_finish = !range->finish};
    tessera_status status = json_parse(path, file->header.configuration, strlen(file->header.configuration), &source.config, error);
    if (status != TESSERA_OK) {
        weights_close(weights);
        return status;
    }
    TRY(component_open(&source, dtype, &file->component, error));
    keep_present(file->component.weights, names);
    return known ? know_digest(file, path, names, error) : compute_digest(file, names, error);
}

/* ---- from a file ---- */

static tessera_status wrong_note(const struct safetensors *file, const char *key, const char *what, tessera_error *error) {
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: __metadata__: %s: %s", safetensors_path(file), key, what);
}

static tessera_status read_text(const struct safetensors *file, const char *key, char **out, tessera_error *error) {
    const char *value = safetensors_metadata(file, key);
    if (value == NULL) return wrong_note(file, key, "missing: not a part that tessera split made", error);
    *out = strdup(value);
    return *out != NULL ? TESSERA_OK : out_of_memory(error);
}

/* A block's number, in decimal digits. */
static tessera_status read_block(const struct safetensors *file, const char *key, int *out, tessera_error *error) {
    const char *value = safetensors_metadata(file, key);
    size_t length = value != NULL ? strlen(value) : 0;
    if (length < 1 || length > 5 || strspn(value, "0123456789") != length) return wrong_note(file, key, "not a block's number", error);
    *out = atoi(value);
    return *out < MOST_BLOCKS ? TESSERA_OK : wrong_note(file, key, "too large", error);
}

static tessera_status read_header(const struct safetensors *file, struct part_header *out, tessera_error *error) {
    const char *specification = safetensors_metadata(file, "tessera.specification"),
               *last = safetensors_metadata(file, "tessera.has_last_block");
    if (specification == NULL) return wrong_note(file, "tessera.specification", "missing: not a part that tessera split made", error);
    if (strcmp(specification, SPLIT_SPECIFICATION) != 0)
        return wrong_note(file, "tessera.specification", "another version than " SPLIT_SPECIFICATION ": use the program that made the part",
                          error);
    TRY(read_text(file, "tessera.class", &out->class_name, error));
    TRY(read_text(file, "tessera.configuration", &out->configuration, error));
    TRY(read_block(file, "tessera.first", &out->range.first, error));
    TRY(read_block(file, "tessera.last", &out->range.end, error));
    out->range.end++;
    out->range.finish = last != NULL && strcmp(last, "true") == 0;
    if (out->range.finish || (last != NULL && strcmp(last, "false") == 0)) return TESSERA_OK;
    return wrong_note(file, "tessera.has_last_block", "neither \"true\" nor \"false\"", error);
}

/* Does the file hold nothing that the range does not ask for? */
static tessera_status check_tensors(const struct safetensors *file, const struct names *names, tessera_error *error) {
    for (int i = 0; i < safetensors_count(file); i++) {
        const char *name = safetensors_at(file, i)->name;
        if (names->count == 0 || bsearch(&name, names->names, (size_t)names->count, sizeof *names->names, by_bytes) == NULL)
            return error_set(error, TESSERA_ERROR_FORMAT, "%s: tensor \"%.100s\": the part's blocks have no such weight",
                             safetensors_path(file), name);
    }
    return TESSERA_OK;
}

/* The file's tensors; the file becomes the view's, on failure too. */
static tessera_status view_of(struct safetensors *file, const char *path, struct weights **out, tessera_error *error) {
    tessera_status status = weights_view_new(path, out, error);
    if (status != TESSERA_OK) {
        safetensors_close(file);
        return status;
    }
    status = weights_view_keep(*out, file, error);
    for (int i = 0; status == TESSERA_OK && i < safetensors_count(file); i++)
        status = weights_view_add(*out, safetensors_at(file, i)->name, &safetensors_at(file, i)->tensor, NULL, error);
    if (status == TESSERA_OK) status = weights_view_finish(*out, error);
    if (status != TESSERA_OK) weights_close(*out);
    return status;
}

static tessera_status open_file(const char *path, struct safetensors *file, enum dtype dtype, struct part_file *out, struct names *names,
                                tessera_error *error) {
    struct weights *weights;
    tessera_status status = read_header(file, &out->header, error);
    if (status == TESSERA_OK) status = read_names(path, &out->header, false, names, error);
    if (status == TESSERA_ERROR_ARGUMENT) { /* the file's range, not a caller's */
        const tessera_error told = *error;
        status = error_set(error, TESSERA_ERROR_FORMAT, "%s: __metadata__: %s", path, told.message);
    }
    if (status == TESSERA_OK) status = check_tensors(file, names, error);
    if (status != TESSERA_OK) {
        safetensors_close(file);
        return status;
    }
    TRY(view_of(file, path, &weights, error));
    return open_component(path, weights, true, dtype, false, names, out, error);
}

tessera_status part_file_open(const char *path, enum dtype dtype, struct part_file *out, tessera_error *error) {
    struct safetensors *file;
    struct names names = {0};
    *out = (struct part_file){0};
    TRY(safetensors_open(path, &file, error));
    tessera_status status = open_file(path, file, dtype, out, &names, error);
    names_free(&names);
    if (status != TESSERA_OK) part_file_close(out);
    return status;
}

/* ---- from a model ---- */

tessera_status part_file_denoiser_folder(const char *folder, char **out, tessera_error *error) {
    static const char *const names[] = {"transformer", "unet"};
    *out = NULL;
    if (file_exists(folder) && !file_is_folder(folder))
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: a single file: make a folder of it first (tessera convert %s FOLDER)",
                         folder, folder);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        *out = file_join(folder, names[i]);
        if (*out == NULL) return out_of_memory(error);
        if (file_is_folder(*out)) return TESSERA_OK;
        free(*out);
    }
    *out = strdup(folder);
    return *out != NULL ? TESSERA_OK : out_of_memory(error);
}

/* The header but for its digest, and the names that the range asks for. */
static tessera_status describe_model(const char *folder, const struct split_range *range, struct part_header *header, struct names *names,
                                     tessera_error *error) {
    struct json *config;
    *header = (struct part_header){0};
    TRY(json_open_in(folder, "config.json", &config, error));
    header->configuration = cJSON_PrintUnformatted(json_root(config));
    json_free(config);
    if (header->configuration == NULL) return out_of_memory(error);
    header->range = *range;
    return read_names(folder, header, false, names, error);
}

static tessera_status count_present(const char *folder, const struct names *names, int *count, tessera_error *error) {
    struct weights *weights;
    *count = 0;
    TRY(weights_open(folder, &weights, error));
    for (int i = 0; i < names->count; i++) *count += weights_has(weights, names->names[i]);
    weights_close(weights);
    return TESSERA_OK;
}

tessera_status part_file_is_in_model(const char *folder, const struct split_range *range, struct part_header *header, bool *is,
                                     tessera_error *error) {
    struct names names = {0};
    char *inside;
    int count = 0;
    *header = (struct part_header){0};
    TRY(part_file_denoiser_folder(folder, &inside, error));
    tessera_status status = describe_model(inside, range, header, &names, error);
    if (status == TESSERA_OK) status = count_present(inside, &names, &count, error);
    *is = count > 0; /* that all are there is checked where they are opened */
    names_free(&names);
    free(inside);
    return status;
}

static tessera_status open_model(const char *folder, const struct split_range *range, enum dtype dtype, bool known, struct part_file *out,
                                 struct names *names, tessera_error *error) {
    struct weights *weights;
    TRY(describe_model(folder, range, &out->header, names, error));
    TRY(weights_open(folder, &weights, error));
    return open_component(folder, weights, false, dtype, known, names, out, error);
}

tessera_status part_file_of_model(const char *folder, const struct split_range *range, enum dtype dtype, bool known, struct part_file *out,
                                  tessera_error *error) {
    struct names names = {0};
    *out = (struct part_file){0};
    char *inside;
    TRY(part_file_denoiser_folder(folder, &inside, error));
    tessera_status status = open_model(inside, range, dtype, known, out, &names, error);
    names_free(&names);
    free(inside);
    if (status != TESSERA_OK) part_file_close(out);
    return status;
}

/* ---- writing ---- */

/* Names that the weights have, to a new file with these notes. */
static tessera_status write_names(const struct weights *weights, const struct names *names, const struct safetensors_note *notes,
                                  const char *path, tessera_error *error) {
    struct safetensors_entry *entries = calloc((size_t)names->count + 1, sizeof *entries);
    void **made = calloc((size_t)names->count + 1, sizeof *made);
    tessera_status status = entries != NULL && made != NULL ? fill_entries(weights, names, entries, made, error) : out_of_memory(error);
    if (status == TESSERA_OK) status = safetensors_write_noted(path, entries, names->count, notes, error);
    for (int i = 0; made != NULL && i < names->count; i++) free(made[i]);
    free(made);
    free(entries);
    return status;
}

tessera_status part_file_write(const struct part_file *model, const char *path, tessera_error *error) {
    struct part_header header = model->header;
    const struct part_header *h = &model->header;
    struct names names;
    char first[16], last[16];
    snprintf(first, sizeof first, "%d", h->range.first);
    snprintf(last, sizeof last, "%d", h->range.end - 1);
    const struct safetensors_note notes[] = {{"format", "pt"},
                                             {"tessera.specification", SPLIT_SPECIFICATION},
                                             {"tessera.class", h->class_name},
                                             {"tessera.configuration", h->configuration},
                                             {"tessera.first", first},
                                             {"tessera.last", last},
                                             {"tessera.has_last_block", h->range.finish ? "true" : "false"},
                                             {NULL, NULL}};
    tessera_status status = read_names(path, &header, false, &names, error);
    keep_present(model->component.weights, &names);
    if (status == TESSERA_OK) status = write_names(model->component.weights, &names, notes, path, error);
    names_free(&names);
    return status;
}

tessera_status part_file_write_rest(const char *folder, const struct split_range *range, const char *path, tessera_error *error) {
    static const struct safetensors_note notes[] = {{"format", "pt"}, {NULL, NULL}};
    struct part_header header;
    struct names names = {0}, inside = {0};
    struct weights *weights = NULL;
    tessera_status status = describe_model(folder, range, &header, &inside, error);
    if (status == TESSERA_OK) status = read_names(folder, &header, true, &names, error);
    if (status == TESSERA_OK) status = weights_open(folder, &weights, error);
    if (status == TESSERA_OK) keep_present(weights, &names);
    if (status == TESSERA_OK) status = write_names(weights, &names, notes, path, error);
    weights_close(weights);
    names_free(&names);
    names_free(&inside);
    part_header_free(&header);
    return status;
}
