/* What a command line says of the pictures that are planned for, in `tessera plan`, `tessera
 * latency` and `tessera generate --parallel auto` alike. */
#ifndef TESSERA_CLI_PLAN_OPTIONS_H
#define TESSERA_CLI_PLAN_OPTIONS_H

#include "cli/options.h"
#include "tessera_plan.h"

/* Options that `tessera plan` and `tessera latency` have alike. */
#define PLAN_OPTION_STEPS                                                                                                                  \
    {.name = "steps",                                                                                                                      \
     .aliases = {"num-inference-steps"},                                                                                                   \
     .type = OPTION_INTEGER,                                                                                                               \
     .placeholder = "N",                                                                                                                   \
     .help = "default: the model's",                                                                                                       \
     .low = 1,                                                                                                                             \
     .high = 10000}
#define PLAN_OPTION_GUIDANCE_SCALE                                                                                                         \
    {.name = "guidance-scale",                                                                                                             \
     .type = OPTION_NUMBER,                                                                                                                \
     .placeholder = "X",                                                                                                                   \
     .help = "up to 1: one prediction a step; default: the model's",                                                                       \
     .low = 0,                                                                                                                             \
     .high = 1000}
#define PLAN_OPTION_DTYPE                                                                                                                  \
    {.name = "dtype", .type = OPTION_CHOICE, .placeholder = "bf16|f32", .help = "what products are computed in"}

struct plan_options {
    const struct option_value *width, *height, *steps, *max_sequence_length, *guidance_scale;
    bool has_negative_prompt, no_binning;
    int num_images;
};

/* What is not given is left to the model. */
tessera_plan_request plan_options_request(const struct plan_options *options);

#endif
