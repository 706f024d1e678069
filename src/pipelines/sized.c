/* See sized.h. */
#include "pipelines/sized.h"

#include <string.h>

#include "base/error.h"

static size_t size_of(const void *sized) {
    size_t size;
    memcpy(&size, sized, sizeof size); /* each struct's first field */
    return size;
}

tessera_status sized_read(void *to, size_t size, const void *from, size_t least, const char *name, tessera_error *error) {
    size_t given = size_of(from), known = given < size ? given : size;
    if (given < least)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: struct_size is %zu, but is at least %zu: begin with the struct's initialiser",
                         name, given, least);
    for (size_t i = size; i < given; i++)
        if (((const unsigned char *)from)[i] != 0)
            return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: has a field that is set and that this library (%s) does not know: use a newer one",
                             name, TESSERA_VERSION);
    memcpy(to, from, known);
    memcpy(to, &size, sizeof size);
    return TESSERA_OK;
}

bool sized_write(void *to, const void *from, size_t size, size_t least) {
    size_t given = size_of(to), known = given < size ? given : size;
    if (given < least) return false;
    memcpy((char *)to + sizeof given, (const char *)from + sizeof given, known - sizeof given);
    return true;
}

const void *sized_at(const void *array, int index) {
    return (const char *)array + (size_t)index * size_of(array);
}
