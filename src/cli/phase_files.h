/* The files between the phases of a picture as commands: prompts' states (`tessera encode`) and
 * latents (`tessera generate --output-type latent`).
 *
 * Both are safetensors files whose __metadata__ says to which model the numbers belong, and what
 * else the next phase needs. Their bytes depend on nothing but the numbers and that. */
#ifndef TESSERA_CLI_PHASE_FILES_H
#define TESSERA_CLI_PHASE_FILES_H

#include "tessera_stages.h"

struct safetensors;

/* The states of a prompt as they lie in a file, which they borrow from. */
struct embeds_file {
    struct safetensors *file;
    tessera_states states;
    const char *prompt, *negative_prompt; /* NULL: none was given */
};
tessera_status embeds_write(const char *path, tessera_model *model, const tessera_request *request, const tessera_states *states,
                            tessera_error *error);
/* FORMAT if the file is no such file. Close it either way. */
tessera_status embeds_open(const char *path, struct embeds_file *out, tessera_error *error);
/* ARGUMENT unless the model's text encoders are those that made it. */
tessera_status embeds_check(const struct embeds_file *embeds, tessera_model *model, tessera_error *error);
void embeds_close(struct embeds_file *embeds);

/* The latents of one picture. */
struct latents_file {
    struct safetensors *file;
    const float *values;
    size_t count;
    int width, height; /* of the request that led to them, */
    bool binning;      /* and whether it took the nearest trained size */
};
/* The tensor "latents" [1, channels, rows, columns], as diffusers returns it for output_type
 * "latent". */
tessera_status latents_write(const char *path, tessera_model *model, const tessera_request *request, const tessera_image *image,
                             tessera_error *error);
tessera_status latents_open(const char *path, struct latents_file *out, tessera_error *error);
/* ARGUMENT unless the model's autoencoder is that of the model that made them. */
tessera_status latents_check(const struct latents_file *latents, tessera_model *model, tessera_error *error);
void latents_close(struct latents_file *latents);

#endif
