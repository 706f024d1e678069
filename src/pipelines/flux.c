/* Flux.1 dev and schnell, and Depth and Canny with their control picture: how they encode the
 * prompt (diffusers' FluxPipeline.encode_prompt): T5's last hidden state as the text, and the
 * pooled state of CLIP-L.
 *
 * The guidance scale is an input of the denoiser (dev was distilled from guided pictures; schnell
 * has no such input). With a negative prompt and a true_cfg_scale above 1 a step has two
 * predictions, as in other families, and takes twice the time. */
#include "pipelines/prompt.h"

static tessera_status encode_prompts(struct pipeline *p, struct run *run, const tessera_request *request, const struct prompts *prompts,
                                     struct prompt_states *states, tessera_error *error) {
    struct prompt_reading clip, t5;
    if (request->max_sequence_length < 1)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "max-sequence-length: Flux needs at least 1 token of text");
    TRY(prompt_read(p, run, &(struct prompt_reader){"text_encoder", "tokenizer", .states = TEXT_STATE_POOLED}, prompts, &clip, error));
    struct prompt_reader reader = {p->class->t5_encoder, "tokenizer_2", .states = TEXT_STATE_LAST, .max_length = request->max_sequence_length};
    reader.limit_is_requested = true;
    TRY(prompt_read(p, run, &reader, prompts, &t5, error));
    states->text = t5.states.last_hidden_state;
    states->pooled = clip.states.pooled;
    return TESSERA_OK;
}

/* What all of them have. */
#define FLUX                                                                                                                               \
    .num_inference_steps = 28, .max_sequence_length = 512, .guidance_scale = 3.5f, .strength = 0.6f, .img2img_guidance_scale = 7.0f,       \
    .sample_size = 128, .t5_encoder = "text_encoder_2", .flow_matching = true, .sigmas_from_steps = true, .distilled = true,               \
    .rounds_sizes = true, .text = TEXT_T5, .encode_prompts = encode_prompts

const struct pipeline_class flux_class = {.name = "FluxPipeline", FLUX};

const struct pipeline_class flux_control_class = {.name = "FluxControlPipeline", FLUX, .has_control = true, .extra = {.latents = 1}};
