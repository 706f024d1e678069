/* A model folder as a single file in the original layout.
 *
 *     items      one per tensor of the folder: its original name, and which band of that it is
 *     originals  one per tensor of the file: a run of items with the same name, in the order of their rows
 *
 * Left out: what diffusers' folder does not hold (SD2's last text layer, noise schedules, averaged
 * weights); programs that read such files do without. */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/convert.h"
#include "checkpoint/family.h"
#include "checkpoint/layout_apply.h"
#include "checkpoint/required.h"
#include "tensor/scaled_weights.h"

#define MAX_COMPONENTS 8

struct item {
    char name[256]; /* in the file */
    struct layout_change change;
    struct tensor tensor;
};

struct original {
    struct safetensors_entry entry; /* without data */
    const struct item *items;
    int count;
};

struct collection {
    const char *folder;
    struct weights *weights[MAX_COMPONENTS]; /* keep the items' data */
    int weights_count;
    struct item *items;
    int count, capacity;
    struct original *originals;
    int original_count;
};

static tessera_status no_memory(const struct collection *c, tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for the list of its tensors", c->folder);
}

/* ---- collecting ---- */

static struct item *new_item(struct collection *c) {
    if (c->count == c->capacity) {
        int capacity = c->capacity > 0 ? 2 * c->capacity : 1024;
        struct item *items = realloc(c->items, (size_t)capacity * sizeof *items);
        if (items == NULL) return NULL;
        c->items = items;
        c->capacity = capacity;
    }
    return &c->items[c->count++];
}

static tessera_status add_item(struct collection *c, const struct layout *layout, const char *prefix, const char *name,
                               const struct tensor *tensor, tessera_error *error) {
    struct layout_match match;
    struct item *item = new_item(c);
    if (item == NULL) return no_memory(c, error);
    if (!layout_to_original(layout, name, &match) ||
        snprintf(item->name, sizeof item->name, "%s%s", prefix, match.name) >= (int)sizeof item->name)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: tensor \"%s\" has no name in the original layout", c->folder, name);
    item->change = match.change;
    item->tensor = *tensor;
    return TESSERA_OK;
}

/* No program reads scales under the names of the original layout. */
static tessera_status refuse_scaled(const struct weights *weights, const char *name, tessera_error *error) {
    struct scaled_weight scaled;
    bool found;
    TRY(scaled_weight_find(weights, name, &found, &scaled, error));
    if (!found) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                     "%s: tensor \"%s\" has scales in tensors of its own: convert the model as it was before it was quantised",
                     weights_folder(weights), name);
}

/* What the model asks for of the component's weights. */
static tessera_status add_weights(struct collection *c, const struct weights *weights, struct required *required,
                                  const struct layout *layout, const char *prefix, tessera_error *error) {
    for (int i = 0; i < weights_count(weights); i++) {
        const struct safetensors_entry *entry = weights_at(weights, i);
        struct required_tensor *wanted = required_find(required, entry->name);
        if (wanted == NULL || wanted->seen) continue;
        TRY(refuse_scaled(weights, entry->name, error));
        wanted->seen = true;
        TRY(add_item(c, layout, prefix, wanted->name, &entry->tensor, error));
    }
    for (int i = 0; i < required->count; i++)
        if (!required->tensors[i].seen)
            return error_set(error, TESSERA_ERROR_FORMAT, "%s: tensor \"%s\" is missing from the weights", weights_folder(weights),
                             required->tensors[i].name);
    return TESSERA_OK;
}

/* The first place that the family has for the component, in the layout that its config asks for. */
static tessera_status choose_place(const struct family *family, const char *component, const struct json *config,
                                   const struct family_place **out, tessera_error *error) {
    const char *activation = NULL;
    TRY(json_string(config, "hidden_act", "", &activation, error));
    bool open_clip = strcmp(activation, "gelu") == 0; /* OpenCLIP's models; OpenAI's have quick_gelu */
    const struct family_place *first = NULL;
    *out = NULL;
    for (int i = 0; i < family->place_count && *out == NULL; i++) {
        const struct family_place *place = &family->places[i];
        if (strcmp(place->component, component) != 0 || place->kind == LAYOUT_SDCPP) continue;
        if (first == NULL) first = place;
        if (open_clip && place->kind == LAYOUT_OPENCLIP) *out = place;
    }
    if (*out == NULL) *out = first;
    return TESSERA_OK;
}

static tessera_status add_place(struct collection *c, const struct family *family, const char *component, const char *folder,
                               const struct json *config, tessera_error *error) {
    const struct family_place *place;
    struct layout *layout = NULL;
    struct required required = {0};
    struct weights *weights = NULL;
    TRY(choose_place(family, component, config, &place, error));
    tessera_status status = layout_new(place->kind, config, &layout, error);
    if (status == TESSERA_OK) status = required_read(folder, NULL, &required, error);
    if (status == TESSERA_OK) status = weights_open(folder, &weights, error);
    if (status == TESSERA_OK) {
        c->weights[c->weights_count++] = weights;
        status = add_weights(c, weights, &required, layout, place->prefix, error);
    }
    required_free(&required);
    layout_free(layout);
    return status;
}

/* A component that the folder has not (SD3 without T5) is left out. */
static tessera_status add_component(struct collection *c, const struct family *family, const char *component, struct convert_report *report,
                                    tessera_error *error) {
    struct json *config = NULL;
    char *folder = file_join(c->folder, component), *path = folder != NULL ? file_join(folder, "config.json") : NULL;
    tessera_status status = TESSERA_OK;
    if (path == NULL) {
        status = no_memory(c, error);
    } else if (!file_exists(path)) {
        convert_report_missing(report, component);
    } else {
        status = json_open(path, 0, &config, error);
        if (status == TESSERA_OK) status = add_place(c, family, component, folder, config, error);
    }
    json_free(config);
    free(path);
    free(folder);
    return status;
}

static tessera_status collect(struct collection *c, const struct family *family, struct convert_report *report, tessera_error *error) {
    for (int i = 0; i < family->place_count && c->weights_count < MAX_COMPONENTS; i++) {
        bool first = true; /* of this component's places */
        for (int j = 0; j < i; j++) first = first && strcmp(family->places[j].component, family->places[i].component) != 0;
        if (first) TRY(add_component(c, family, family->places[i].component, report, error));
    }
    return TESSERA_OK;
}

/* ---- grouping ---- */

static int compare_items(const void *a, const void *b) {
    const struct item *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order != 0 ? order : x->change.first - y->change.first;
}

/* Do the items of a run make up the whole tensor, and fit together? */
static tessera_status check_run(const struct collection *c, const struct original *run, tessera_error *error) {
    int next = 0;
    bool fits = run->count == 1 || run->items[0].change.how == LAYOUT_BAND;
    for (int i = 0; i < run->count && fits; i++) {
        const struct item *item = &run->items[i];
        struct tensor whole;
        if (item->change.how == LAYOUT_BAND) fits = item->change.first == next;
        next += item->change.span;
        TRY(layout_original_shape(&item->change, item->name, &item->tensor, &whole, error));
        fits = fits && whole.dtype == run->entry.tensor.dtype && whole.ndim == run->entry.tensor.ndim &&
               memcmp(whole.shape, run->entry.tensor.shape, (size_t)whole.ndim * sizeof *whole.shape) == 0;
    }
    if (run->items[0].change.how == LAYOUT_BAND) fits = fits && next == run->items[0].change.bands;
    if (fits) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: the tensors that make up \"%s\" are not all there, or differ in type or shape",
                     c->folder, run->entry.name);
}

/* Wide elements first: then every tensor lies aligned in the file. */
static int compare_originals(const void *a, const void *b) {
    const struct original *x = a, *y = b;
    size_t wide = dtype_alignment(x->entry.tensor.dtype), other = dtype_alignment(y->entry.tensor.dtype);
    return wide != other ? (wide > other ? -1 : 1) : strcmp(x->entry.name, y->entry.name);
}

static tessera_status group(struct collection *c, tessera_error *error) {
    if (c->count > 0) qsort(c->items, (size_t)c->count, sizeof *c->items, compare_items);
    c->originals = calloc((size_t)c->count + 1, sizeof *c->originals);
    if (c->originals == NULL) return no_memory(c, error);
    for (int i = 0; i < c->count;) {
        struct original *run = &c->originals[c->original_count++];
        run->items = &c->items[i];
        run->entry.name = run->items->name;
        while (i < c->count && strcmp(c->items[i].name, run->entry.name) == 0) i++;
        run->count = (int)(&c->items[i] - run->items);
        TRY(layout_original_shape(&run->items->change, run->entry.name, &run->items->tensor, &run->entry.tensor, error));
        TRY(check_run(c, run, error));
    }
    qsort(c->originals, (size_t)c->original_count, sizeof *c->originals, compare_originals);
    return TESSERA_OK;
}

/* ---- writing ---- */

static tessera_status write_item(const struct item *item, enum dtype dtype, struct safetensors_writer *writer, tessera_error *error) {
    struct tensor band;
    void *owned;
    TRY(layout_original_band(&item->change, item->name, &item->tensor, &band, &owned, error));
    tessera_status status = convert_write(writer, item->name, &band, dtype, error);
    free(owned);
    convert_forget(&item->tensor);
    return status;
}

/* `entries`: the file's, with their types. */
static tessera_status write_originals(const struct collection *c, const struct safetensors_entry *entries,
                                      const struct convert_report *report, struct safetensors_writer *writer, tessera_error *error) {
    for (int i = 0; i < c->original_count; i++) {
        for (int j = 0; j < c->originals[i].count; j++) {
            TRY(convert_go_on(report, error));
            TRY(write_item(&c->originals[i].items[j], entries[i].tensor.dtype, writer, error));
        }
    }
    return TESSERA_OK;
}

static tessera_status write_file(const struct collection *c, const char *output, const struct convert_report *report,
                                 tessera_error *error) {
    struct safetensors_writer *writer = NULL;
    struct safetensors_entry *entries = calloc((size_t)c->original_count + 1, sizeof *entries);
    tessera_status status = TESSERA_OK;
    if (entries == NULL) return no_memory(c, error);
    for (int i = 0; i < c->original_count && status == TESSERA_OK; i++) {
        const struct safetensors_entry *stored = &c->originals[i].entry;
        entries[i] = *stored;
        status = convert_type_of(report->types, stored->name, &stored->tensor, &entries[i].tensor.dtype, error);
    }
    if (status == TESSERA_OK) status = safetensors_writer_open(output, entries, c->original_count, "pt", &writer, error);
    if (status == TESSERA_OK) status = write_originals(c, entries, report, writer, error);
    free(entries);
    if (status == TESSERA_OK) return safetensors_writer_commit(writer, error);
    safetensors_writer_discard(writer);
    return status;
}

static tessera_status find_family(const char *folder, const struct family **out, tessera_error *error) {
    struct json *index = NULL;
    const char *class_name = NULL;
    char *path = file_join(folder, "model_index.json");
    tessera_status status =
        path == NULL ? error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for its path", folder) : json_open(path, 0, &index, error);
    if (status == TESSERA_OK) status = json_string(index, "_class_name", "", &class_name, error);
    if (status == TESSERA_OK && (*out = family_of_pipeline(class_name)) == NULL)
        status =
            error_set(error, TESSERA_ERROR_UNSUPPORTED,
                      "%s: _class_name \"%.100s\" has no single-file layout that is known here; Stable Diffusion 1, 2, XL, 3 and Flux have",
                      path, class_name);
    json_free(index);
    free(path);
    return status;
}

tessera_status convert_to_file(const char *input, const char *output, struct convert_report *report, tessera_error *error) {
    struct collection c = {.folder = input};
    const struct family *family = NULL;
    *report = (struct convert_report){.stop = report->stop, .types = report->types};
    TRY(find_family(input, &family, error));
    tessera_status status = collect(&c, family, report, error);
    if (status == TESSERA_OK) status = group(&c, error);
    if (status == TESSERA_OK) status = write_file(&c, output, report, error);
    report->tensors = c.original_count;
    for (int i = 0; i < c.weights_count; i++) weights_close(c.weights[i]);
    free(c.items);
    free(c.originals);
    return status;
}
