/* Stable Diffusion XL: how it encodes the prompt and the sizes (Podell et al. 2023, sections 2.1
 * and 2.2; diffusers' StableDiffusionXLPipeline).
 *
 *     text    [count, 77, C]:   | CLIP-L penultimate | CLIP-G penultimate |
 *     pooled  [count, P]:       CLIP-G projected
 *     sizes   [6]:              original height, width; crop top, left; target height, width
 *
 * Without a negative prompt, and if the folder says force_zeros_for_empty_prompt, the negative
 * states are zeros. The refiner has no first encoder and reads an aesthetic score: UNSUPPORTED. */

#include "pipelines/prompt.h"

static tessera_status refuse_refiner(const struct pipeline *p, tessera_error *error) {
    bool scored = false;
    TRY(json_bool(p->index, "requires_aesthetics_score", false, &scored, error));
    if (!scored && pipeline_has(p, "text_encoder")) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                     "%s: this is a refiner (%s), which continues another model's picture; refiners are not supported: take the base model",
                     json_path(p->index), scored ? "requires_aesthetics_score is true" : "it has no text_encoder");
}

static void clear_first(struct run *run, struct tensor *t) {
    run->backend->ops->zero(run->backend, t->data, tensor_bytes(t) / (size_t)t->shape[0]);
}

static tessera_status encode_prompts(struct pipeline *p, struct run *run, const tessera_request *request, const struct prompts *prompts,
                                     struct prompt_states *states, tessera_error *error) {
    struct prompt_reading l, g;
    bool zeros = true;
    TRY(refuse_refiner(p, error));
    TRY(json_bool(p->index, "force_zeros_for_empty_prompt", true, &zeros, error));
    struct prompt_reader reader_l = {"text_encoder", "tokenizer", .states = TEXT_STATE_PENULTIMATE, .chunked = true};
    reader_l.skip = request->clip_skip;
    TRY(prompt_read(p, run, &reader_l, prompts, &l, error));
    struct prompt_reader reader_g = {"text_encoder_2", "tokenizer_2", .states = TEXT_STATE_PENULTIMATE | TEXT_STATE_POOLED};
    reader_g.max_length = l.length, reader_g.chunked = true, reader_g.skip = request->clip_skip;
    TRY(prompt_read(p, run, &reader_g, prompts, &g, error));
    int64_t width_l = l.states.penultimate.shape[2];
    states->text = run_tensor(run, DTYPE_F32, SHAPE(prompts->count, l.tokens, width_l + g.states.penultimate.shape[2]));
    TRY(run_status(run, error));
    prompt_place(run, &states->text, 0, 0, &l.states.penultimate);
    prompt_place(run, &states->text, 0, width_l, &g.states.penultimate);
    states->pooled = g.states.pooled;
    if (prompts->count == 2 && prompts->texts[0] == NULL && zeros) {
        clear_first(run, &states->text);
        clear_first(run, &states->pooled);
    }
    return TESSERA_OK;
}

static int size_conditions(const tessera_request *r, int width, int height, float *out) {
    const int sizes[6] = {
        r->original_height ? r->original_height : height, r->original_width ? r->original_width : width, r->crop_top, r->crop_left,
        r->target_height ? r->target_height : height,     r->target_width ? r->target_width : width};
    for (int i = 0; i < 6; i++) out[i] = (float)sizes[i];
    return 6;
}

const struct pipeline_class stable_diffusion_xl_class = {
    .name = "StableDiffusionXLPipeline",
    .num_inference_steps = 50,
    .guidance_scale = 5.0f,
    .strength = 0.3f,
    .sample_size = 128,
    .is_unet = true,
    .whole_steps = true,
    .text = TEXT_CLIP,
    .encode_prompts = encode_prompts,
    .size_conditions = size_conditions,
};
