/* Checks of a request that hold for every model, before anything is opened for it. */
#ifndef TESSERA_PIPELINES_REQUEST_H
#define TESSERA_PIPELINES_REQUEST_H

#include <stddef.h>

#include "base/error.h"

/* ARGUMENT, with the field's name on the command line. The bounds keep every later product of
 * counts and sizes inside its type. Sizes that a model, and numbers of steps that a sampler does
 * not have are checked later. */
tessera_status request_check(const tessera_request *request, tessera_error *error);

/* The size of the first version of tessera_request. */
#define REQUEST_LEAST_BYTES (offsetof(tessera_request, notice_user) + sizeof(void *))
/* Copies the program's request over the model's defaults. ARGUMENT if its size is not set or it has
 * a field that this library does not know. */
tessera_status request_read(const tessera_request *defaults, const tessera_request *given, tessera_request *out, tessera_error *error);

#endif
