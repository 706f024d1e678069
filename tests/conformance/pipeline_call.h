/* Kind pipeline: what case.json says, in diffusers' names, as the public interface takes it. */
#ifndef TESSERA_TESTS_PIPELINE_CALL_H
#define TESSERA_TESTS_PIPELINE_CALL_H

#include "case_io.h"
#include "tessera.h"

#define PIPELINE_MODEL_PATHS 16

/* How the case wants its model opened. Paths in case.json are relative to the case's folder. */
struct pipeline_model {
    tessera_model_options options; /* what case.json does not name is left as the caller set it */
    tessera_lora loras[PIPELINE_MODEL_PATHS];
    char *paths[PIPELINE_MODEL_PATHS]; /* owned: what the options point to */
    int num_paths;
};

/* Reads "vae", "text_encoder", "text_encoder_2", "text_encoder_3", "loras" and "vae_tiling". Free
 * it also after a failure. */
tessera_status pipeline_model_read(const char *folder, const struct case_io *io, struct pipeline_model *m, tessera_error *error);
void pipeline_model_free(struct pipeline_model *m);

/* Reads all but the prompts into a request that holds the model's defaults; its texts and picture
 * are lent from the case. An argument in "call" that this program does not know is an error. */
tessera_status pipeline_call_read(const struct case_io *io, tessera_request *request, tessera_error *error);

/* The number of prompts, and the texts of one: "prompts" or "prompt", and "call.negative_prompt", a
 * text for all or a list. */
int pipeline_call_prompts(const struct case_io *io);
tessera_status pipeline_call_prompt(const struct case_io *io, int index, tessera_request *request, tessera_error *error);

#endif
