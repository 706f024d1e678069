/* The names that transformers' configurations give to activations. */
#ifndef TESSERA_MODELS_ACTIVATION_NAME_H
#define TESSERA_MODELS_ACTIVATION_NAME_H

#include "backend/backend.h"
#include "base/json.h"

/* The activation called `name` in the config's field `field`; UNSUPPORTED, naming file and field,
 * if there is none. */
tessera_status activation_from_name(const struct json *config, const char *field, const char *name, enum activation *out,
                                    tessera_error *error);

#endif
