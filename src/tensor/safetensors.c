/* Reading safetensors files (https://github.com/huggingface/safetensors, "Format").
 *
 *     | length: 8 bytes | {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...} | data |
 *
 * Opening checks the whole header before a tensor is lent, so that nothing in a hostile file
 * reaches beyond its bytes. The tensors in the order of their data must fill it exactly. The format
 * does not promise that a tensor is aligned to its element size (a header of odd length):
 * safetensors_tensor lends an aligned copy then, which the file object keeps. A tensor of a type
 * that is not known stays in the file as bytes: only who uses it fails. ggml's block formats, which
 * the format does not name, are read under ggml's names. A file of PyTorch (torch_file.h) becomes
 * the same object. safetensors_open.c tells the formats apart. */
#include "tensor/safetensors.h"

#include <assert.h>
#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "tensor/file_kind.h"
#include "tensor/torch_file.h"

#define LENGTH_BYTES ((size_t)8)
#define MAX_HEADER ((uint64_t)100000000) /* the reference implementation's limit */
#define EXACT_INTEGERS 0x1p53            /* JSON's numbers are doubles */

struct piece {
    struct safetensors_entry entry;
    uint64_t begin, end; /* behind the header */
    void *copy;          /* aligned, once safetensors_tensor needed one; else NULL */
    char *name;          /* of a file without a JSON header, else NULL */
};

struct safetensors {
    char *path;
    struct file_map map; /* empty when the caller keeps the bytes */
    struct json *header; /* owns the names, but those of a PyTorch file and those that pieces own */
    struct torch_file *torch;
    struct piece *pieces;   /* in the order of the data */
    struct piece **by_name; /* the same, sorted by name */
    int count;
};

static tessera_status field_error(const struct safetensors *file, const char *name, const char *field, const char *wrong,
                                  tessera_error *error) {
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: tensor \"%s\": %s %s", file->path, name, field, wrong);
}

static bool to_size(const cJSON *value, uint64_t *out) {
    if (!cJSON_IsNumber(value)) return false;
    double number = value->valuedouble;
    if (!(number >= 0 && number <= EXACT_INTEGERS) || number != floor(number)) return false;
    *out = (uint64_t)number;
    return true;
}

static tessera_status read_dtype(const struct safetensors *file, const cJSON *object, struct piece *piece, tessera_error *error) {
    const char *name = object->string;
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(object, "dtype");
    if (!cJSON_IsString(dtype)) return field_error(file, name, "dtype", "is missing or not a string", error);
    if (dtype_from_name(dtype->valuestring, &piece->entry.tensor.dtype)) return TESSERA_OK;
    piece->entry.tensor.dtype = DTYPE_UNKNOWN;
    return TESSERA_OK;
}

/* Fills in shape; *bytes is what it and the dtype need, where the dtype is known. */
static tessera_status read_shape(const struct safetensors *file, const cJSON *object, struct piece *piece, uint64_t *bytes,
                                 tessera_error *error) {
    const char *name = object->string;
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(object, "shape");
    if (!cJSON_IsArray(shape)) return field_error(file, name, "shape", "is missing or not a list", error);
    struct tensor *tensor = &piece->entry.tensor;
    uint64_t block = (uint64_t)dtype_block(tensor->dtype), block_bytes = dtype_bytes(tensor->dtype, (int64_t)block);
    *bytes = 1;
    for (const cJSON *item = shape->child; item != NULL; item = item->next) {
        uint64_t extent;
        if (tensor->ndim == TENSOR_MAX_DIMS) return field_error(file, name, "shape", "has too many dimensions", error);
        if (!to_size(item, &extent)) return field_error(file, name, "shape", "holds something else than sizes from 0 to 2^53", error);
        if (__builtin_mul_overflow(*bytes, extent, bytes) || *bytes > INT64_MAX)
            return field_error(file, name, "shape", "overflows: so many elements cannot be addressed", error);
        tensor->shape[tensor->ndim++] = (int64_t)extent;
    }
    if (block > 1 && (tensor->ndim == 0 || (uint64_t)tensor->shape[tensor->ndim - 1] % block != 0))
        return field_error(file, name, "shape", "has rows that are no whole blocks of its dtype", error);
    if (__builtin_mul_overflow(*bytes / block, block_bytes, bytes) || *bytes > INT64_MAX)
        return field_error(file, name, "shape", "overflows: so many elements cannot be addressed", error);
    return TESSERA_OK;
}

static tessera_status read_offsets(const struct safetensors *file, const cJSON *object, uint64_t length, struct piece *piece,
                                   tessera_error *error) {
    const char *name = object->string, *field = "data_offsets";
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(object, field);
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2)
        return field_error(file, name, field, "is missing or not a list of two", error);
    if (!to_size(offsets->child, &piece->begin) || !to_size(offsets->child->next, &piece->end))
        return field_error(file, name, field, "holds something else than positions from 0 to 2^53", error);
    if (piece->begin > piece->end) return field_error(file, name, field, "ends before it begins", error);
    if (piece->end > length)
        return error_set(error, TESSERA_ERROR_FORMAT,
                         "%s: tensor \"%s\": data_offsets ends at %llu, beyond the file's %llu bytes of data: "
                         "is the file cut off?",
                         file->path, name, (unsigned long long)piece->end, (unsigned long long)length);
    return TESSERA_OK;
}

static tessera_status read_entry(const struct safetensors *file, const cJSON *object, uint64_t length, struct piece *piece,
                                 tessera_error *error) {
    const char *name = piece->entry.name = object->string;
    if (!cJSON_IsObject(object)) return field_error(file, name, "entry", "is not an object", error);
    uint64_t bytes = 0;
    TRY(read_dtype(file, object, piece, error));
    TRY(read_shape(file, object, piece, &bytes, error));
    TRY(read_offsets(file, object, length, piece, error));
    if (piece->entry.tensor.dtype == DTYPE_UNKNOWN) {
        piece->entry.tensor = tensor_of(NULL, DTYPE_UNKNOWN, SHAPE((int64_t)(piece->end - piece->begin)));
        return TESSERA_OK;
    }
    if (piece->end - piece->begin != bytes)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: tensor \"%s\": data_offsets gives %llu bytes, but shape and dtype need %llu",
                         file->path, name, (unsigned long long)(piece->end - piece->begin), (unsigned long long)bytes);
    return TESSERA_OK;
}

static int compare_place(const void *a, const void *b) {
    const struct piece *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end) return x->end < y->end ? -1 : 1;
    return strcmp(x->entry.name, y->entry.name);
}

static int compare_name(const void *a, const void *b) {
    const struct piece *const *x = a, *const *y = b;
    return strcmp((*x)->entry.name, (*y)->entry.name);
}

/* Pieces must follow one another without gap or overlap up to the end of the data. */
static tessera_status check_places(const struct safetensors *file, uint64_t length, tessera_error *error) {
    uint64_t end = 0;
    for (int i = 0; i < file->count; i++) {
        const struct piece *piece = &file->pieces[i];
        if (piece->begin < end) return field_error(file, piece->entry.name, "data_offsets", "overlaps the tensor before it", error);
        if (piece->begin > end) return field_error(file, piece->entry.name, "data_offsets", "leaves a hole before it", error);
        end = piece->end;
    }
    if (end != length)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: data: %llu bytes after the last tensor belong to none", file->path,
                         (unsigned long long)(length - end));
    return TESSERA_OK;
}

static tessera_status sort_names(struct safetensors *file, tessera_error *error) {
    for (int i = 0; i < file->count; i++) file->by_name[i] = &file->pieces[i];
    qsort(file->by_name, (size_t)file->count, sizeof *file->by_name, compare_name);
    for (int i = 1; i < file->count; i++)
        if (compare_name(&file->by_name[i - 1], &file->by_name[i]) == 0)
            return field_error(file, file->by_name[i]->entry.name, "name", "occurs twice", error);
    return TESSERA_OK;
}

/* The header is none: what is the file instead? */
static tessera_status no_header(const struct safetensors *file, const uint8_t *data, size_t length, const char *wrong,
                                tessera_error *error) {
    char text[160];
    const char *kind = file_kind(data, length, text, sizeof text);
    if (kind != NULL) return error_set(error, TESSERA_ERROR_FORMAT, "%s: is %s", file->path, kind);
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: %s", file->path, wrong);
}

/* Checks everything that lies before the entries; *header_length is the JSON's. */
static tessera_status read_header(struct safetensors *file, const uint8_t *data, size_t length, size_t *header_length,
                                  tessera_error *error) {
    char wrong[128];
    snprintf(wrong, sizeof wrong, "header length: the file has only %zu bytes", length);
    if (length < LENGTH_BYTES) return no_header(file, data, length, wrong, error);
    uint64_t announced = 0;
    for (int i = (int)LENGTH_BYTES - 1; i >= 0; i--) announced = announced << 8 | data[i];
    snprintf(wrong, sizeof wrong, "header length: %llu bytes is more than the file or the limit of %llu allows",
             (unsigned long long)announced, (unsigned long long)MAX_HEADER);
    if (announced > MAX_HEADER || announced > length - LENGTH_BYTES) return no_header(file, data, length, wrong, error);
    *header_length = (size_t)announced;
    const char *text = (const char *)data + LENGTH_BYTES;
    if (announced == 0 || text[0] != '{') return no_header(file, data, length, "header: must begin with '{'", error);
    TRY(json_parse(file->path, text, *header_length, &file->header, error));
    const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(json_root(file->header), "__metadata__");
    if (metadata != NULL && !cJSON_IsObject(metadata))
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: __metadata__: is not an object", file->path);
    return TESSERA_OK;
}

static tessera_status read_pieces(struct safetensors *file, const uint8_t *data, uint64_t length, tessera_error *error) {
    const cJSON *root = json_root(file->header);
    size_t capacity = (size_t)cJSON_GetArraySize(root) + 1;
    file->pieces = calloc(capacity, sizeof *file->pieces);
    file->by_name = calloc(capacity, sizeof *file->by_name);
    if (file->pieces == NULL || file->by_name == NULL)
        return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for %zu tensors", file->path, capacity);
    for (const cJSON *object = root->child; object != NULL; object = object->next) {
        if (strcmp(object->string, "__metadata__") == 0) continue;
        TRY(read_entry(file, object, length, &file->pieces[file->count++], error));
    }
    qsort(file->pieces, (size_t)file->count, sizeof *file->pieces, compare_place);
    TRY(sort_names(file, error));
    for (int i = 0; i < file->count; i++) file->pieces[i].entry.tensor.data = (void *)(data + file->pieces[i].begin);
    return check_places(file, length, error);
}

tessera_status safetensors_parse(const char *name, const uint8_t *data, size_t length, struct safetensors **out, tessera_error *error) {
    *out = NULL;
    struct safetensors *file = calloc(1, sizeof *file);
    tessera_status status = TESSERA_OK;
    size_t header_length = 0;
    if (file == NULL || (file->path = strdup(name)) == NULL) {
        status = error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory to open it", name);
        goto fail;
    }
    status = read_header(file, data, length, &header_length, error);
    if (status != TESSERA_OK) goto fail;
    size_t start = LENGTH_BYTES + header_length;
    status = read_pieces(file, data + start, length - start, error);
    if (status != TESSERA_OK) goto fail;
    *out = file;
    return TESSERA_OK;
fail:
    safetensors_close(file);
    return status;
}

/* Tensors of a PyTorch file as pieces, in the order of their data. */
static tessera_status take_torch(struct safetensors *file, tessera_error *error) {
    size_t count = (size_t)torch_file_count(file->torch);
    file->pieces = calloc(count + 1, sizeof *file->pieces);
    file->by_name = calloc(count + 1, sizeof *file->by_name);
    if (file->pieces == NULL || file->by_name == NULL)
        return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for %zu tensors", file->path, count);
    for (file->count = 0; file->count < (int)count; file->count++) {
        struct piece *piece = &file->pieces[file->count];
        piece->entry = *torch_file_at(file->torch, file->count);
        piece->begin = (uintptr_t)piece->entry.tensor.data;
        piece->end = piece->begin + tensor_bytes(&piece->entry.tensor);
    }
    qsort(file->pieces, count, sizeof *file->pieces, compare_place);
    return sort_names(file, error);
}

tessera_status safetensors_parse_torch(const char *path, const uint8_t *data, size_t length, struct safetensors **out,
                                       tessera_error *error) {
    struct safetensors *file = calloc(1, sizeof *file);
    tessera_status status = file == NULL || (file->path = strdup(path)) == NULL
                                ? error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory to open it", path)
                                : torch_file_parse(path, data, length, &file->torch, error);
    if (status == TESSERA_OK) status = take_torch(file, error);
    if (status == TESSERA_OK)
        *out = file;
    else
        safetensors_close(file);
    return status;
}

/* Copies an entry and its name. */
static tessera_status add_piece(struct safetensors *file, const struct safetensors_entry *entry, tessera_error *error) {
    struct piece *piece = &file->pieces[file->count];
    piece->name = strdup(entry->name);
    if (piece->name == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for its names", file->path);
    piece->entry = (struct safetensors_entry){piece->name, entry->tensor};
    file->count++;
    return TESSERA_OK;
}

tessera_status safetensors_of(const char *name, const struct safetensors_entry *entries, int count, struct safetensors **out,
                              tessera_error *error) {
    *out = NULL;
    struct safetensors *file = calloc(1, sizeof *file);
    tessera_status status = TESSERA_OK;
    if (file != NULL) {
        file->path = strdup(name);
        file->pieces = calloc((size_t)count + 1, sizeof *file->pieces);
        file->by_name = calloc((size_t)count + 1, sizeof *file->by_name);
    }
    if (file == NULL || file->path == NULL || file->pieces == NULL || file->by_name == NULL)
        status = error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory for %d tensors", name, count);
    for (int i = 0; i < count && status == TESSERA_OK; i++) status = add_piece(file, &entries[i], error);
    if (status == TESSERA_OK) status = sort_names(file, error);
    if (status == TESSERA_OK)
        *out = file;
    else
        safetensors_close(file);
    return status;
}

void safetensors_keep_map(struct safetensors *file, struct file_map map) {
    file->map = map;
}

void safetensors_close(struct safetensors *file) {
    if (file == NULL) return;
    for (int i = 0; i < file->count; i++) {
        free(file->pieces[i].copy);
        free(file->pieces[i].name);
    }
    free(file->pieces);
    free(file->by_name);
    json_free(file->header);
    torch_file_close(file->torch);
    file_map_close(&file->map);
    free(file->path);
    free(file);
}

tessera_status safetensors_check(const struct safetensors *file, tessera_error *error) {
    return file_map_check(&file->map, file->path, error);
}

const char *safetensors_type_name(const struct safetensors *file, const char *name) {
    const struct safetensors_entry *entry = safetensors_find(file, name);
    if (file->header == NULL) return entry != NULL ? dtype_name(entry->tensor.dtype) : NULL;
    const cJSON *object = cJSON_GetObjectItemCaseSensitive(json_root(file->header), name);
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "dtype"));
}

void safetensors_forget(const struct safetensors *file, const struct tensor *tensor) {
    file_map_forget(&file->map, tensor->data, tensor_bytes(tensor));
}

bool safetensors_locate(const struct safetensors *file, const void *data, int *descriptor, uint64_t *offset) {
    uintptr_t base = (uintptr_t)file->map.data, at = (uintptr_t)data;
    if (file->map.data == NULL || at < base || at - base >= file->map.length) return false;
    *descriptor = file->map.descriptor;
    *offset = at - base;
    return true;
}

const char *safetensors_path(const struct safetensors *file) {
    return file->path;
}

int safetensors_count(const struct safetensors *file) {
    return file->count;
}

const struct safetensors_entry *safetensors_at(const struct safetensors *file, int index) {
    return &file->pieces[index].entry;
}

static int compare_key(const void *key, const void *element) {
    return strcmp(key, (*(const struct piece *const *)element)->entry.name);
}

static struct piece *find(const struct safetensors *file, const char *name) {
    struct piece **found = bsearch(name, file->by_name, (size_t)file->count, sizeof *file->by_name, compare_key);
    return found == NULL ? NULL : *found;
}

const struct safetensors_entry *safetensors_find(const struct safetensors *file, const char *name) {
    const struct piece *piece = find(file, name);
    return piece == NULL ? NULL : &piece->entry;
}

struct tensor safetensors_tensor(const struct safetensors *file, const char *name) {
    struct piece *piece = find(file, name);
    if (piece == NULL) return (struct tensor){0};
    struct tensor tensor = piece->entry.tensor;
    size_t length = tensor_bytes(&tensor);
    if ((uintptr_t)tensor.data % dtype_alignment(tensor.dtype) == 0) return tensor;
    if (piece->copy == NULL && (piece->copy = malloc(length > 0 ? length : 1)) != NULL) memcpy(piece->copy, tensor.data, length);
    tensor.data = piece->copy;
    return tensor.data != NULL ? tensor : (struct tensor){0};
}

const char *safetensors_metadata(const struct safetensors *file, const char *key) {
    if (file->header == NULL) return NULL;
    const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(json_root(file->header), "__metadata__");
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(metadata, key);
    return cJSON_IsString(value) ? value->valuestring : NULL;
}
