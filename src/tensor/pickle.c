/* The stack machine of pickles, without its power; see pickle.h.
 *
 * Memory is bounded by the pickle's length: each instruction makes at most one value, and the memo
 * has at most one place per byte. Numbers of elements and places are checked by who looks at the
 * tensors (torch_file.c). */
#include "tensor/pickle.h"

#include <stdio.h>
#include <string.h>

enum role { /* what calling a name does */
            ROLE_DICT,
            ROLE_LIST,
            ROLE_TENSOR,       /* (storage, offset, shape, strides, ...) */
            ROLE_TENSOR_TYPED, /* the same, the element type in the seventh place */
            ROLE_PARAMETER,    /* (tensor, ...) */
            ROLE_STORAGE,      /* is not called: the type of a storage */
            ROLE_DTYPE,        /* is not called: an element type */
            ROLE_CALLED_INERT, /* gives something that is of no interest */
            ROLE_INERT,        /* is not called: stands for itself */
};

/* All names of Python that are known. What torch.save writes, and what training programs left in
 * published checkpoints: without those the first Stable Diffusion's own files could not be read.
 * None of them runs anything here. */
static const struct {
    const char *module, *name;
    enum role role;
    const char *dtype; /* safetensors' name */
} globals[] = {
    {"collections", "OrderedDict", ROLE_DICT, NULL},
    {"torch._utils", "_rebuild_tensor_v2", ROLE_TENSOR, NULL},
    {"torch._utils", "_rebuild_tensor", ROLE_TENSOR, NULL},
    {"torch._utils", "_rebuild_tensor_v3", ROLE_TENSOR_TYPED, NULL},
    {"torch._utils", "_rebuild_parameter", ROLE_PARAMETER, NULL},
    {"torch.nn.parameter", "Parameter", ROLE_PARAMETER, NULL},
    {"torch", "FloatStorage", ROLE_STORAGE, "F32"},
    {"torch", "HalfStorage", ROLE_STORAGE, "F16"},
    {"torch", "BFloat16Storage", ROLE_STORAGE, "BF16"},
    {"torch", "DoubleStorage", ROLE_STORAGE, "F64"},
    {"torch", "LongStorage", ROLE_STORAGE, "I64"},
    {"torch", "IntStorage", ROLE_STORAGE, "I32"},
    {"torch", "ShortStorage", ROLE_STORAGE, "I16"},
    {"torch", "CharStorage", ROLE_STORAGE, "I8"},
    {"torch", "ByteStorage", ROLE_STORAGE, "U8"},
    {"torch", "BoolStorage", ROLE_STORAGE, "BOOL"},
    {"torch", "UntypedStorage", ROLE_STORAGE, "U8"},
    {"torch.storage", "UntypedStorage", ROLE_STORAGE, "U8"},
    {"torch", "float32", ROLE_DTYPE, "F32"},
    {"torch", "float16", ROLE_DTYPE, "F16"},
    {"torch", "bfloat16", ROLE_DTYPE, "BF16"},
    {"torch", "float64", ROLE_DTYPE, "F64"},
    {"torch", "float8_e4m3fn", ROLE_DTYPE, "F8_E4M3"},
    {"torch", "float8_e5m2", ROLE_DTYPE, "F8_E5M2"},
    {"torch", "Size", ROLE_LIST, NULL},
    {"torch", "device", ROLE_CALLED_INERT, NULL},
    {"__builtin__", "set", ROLE_LIST, NULL},
    {"builtins", "set", ROLE_LIST, NULL},
    {"_codecs", "encode", ROLE_CALLED_INERT, NULL},
    {"numpy.core.multiarray", "scalar", ROLE_CALLED_INERT, NULL},
    {"numpy._core.multiarray", "scalar", ROLE_CALLED_INERT, NULL},
    {"numpy", "dtype", ROLE_CALLED_INERT, NULL},
    {"pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint", ROLE_INERT, NULL},
    {"pytorch_lightning.callbacks", "ModelCheckpoint", ROLE_INERT, NULL},
};
enum { GLOBALS = sizeof globals / sizeof *globals };

struct machine {
    const char *file;
    const uint8_t *data;
    size_t length, at;
    struct arena *arena;
    struct pickle_value **stack, **memo;
    size_t depth, capacity;                   /* of the stack */
    size_t memo_size, memo_next;              /* places; where the next MEMOIZE writes */
    struct pickle_value *storages;            /* the last one */
    struct pickle_value *none, *mark, *inert; /* one of each: many instructions of one byte push them */
    tessera_error *error;
};

/* ---- values ---- */

static tessera_status broken(const struct machine *m, const char *what) {
    return error_set(m->error, TESSERA_ERROR_FORMAT, "%s: pickle, byte %zu: %s", m->file, m->at, what);
}

static void *take(struct machine *m, size_t bytes) {
    void *memory = arena_alloc(m->arena, bytes);
    if (memory == NULL) error_set(m->error, TESSERA_ERROR_MEMORY, "%s: no memory for its pickle", m->file);
    return memory;
}

/* `array` of `capacity` pointers, twice as large; NULL: no memory. */
static struct pickle_value **grow(struct machine *m, struct pickle_value **array, size_t *capacity) {
    size_t larger = *capacity > 0 ? 2 * *capacity : 16;
    struct pickle_value **copy = take(m, larger * sizeof(struct pickle_value *));
    if (copy == NULL) return NULL;
    if (*capacity > 0) memcpy(copy, array, *capacity * sizeof *copy);
    memset(copy + *capacity, 0, (larger - *capacity) * sizeof *copy);
    *capacity = larger;
    return copy;
}

static tessera_status push(struct machine *m, struct pickle_value *value) {
    if (value == NULL) return TESSERA_ERROR_MEMORY;
    if (m->depth == m->capacity) {
        struct pickle_value **stack = grow(m, m->stack, &m->capacity);
        if (stack == NULL) return TESSERA_ERROR_MEMORY;
        m->stack = stack;
    }
    m->stack[m->depth++] = value;
    return TESSERA_OK;
}

static struct pickle_value *new_value(struct machine *m, enum pickle_type type) {
    struct pickle_value *value = take(m, sizeof *value);
    if (value != NULL) *value = (struct pickle_value){.type = type};
    return value;
}

static tessera_status push_integer(struct machine *m, enum pickle_type type, int64_t integer) {
    struct pickle_value *value = new_value(m, type);
    if (value != NULL) value->integer = integer;
    return push(m, value);
}

/* The value on top, which is not taken; NULL if there is none above a mark. */
static struct pickle_value *top(const struct machine *m) {
    return m->depth > 0 && m->stack[m->depth - 1]->type != PICKLE_MARK ? m->stack[m->depth - 1] : NULL;
}

static struct pickle_value *pop(struct machine *m) {
    struct pickle_value *value = top(m);
    if (value != NULL) m->depth--;
    return value;
}

/* Takes what lies above the last mark, and the mark: *items [*count], valid until the next push. */
static tessera_status pop_mark(struct machine *m, struct pickle_value ***items, size_t *count) {
    size_t first = m->depth;
    *items = NULL;
    *count = 0;
    while (first > 0 && m->stack[first - 1]->type != PICKLE_MARK) first--;
    if (first == 0) return broken(m, "no mark on the stack");
    *items = m->stack + first;
    *count = m->depth - first;
    m->depth = first - 1;
    return TESSERA_OK;
}

/* Appends items to a list or dictionary. Room doubles, so what is left behind is as much again. */
static tessera_status append(struct machine *m, struct pickle_value *to, struct pickle_value **items, size_t count) {
    size_t room = 1;
    while (room < to->length) room *= 2;
    if (to->items == NULL || to->length + count > room) {
        while (room < to->length + count) room *= 2;
        struct pickle_value **larger = take(m, room * sizeof(struct pickle_value *));
        if (larger == NULL) return TESSERA_ERROR_MEMORY;
        if (to->length > 0) memcpy(larger, to->items, to->length * sizeof *larger);
        to->items = larger;
    }
    if (count > 0) memcpy(to->items + to->length, items, count * sizeof *items);
    to->length += count;
    return TESSERA_OK;
}

static tessera_status push_tuple(struct machine *m, struct pickle_value **items, size_t count) {
    struct pickle_value *tuple = new_value(m, PICKLE_LIST);
    if (tuple == NULL) return TESSERA_ERROR_MEMORY;
    tuple->is_tuple = true;
    TRY(append(m, tuple, items, count));
    return push(m, tuple);
}

static tessera_status tuple_of_top(struct machine *m, size_t count) {
    struct pickle_value *items[3];
    for (size_t i = count; i-- > 0;)
        if ((items[i] = pop(m)) == NULL) return broken(m, "the stack is empty");
    return push_tuple(m, items, count);
}

/* ---- numbers and texts in the bytes ---- */

static tessera_status need(struct machine *m, size_t bytes) {
    return bytes <= m->length - m->at ? TESSERA_OK : broken(m, "ends in the middle of an instruction: is the file cut off?");
}

/* An unsigned little-endian number of `bytes` bytes. */
static tessera_status read_number(struct machine *m, size_t bytes, uint64_t *out) {
    TRY(need(m, bytes));
    *out = 0;
    for (size_t i = bytes; i-- > 0;) *out = *out << 8 | m->data[m->at + i];
    m->at += bytes;
    return TESSERA_OK;
}

/* A text or bytes behind a length of `width` bytes. */
static tessera_status push_text(struct machine *m, size_t width, enum pickle_type type) {
    uint64_t length;
    TRY(read_number(m, width, &length));
    if (length > SIZE_MAX / 2) return broken(m, "a text longer than the file");
    TRY(need(m, (size_t)length));
    struct pickle_value *value = new_value(m, type);
    if (value == NULL) return TESSERA_ERROR_MEMORY;
    value->text = (const char *)m->data + m->at;
    value->length = (size_t)length;
    m->at += (size_t)length;
    return push(m, value);
}

/* A two's complement number of any length; beyond 64 bits only its sign is kept, since no one asks
 * for such numbers. */
static tessera_status push_long(struct machine *m, size_t width) {
    uint64_t bytes, low = 0;
    TRY(read_number(m, width, &bytes));
    if (bytes > m->length) return broken(m, "a number longer than the file");
    TRY(need(m, (size_t)bytes));
    bool negative = bytes > 0 && (m->data[m->at + bytes - 1] & 0x80) != 0;
    if (negative) low = UINT64_MAX;
    for (size_t i = bytes < 8 ? (size_t)bytes : 8; i-- > 0;) low = low << 8 | m->data[m->at + i];
    m->at += (size_t)bytes;
    return push_integer(m, PICKLE_INT, bytes > 8 ? (negative ? INT64_MIN : INT64_MAX) : (int64_t)low);
}

/* ---- names ---- */

static bool text_is(const struct pickle_value *value, const char *text) {
    return value->type == PICKLE_TEXT && value->length == strlen(text) && memcmp(value->text, text, value->length) == 0;
}

static tessera_status push_global(struct machine *m, const struct pickle_value *module, const struct pickle_value *name) {
    for (int i = 0; i < GLOBALS; i++) {
        if (!text_is(module, globals[i].module) || !text_is(name, globals[i].name)) continue;
        struct pickle_value *value = new_value(m, PICKLE_GLOBAL);
        if (value == NULL) return TESSERA_ERROR_MEMORY;
        value->integer = i;
        if (globals[i].dtype != NULL && !dtype_from_name(globals[i].dtype, &value->dtype))
            return error_set(m->error, TESSERA_ERROR_UNSUPPORTED, "%s: holds elements of type %s, which are not read", m->file,
                             globals[i].name);
        return push(m, value);
    }
    return error_set(
        m->error, TESSERA_ERROR_UNSUPPORTED,
        "%s: its pickle asks for \"%.*s.%.*s\": only tensors and plain containers are read, and nothing of a file is executed; "
        "convert it to safetensors with a program that you trust it to",
        m->file, (int)(module->length < 200 ? module->length : 200), module->text, (int)(name->length < 200 ? name->length : 200),
        name->text);
}

/* "module\nname\n" */
static tessera_status read_global(struct machine *m) {
    struct pickle_value names[2] = {{.type = PICKLE_TEXT}, {.type = PICKLE_TEXT}};
    for (int i = 0; i < 2; i++) {
        const uint8_t *start = m->data + m->at, *end = memchr(start, '\n', m->length - m->at);
        if (end == NULL) return broken(m, "a name without an end: is the file cut off?");
        names[i].text = (const char *)start;
        names[i].length = (size_t)(end - start);
        m->at += names[i].length + 1;
    }
    return push_global(m, &names[0], &names[1]);
}

static tessera_status stack_global(struct machine *m) {
    struct pickle_value *name = pop(m), *module = name != NULL ? pop(m) : NULL;
    if (module == NULL || name->type != PICKLE_TEXT || module->type != PICKLE_TEXT) return broken(m, "a name that is no text");
    return push_global(m, module, name);
}

/* ---- tensors ---- */

static enum role role_of(const struct pickle_value *value) {
    return globals[value->integer].role;
}

static bool read_sizes(const struct pickle_value *list, int64_t *out, int *count) {
    if (list->type != PICKLE_LIST || list->length > TENSOR_MAX_DIMS) return false;
    for (size_t i = 0; i < list->length; i++) {
        if (list->items[i]->type != PICKLE_INT || list->items[i]->integer < 0) return false;
        out[i] = list->items[i]->integer;
    }
    *count = (int)list->length;
    return true;
}

/* ("storage", type, key, where it was, elements[, view]) */
static tessera_status push_storage(struct machine *m) {
    struct pickle_value *id = pop(m), *value = new_value(m, PICKLE_STORAGE);
    if (value == NULL) return TESSERA_ERROR_MEMORY;
    struct pickle_value **items = id != NULL && id->type == PICKLE_LIST ? id->items : NULL;
    if (id == NULL || id->type != PICKLE_LIST || id->length < 5 || !text_is(items[0], "storage") || items[1]->type != PICKLE_GLOBAL ||
        role_of(items[1]) != ROLE_STORAGE || items[2]->type != PICKLE_TEXT || items[4]->type != PICKLE_INT || items[4]->integer < 0)
        return broken(m, "refers to something that is no storage of tensors");
    if (id->length > 5 && items[5]->type != PICKLE_NONE)
        return error_set(m->error, TESSERA_ERROR_UNSUPPORTED, "%s: a storage that is a view of another, as PyTorch before 0.4 wrote it",
                         m->file);
    value->dtype = items[1]->dtype;
    value->text = items[2]->text;
    value->length = items[2]->length;
    value->integer = items[4]->integer;
    value->before = m->storages;
    m->storages = value;
    return push(m, value);
}

static tessera_status push_tensor(struct machine *m, const struct pickle_value *arguments, bool typed) {
    struct pickle_value *value = new_value(m, PICKLE_TENSOR), **a = arguments->items;
    struct pickle_tensor *tensor = take(m, sizeof *tensor);
    int strides = 0;
    if (value == NULL || tensor == NULL) return TESSERA_ERROR_MEMORY;
    if (arguments->length < (typed ? 7u : 4u) || a[0]->type != PICKLE_STORAGE || a[1]->type != PICKLE_INT || a[1]->integer < 0 ||
        !read_sizes(a[2], tensor->shape, &tensor->ndim) || !read_sizes(a[3], tensor->strides, &strides) || strides != tensor->ndim)
        return broken(m, "a tensor without a storage, a shape and strides of at most 8 dimensions");
    if (typed && (a[6]->type != PICKLE_GLOBAL || role_of(a[6]) != ROLE_DTYPE)) return broken(m, "a tensor without an element type");
    tensor->storage = a[0];
    tensor->offset = a[1]->integer;
    value->tensor = tensor;
    value->dtype = typed ? a[6]->dtype : a[0]->dtype;
    return push(m, value);
}

/* A call: only of what is known, and none of it runs code. */
static tessera_status reduce(struct machine *m) {
    struct pickle_value *arguments = pop(m), *called = arguments != NULL ? pop(m) : NULL;
    if (called == NULL || called->type != PICKLE_GLOBAL || arguments->type != PICKLE_LIST)
        return broken(m, "calls something that is no name");
    switch (role_of(called)) {
    case ROLE_DICT:
        return push(m, new_value(m, PICKLE_DICT)); /* old files give [] */
    case ROLE_LIST:
        return push(m,
                    arguments->length == 1 && arguments->items[0]->type == PICKLE_LIST ? arguments->items[0] : new_value(m, PICKLE_LIST));
    case ROLE_TENSOR:
    case ROLE_TENSOR_TYPED:
        return push_tensor(m, arguments, role_of(called) == ROLE_TENSOR_TYPED);
    case ROLE_PARAMETER:
        if (arguments->length < 1 || arguments->items[0]->type != PICKLE_TENSOR) return broken(m, "a parameter that is no tensor");
        return push(m, arguments->items[0]);
    case ROLE_CALLED_INERT:
        return push(m, m->inert);
    case ROLE_STORAGE:
    case ROLE_DTYPE:
    case ROLE_INERT:
        break;
    }
    return error_set(m->error, TESSERA_ERROR_UNSUPPORTED, "%s: its pickle calls \"%s.%s\", and nothing of a file is executed", m->file,
                     globals[called->integer].module, globals[called->integer].name);
}

/* Attributes of a dictionary (PyTorch's _metadata) and of what is of no interest are passed over. */
static tessera_status build(struct machine *m) {
    if (pop(m) == NULL || top(m) == NULL) return broken(m, "the stack is empty");
    enum pickle_type type = top(m)->type;
    if (type == PICKLE_DICT || type == PICKLE_INERT || type == PICKLE_TENSOR) return TESSERA_OK;
    return error_set(m->error, TESSERA_ERROR_UNSUPPORTED, "%s: its pickle sets the state (BUILD) of something that is no plain container",
                     m->file);
}

/* ---- containers ---- */

static tessera_status set_items(struct machine *m) {
    struct pickle_value **items;
    size_t count;
    TRY(pop_mark(m, &items, &count));
    struct pickle_value *dict = top(m);
    if (dict == NULL || dict->type != PICKLE_DICT || count % 2 != 0) return broken(m, "sets items of something that is no dictionary");
    return append(m, dict, items, count);
}

static tessera_status set_item(struct machine *m) {
    struct pickle_value *pair[2];
    pair[1] = pop(m);
    pair[0] = pair[1] != NULL ? pop(m) : NULL;
    struct pickle_value *dict = pair[0] != NULL ? top(m) : NULL;
    if (dict == NULL || dict->type != PICKLE_DICT) return broken(m, "sets an item of something that is no dictionary");
    return append(m, dict, pair, 2);
}

static tessera_status append_items(struct machine *m) {
    struct pickle_value **items;
    size_t count;
    TRY(pop_mark(m, &items, &count));
    struct pickle_value *list = top(m);
    if (list == NULL || list->type != PICKLE_LIST || list->is_tuple) return broken(m, "appends to something that is no list");
    return append(m, list, items, count);
}

static tessera_status append_item(struct machine *m) {
    struct pickle_value *item = pop(m), *list = item != NULL ? top(m) : NULL;
    if (list == NULL || list->type != PICKLE_LIST || list->is_tuple) return broken(m, "appends to something that is no list");
    return append(m, list, &item, 1);
}

static tessera_status marked_container(struct machine *m, enum pickle_type type, bool is_tuple) {
    struct pickle_value **items, *value = new_value(m, type);
    size_t count;
    if (value == NULL) return TESSERA_ERROR_MEMORY;
    TRY(pop_mark(m, &items, &count));
    if (type == PICKLE_DICT && count % 2 != 0) return broken(m, "a dictionary with a key and no value");
    value->is_tuple = is_tuple;
    TRY(append(m, value, items, count));
    return push(m, value);
}

/* ---- memo ---- */

static tessera_status put(struct machine *m, uint64_t place) {
    if (top(m) == NULL) return broken(m, "the stack is empty");
    if (place >= m->length) return broken(m, "a place in the memo beyond all that the file can fill");
    while (place >= m->memo_size) {
        struct pickle_value **memo = grow(m, m->memo, &m->memo_size);
        if (memo == NULL) return TESSERA_ERROR_MEMORY;
        m->memo = memo;
    }
    m->memo[place] = top(m);
    if (place >= m->memo_next) m->memo_next = (size_t)place + 1;
    return TESSERA_OK;
}

static tessera_status get(struct machine *m, uint64_t place) {
    if (place >= m->memo_size || m->memo[place] == NULL) return broken(m, "asks the memo for what was never put there");
    return push(m, m->memo[place]);
}

/* ---- instructions ---- */

enum { STOP = '.' };

static tessera_status refuse_instruction(const struct machine *m, uint8_t code) {
    static const struct {
        uint8_t code;
        const char *name;
    } names[] = {{'i', "INST"},  {'o', "OBJ"},    {0x81, "NEWOBJ"},      {0x92, "NEWOBJ_EX"},       {0x82, "EXT1"},       {0x83, "EXT2"},
                 {0x84, "EXT4"}, {'P', "PERSID"}, {0x97, "NEXT_BUFFER"}, {0x98, "READONLY_BUFFER"}, {0x96, "BYTEARRAY8"}, {'I', "INT"},
                 {'L', "LONG"},  {'F', "FLOAT"},  {'S', "STRING"},       {'V', "UNICODE"},          {'p', "PUT"},         {'g', "GET"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].code == code)
            return error_set(m->error, TESSERA_ERROR_UNSUPPORTED,
                             "%s: its pickle has the instruction %s: only tensors and plain containers are read, and nothing of a file is "
                             "executed",
                             m->file, names[i].name);
    return error_set(m->error, TESSERA_ERROR_UNSUPPORTED, "%s: its pickle has the unknown instruction 0x%02x", m->file, code);
}

static tessera_status run_number(struct machine *m, uint8_t code) {
    uint64_t number = 0;
    switch (code) {
    case 'K': /* BININT1 */
        TRY(read_number(m, 1, &number));
        return push_integer(m, PICKLE_INT, (int64_t)number);
    case 'M': /* BININT2 */
        TRY(read_number(m, 2, &number));
        return push_integer(m, PICKLE_INT, (int64_t)number);
    case 'J': /* BININT */
        TRY(read_number(m, 4, &number));
        return push_integer(m, PICKLE_INT, (int32_t)(uint32_t)number);
    case 'G': /* BINFLOAT */
        TRY(read_number(m, 8, &number));
        return push_integer(m, PICKLE_FLOAT, 0);
    case 0x8a: /* LONG1 */
        return push_long(m, 1);
    default: /* LONG4 */
        return push_long(m, 4);
    }
}

static tessera_status run_memo(struct machine *m, uint8_t code) {
    uint64_t place = m->memo_next;
    if (code != 0x94) TRY(read_number(m, code == 'q' || code == 'h' ? 1 : 4, &place));
    return code == 'h' || code == 'j' ? get(m, place) : put(m, place);
}

static tessera_status run_stack(struct machine *m, uint8_t code) {
    struct pickle_value **items;
    size_t count;
    switch (code) {
    case '(': /* MARK */
        return push(m, m->mark);
    case '0': /* POP */
        if (m->depth == 0) return broken(m, "the stack is empty");
        m->depth--;
        return TESSERA_OK;
    case '1': /* POP_MARK */
        return pop_mark(m, &items, &count);
    default: /* DUP */
        return top(m) != NULL ? push(m, top(m)) : broken(m, "the stack is empty");
    }
}

static tessera_status run_container(struct machine *m, uint8_t code) {
    switch (code) {
    case '}': /* EMPTY_DICT */
        return push(m, new_value(m, PICKLE_DICT));
    case ']':  /* EMPTY_LIST */
    case 0x8f: /* EMPTY_SET */
        return push(m, new_value(m, PICKLE_LIST));
    case ')': /* EMPTY_TUPLE */
        return push_tuple(m, NULL, 0);
    case 't': /* TUPLE */
        return marked_container(m, PICKLE_LIST, true);
    case 'l':  /* LIST */
    case 0x91: /* FROZENSET */
        return marked_container(m, PICKLE_LIST, false);
    case 'd': /* DICT */
        return marked_container(m, PICKLE_DICT, false);
    case 's': /* SETITEM */
        return set_item(m);
    case 'u': /* SETITEMS */
        return set_items(m);
    case 'a': /* APPEND */
        return append_item(m);
    default: /* APPENDS, ADDITEMS */
        return append_items(m);
    }
}

static tessera_status run_text(struct machine *m, uint8_t code) {
    switch (code) {
    case 'X': /* BINUNICODE */
    case 'T': /* BINSTRING */
        return push_text(m, 4, PICKLE_TEXT);
    case 0x8c: /* SHORT_BINUNICODE */
    case 'U':  /* SHORT_BINSTRING */
        return push_text(m, 1, PICKLE_TEXT);
    case 0x8d: /* BINUNICODE8 */
        return push_text(m, 8, PICKLE_TEXT);
    default: /* BINBYTES, SHORT_BINBYTES, BINBYTES8 */
        return push_text(m, code == 'B' ? 4 : code == 'C' ? 1 : 8, PICKLE_INERT);
    }
}

static tessera_status run_instruction(struct machine *m, uint8_t code) {
    uint64_t ignored;
    if (code == 0x80) { /* PROTO */
        TRY(read_number(m, 1, &ignored));
        return ignored >= 2 && ignored <= 5 ? TESSERA_OK : broken(m, "a protocol that is not known");
    }
    if (code == 0x95) return read_number(m, 8, &ignored); /* FRAME */
    if (memchr("KMJG\x8a\x8b", code, 6) != NULL) return run_number(m, code);
    if (memchr("qrhj\x94", code, 5) != NULL) return run_memo(m, code);
    if (memchr("(012", code, 4) != NULL) return run_stack(m, code);
    if (memchr("}])tldsuae\x8f\x90\x91", code, 13) != NULL) return run_container(m, code);
    if (memchr("XTUBC\x8c\x8d\x8e", code, 8) != NULL) return run_text(m, code);
    switch (code) {
    case 'N': /* NONE */
        return push(m, m->none);
    case 0x88: /* NEWTRUE */
    case 0x89: /* NEWFALSE */
        return push_integer(m, PICKLE_BOOL, code == 0x88);
    case 0x85: /* TUPLE1 */
    case 0x86:
    case 0x87:
        return tuple_of_top(m, (size_t)(code - 0x84));
    case 'c': /* GLOBAL */
        return read_global(m);
    case 0x93: /* STACK_GLOBAL */
        return stack_global(m);
    case 'R': /* REDUCE */
        return reduce(m);
    case 'b': /* BUILD */
        return build(m);
    case 'Q': /* BINPERSID */
        return push_storage(m);
    default:
        return refuse_instruction(m, code);
    }
}

tessera_status pickle_read(const char *name, const uint8_t *data, size_t length, struct arena *arena, struct pickle_value **out,
                           size_t *used, struct pickle_value **storages, tessera_error *error) {
    struct machine m = {.file = name, .data = data, .length = length, .arena = arena, .error = error};
    *out = NULL;
    m.none = new_value(&m, PICKLE_NONE);
    m.mark = new_value(&m, PICKLE_MARK);
    m.inert = new_value(&m, PICKLE_INERT);
    if (m.inert == NULL) return TESSERA_ERROR_MEMORY;
    for (;;) {
        if (m.at == m.length) return broken(&m, "has no end: is the file cut off?");
        uint8_t code = data[m.at++];
        if (code == STOP) break;
        TRY(run_instruction(&m, code));
    }
    if ((*out = pop(&m)) == NULL) return broken(&m, "holds nothing");
    *used = m.at;
    *storages = m.storages;
    return TESSERA_OK;
}

struct pickle_value *pickle_get(const struct pickle_value *dict, const char *key) {
    if (dict->type != PICKLE_DICT) return NULL;
    for (size_t i = 0; i + 1 < dict->length; i += 2)
        if (text_is(dict->items[i], key)) return dict->items[i + 1];
    return NULL;
}
