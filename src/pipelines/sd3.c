/* Stable Diffusion 3 and 3.5: what the prompt becomes (Esser et al. 2024, section 4 and figure 2; diffusers'
 * StableDiffusion3Pipeline.encode_prompt).
 *
 *     text    [count, Tc + Tt, C]:   | CLIP-L penultimate | CLIP-G penultimate | zeros up to C |   Tc tokens
 *                                    | T5 last hidden state                                    |   Tt tokens
 *     pooled  [count, P]:            | CLIP-L projected | CLIP-G projected |
 *
 * A folder without text_encoder_3 gives max_sequence_length tokens of zeros. T5 sees its padding: SD3 passes no mask. */
#include <stdlib.h>
#include <string.h>

#include "pipelines/pipeline.h"

/* The penultimate and pooled states of one encoder: tensors in run->arena. */
static tessera_status encode_with(struct pipeline *p, struct run *run, const char *encoder_name, const char *tokenizer_name,
                                  const char *const *prompts, int count, int max_length, struct text_encoder_output *out, int *tokens,
                                  tessera_error *error) {
    struct component *component;
    struct tokenizer *tokenizer = NULL;
    int32_t *ids = NULL;
    TRY(pipeline_component(p, encoder_name, &component, error));
    if (component->text_encoder == NULL)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s/%s/config.json: not a text encoder", p->folder, encoder_name);
    tessera_status status = pipeline_tokenizer(p, tokenizer_name, &tokenizer, error);
    if (status != TESSERA_OK) return status;
    if (max_length == 0) max_length = tokenizer_model_max_length(tokenizer);
    if (max_length == 0) max_length = 77;
    ids = malloc(sizeof *ids * (size_t)count * (size_t)max_length);
    if (ids == NULL) status = error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    for (int i = 0; i < count && status == TESSERA_OK; i++)
        status = tokenizer_encode(tokenizer, prompts[i], max_length, ids + (size_t)i * max_length, NULL, NULL, error);
    if (status == TESSERA_OK) {
        *out = component->text_encoder->class->encode(component->text_encoder, run, ids, NULL, count, max_length);
        if (run_failed(run)) {
            if (error != NULL) *error = run->error;
            status = run->error.status;
        }
    }
    *tokens = max_length;
    free(ids);
    tokenizer_free(tokenizer);
    pipeline_done_with(p, encoder_name);
    return status;
}

/* Copies x [count, tokens, Cx] into rows first.. and channels offset.. of out [count, T, C]. */
static void place(struct tensor *out, int64_t first, int64_t offset, const struct tensor *x) {
    int64_t count = x->shape[0], tokens = x->shape[1], channels = x->shape[2];
    for (int64_t b = 0; b < count; b++)
        for (int64_t t = 0; t < tokens; t++)
            memcpy((float *)out->data + (b * out->shape[1] + first + t) * out->shape[2] + offset,
                   (const float *)x->data + (b * tokens + t) * channels, (size_t)channels * sizeof(float));
}

static tessera_status check_widths(struct pipeline *p, int64_t clip, int64_t t5, int64_t wanted, int64_t pooled, int64_t pooled_wanted,
                                   tessera_error *error) {
    if (clip > wanted || (t5 != 0 && t5 != wanted))
        return error_set(
            error, TESSERA_ERROR_FORMAT,
            "%s/transformer/config.json: field joint_attention_dim is %lld, but the text encoders give %lld (CLIP) and %lld (T5) channels",
            p->folder, (long long)wanted, (long long)clip, (long long)t5);
    if (pooled != pooled_wanted)
        return error_set(error, TESSERA_ERROR_FORMAT,
                         "%s/transformer/config.json: field pooled_projection_dim is %lld, but the text encoders give %lld", p->folder,
                         (long long)pooled_wanted, (long long)pooled);
    return TESSERA_OK;
}

static tessera_status sd3_encode_prompts(struct pipeline *p, struct run *run, const char *const *prompts, int count,
                                         int max_sequence_length, struct prompt_states *states, tessera_error *error) {
    struct text_encoder_output l, g, t5 = {0};
    int clip_tokens, clip_g_tokens, t5_tokens = max_sequence_length;
    bool has_t5 = pipeline_has(p, "text_encoder_3");
    TRY(encode_with(p, run, "text_encoder", "tokenizer", prompts, count, 0, &l, &clip_tokens, error));
    TRY(encode_with(p, run, "text_encoder_2", "tokenizer_2", prompts, count, clip_tokens, &g, &clip_g_tokens, error));
    if (has_t5 && max_sequence_length > 0)
        TRY(encode_with(p, run, "text_encoder_3", "tokenizer_3", prompts, count, max_sequence_length, &t5, &t5_tokens, error));
    int64_t cl = l.penultimate.shape[2], cg = g.penultimate.shape[2], pl = l.pooled.shape[1], pg = g.pooled.shape[1];
    TRY(check_widths(p, cl + cg, t5.last_hidden_state.data ? t5.last_hidden_state.shape[2] : 0, p->text_channels, pl + pg,
                     p->pooled_channels, error));

    states->text = run_tensor(run, DTYPE_F32, SHAPE(count, clip_tokens + t5_tokens, p->text_channels));
    states->pooled = run_tensor(run, DTYPE_F32, SHAPE(count, 1, p->pooled_channels));
    if (run_failed(run)) {
        if (error != NULL) *error = run->error;
        return run->error.status;
    }
    memset(states->text.data, 0, tensor_bytes(&states->text));
    place(&states->text, 0, 0, &l.penultimate);
    place(&states->text, 0, cl, &g.penultimate);
    if (t5.last_hidden_state.data != NULL) place(&states->text, clip_tokens, 0, &t5.last_hidden_state);
    struct tensor pooled_l = tensor_reshape(l.pooled, SHAPE(count, 1, pl)), pooled_g = tensor_reshape(g.pooled, SHAPE(count, 1, pg));
    place(&states->pooled, 0, 0, &pooled_l);
    place(&states->pooled, 0, pl, &pooled_g);
    states->pooled = tensor_reshape(states->pooled, SHAPE(count, p->pooled_channels));
    return TESSERA_OK;
}

const struct pipeline_class stable_diffusion_3_class = {
    .name = "StableDiffusion3Pipeline",
    .num_inference_steps = 28,
    .max_sequence_length = 256,
    .guidance_scale = 7.0f,
    .flow_matching = true,
    .encode_prompts = sd3_encode_prompts,
};
