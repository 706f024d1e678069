/* What all loading needs of the loader; private to loading. */
#ifndef TESSERA_NN_LOADER_H
#define TESSERA_NN_LOADER_H

#include <stdarg.h>

#include "nn/load.h"

enum { NAME_CAPACITY = 512, ARENA_SLACK = 256 /* bytes by which an arena may round up */ };

/* What messages call the model. */
const char *loader_where(const struct loader *loader);
/* Is the loader's hook only told what would be read? */
bool loader_records(const struct loader *loader);
/* Do layers get data? */
bool loader_reads(const struct loader *loader);
/* Bytes of the loader's arena. */
void *loader_take(struct loader *loader, size_t bytes);
/* `t`, which a layer keeps: counted, and brought to the backend's memory. */
struct tensor loader_keep(struct loader *loader, struct tensor t);

/* The name below the prefix, into out [NAME_CAPACITY]. */
void loader_full_name(const struct loader *loader, char *out, const char *format, va_list arguments);
/* Declares `full`: the name that a function's arguments from `name` on say. */
#define FULL_NAME(name)                                                                                                                    \
    char full[NAME_CAPACITY];                                                                                                              \
    va_list arguments;                                                                                                                     \
    va_start(arguments, name);                                                                                                             \
    loader_full_name(loader, full, name, arguments);                                                                                              \
    va_end(arguments)

#endif
