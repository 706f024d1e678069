/* Stable Diffusion 1.x and 2.x: how they encode the prompt (Rombach et al. 2022, section 3.3;
 * diffusers' StableDiffusionPipeline.encode_prompt): the last hidden state of one CLIP text
 * encoder, [count, 77, C].
 *
 * The folder's safety checker does not run. */
#include "pipelines/prompt.h"

static tessera_status encode_prompts(struct pipeline *p, struct run *run, const tessera_request *request, const struct prompts *prompts,
                                     struct prompt_states *states, tessera_error *error) {
    struct prompt_reading clip;
    struct prompt_reader reader = {"text_encoder", "tokenizer", .states = TEXT_STATE_LAST, .chunked = true, .skip = request->clip_skip};
    TRY(prompt_read(p, run, &reader, prompts, &clip, error));
    states->text = clip.states.last_hidden_state;
    return TESSERA_OK;
}

const struct pipeline_class stable_diffusion_class = {
    .name = "StableDiffusionPipeline",
    .num_inference_steps = 50,
    .guidance_scale = 7.5f,
    .strength = 0.8f,
    .sample_size = 64,
    .is_unet = true,
    /* of old folders, which leave them out; the classes' own defaults are others */
    .scheduler_fields = "{\"steps_offset\": 1, \"clip_sample\": false}",
    .whole_steps = true,
    .text = TEXT_CLIP,
    .encode_prompts = encode_prompts,
};
