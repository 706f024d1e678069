/* The request that the options of `tessera generate` ask for. */
#ifndef TESSERA_CLI_REQUEST_OPTIONS_H
#define TESSERA_CLI_REQUEST_OPTIONS_H

#include "cli/given_pictures.h"
#include "cli/options.h"

/* The model's defaults, the size of the given pictures, then what was given in `values` of
 * generate.h. The prompt and the progress callback are left to the caller; the request borrows the
 * texts and the pictures. ARGUMENT as request_options_read_sizes. */
tessera_status request_options_read(const struct option_value *values, const struct given_pictures *given, const tessera_model *model,
                                    tessera_request *request, tessera_error *error);

/* SDXL's micro-conditions alone, which can be checked before there is a model. ARGUMENT: not two
 * whole numbers. */
tessera_status request_options_read_sizes(const struct option_value *values, tessera_request *request, tessera_error *error);

/* Whether a step of the pictures has two predictions, by the defaults of a model of this family and
 * what was given, once habits_apply_family has been. */
bool request_options_guided(const struct option_value *values, const tessera_family *family, const tessera_request *defaults);

/* Puts what is in force back into the values, from which a picture's record is written. */
void request_options_settle(const tessera_request *request, struct option_value *values);

#endif
