/* See memory_options.h. */
#include "cli/memory_options.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "cli/quantity.h"

enum { ENTRY_BYTES = 64 };

/* "1:10GiB" */
static tessera_status read_entry(const char *entry, int ranks, uint64_t *out, tessera_error *error) {
    char *end = NULL;
    double bytes = 0;
    long rank = isdigit((unsigned char)entry[0]) ? strtol(entry, &end, 10) : -1;
    if (rank < 0 || *end != ':')
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--max-memory %s: must be RANK:BYTES, such as 0:6GiB,1:10GiB, or BYTES for all ranks", entry);
    if (rank >= ranks)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--max-memory %s: there is no rank %ld: there %s %d", entry, rank, ranks == 1 ? "is" : "are", ranks);
    if (out[rank] != 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "--max-memory %s: there is another entry of rank %ld: leave one out", entry, rank);
    TRY(quantity_read("max-memory", end + 1, QUANTITY_BYTES, &bytes, error));
    out[rank] = (uint64_t)bytes;
    return TESSERA_OK;
}

tessera_status memory_options_read(const char *text, int ranks, uint64_t *out, tessera_error *error) {
    double bytes = 0;
    memset(out, 0, (size_t)ranks * sizeof *out);
    if (text == NULL) return TESSERA_OK;
    if (strchr(text, ':') == NULL) {
        TRY(quantity_read("max-memory", text, QUANTITY_BYTES, &bytes, error));
        for (int i = 0; i < ranks; i++) out[i] = (uint64_t)bytes;
        return TESSERA_OK;
    }
    for (const char *at = text;; at++) {
        char entry[ENTRY_BYTES];
        size_t length = strcspn(at, ",");
        if (length == 0 || length >= sizeof entry)
            return error_set(error, TESSERA_ERROR_ARGUMENT, "--max-memory %s: an entry is missing or too long: 0:6GiB,1:10GiB", text);
        memcpy(entry, at, length);
        entry[length] = 0;
        TRY(read_entry(entry, ranks, out, error));
        at += length;
        if (*at == 0) return TESSERA_OK;
    }
}
