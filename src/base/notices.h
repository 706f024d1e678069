/* What a person should hear although nothing failed: parts of a file that were left out, what was
 * concluded from marks in it. One line each, kept in order and once. */
#ifndef TESSERA_BASE_NOTICES_H
#define TESSERA_BASE_NOTICES_H

#include "base/error.h"

struct notices {
    char **lines;
    int count, capacity;
};

/* Adds a line, without control characters, unless it is there already. MEMORY. */
tessera_status notices_add(struct notices *notices, tessera_error *error, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Line `index`; NULL behind the last. */
const char *notices_at(const struct notices *notices, int index);
void notices_free(struct notices *notices);

#endif
