/* `tessera generate` as other programs' users call it: the defaults that their scripts have, their
 * names of samplers and models. docs/published-commands.md lists the published commands. */
#ifndef TESSERA_CLI_LIKE_H
#define TESSERA_CLI_LIKE_H

#include "cli/options.h"

/* Gives options of generate.h that were not given the values that --mode, --like and --image-size
 * lead to, and turns a short name of a sampler (--scheduler ddim) into its class. ARGUMENT: a bad
 * --image-size. */
tessera_status like_apply(struct option_value *values, tessera_error *error);

/* The hub's name of a model that xDiT's runner knows by a short one ("FLUX.1-dev"); any other comes
 * back as it is. */
const char *like_model(const char *name);

#endif
