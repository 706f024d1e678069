/* The words of sd-cli (stable-diffusion.cpp), A1111 and ComfyUI, put into this program's: sizes,
 * samplers, guidance, files, <lora:...>.
 *
 * What needs the model's family to be understood (Flux has two kinds of guidance) is settled when
 * the model is open: habits_apply_family. docs/coming-from.md is the guide. */
#ifndef TESSERA_CLI_HABITS_H
#define TESSERA_CLI_HABITS_H

#include "cli/options.h"

/* Translates what stands in `values`; ARGUMENT where a word has no counterpart, with what to type
 * instead. */
tessera_status habits_apply(struct option_value *values, tessera_error *error);

/* --t5xxl, which is another encoder in each family. `model` is the model's folder or file: errors of tessera_path_pipeline_class, ARGUMENT
 * where the family has no T5 or two options give the same encoder. */
tessera_status habits_apply_model(struct option_value *values, const char *model, tessera_error *error);

/* --cfg-scale and --guidance, and sampler names that mean another class for models of flow matching. Notices go to stderr if
 * `talks`. */
void habits_apply_family(struct option_value *values, const tessera_family *family, bool talks);

/* A1111's name of a class with these --algorithm-type and --solver-type, each of which may be NULL;
 * NULL if it has none. */
const char *habits_sampler_title(const char *class_name, const char *algorithm, const char *solver);

#endif
