/* HunyuanDiT: how it encodes the prompt and the sizes (Li et al. 2024, section 2.1; diffusers'
 * HunyuanDiTPipeline): the states of a bilingual CLIP (a BERT) and of mT5 with their masks, and,
 * for models that read sizes, original and target size and crop. */
#include "pipelines/bins.h"
#include "pipelines/prompt.h"

enum { BERT_TOKENS = 77, T5_TOKENS = 256, TRAINED_SIDE = 1024 };

static tessera_status encode_prompts(struct pipeline *p, struct run *run, const tessera_request *request, const struct prompts *prompts,
                                     struct prompt_states *states, tessera_error *error) {
    struct prompt_reading bert, t5;
    struct prompt_reader reader_bert = {"text_encoder", "tokenizer", .states = TEXT_STATE_LAST, .max_length = BERT_TOKENS, .masked = true};
    struct prompt_reader reader_t5 = {p->class->t5_encoder, "tokenizer_2", .states = TEXT_STATE_LAST, .max_length = T5_TOKENS, .masked = true};
    TRY(prompt_read(p, run, &reader_bert, prompts, &bert, error));
    TRY(prompt_read(p, run, &reader_t5, prompts, &t5, error));
    states->text = bert.states.last_hidden_state;
    states->text_mask = bert.mask;
    states->text_2 = t5.states.last_hidden_state;
    states->text_2_mask = t5.mask;
    return TESSERA_OK;
}

static int size_conditions(const tessera_request *r, int width, int height, float *out) {
    const int sizes[6] = {r->original_height ? r->original_height : TRAINED_SIDE,
                          r->original_width ? r->original_width : TRAINED_SIDE,
                          r->target_height ? r->target_height : height,
                          r->target_width ? r->target_width : width,
                          r->crop_top,
                          r->crop_left};
    for (int i = 0; i < 6; i++) out[i] = (float)sizes[i];
    return 6;
}

const struct pipeline_class hunyuandit_class = {
    .name = "HunyuanDiTPipeline",
    .num_inference_steps = 50,
    .guidance_scale = 5.0f,
    .strength = 0.8f,
    .sample_size = 128,
    .t5_encoder = "text_encoder_2",
    .nearest_size = bins_hunyuandit,
    .rounds_sizes = true,
    .text_tokens = BERT_TOKENS + T5_TOKENS,
    .encode_prompts = encode_prompts,
    .size_conditions = size_conditions,
};
