/* A prompt's way through a text encoder's segments. Between blocks only the state lives, and what
 * the outputs are made of. */
#include "models/text_encoder.h"

static bool skips_too_many(const struct text_encoder *encoder, int skip, tessera_error *error) {
    if (skip >= 0 && skip < encoder->num_blocks) return false;
    error_set(error, TESSERA_ERROR_ARGUMENT, "clip-skip: %d: of this text encoder's layers 0 to %d can be left out", skip,
              encoder->num_blocks - 1);
    return true;
}

static struct text_encoder_state embed(const struct text_encoder *encoder, struct run *run, const int32_t *ids, int64_t batch,
                                       int64_t tokens) {
    struct text_encoder_state state = {0};
    if (!segment_begin(encoder->watch, run, COMPONENT_EMBED)) return state;
    state = encoder->class->embed(encoder, run, ids, batch, tokens);
    segment_end(encoder->watch, COMPONENT_EMBED);
    return state;
}

static struct tensor block(const struct text_encoder *encoder, struct run *run, int index, const struct text_encoder_state *state) {
    if (!segment_begin(encoder->watch, run, index)) return (struct tensor){0};
    struct tensor x = encoder->class->block(encoder, run, index, state);
    segment_end(encoder->watch, index);
    return x;
}

static struct text_encoder_output finish(const struct text_encoder *encoder, struct run *run, struct tensor last, struct tensor x,
                                         const int32_t *ids) {
    struct text_encoder_output out = {0};
    if (!segment_begin(encoder->watch, run, encoder->num_blocks)) return out;
    out = encoder->class->finish(encoder, run, last, x, ids);
    segment_end(encoder->watch, encoder->num_blocks);
    return out;
}

struct text_encoder_output text_encoder_encode(const struct text_encoder *encoder, struct run *run, const int32_t *ids, const float *mask,
                                               int64_t batch, int64_t tokens, int skip) {
    struct tensor penultimate = {0}, last = {0};
    int count = encoder->num_blocks - skip; /* blocks that the first two outputs have behind them */
    if (run_failed(run) || skips_too_many(encoder, skip, &run->error)) return (struct text_encoder_output){0};
    size_t before = run_enter(run);
    struct text_encoder_state state = embed(encoder, run, ids, batch, tokens);
    state.mask = run_upload(run, tensor_of((void *)mask, DTYPE_F32, SHAPE(batch, tokens)));
    size_t scope = run_enter(run);
    for (int i = 0; i <= encoder->num_blocks && !run_failed(run); i++) {
        if (i == count - 1) penultimate = state.x;
        if (i == count) last = state.x;
        if (i >= count - 1) scope = run_enter(run); /* what is kept stays below it */
        if (i < encoder->num_blocks) state.x = run_leave(run, scope, block(encoder, run, i, &state));
    }
    struct text_encoder_output out = finish(encoder, run, last, state.x, ids);
    if (encoder->states & TEXT_STATE_PENULTIMATE) out.penultimate = nn_cast(run, penultimate, DTYPE_F32);
    run_leave_all(run, before, (struct tensor *[]){&out.last_hidden_state, &out.penultimate, &out.pooled}, 3);
    return out;
}
