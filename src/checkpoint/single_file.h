/* Single-file checkpoints: FILE.safetensors in the original layout of SD1.x, SD2.x, SDXL, SD3,
 * SD3.5 or Flux.1, seen as a model folder.
 *
 * The family comes from the names in the file, the published model from the shapes; that model's
 * folder without weights (assets/published) gives configs, tokenizers and scheduler, and the
 * weights of each component are a view into the file under diffusers' names. Weights are neither
 * read nor copied, but for a few small matrices that must be rearranged. */
#ifndef TESSERA_CHECKPOINT_SINGLE_FILE_H
#define TESSERA_CHECKPOINT_SINGLE_FILE_H

#include "base/json.h"
#include "tensor/weights.h"

struct single_file;

/* `config`: a model folder of which only the configs, tokenizers and scheduler are used; NULL: the
 * published one that the shapes prove. */
tessera_status single_file_open(const char *path, const char *config, struct single_file **out, tessera_error *error);
void single_file_close(struct single_file *file);
/* diffusers' class of a file's pipeline by the names of its tensors, which need not prove a
 * published model: `out` [size]. Errors of single_file_open. */
tessera_status single_file_pipeline(const char *path, char *out, size_t size, tessera_error *error);

/* The model folder whose model_index.json and configs serve; lives as long as `file`. */
const char *single_file_folder(const struct single_file *file);
/* The folder of anything that model_index.json names, components, tokenizers and scheduler alike
 * ("vae", "tokenizer_2"); the caller frees. */
tessera_status single_file_folder_of(const struct single_file *file, const char *name, char **out, tessera_error *error);

/* The component's config where the file shows other block counts than the published model has (give
 * it to component_open); NULL: the config.json in its folder holds. The caller frees. A config
 * folder of the user's is never changed. */
tessera_status single_file_config(const struct single_file *file, const char *component, struct json **out, tessera_error *error);

/* What marks in the file say of how the model was trained. Trainers leave them as tensors without
 * numbers ("v_pred", "ztsnr") and in the metadata of the header (modelspec.*, ss_*); that a model
 * is distilled often stands in the file's name alone. */
struct single_file_marks {
    const char *prediction_type; /* "v_prediction", "epsilon" or "sample"; NULL: no mark, or a flow */
    bool zero_terminal_snr;
    const char *distilled; /* "Turbo" or "Lightning": few steps at the ends of their intervals, without guidance; NULL: neither */
    int steps;             /* for which it was distilled; 0 where it is not */
    const char *because;   /* the mark's name, for people */
};
/* None where the user gave the configuration. */
struct single_file_marks single_file_marks(const struct single_file *file);
/* The scheduler's configuration where the marks change it, in diffusers' words; NULL: the one in
 * its folder holds. The caller frees it. A configuration of the user's (--config) is never changed. */
tessera_status single_file_scheduler(const struct single_file *file, struct json **out, tessera_error *error);

/* Does the file hold this component's weights ("unet", "text_encoder_2", ...)? */
bool single_file_has(const struct single_file *file, const char *component);
/* The component's weights, as its model asks for them: complete and of the right shapes. The caller
 * closes them (or hands them to component_open); they may outlive `file`. FORMAT if a tensor is
 * missing or has another shape (file and both names are named); ARGUMENT if the file does not hold
 * the component: the message names the option that gives it. */
tessera_status single_file_weights(const struct single_file *file, const char *component, struct weights **out, tessera_error *error);

/* The weights of one component from a file of its own (ae.safetensors, t5xxl_fp16.safetensors, or
 * the component as part of a whole model), in the original or in diffusers' layout. `folder` holds
 * its config.json. */
tessera_status single_file_component(const char *path, const char *component, const char *folder, struct weights **out,
                                     tessera_error *error);

#endif
