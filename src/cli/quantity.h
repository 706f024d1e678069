/* Numbers with a unit, as people write them: "1Gbit", "10GB/s", "20us", "16GiB", "2x8". */
#ifndef TESSERA_CLI_QUANTITY_H
#define TESSERA_CLI_QUANTITY_H

#include "tessera.h"

enum quantity_kind {
    QUANTITY_BANDWIDTH, /* bytes a second: bits ("1Gbit", "100Mbit/s", "1Gbps", "1Gb/s") or bytes ("10GB/s", "1GiB/s") */
    QUANTITY_SECONDS,   /* "1ms", "20us" or "20µs", "0.5s" */
    QUANTITY_BYTES,     /* "16GiB", "16G", "8GB" */
    QUANTITY_OPERATIONS /* a second: "1.5T", "200G" */
};

/* `name` is the option's, for the error. Values are above 0; of seconds 0 is allowed. */
tessera_status quantity_read(const char *name, const char *text, enum quantity_kind kind, double *out, tessera_error *error);
/* "2x8": two numbers from 1 to 65536. */
tessera_status quantity_read_pair(const char *name, const char *text, int *first, int *second, tessera_error *error);
/* "768x512", also with 'X', '*' or U+00D7 between: two numbers above 0. False if it is anything else. */
bool quantity_read_size(const char *text, int *width, int *height);
/* "1.4 GiB", "12.3 MB" (`decimal`); returns `out`. */
const char *quantity_bytes_text(double bytes, bool decimal, char *out, size_t capacity);

#endif
