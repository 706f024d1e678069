/* The restricted pickle reader behind torch_file.h: bytes in, a tree of plain values out.
 *
 * https://docs.python.org/3/library/pickletools.html lists the instructions. Known are those of
 * protocols 2 to 5 that build plain values; protocols 0 and 1 as text, extension codes, buffers and
 * everything that makes objects of classes are refused. */
#ifndef TESSERA_TENSOR_PICKLE_H
#define TESSERA_TENSOR_PICKLE_H

#include "base/arena.h"
#include "tensor/tensor.h"

enum pickle_type {
    PICKLE_NONE,
    PICKLE_BOOL,
    PICKLE_INT,
    PICKLE_FLOAT,
    PICKLE_TEXT,
    PICKLE_LIST, /* tuples and sets, too */
    PICKLE_DICT, /* items: key, value, key, value, ... */
    PICKLE_GLOBAL,
    PICKLE_STORAGE,
    PICKLE_TENSOR,
    PICKLE_INERT, /* something harmless that no one asks for: a number of numpy's, a device */
    PICKLE_MARK,
};

struct pickle_value;

struct pickle_tensor {
    struct pickle_value *storage; /* it lies in, from element `offset` on */
    int64_t offset;
    int ndim;
    int64_t shape[TENSOR_MAX_DIMS], strides[TENSOR_MAX_DIMS]; /* in elements */
};

struct pickle_value {
    enum pickle_type type;
    enum dtype dtype; /* PICKLE_STORAGE, PICKLE_TENSOR, and PICKLE_GLOBAL of storages and element types */
    bool visited;     /* for who walks the tree: values may contain themselves */
    bool is_tuple;    /* of PICKLE_LIST */
    int64_t integer;  /* PICKLE_BOOL, PICKLE_INT (cut to 64 bits); PICKLE_STORAGE: elements; PICKLE_GLOBAL: its place in the table */
    const char *text; /* PICKLE_TEXT; PICKLE_STORAGE: its key. In the pickle's bytes */
    size_t length;    /* of the text, or items */
    union {
        struct pickle_value **items;
        struct pickle_tensor *tensor;
        struct pickle_value *before; /* PICKLE_STORAGE: the storage that was named before; NULL: none */
    };
};

/* Reads one pickle from the beginning of `data`; *used is how many bytes it takes, *storages the
 * last storage that it names. Values live in `arena`, texts in `data`. `name` stands for the file
 * in messages. FORMAT, UNSUPPORTED (the instruction or the name is given) or MEMORY. */
tessera_status pickle_read(const char *name, const uint8_t *data, size_t length, struct arena *arena, struct pickle_value **out,
                           size_t *used, struct pickle_value **storages, tessera_error *error);

/* The value of a text key in a dictionary; NULL if it is not there. */
struct pickle_value *pickle_get(const struct pickle_value *dict, const char *key);

#endif
