/* Whether this process may have threads, before a library that ends the process where it may not
 * starts them. */
#ifndef TESSERA_BASE_THREAD_LIMIT_H
#define TESSERA_BASE_THREAD_LIMIT_H

#include "base/error.h"

/* Starts `count` threads beside this one and ends them again. MEMORY if the system starts fewer:
 * the message names the limit on threads and how many there may be, this one included. OpenMP's
 * run-time library says nothing of limits and ends the process. */
tessera_status thread_limit_check(int count, tessera_error *error);

#endif
