/* Weights written anew under their own names; see convert.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "checkpoint/convert.h"
#include "tensor/weights.h"

/* A tensor, and the type that it gets. */
struct written {
    struct safetensors_entry entry;
    enum dtype dtype;
};

/* Wide elements first: then every tensor lies aligned in the file. */
static int compare_width(const void *a, const void *b) {
    const struct written *x = a, *y = b;
    size_t wide = dtype_alignment(x->dtype), other = dtype_alignment(y->dtype);
    return wide != other ? (wide > other ? -1 : 1) : strcmp(x->entry.name, y->entry.name);
}

/* Some weights mean something only together with scales that lie beside them: their types cannot
 * change alone. */
static tessera_status check_scales(const char *path, const struct safetensors_entry *entries, int count, const struct convert_report *report,
                                   tessera_error *error) {
    static const char *const endings[] = {".scale_weight", ".weight_scale", ".SCB", ".quant_map"};
    for (int i = 0; i < count && report->types != NULL; i++) {
        size_t length = strlen(entries[i].name);
        for (size_t e = 0; e < sizeof endings / sizeof *endings; e++) {
            size_t ending = strlen(endings[e]);
            if (length < ending || strcmp(entries[i].name + length - ending, endings[e]) != 0) continue;
            return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                             "%s: tensor \"%s\" scales another one: weights with scales keep their types; convert the model's file without "
                             "scales instead",
                             path, entries[i].name);
        }
    }
    return TESSERA_OK;
}

static tessera_status write_one(const struct weights *weights, const struct written *one, struct safetensors_writer *writer,
                                tessera_error *error) {
    const char *name = one->entry.name;
    struct tensor tensor = one->entry.tensor;
    void *made = NULL;
    if (tensor.data == NULL) {
        tensor.data = made = malloc(tensor_bytes(&tensor) + 1);
        if (made == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "tensor \"%s\": no memory to rearrange it", name);
        weights_read(weights, name, NULL, made);
    }
    tessera_status status = convert_write(writer, name, &tensor, one->dtype, error);
    if (made == NULL) convert_forget(&tensor);
    free(made);
    return status;
}

static tessera_status write_all(const struct weights *weights, const struct written *list, int count, const struct convert_report *report,
                                struct safetensors_writer *writer, tessera_error *error) {
    for (int i = 0; i < count; i++) {
        TRY(convert_go_on(report, error));
        TRY(write_one(weights, &list[i], writer, error));
    }
    return TESSERA_OK;
}

tessera_status convert_entries(const char *path, const struct weights *weights, const struct safetensors_entry *entries, int count,
                               const struct convert_report *report, tessera_error *error) {
    TRY(check_scales(path, entries, count, report, error));
    struct written *list = calloc((size_t)count + 1, sizeof *list);
    struct safetensors_entry *header = calloc((size_t)count + 1, sizeof *header);
    struct safetensors_writer *writer = NULL;
    tessera_status status = list == NULL || header == NULL ? error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory to write it", path) : TESSERA_OK;
    for (int i = 0; i < count && status == TESSERA_OK; i++) {
        list[i].entry = entries[i];
        status = convert_type_of(report->types, entries[i].name, &entries[i].tensor, &list[i].dtype, error);
    }
    if (status == TESSERA_OK) {
        qsort(list, (size_t)count, sizeof *list, compare_width);
        for (int i = 0; i < count; i++) {
            header[i] = list[i].entry;
            header[i].tensor.dtype = list[i].dtype;
        }
        status = safetensors_writer_open(path, header, count, "pt", &writer, error);
    }
    if (status == TESSERA_OK) status = write_all(weights, list, count, report, writer, error);
    free(list);
    free(header);
    if (status == TESSERA_OK) return safetensors_writer_commit(writer, error);
    safetensors_writer_discard(writer);
    return status;
}

/* The list of a folder's tensors, or of a file's. */
static tessera_status list_tensors(const struct weights *weights, const struct safetensors *file, struct safetensors_entry **out, int *count,
                                   tessera_error *error) {
    *count = weights != NULL ? weights_count(weights) : safetensors_count(file);
    *out = calloc((size_t)*count + 1, sizeof **out);
    if (*out == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "no memory for a list of %d tensors", *count);
    for (int i = 0; i < *count; i++) (*out)[i] = weights != NULL ? *weights_at(weights, i) : *safetensors_at(file, i);
    return TESSERA_OK;
}

tessera_status convert_tensors(const char *input, const char *output, struct convert_report *report, tessera_error *error) {
    struct weights *weights = NULL;
    struct safetensors *file = NULL;
    struct safetensors_entry *entries = NULL;
    int count = 0;
    *report = (struct convert_report){.stop = report->stop, .types = report->types};
    tessera_status status = file_is_folder(input) ? weights_open(input, &weights, error) : safetensors_open(input, &file, error);
    if (status == TESSERA_OK) status = list_tensors(weights, file, &entries, &count, error);
    if (status == TESSERA_OK) status = convert_entries(output, weights, entries, count, report, error);
    report->tensors = count;
    free(entries);
    weights_close(weights);
    safetensors_close(file);
    return status;
}
