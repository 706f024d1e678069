/* See map_file.h. */
#include "pipelines/map_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

enum { UNSET = -1 };

struct entry {
    const char *name;
    int rank;
    bool used; /* the model has such a module */
};

struct reading {
    const char *path;
    const struct map_modules *m;
    int num_ranks;
    struct entry *entries; /* [count], sorted by name */
    int count;
};

/* ---- entries ---- */

static tessera_status no_such_rank(const struct reading *r, const char *name, const char *what, tessera_error *error) {
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: field \"%.200s\": %s: a device is a rank from 0 to %d here (mpirun -n starts more)", r->path,
                     name, what, r->num_ranks - 1);
}

static tessera_status read_rank(const struct reading *r, const cJSON *item, int *out, tessera_error *error) {
    const char *text = cJSON_GetStringValue(item);
    char what[80], rest;
    if (text != NULL && (strcmp(text, "cpu") == 0 || strcmp(text, "disk") == 0))
        return error_set(error, TESSERA_ERROR_FORMAT,
                         "%s: field \"%.200s\": \"%s\": name a rank, and let --offload stages or --offload blocks keep on the disk what does not "
                         "fit its memory",
                         r->path, item->string, text);
    double number = cJSON_IsNumber(item) ? item->valuedouble : -1;
    int device = 0;
    if (text != NULL && strlen(text) < 16 && sscanf(text, "cuda:%d%c", &device, &rest) == 1) number = device;
    if (number >= 0 && number < r->num_ranks && number == (int)number) {
        *out = (int)number;
        return TESSERA_OK;
    }
    if (cJSON_IsNumber(item))
        snprintf(what, sizeof what, "%g", item->valuedouble);
    else
        snprintf(what, sizeof what, "%s%.40s%s", text != NULL ? "\"" : "", text != NULL ? text : "is no device", text != NULL ? "\"" : "");
    return no_such_rank(r, item->string, what, error);
}

static int by_name(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static tessera_status read_entries(struct reading *r, const cJSON *root, tessera_error *error) {
    if (!cJSON_IsObject(root) || root->child == NULL)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: must be an object from modules to ranks, such as {\"text_encoder\": 0, \"\": 1}", r->path);
    r->entries = calloc((size_t)cJSON_GetArraySize(root), sizeof *r->entries);
    if (r->entries == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", r->path);
    for (const cJSON *item = root->child; item != NULL; item = item->next, r->count++) {
        r->entries[r->count].name = item->string;
        TRY(read_rank(r, item, &r->entries[r->count].rank, error));
    }
    qsort(r->entries, (size_t)r->count, sizeof *r->entries, by_name);
    for (int i = 1; i < r->count; i++)
        if (strcmp(r->entries[i - 1].name, r->entries[i].name) == 0)
            return error_set(error, TESSERA_ERROR_FORMAT, "%s: field \"%.200s\" is there twice: leave one out", r->path, r->entries[i].name);
    return TESSERA_OK;
}

/* The entry whose name is the first so many bytes of `name`. */
static struct entry *find_entry(const struct reading *r, const char *name, size_t length) {
    int low = 0, high = r->count;
    while (low < high) {
        int middle = (low + high) / 2, order = strncmp(r->entries[middle].name, name, length);
        if (order == 0 && r->entries[middle].name[length] == 0) return &r->entries[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* The longest entry that applies to a tensor; marks all that apply. */
static const struct entry *entry_for(const struct reading *r, const char *tensor) {
    struct entry *longest = find_entry(r, "", 0);
    if (longest != NULL) longest->used = true;
    for (size_t length = strcspn(tensor, ".");; length += 1 + strcspn(tensor + length + 1, ".")) {
        struct entry *entry = find_entry(r, tensor, length);
        if (entry != NULL) entry->used = true, longest = entry;
        if (tensor[length] == 0) return longest;
    }
}

/* ---- units ---- */

/* "transformer.transformer_blocks.3", and what a unit that has no such name is. */
static const char *name_of(const struct reading *r, int unit, char *out, size_t capacity) {
    return map_module_name(r->m, unit, out, capacity);
}

/* The error for two entries that give one unit to different ranks; it names the longer entry. */
static tessera_status refuse_cut(const struct reading *r, int unit, const struct entry *a, const struct entry *b, tessera_error *error) {
    char name[256];
    const struct entry *longer = strlen(a->name) > strlen(b->name) ? a : b, *shorter = longer == a ? b : a;
    return error_set(error, TESSERA_ERROR_FORMAT,
                     "%s: field \"%.200s\": rank %d, but \"%.200s\" has other modules of %s on rank %d: %s is placed as a whole", r->path,
                     longer->name, longer->rank, shorter->name, name_of(r, unit, name, sizeof name), shorter->rank,
                     unit <= map_unit_autoencoder(r->m) ? "a text encoder or the autoencoder" : "a block");
}

/* entries: [map_units], for each unit the first entry that applies to one of its tensors. */
static tessera_status place_tensors(const struct reading *r, const struct entry **entries, tessera_error *error) {
    char name[256];
    for (int i = 0; i < r->m->count; i++) {
        const struct map_tensor *t = &r->m->tensors[i];
        const struct entry *entry = entry_for(r, t->name);
        if (entry == NULL)
            return error_set(error, TESSERA_ERROR_FORMAT, "%s: no entry is for \"%.200s\": add one for %s, or \"\" for all that is left", r->path,
                             t->name, name_of(r, t->unit, name, sizeof name));
        if (entries[t->unit] == NULL) entries[t->unit] = entry;
        if (entries[t->unit]->rank != entry->rank) return refuse_cut(r, t->unit, entries[t->unit], entry, error);
    }
    return TESSERA_OK;
}

/* A component of the pipeline that is not opened here, such as a safety checker: maps of accelerate
 * place it too. */
static bool is_left_out(const struct reading *r, const char *name) {
    char component[64];
    size_t length = strcspn(name, ".");
    if (length >= sizeof component) return false;
    memcpy(component, name, length);
    component[length] = 0;
    return pipeline_has(r->m->pipeline, component) && pipeline_slot_index(r->m->pipeline, component) < 0;
}

/* Finds entries for what this model does not have. */
static tessera_status check_used(const struct reading *r, tessera_error *error) {
    char known[256] = "";
    size_t used = 0;
    const struct pipeline *p = r->m->pipeline;
    for (int i = 0; i < p->num_slots && used < sizeof known; i++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i > 0 ? ", " : "", p->slots[i].name);
    for (int i = 0; i < r->count; i++)
        if (!r->entries[i].used && !is_left_out(r, r->entries[i].name))
            return error_set(error, TESSERA_ERROR_FORMAT, "%s: field \"%.200s\": this model has no such module: its components are %s", r->path,
                             r->entries[i].name, known);
    return TESSERA_OK;
}

/* What comes before the first block is on its rank, and what comes after the last block on that
 * one's. */
static tessera_status check_end(const struct reading *r, int end, int block, const int *ranks, tessera_error *error) {
    char name[256], at[256];
    if (ranks[end] == UNSET || ranks[end] == ranks[block]) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: \"%s\" is on rank %d, but %s, which it is computed with, on rank %d: place both together",
                     r->path, name_of(r, end, name, sizeof name), ranks[end], name_of(r, block, at, sizeof at), ranks[block]);
}

static tessera_status place_units(const struct reading *r, int *ranks, tessera_error *error) {
    const struct entry **entries = calloc((size_t)map_units(r->m), sizeof *entries);
    tessera_status status = entries != NULL ? place_tensors(r, entries, error) : error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", r->path);
    for (int unit = 0; entries != NULL && unit < map_units(r->m); unit++) ranks[unit] = entries[unit] != NULL ? entries[unit]->rank : UNSET;
    free(entries);
    return status;
}

static tessera_status read_map(struct reading *r, const cJSON *root, int *ranks, tessera_error *error) {
    const struct map_modules *m = r->m;
    TRY(read_entries(r, root, error));
    for (int i = 0; i < m->count; i++) entry_for(r, m->tensors[i].name);
    TRY(check_used(r, error));
    TRY(place_units(r, ranks, error));
    for (int unit = 0; unit < map_unit_embed(m); unit++) /* without weights of its own */
        if (ranks[unit] == UNSET) ranks[unit] = unit > map_unit_block(m, 0) ? ranks[unit - 1] : 0;
    TRY(check_end(r, map_unit_embed(m), map_unit_block(m, 0), ranks, error));
    TRY(check_end(r, map_unit_finish(m), map_unit_block(m, m->num_blocks - 1), ranks, error));
    ranks[map_unit_embed(m)] = ranks[map_unit_block(m, 0)];
    ranks[map_unit_finish(m)] = ranks[map_unit_block(m, m->num_blocks - 1)];
    return TESSERA_OK;
}

tessera_status map_file_read(const struct json *file, const struct map_modules *modules, int num_ranks, int *ranks, tessera_error *error) {
    struct reading r = {.path = json_path(file), .m = modules, .num_ranks = num_ranks};
    tessera_status status = read_map(&r, json_root(file), ranks, error);
    free(r.entries);
    return status;
}
