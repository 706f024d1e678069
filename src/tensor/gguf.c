/* Reading GGUF files, and the header of those that are written; see gguf.h.
 *
 * A cursor knows how many bytes are left, and every length and count is compared with it before
 * anything is allocated or followed. Of the values only general.alignment and the shapes that some
 * converters keep for tensors they flattened ("comfy.gguf.orig_shape.NAME") are used. Left out:
 * version 1, big-endian files, files in several parts. */
#include "tensor/gguf.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum value_type {
    VALUE_U8,
    VALUE_I8,
    VALUE_U16,
    VALUE_I16,
    VALUE_U32,
    VALUE_I32,
    VALUE_F32,
    VALUE_BOOL,
    VALUE_STRING,
    VALUE_ARRAY,
    VALUE_U64,
    VALUE_I64,
    VALUE_F64,
    VALUE_COUNT
};
static const uint8_t value_bytes[VALUE_COUNT] = {
    [VALUE_U8] = 1,  [VALUE_I8] = 1,   [VALUE_U16] = 2, [VALUE_I16] = 2, [VALUE_U32] = 4, [VALUE_I32] = 4,
    [VALUE_F32] = 4, [VALUE_BOOL] = 1, [VALUE_U64] = 8, [VALUE_I64] = 8, [VALUE_F64] = 8};

enum { TENSOR_BYTES_MIN = 8 + 4 + 4 + 8, VALUE_BYTES_MIN = 8 + 4 + 1, MAX_NESTING = 4, MAX_SHAPES = 65536 };

/* ggml_type -> ours; what is not listed is not known. */
static const struct {
    uint32_t ggml;
    enum dtype dtype;
} types[] = {
    {0, DTYPE_F32},  {1, DTYPE_F16},   {2, DTYPE_Q4_0},  {3, DTYPE_Q4_1},  {6, DTYPE_Q5_0},  {7, DTYPE_Q5_1},
    {8, DTYPE_Q8_0}, {10, DTYPE_Q2_K}, {11, DTYPE_Q3_K}, {12, DTYPE_Q4_K}, {13, DTYPE_Q5_K}, {14, DTYPE_Q6_K},
    {24, DTYPE_I8},  {25, DTYPE_I16},  {26, DTYPE_I32},  {27, DTYPE_I64},  {28, DTYPE_F64},  {30, DTYPE_BF16},
};

/* A string in the file. */
struct text {
    const char *data;
    size_t length;
};

/* The original shape of a tensor that lies flattened. */
struct shape {
    struct text tensor;
    int ndim;
    int64_t extents[TENSOR_MAX_DIMS];
};

struct reader {
    const char *name;
    const uint8_t *at;
    size_t left;
    const char *field; /* what is being read, for messages */
    struct shape *shapes;
    int num_shapes, capacity;
    uint64_t alignment;
    tessera_error *error;
};

static bool fail(struct reader *r, const char *wrong) {
    if (r->error->status == TESSERA_OK) error_set(r->error, TESSERA_ERROR_FORMAT, "%s: %s: %s", r->name, r->field, wrong);
    return false;
}

static bool take(struct reader *r, uint64_t bytes, const uint8_t **out) {
    if (bytes > r->left) return fail(r, "the file ends inside it: is it cut off?");
    *out = r->at;
    r->at += bytes;
    r->left -= bytes;
    return true;
}

/* A number of 1, 2, 4 or 8 bytes. */
static bool take_number(struct reader *r, int bytes, uint64_t *out) {
    const uint8_t *data;
    if (!take(r, (uint64_t)bytes, &data)) return false;
    *out = 0;
    for (int i = bytes - 1; i >= 0; i--) *out = *out << 8 | data[i];
    return true;
}

static bool take_text(struct reader *r, struct text *out) {
    uint64_t length;
    const uint8_t *data;
    if (!take_number(r, 8, &length) || !take(r, length, &data)) return false;
    *out = (struct text){(const char *)data, (size_t)length};
    return true;
}

/* ---- values ---- */

static bool skip_value(struct reader *r, uint64_t type, int depth) {
    struct text text;
    const uint8_t *data;
    uint64_t kind, count;
    if (type >= VALUE_COUNT) return fail(r, "a value has a type that is not known");
    if (type == VALUE_STRING) return take_text(r, &text);
    if (type != VALUE_ARRAY) return take(r, value_bytes[type], &data);
    if (depth == MAX_NESTING) return fail(r, "arrays are nested too deeply");
    if (!take_number(r, 4, &kind) || !take_number(r, 8, &count)) return false;
    if (kind >= VALUE_COUNT) return fail(r, "an array has a type that is not known");
    if (kind != VALUE_STRING && kind != VALUE_ARRAY)
        return count > r->left / value_bytes[kind] ? fail(r, "an array is longer than the file")
                                                   : take(r, count * value_bytes[kind], &data);
    if (count > r->left / 8) return fail(r, "an array is longer than the file");
    for (uint64_t i = 0; i < count; i++)
        if (!skip_value(r, kind, depth + 1)) return false;
    return true;
}

/* An array of int32: the extents of `tensor`, slowest first. */
static bool take_shape(struct reader *r, struct text tensor) {
    uint64_t kind, count, extent;
    if (!take_number(r, 4, &kind) || !take_number(r, 8, &count)) return false;
    if (kind != VALUE_I32 || count > TENSOR_MAX_DIMS || r->num_shapes == MAX_SHAPES)
        return fail(r, "an orig_shape is no list of few int32");
    if (r->num_shapes == r->capacity) {
        int capacity = r->capacity > 0 ? 2 * r->capacity : 64;
        struct shape *shapes = realloc(r->shapes, (size_t)capacity * sizeof *shapes);
        if (shapes == NULL) return error_set(r->error, TESSERA_ERROR_MEMORY, "%s: no memory for its shapes", r->name) == TESSERA_OK;
        r->shapes = shapes;
        r->capacity = capacity;
    }
    struct shape *shape = &r->shapes[r->num_shapes];
    *shape = (struct shape){.tensor = tensor, .ndim = (int)count};
    for (int i = 0; i < shape->ndim; i++) {
        if (!take_number(r, 4, &extent)) return false;
        if (extent > INT32_MAX) return fail(r, "an orig_shape is negative");
        shape->extents[i] = (int64_t)extent;
    }
    r->num_shapes++;
    return true;
}

static bool has_name(struct text text, const char *name) {
    return text.length == strlen(name) && memcmp(text.data, name, text.length) == 0;
}

static bool take_pair(struct reader *r) {
    static const char original[] = "comfy.gguf.orig_shape.";
    const size_t prefix = sizeof original - 1;
    struct text key;
    uint64_t type;
    if (!take_text(r, &key) || !take_number(r, 4, &type)) return false;
    if (type == VALUE_ARRAY && key.length > prefix && memcmp(key.data, original, prefix) == 0)
        return take_shape(r, (struct text){key.data + prefix, key.length - prefix});
    if (!has_name(key, "general.alignment") || type != VALUE_U32) return skip_value(r, type, 0);
    if (!take_number(r, 4, &r->alignment)) return false;
    bool power = r->alignment >= 1 && r->alignment <= 1 << 20 && (r->alignment & (r->alignment - 1)) == 0;
    return power || fail(r, "general.alignment is no power of two up to 2^20");
}

/* ---- tensors ---- */

static enum dtype dtype_of(uint64_t ggml) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].ggml == ggml) return types[i].dtype;
    return DTYPE_UNKNOWN;
}

static bool take_extents(struct reader *r, struct tensor *t) {
    uint64_t ndim, extent, count = 1;
    if (!take_number(r, 4, &ndim)) return false;
    if (ndim > TENSOR_MAX_DIMS) return fail(r, "has too many dimensions");
    t->ndim = (int)ndim;
    for (int i = t->ndim - 1; i >= 0; i--) {
        if (!take_number(r, 8, &extent)) return false;
        uint64_t factor = extent > 0 ? extent : 1; /* so that the product overflows in no order, even if one is 0 */
        if (__builtin_mul_overflow(count, factor, &count) || count > INT64_MAX / 8)
            return fail(r, "has more elements than can be addressed");
        t->shape[i] = (int64_t)extent;
    }
    return true;
}

/* Name, extents, type and offset of one tensor; its data is not checked yet, and `offset` counts
 * from the data's start. */
static bool take_tensor(struct reader *r, struct safetensors_entry *out, uint64_t *offset) {
    struct text name;
    uint64_t type;
    struct tensor *t = &out->tensor;
    *t = (struct tensor){.device = {DEVICE_CPU, 0}};
    if (!take_text(r, &name)) return false;
    if (name.length == 0 || memchr(name.data, 0, name.length) != NULL) return fail(r, "a name is empty or holds a 0 byte");
    char *copy = strndup(name.data, name.length);
    if (copy == NULL) return error_set(r->error, TESSERA_ERROR_MEMORY, "%s: no memory for its names", r->name) == TESSERA_OK;
    out->name = r->field = copy; /* the caller frees all names */
    if (!take_extents(r, t) || !take_number(r, 4, &type) || !take_number(r, 8, offset)) return false;
    t->dtype = dtype_of(type);
    int64_t block = dtype_block(t->dtype);
    if (block > 1 && (t->ndim == 0 || t->shape[t->ndim - 1] % block != 0)) return fail(r, "has rows that are no whole blocks of its type");
    return true;
}

/* Some converters write a tensor as a matrix with rows of 256 numbers and keep its shape beside it:
 * its blocks may then cross its rows. */
static void restore_shape(const struct reader *r, struct safetensors_entry *entry) {
    for (int i = 0; i < r->num_shapes; i++) {
        const struct shape *s = &r->shapes[i];
        int64_t count = 1;
        if (!has_name(s->tensor, entry->name)) continue;
        for (int d = 0; d < s->ndim; d++) count = count > tensor_count(&entry->tensor) ? count : count * s->extents[d];
        if (count == tensor_count(&entry->tensor)) entry->tensor = tensor_reshape(entry->tensor, s->ndim, s->extents);
    }
}

/* Points a tensor at its bytes; of a type that is not known nothing is shown. */
static bool place(struct reader *r, struct safetensors_entry *entry, uint64_t offset) {
    r->field = entry->name;
    if (entry->tensor.dtype == DTYPE_UNKNOWN) {
        entry->tensor = tensor_of((void *)(uintptr_t)r->at, DTYPE_UNKNOWN, SHAPE(0));
        return true;
    }
    if (offset % r->alignment != 0) return fail(r, "begins at a place that is no multiple of the alignment");
    if (offset > r->left || tensor_bytes(&entry->tensor) > r->left - offset) return fail(r, "reaches beyond the file: is it cut off?");
    entry->tensor.data = (void *)(uintptr_t)(r->at + offset);
    restore_shape(r, entry);
    return true;
}

static bool read_tensors(struct reader *r, const uint8_t *start, uint64_t count, struct safetensors_entry *entries, uint64_t *offsets) {
    for (uint64_t i = 0; i < count; i++) {
        r->field = "a tensor's description";
        if (!take_tensor(r, &entries[i], &offsets[i])) return false;
    }
    const uint8_t *padding;
    uint64_t over = (uint64_t)(r->at - start) % r->alignment;
    r->field = "data";
    if (count > 0 && over > 0 && !take(r, r->alignment - over, &padding)) return false;
    for (uint64_t i = 0; i < count; i++)
        if (!place(r, &entries[i], offsets[i])) return false;
    return true;
}

static bool read_header(struct reader *r, uint64_t *tensors) {
    uint64_t magic, version, pairs;
    r->field = "header";
    if (!take_number(r, 4, &magic) || !take_number(r, 4, &version)) return false;
    if (version != 2 && version != 3) return fail(r, "the version is not 2 or 3 (or the file is big-endian)");
    if (!take_number(r, 8, tensors) || !take_number(r, 8, &pairs)) return false;
    if (*tensors > r->left / TENSOR_BYTES_MIN || pairs > r->left / VALUE_BYTES_MIN)
        return fail(r, "counts more than the file has room for");
    r->field = "values";
    for (uint64_t i = 0; i < pairs; i++)
        if (!take_pair(r)) return false;
    return true;
}

bool gguf_is(const uint8_t *data, size_t length) {
    return length >= 4 && memcmp(data, "GGUF", 4) == 0;
}

tessera_status gguf_parse(const char *name, const uint8_t *data, size_t length, struct safetensors **out, tessera_error *error) {
    tessera_error local = {0};
    struct reader r = {.name = name, .at = data, .left = length, .alignment = GGUF_ALIGNMENT, .error = &local};
    struct safetensors_entry *entries = NULL;
    uint64_t *offsets = NULL, count = 0;
    *out = NULL;
    if (read_header(&r, &count)) {
        entries = calloc((size_t)count + 1, sizeof *entries);
        offsets = calloc((size_t)count + 1, sizeof *offsets);
        if (entries == NULL || offsets == NULL)
            error_set(&local, TESSERA_ERROR_MEMORY, "%s: no memory for %llu tensors", name, (unsigned long long)count);
        else if (read_tensors(&r, data, count, entries, offsets))
            safetensors_of(name, entries, (int)count, out, &local);
    }
    for (uint64_t i = 0; entries != NULL && i < count; i++) free((char *)entries[i].name);
    free(entries);
    free(offsets);
    free(r.shapes);
    return local.status == TESSERA_OK ? TESSERA_OK : error_set(error, local.status, "%s", local.message);
}

/* ---- writing ---- */

/* ggml's number of a type; -1 if it has none. */
static int64_t ggml_type_of(enum dtype dtype) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].dtype == dtype) return types[i].ggml;
    return -1;
}

bool gguf_has_type(enum dtype dtype) {
    return ggml_type_of(dtype) >= 0;
}

static void put_number(FILE *stream, int bytes, uint64_t value) {
    for (int i = 0; i < bytes; i++) fputc((int)(value >> 8 * i & 255), stream);
}

static void put_text(FILE *stream, const char *text) {
    put_number(stream, 8, strlen(text));
    fputs(text, stream);
}

/* The one value says which version of the block formats it is (2: scales lie as they do now).
 * stable-diffusion.cpp names no architecture either: the tensors' names tell. */
void gguf_print_header(FILE *stream, const struct safetensors_entry *entries, int count) {
    uint64_t offset = 0;
    fputs("GGUF", stream), put_number(stream, 4, 3), put_number(stream, 8, (uint64_t)count), put_number(stream, 8, 1);
    put_text(stream, "general.quantization_version"), put_number(stream, 4, VALUE_U32), put_number(stream, 4, 2);
    for (int i = 0; i < count; i++) {
        const struct tensor *t = &entries[i].tensor;
        put_text(stream, entries[i].name);
        put_number(stream, 4, (uint64_t)(t->ndim > 0 ? t->ndim : 1));
        for (int d = t->ndim - 1; d >= 0; d--) put_number(stream, 8, (uint64_t)t->shape[d]);
        if (t->ndim == 0) put_number(stream, 8, 1);
        put_number(stream, 4, (uint64_t)ggml_type_of(t->dtype)), put_number(stream, 8, offset);
        offset += (tensor_bytes(t) + GGUF_ALIGNMENT - 1) / GGUF_ALIGNMENT * GGUF_ALIGNMENT;
    }
    while (ftell(stream) % GGUF_ALIGNMENT != 0) fputc(0, stream);
}
