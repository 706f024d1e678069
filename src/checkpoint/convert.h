/* Rewriting a model: a single file as a model folder of diffusers, and the other way round; or the
 * same tensors with other element types.
 *
 * Values and element types stay as they are, but where the caller gives types. Tensors are written
 * one after another from the mapped input, so that memory holds about one of them; the output
 * appears under its name only when it is complete. */
#ifndef TESSERA_CHECKPOINT_CONVERT_H
#define TESSERA_CHECKPOINT_CONVERT_H

#include "checkpoint/convert_types.h"
#include "tensor/weights.h"

struct convert_report {
    bool (*stop)(void); /* given by the caller, NULL or asked before each tensor: true ends the conversion with CANCELLED */
    const struct convert_types *types; /* given by the caller; NULL: as stored */
    int tensors;        /* written */
    char missing[256]; /* components that the model has but the input does not, "text_encoder, vae"; "" if none */
};

/* Single file `input` to the new folder `output`. `config` as in single_file_open. ARGUMENT if the
 * output exists; errors of single_file.h. */
tessera_status convert_to_folder(const char *input, const char *config, const char *output, struct convert_report *report,
                                 tessera_error *error);
/* Model folder `input` to the file `output`, which is replaced if it exists; a name that ends in
 * ".gguf" makes a GGUF file. UNSUPPORTED if its pipeline class has no original layout. */
tessera_status convert_to_file(const char *input, const char *output, struct convert_report *report, tessera_error *error);

/* Weights under their own names: a file, or the folder of one component, to the file `output`,
 * which is replaced if it exists. UNSUPPORTED if the weights' types would change and some have
 * scales in tensors of their own. */
tessera_status convert_tensors(const char *input, const char *output, struct convert_report *report, tessera_error *error);

/* Writes tensors to a file in the types that the report asks for. Those without data are made by
 * `weights`, which may be NULL where all have some. */
tessera_status convert_entries(const char *path, const struct weights *weights, const struct safetensors_entry *entries, int count,
                               const struct convert_report *report, tessera_error *error);
/* CANCELLED if the caller wants to stop. */
tessera_status convert_go_on(const struct convert_report *report, tessera_error *error);
/* Notes in the report that the input lacks `component`. */
void convert_report_missing(struct convert_report *report, const char *component);
/* Tells the operating system that a written tensor's pages are not needed any more; they may be
 * read again. */
void convert_forget(const struct tensor *tensor);

#endif
