/* The text chunk "parameters" that A1111's web UI writes into a PNG, and that most programs which
 * show or reuse pictures read:
 *
 *     a lion <lora:style:0.8>
 *     Negative prompt: blurry
 *     Steps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x512, Model: sd15, Version: ...
 *
 * Source: stable-diffusion-webui, modules/infotext_utils.py. Ours stands beside the record
 * (record.h), which holds everything. */
#ifndef TESSERA_CLI_PARAMETERS_H
#define TESSERA_CLI_PARAMETERS_H

#include "cli/options.h"

#define PARAMETERS_KEY "parameters"

/* From the settled `values` of generate.h, the model's family, and the picture's own prompt and
 * seed; the caller frees. NULL when memory is out. */
char *parameters_text(const struct option_value *values, const tessera_family *family, const char *prompt, uint64_t seed);

/* Gives what the chunk of the picture `path` says to those `values` that were not given; what it
 * cannot restore goes to stderr if `talks`. `values` borrows from `text`, which is cut up. FORMAT:
 * it is no such chunk, or a value has no meaning here; ARGUMENT: its model has to be named with
 * --model. */
tessera_status parameters_read(const char *path, char *text, struct option_value *values, bool talks, tessera_error *error);

#endif
