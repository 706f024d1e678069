/* Stable Diffusion 3 and 3.5: how they encode the prompt (Esser et al. 2024, section 4 and figure
 * 2; diffusers' StableDiffusion3Pipeline.encode_prompt).
 *
 *     text    [count, Tc + Tt, C]:   | CLIP-L penultimate | CLIP-G penultimate | zeros up to C |   Tc tokens
 *                                    | T5 last hidden state                                    |   Tt tokens
 *     pooled  [count, P]:            | CLIP-L projected | CLIP-G projected |
 *
 * A folder without text_encoder_3 gives max_sequence_length tokens of zeros. T5 sees its padding:
 * SD3 passes no mask. */

#include "pipelines/prompt.h"

static tessera_status check_widths(struct pipeline *p, int64_t clip, int64_t t5, tessera_error *error) {
    int64_t wanted = p->text_channels;
    if (clip <= wanted && (t5 == 0 || t5 == wanted)) return TESSERA_OK;
    return error_set(
        error, TESSERA_ERROR_FORMAT,
        "%s/transformer/config.json: field joint_attention_dim is %lld, but the text encoders give %lld (CLIP) and %lld (T5) channels",
        p->folder, (long long)wanted, (long long)clip, (long long)t5);
}

static tessera_status encode_prompts(struct pipeline *p, struct run *run, const tessera_request *request, const struct prompts *prompts,
                                     struct prompt_states *states, tessera_error *error) {
    const unsigned clip = TEXT_STATE_PENULTIMATE | TEXT_STATE_POOLED;
    struct prompt_reading l, g, t5 = {.tokens = request->max_sequence_length};
    struct prompt_reader reader_l = {"text_encoder", "tokenizer", .states = clip, .chunked = true, .skip = request->clip_skip};
    TRY(prompt_read(p, run, &reader_l, prompts, &l, error));
    struct prompt_reader reader_g = {"text_encoder_2", "tokenizer_2", .states = clip, .max_length = l.length, .chunked = true};
    reader_g.skip = request->clip_skip;
    TRY(prompt_read(p, run, &reader_g, prompts, &g, error));
    struct prompt_reader reader_t5 = {p->class->t5_encoder, "tokenizer_3", .states = TEXT_STATE_LAST,
                                      .max_length = request->max_sequence_length, .limit_is_requested = true};
    if (pipeline_has(p, p->class->t5_encoder) && request->max_sequence_length > 0) TRY(prompt_read(p, run, &reader_t5, prompts, &t5, error));
    struct tensor states_t5 = t5.states.last_hidden_state;
    int64_t width_l = l.states.penultimate.shape[2];
    TRY(check_widths(p, width_l + g.states.penultimate.shape[2], states_t5.data != NULL ? states_t5.shape[2] : 0, error));

    states->text = run_tensor(run, DTYPE_F32, SHAPE(prompts->count, l.tokens + t5.tokens, p->text_channels));
    TRY(run_status(run, error));
    run->backend->ops->zero(run->backend, states->text.data, tensor_bytes(&states->text));
    prompt_place(run, &states->text, 0, 0, &l.states.penultimate);
    prompt_place(run, &states->text, 0, width_l, &g.states.penultimate);
    if (states_t5.data != NULL) prompt_place(run, &states->text, l.tokens, 0, &states_t5);
    return prompt_join_pooled(run, l.states.pooled, g.states.pooled, &states->pooled, error);
}

const struct pipeline_class stable_diffusion_3_class = {
    .name = "StableDiffusion3Pipeline",
    .num_inference_steps = 28,
    .max_sequence_length = 256,
    .guidance_scale = 7.0f,
    .strength = 0.6f,
    .img2img_steps = 50,
    .sample_size = 128,
    .t5_encoder = "text_encoder_3",
    .flow_matching = true,
    .text = TEXT_CLIP | TEXT_T5,
    .encode_prompts = encode_prompts,
};
