/* The options of `tessera generate` that change a sampler's configuration, as the JSON object that
 * a request takes. */
#ifndef TESSERA_CLI_SCHEDULE_OPTIONS_H
#define TESSERA_CLI_SCHEDULE_OPTIONS_H

#include "base/error.h"
#include "cli/options.h"

/* *out: the fields, for tessera_request.scheduler_config, to be freed with free; NULL where no such option was given.
 * MEMORY. */
tessera_status schedule_options_read(const struct option_value *values, char **out, tessera_error *error);

#endif
