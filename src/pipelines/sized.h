/* Public structs that begin with their size, so that programs and libraries of different versions
 * work together.
 *
 *     in:   an older program's struct is shorter: the missing fields get their defaults
 *           a newer program's struct is longer: the bytes after the known fields must be 0
 *     out:  only as many fields are written as the program has */
#ifndef TESSERA_PIPELINES_SIZED_H
#define TESSERA_PIPELINES_SIZED_H

#include "tessera.h"

/* Copies the program's struct over `to` (of `size` bytes), which holds the defaults. `least`: the
 * size of the first version. ARGUMENT, with the struct's `name`, if the size is not set, or an
 * unknown field is not 0. */
tessera_status sized_read(void *to, size_t size, const void *from, size_t least, const char *name, tessera_error *error);
/* Copies `from` (of `size` bytes) into the program's struct, which keeps its size. False if that is
 * less than `least`. */
bool sized_write(void *to, const void *from, size_t size, size_t least);

/* Element `index` of a program's array, whose elements have the first one's size. */
const void *sized_at(const void *array, int index);

#endif
