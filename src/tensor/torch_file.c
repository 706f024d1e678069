/* Finding pickle and storages in PyTorch's two formats, and making tensors of what the pickle says;
 * see torch_file.h. */
#include "tensor/torch_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/pickle.h"

enum { MAX_DEPTH = 16, NAME_CAPACITY = 512, FIXED_BYTES = 256 << 20 };

/* Where a storage's bytes lie. */
struct storage {
    const char *key;
    size_t key_length;
    const uint8_t *data;
    size_t bytes;
};

struct torch_file {
    const char *name; /* for messages; while it is parsed */
    struct arena *arena;
    struct storage *storages; /* sorted by key */
    int storage_count;
    struct safetensors_entry *entries; /* names and copies in the arena */
    int count, capacity;
    tessera_error *error;
};

static tessera_status no_memory(const struct torch_file *f) {
    return error_set(f->error, TESSERA_ERROR_MEMORY, "%s: no memory to read it", f->name);
}

static tessera_status broken(const struct torch_file *f, const char *what) {
    return error_set(f->error, TESSERA_ERROR_FORMAT, "%s: %s", f->name, what);
}

static uint64_t number_at(const uint8_t *data, size_t bytes) {
    uint64_t number = 0;
    for (size_t i = bytes; i-- > 0;) number = number << 8 | data[i];
    return number;
}

static int compare_text(const char *a, size_t a_length, const char *b, size_t b_length) {
    int order = memcmp(a, b, a_length < b_length ? a_length : b_length);
    return order != 0 ? order : (a_length > b_length) - (a_length < b_length);
}

static int compare_storages(const void *a, const void *b) {
    const struct storage *x = a, *y = b;
    return compare_text(x->key, x->key_length, y->key, y->key_length);
}

static const struct storage *find_storage(const struct torch_file *f, const struct pickle_value *value) {
    const struct storage key = {.key = value->text, .key_length = value->length};
    if (f->storage_count == 0) return NULL;
    return bsearch(&key, f->storages, (size_t)f->storage_count, sizeof *f->storages, compare_storages);
}

/* ---- tensors ---- */

/* Does the tensor lie in its storage in order, without gaps? */
static bool is_contiguous(const struct pickle_tensor *t) {
    int64_t step = 1;
    for (int i = t->ndim - 1; i >= 0; i--) {
        if (t->shape[i] > 1 && t->strides[i] != step) return false;
        step *= t->shape[i];
    }
    return true;
}

/* The elements of `t`, and in *reach one behind the last place that it touches; false if either
 * overflows. */
static bool measure(const struct pickle_tensor *t, int64_t *count, int64_t *reach) {
    int64_t last = t->offset, farther;
    *count = 1;
    for (int i = 0; i < t->ndim; i++) {
        if (__builtin_mul_overflow(*count, t->shape[i], count)) return false;
        if (t->shape[i] == 0) continue;
        if (__builtin_mul_overflow(t->shape[i] - 1, t->strides[i], &farther) || __builtin_add_overflow(last, farther, &last)) return false;
    }
    *reach = 0;
    return *count == 0 || !__builtin_add_overflow(last, 1, reach);
}

/* Copies the strided elements from `from` to `to` in order; returns where the next one goes. */
static uint8_t *gather(const struct pickle_tensor *t, int dimension, const uint8_t *from, size_t size, uint8_t *to) {
    if (dimension == t->ndim || dimension == TENSOR_MAX_DIMS) {
        memcpy(to, from, size);
        return to + size;
    }
    for (int64_t i = 0; i < t->shape[dimension]; i++)
        to = gather(t, dimension + 1, from + (size_t)(i * t->strides[dimension]) * size, size, to);
    return to;
}

static tessera_status read_tensor(struct torch_file *f, const char *name, const struct pickle_value *value, struct tensor *out) {
    const struct pickle_tensor *t = value->tensor;
    const struct storage *storage = find_storage(f, t->storage);
    size_t size = dtype_size(value->dtype);
    int64_t count, reach;
    if (storage == NULL)
        return error_set(f->error, TESSERA_ERROR_FORMAT, "%s: tensor \"%s\": its storage %.*s is not in the file", f->name, name,
                         (int)(t->storage->length < 40 ? t->storage->length : 40), t->storage->text);
    if (!measure(t, &count, &reach) || (uint64_t)reach > storage->bytes / size || (uint64_t)count > storage->bytes / size)
        return error_set(f->error, TESSERA_ERROR_FORMAT, "%s: tensor \"%s\" reaches beyond its storage: is the file cut off?", f->name,
                         name);
    const uint8_t *data = storage->data + (size_t)(count > 0 ? t->offset : 0) * size;
    *out = tensor_of((void *)data, value->dtype, t->ndim, t->shape);
    if (is_contiguous(t) && (uintptr_t)data % size == 0) return TESSERA_OK;
    out->data = arena_alloc(f->arena, (size_t)count * size);
    if (out->data == NULL) return no_memory(f);
    if (count > 0) gather(t, 0, data, size, out->data);
    return TESSERA_OK;
}

static tessera_status add_tensor(struct torch_file *f, const char *name, const struct pickle_value *t) {
    size_t length = strlen(name);
    struct safetensors_entry *entry;
    if (f->count == f->capacity) {
        int capacity = f->capacity > 0 ? 2 * f->capacity : 256;
        struct safetensors_entry *larger = realloc(f->entries, (size_t)capacity * sizeof *larger);
        if (larger == NULL) return no_memory(f);
        f->entries = larger;
        f->capacity = capacity;
    }
    char *copy = arena_alloc(f->arena, length + 1);
    if (copy == NULL) return no_memory(f);
    memcpy(copy, name, length + 1);
    entry = &f->entries[f->count];
    entry->name = copy;
    TRY(read_tensor(f, name, t, &entry->tensor));
    f->count++;
    return TESSERA_OK;
}

/* Appends ".KEY" to a name; false if the key is none or the name is too long. */
static bool extend(char *name, size_t length, const struct pickle_value *key) {
    const char *dot = length > 0 ? "." : "";
    int more = 0;
    if (key->type == PICKLE_TEXT && memchr(key->text, 0, key->length) == NULL && key->length < NAME_CAPACITY)
        more = snprintf(name + length, NAME_CAPACITY - length, "%s%.*s", dot, (int)key->length, key->text);
    else if (key->type == PICKLE_INT)
        more = snprintf(name + length, NAME_CAPACITY - length, "%s%lld", dot, (long long)key->integer);
    return more > 0 && (size_t)more < NAME_CAPACITY - length;
}

/* The tensors in a value and below it. A container is gone through once, however often it occurs,
 * so that the walk ends. */
static tessera_status walk(struct torch_file *f, struct pickle_value *value, char *name, int depth) {
    if (value->type == PICKLE_TENSOR) return add_tensor(f, name[0] != 0 ? name : "tensor", value);
    if ((value->type != PICKLE_DICT && value->type != PICKLE_LIST) || value->visited) return TESSERA_OK;
    if (depth == MAX_DEPTH) return broken(f, "its containers lie too deep in each other");
    value->visited = true;
    size_t length = strlen(name), step = value->type == PICKLE_DICT ? 2 : 1;
    for (size_t i = 0; i + step <= value->length; i += step) {
        const struct pickle_value number = {.type = PICKLE_INT, .integer = (int64_t)i};
        const struct pickle_value *key = step == 2 ? value->items[i] : &number;
        if (extend(name, length, key)) TRY(walk(f, value->items[i + step - 1], name, depth + 1));
        name[length] = 0;
    }
    return TESSERA_OK;
}

static tessera_status read_tree(struct torch_file *f, struct pickle_value *root) {
    char name[NAME_CAPACITY] = "";
    struct pickle_value *inner = pickle_get(root, "state_dict");
    if (f->storage_count > 0) qsort(f->storages, (size_t)f->storage_count, sizeof *f->storages, compare_storages);
    return walk(f, inner != NULL && inner->type == PICKLE_DICT ? inner : root, name, 0);
}

/* ---- zip archives ---- */

/* https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, sections 4.3.7 (local header),
 * 4.3.12 (central directory), 4.3.14 and 4.3.15 (its end with 64 bits), 4.3.16 (its end). */
enum {
    ZIP_LOCAL = 0x04034b50,
    ZIP_CENTRAL = 0x02014b50,
    ZIP_END = 0x06054b50,
    ZIP_END_64 = 0x06064b50,
    ZIP_LOCATOR_64 = 0x07064b50,
    LOCAL_BYTES = 30,
    CENTRAL_BYTES = 46,
    END_BYTES = 22,
    END_64_BYTES = 56,
    LOCATOR_BYTES = 20,
    MOST_COMMENT = 65535
};

struct zip {
    const uint8_t *data;
    size_t length;
    uint64_t count, directory, directory_bytes;
};

struct zip_entry {
    const char *name;
    size_t name_length;
    const uint8_t *data;
    size_t bytes;
    bool as_it_is; /* neither compressed nor encrypted */
};

/* Finds the central directory. */
static bool open_zip(const uint8_t *data, size_t length, struct zip *zip) {
    if (length < END_BYTES) return false;
    size_t end = length - END_BYTES, first = end > MOST_COMMENT ? end - MOST_COMMENT : 0;
    while (number_at(data + end, 4) != ZIP_END || number_at(data + end + 20, 2) != length - end - END_BYTES) {
        if (end == first) return false;
        end--;
    }
    *zip = (struct zip){data, length, number_at(data + end + 10, 2), number_at(data + end + 16, 4), number_at(data + end + 12, 4)};
    if (end >= LOCATOR_BYTES && number_at(data + end - LOCATOR_BYTES, 4) == ZIP_LOCATOR_64) {
        uint64_t wide = number_at(data + end - LOCATOR_BYTES + 8, 8);
        if (wide > length || length - wide < END_64_BYTES || number_at(data + wide, 4) != ZIP_END_64) return false;
        zip->count = number_at(data + wide + 32, 8);
        zip->directory_bytes = number_at(data + wide + 40, 8);
        zip->directory = number_at(data + wide + 48, 8);
    }
    return zip->directory <= length && zip->directory_bytes <= length - zip->directory &&
           zip->count <= zip->directory_bytes / CENTRAL_BYTES;
}

/* Sizes or offsets of 0xffffffff stand in the extra field 1, in the order: size, stored size, offset. */
static bool read_wide(const uint8_t *extra, size_t length, uint64_t values[3]) {
    while (length >= 4) {
        size_t kind = number_at(extra, 2), bytes = number_at(extra + 2, 2);
        if (bytes > length - 4) return false;
        size_t at = 0;
        for (int i = 0; kind == 1 && i < 3; i++) {
            if (values[i] != UINT32_MAX) continue;
            if (bytes - at < 8) return false;
            values[i] = number_at(extra + 4 + at, 8);
            at += 8;
        }
        extra += 4 + bytes;
        length -= 4 + bytes;
    }
    return true;
}

/* The entry at *at of the directory, which moves on to the next. */
static tessera_status read_entry(const struct torch_file *f, const struct zip *zip, size_t *at, struct zip_entry *out) {
    const uint8_t *h = zip->data + *at;
    size_t left = (size_t)(zip->directory + zip->directory_bytes) - *at;
    if (left < CENTRAL_BYTES || number_at(h, 4) != ZIP_CENTRAL) return broken(f, "its zip directory is damaged");
    size_t name = number_at(h + 28, 2), extra = number_at(h + 30, 2), comment = number_at(h + 32, 2);
    if (name + extra + comment > left - CENTRAL_BYTES) return broken(f, "its zip directory is damaged");
    uint64_t values[3] = {number_at(h + 24, 4), number_at(h + 20, 4), number_at(h + 42, 4)};
    if (!read_wide(h + CENTRAL_BYTES + name, extra, values)) return broken(f, "its zip directory is damaged");
    *out = (struct zip_entry){.name = (const char *)h + CENTRAL_BYTES, .name_length = name, .bytes = (size_t)values[0]};
    *at += CENTRAL_BYTES + name + extra + comment;
    out->as_it_is = number_at(h + 10, 2) == 0 && (number_at(h + 8, 2) & 1) == 0 && values[0] == values[1];
    if (values[2] > zip->length || zip->length - values[2] < LOCAL_BYTES || number_at(zip->data + values[2], 4) != ZIP_LOCAL)
        return broken(f, "an entry of its zip directory leads nowhere");
    uint64_t start = values[2] + LOCAL_BYTES + number_at(zip->data + values[2] + 26, 2) + number_at(zip->data + values[2] + 28, 2);
    if (start > zip->length || values[1] > zip->length - start) return broken(f, "an entry reaches beyond the zip archive: is it cut off?");
    out->data = zip->data + start;
    return TESSERA_OK;
}

static bool name_is(const struct zip_entry *entry, size_t root, const char *rest) {
    return entry->name_length == root + strlen(rest) && memcmp(entry->name + root, rest, strlen(rest)) == 0;
}

static tessera_status need_stored(const struct torch_file *f, const struct zip_entry *entry) {
    if (entry->as_it_is) return TESSERA_OK;
    return error_set(f->error, TESSERA_ERROR_UNSUPPORTED,
                     "%s: entry \"%.*s\" of this zip archive is compressed or encrypted: PyTorch stores it as it is", f->name,
                     (int)(entry->name_length < 200 ? entry->name_length : 200), entry->name);
}

/* Sorts the entries of an archive into the pickle and the storages. */
static tessera_status list_zip(struct torch_file *f, const struct zip *zip, struct zip_entry *pickle) {
    static const char data_folder[] = "/data/";
    f->storages = calloc((size_t)zip->count + 1, sizeof *f->storages);
    if (f->storages == NULL) return no_memory(f);
    size_t at = (size_t)zip->directory;
    bool script = false;
    for (uint64_t i = 0; i < zip->count; i++) {
        struct zip_entry entry;
        TRY(read_entry(f, zip, &at, &entry));
        const char *slash = memchr(entry.name, '/', entry.name_length);
        size_t root = slash != NULL ? (size_t)(slash - entry.name) : 0, skip = root + strlen(data_folder);
        if (name_is(&entry, root, "/constants.pkl")) script = true;
        if (name_is(&entry, root, "/byteorder") && entry.as_it_is && entry.bytes == 3 && memcmp(entry.data, "big", 3) == 0)
            return error_set(f->error, TESSERA_ERROR_UNSUPPORTED, "%s: was written on a big-endian machine", f->name);
        bool is_storage = entry.name_length > skip && memcmp(entry.name + root, data_folder, strlen(data_folder)) == 0;
        bool is_pickle = name_is(&entry, root, "/data.pkl");
        if (is_storage || is_pickle) TRY(need_stored(f, &entry));
        if (is_pickle) *pickle = entry;
        if (is_storage)
            f->storages[f->storage_count++] = (struct storage){entry.name + skip, entry.name_length - skip, entry.data, entry.bytes};
    }
    if (script)
        return error_set(f->error, TESSERA_ERROR_UNSUPPORTED, "%s: is a program (TorchScript), not weights: give its state_dict", f->name);
    return pickle->data != NULL ? TESSERA_OK : broken(f, "a zip archive without a data.pkl: no file of PyTorch");
}

static tessera_status read_zip(struct torch_file *f, const uint8_t *data, size_t length) {
    struct zip zip;
    struct zip_entry pickle = {0};
    struct pickle_value *root, *storages;
    size_t used;
    if (!open_zip(data, length, &zip)) return broken(f, "its zip directory is missing or damaged: is the file cut off?");
    TRY(list_zip(f, &zip, &pickle));
    TRY(pickle_read(f->name, pickle.data, pickle.bytes, f->arena, &root, &used, &storages, f->error));
    return read_tree(f, root);
}

/* ---- before 1.6 ---- */

/* torch.serialization.MAGIC_NUMBER as a pickle: LONG1 of 10 bytes, STOP. */
static const uint8_t legacy_magic[] = {0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.'};

/* The magic number stands behind PROTO 2 to 5 and, since 4, FRAME with its 8 bytes. */
static bool is_legacy(const uint8_t *data, size_t length) {
    enum { PROTO = 0x80, FRAME = 0x95, PROTO_BYTES = 2, FRAME_BYTES = 9 };
    if (length < PROTO_BYTES + FRAME_BYTES + sizeof legacy_magic || data[0] != PROTO || data[1] < 2 || data[1] > 5) return false;
    size_t at = PROTO_BYTES + (data[PROTO_BYTES] == FRAME ? FRAME_BYTES : 0);
    return memcmp(data + at, legacy_magic, sizeof legacy_magic) == 0;
}

static int compare_uses(const void *a, const void *b) {
    const struct pickle_value *const *x = a, *const *y = b;
    return compare_text((*x)->text, (*x)->length, (*y)->text, (*y)->length);
}

/* The storages that the object names, sorted by key: the list of keys does not say their types. The
 * caller frees; NULL: no memory. */
static const struct pickle_value **sort_uses(const struct pickle_value *last, size_t *count) {
    *count = 0;
    for (const struct pickle_value *use = last; use != NULL; use = use->before) ++*count;
    const struct pickle_value **uses = calloc(*count + 1, sizeof *uses);
    if (uses == NULL) return NULL;
    for (size_t i = 0; i < *count; i++, last = last->before) uses[i] = last;
    qsort(uses, *count, sizeof *uses, compare_uses);
    return uses;
}

/* The storages lie behind each other in the order of `keys`. */
static tessera_status list_legacy(struct torch_file *f, const struct pickle_value **uses, size_t use_count, const struct pickle_value *keys,
                                  const uint8_t *data, size_t length) {
    if (keys->type != PICKLE_LIST) return broken(f, "the list of its storages is missing");
    f->storages = calloc(keys->length + 1, sizeof *f->storages);
    if (f->storages == NULL) return no_memory(f);
    for (size_t i = 0; i < keys->length; i++) {
        const struct pickle_value *key = keys->items[i];
        const struct pickle_value **use = key->type == PICKLE_TEXT ? bsearch(&key, uses, use_count, sizeof *uses, compare_uses) : NULL;
        if (use == NULL) return broken(f, "a storage that no tensor uses: its size is not known");
        if (length < 8) return broken(f, "ends before its storages do: is the file cut off?");
        uint64_t count = number_at(data, 8), size = dtype_size((*use)->dtype);
        if (count > (length - 8) / size) return broken(f, "a storage reaches beyond the file: is it cut off?");
        f->storages[f->storage_count++] = (struct storage){key->text, key->length, data + 8, (size_t)(count * size)};
        data += 8 + count * size;
        length -= 8 + (size_t)(count * size);
    }
    return TESSERA_OK;
}

static tessera_status read_legacy(struct torch_file *f, const uint8_t *data, size_t length) {
    enum { MAGIC, VERSION, SYSTEM, OBJECT, KEYS, PICKLES };
    struct pickle_value *values[PICKLES], *storages[PICKLES];
    for (int i = 0; i < PICKLES; i++) {
        size_t used;
        TRY(pickle_read(f->name, data, length, f->arena, &values[i], &used, &storages[i], f->error));
        data += used;
        length -= used;
    }
    size_t count;
    const struct pickle_value **uses = sort_uses(storages[OBJECT], &count);
    if (uses == NULL) return no_memory(f);
    tessera_status status = list_legacy(f, uses, count, values[KEYS], data, length);
    free(uses);
    return status == TESSERA_OK ? read_tree(f, values[OBJECT]) : status;
}

/* ---- the file ---- */

bool torch_file_is(const uint8_t *data, size_t length) {
    static const char data_pickle[] = "/data.pkl";
    if (is_legacy(data, length)) return true;
    if (length < LOCAL_BYTES || number_at(data, 4) != ZIP_LOCAL) return false;
    size_t most = length < MOST_COMMENT ? length : MOST_COMMENT; /* torch.save writes it first; the directory names it again at the end */
    return memmem(data, most, data_pickle, strlen(data_pickle)) != NULL ||
           memmem(data + length - most, most, data_pickle, strlen(data_pickle)) != NULL;
}

tessera_status torch_file_parse(const char *name, const uint8_t *data, size_t length, struct torch_file **out, tessera_error *error) {
    *out = NULL;
    struct torch_file *f = calloc(1, sizeof *f);
    if (f == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: no memory to read it", name);
    tessera_error own = {0};
    f->name = name;
    f->error = error != NULL ? error : &own;
    f->arena = arena_new(FIXED_BYTES + 4 * length, f->error); /* for values and copies; what needs more is no honest file */
    tessera_status status = f->arena == NULL ? TESSERA_ERROR_MEMORY : TESSERA_OK;
    if (status == TESSERA_OK) status = is_legacy(data, length) ? read_legacy(f, data, length) : read_zip(f, data, length);
    if (status == TESSERA_OK && f->count == 0) status = broken(f, "holds no tensors");
    free(f->storages);
    f->storages = NULL;
    if (status == TESSERA_OK) {
        *out = f;
        return status;
    }
    torch_file_close(f);
    return status;
}

void torch_file_close(struct torch_file *f) {
    if (f == NULL) return;
    free(f->entries);
    arena_free(f->arena);
    free(f);
}

int torch_file_count(const struct torch_file *f) {
    return f->count;
}

const struct safetensors_entry *torch_file_at(const struct torch_file *f, int index) {
    return &f->entries[index];
}
