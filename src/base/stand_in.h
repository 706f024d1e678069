/* What a clone or a download left in the place of a file. */
#ifndef TESSERA_BASE_STAND_IN_H
#define TESSERA_BASE_STAND_IN_H

#include <stddef.h>

/* "a Git LFS pointer, ..." or "a web page (HTML), ...", for a message that begins "PATH: is "; NULL if
 * the bytes are neither. A constant. */
const char *stand_in_of(const void *data, size_t length);

#endif
