/* How much memory each rank may take, as --max-memory says it in accelerate's words. */
#ifndef TESSERA_CLI_MEMORY_OPTIONS_H
#define TESSERA_CLI_MEMORY_OPTIONS_H

#include "tessera.h"

/* "6GiB", of each rank, or "0:6GiB,1:10GiB": out[ranks] in bytes, 0 where a rank has no limit;
 * NULL: none has. ARGUMENT. */
tessera_status memory_options_read(const char *text, int ranks, uint64_t *out, tessera_error *error);

#endif
