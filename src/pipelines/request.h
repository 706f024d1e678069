/* What of a request makes sense for no model, checked before anything is opened for it. */
#ifndef TESSERA_PIPELINES_REQUEST_H
#define TESSERA_PIPELINES_REQUEST_H

#include <stddef.h>

#include "base/error.h"

/* ARGUMENT, naming the field as the command line does. The bounds keep every later product of counts and sizes inside its type; what the
 * model has to say of a size, or a sampler of a number of steps, comes later. */
tessera_status request_check(const tessera_request *request, tessera_error *error);

/* What the first version of tessera_request has. */
#define REQUEST_LEAST_BYTES (offsetof(tessera_request, notice_user) + sizeof(void *))
/* The program's request over the model's defaults. ARGUMENT where its size is not set or it has a field that is unknown here. */
tessera_status request_read(const tessera_request *defaults, const tessera_request *given, tessera_request *out, tessera_error *error);

#endif
