/* What of a request makes sense for no model, checked before anything is opened for it. */
#ifndef TESSERA_PIPELINES_REQUEST_H
#define TESSERA_PIPELINES_REQUEST_H

#include "base/error.h"

/* ARGUMENT, naming the field as the command line does. The bounds keep every later product of counts and sizes inside its type; what the
 * model has to say of a size, or a sampler of a number of steps, comes later. */
tessera_status request_check(const tessera_request *request, tessera_error *error);

#endif
