/* The published models: their folders without weights, kept in assets/published/NAME/, and where
 * the engine's data files lie.
 *
 *     model_index.json    <component>/config.json    scheduler/scheduler_config.json
 *     tokenizers.json     {"tokenizer_2": "t5", ...}: which folder of assets/tokenizers each tokenizer is
 *     tiny/<component>/config.json, tiny/generation_defaults.json: the same model at small widths (make_model.h)
 *
 * Data files are looked for in $TESSERA_DATA_DIR if that is set (and nowhere else then); otherwise
 * in ../share/tessera beside the program, in the source tree it was built from, and in the
 * share/tessera of the install prefix, in this order. */
#ifndef TESSERA_CHECKPOINT_PUBLISHED_H
#define TESSERA_CHECKPOINT_PUBLISHED_H

#include "base/error.h"

#define PUBLISHED_MADE_UP "made-up"   /* in tokenizers.json: a vocabulary that does not come with the engine (made_up_tokenizer.h) */

/* The path of a data file or folder, e.g. "assets/tokenizers/clip" or "models/emoji"; the caller
 * frees. IO if there is none. */
tessera_status data_find(const char *name, char **path, tessera_error *error);

/* The folder of a model of TESSERA_EMBEDDED_MODELS: models/NAME of the data files; the caller
 * frees. IO if it is not there. */
tessera_status embedded_model_find(const char *name, char **folder, tessera_error *error);

/* The folder of a published model, e.g. "sdxl"; the caller frees. ARGUMENT if the name is unknown. */
tessera_status published_folder(const char *class_name, char **folder, tessera_error *error);
/* The folder of a vocabulary that comes with the engine, by its name in a tokenizers.json, which
 * may be a stranger's; `json_path` is that file's. The caller frees. FORMAT if the name would lead
 * out of assets/tokenizers, IO if there is no such vocabulary. */
tessera_status published_vocabulary(const char *name, const char *json_path, char **folder, tessera_error *error);
/* The complete folder of one of its tokenizers ("tokenizer_2"), as published; the caller frees.
 * UNSUPPORTED where it cannot be copied. */
tessera_status published_tokenizer(const char *class_name, const char *component, char **folder, tessera_error *error);
#define PUBLISHED_CHOICES TESSERA_PUBLISHED_MODELS
/* Every name that published_folder knows, as in PUBLISHED_CHOICES; ends with NULL. */
const char *const *published_names(void);

#endif
