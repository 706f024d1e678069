/* What a command line says of the pictures that are planned for, in `tessera plan` and in `tessera generate --parallel auto` alike. */
#ifndef TESSERA_CLI_PLAN_OPTIONS_H
#define TESSERA_CLI_PLAN_OPTIONS_H

#include "cli/options.h"
#include "tessera_plan.h"

struct plan_options {
    const struct option_value *width, *height, *steps, *max_sequence_length, *guidance_scale;
    bool has_negative_prompt, no_binning;
    int num_images;
};

/* What is not given is left to the model. */
tessera_plan_request plan_options_request(const struct plan_options *options);

#endif
