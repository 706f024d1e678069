/* Limits on the addresses of a process: `ulimit -v`, and what batch systems set in its place. */
#ifndef TESSERA_BASE_ADDRESS_LIMIT_H
#define TESSERA_BASE_ADDRESS_LIMIT_H

#include <stddef.h>

#include "tessera.h"

/* MEMORY if such a limit leaves the process less than `bytes` of addresses in one piece. For calls
 * into libraries that end the process by a signal where their own allocations fail. Costs nothing
 * where there is no limit, and two system calls where there is one. */
tessera_status address_limit_check(size_t bytes, tessera_error *error);

#endif
