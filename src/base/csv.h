/* Tables of comma-separated values (RFC 4180), read in place: a field in quotes may hold
 * separators, line ends and, doubled, quotes. */
#ifndef TESSERA_BASE_CSV_H
#define TESSERA_BASE_CSV_H

#include <stdbool.h>

/* Takes the next field of a NUL-terminated text from *at, in place, and moves *at behind its
 * separator; *last: it ends its record. Text behind a closing quote belongs to the field; a quote
 * that nothing closes ends with the text. */
char *csv_field(char **at, bool *last);

#endif
