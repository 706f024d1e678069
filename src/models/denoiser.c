/* What denoisers share: checking what they are given, and a whole forward pass, cut at every block
 * boundary: what any strategy does, on one rank. Between blocks only the state lives; each block's
 * temporaries and the state before it are given back. */
#include "models/denoiser.h"

tessera_status denoiser_check_shape(const struct denoiser *denoiser, const char *what, const struct tensor *t, int ndim,
                                    const int64_t *wanted, tessera_error *error) {
    bool right = t->data != NULL && t->ndim == ndim;
    for (int i = 0; right && i < ndim; i++) right = wanted[i] == -1 ? t->shape[i] >= 1 : t->shape[i] == wanted[i];
    if (right) return TESSERA_OK;
    char got_text[128], wanted_text[128];
    return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: %s has shape %s; %s is needed (-1: any)", denoiser->class->name, what,
                     tensor_shape_text(t->ndim, t->shape, got_text, sizeof got_text),
                     tensor_shape_text(ndim, wanted, wanted_text, sizeof wanted_text));
}

tessera_status denoiser_check_latents(const struct denoiser *denoiser, const struct tensor *latents, tessera_error *error) {
    const char *name = denoiser->class->name;
    TRY(denoiser_check_shape(denoiser, "latents", latents, SHAPE(-1, -1, -1, denoiser->in_channels), error));
    int64_t rows = latents->shape[1], columns = latents->shape[2], p = denoiser->patch_size, most = denoiser->max_side * p;
    if (rows % p != 0 || columns % p != 0)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: latents of %lld rows and %lld columns; both must be multiples of %lld", name,
                         (long long)rows, (long long)columns, (long long)p);
    if (most > 0 && (rows > most || columns > most))
        return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: latents of %lld rows and %lld columns; at most %lld of each have positions",
                         name, (long long)rows, (long long)columns, (long long)most);
    int64_t channels = denoiser->in_channels > denoiser->out_channels ? denoiser->in_channels : denoiser->out_channels;
    if (rows > INT32_MAX / columns || latents->shape[0] > INT32_MAX / (rows * columns) / channels)
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "%s: latents of %lld rows and %lld columns in a batch of %lld are too many for one pass", name, (long long)rows,
                         (long long)columns, (long long)latents->shape[0]);
    return TESSERA_OK;
}

tessera_status denoiser_check_degrees(const struct denoiser *denoiser, int ulysses, int tensor, tessera_error *error) {
    int64_t heads = denoiser->num_heads;
    if (ulysses == 1 && tensor == 1) return TESSERA_OK;
    if (tensor > heads)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "tensor degree %d: %s has %lld attention heads in a layer: 1 to %lld are possible",
                         tensor, denoiser->class->name, (long long)heads, (long long)heads);
    if (denoiser->max_tensor > 0 && tensor > denoiser->max_tensor)
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "tensor degree %d: %s has %lld groups of channels in a layer: 1 to %lld are possible", tensor,
                         denoiser->class->name, (long long)denoiser->max_tensor,
                         (long long)(denoiser->max_tensor < heads ? denoiser->max_tensor : heads));
    if (ulysses > heads / tensor)
        return error_set(
            error, TESSERA_ERROR_ARGUMENT,
            "ulysses degree %d: %s has %lld attention heads in a layer, cut over %d: 1 to %lld are possible; the ring takes any", ulysses,
            denoiser->class->name, (long long)heads, tensor, (long long)(heads / tensor));
    return TESSERA_OK;
}

struct denoiser_state denoiser_embed(const struct denoiser *denoiser, struct run *run, const struct denoiser_inputs *inputs,
                                     unsigned carries) {
    struct denoiser_state state = {0};
    if (!segment_begin(denoiser->watch, run, COMPONENT_EMBED)) return state;
    state = denoiser->class->embed(denoiser, run, inputs, carries);
    segment_end(denoiser->watch, COMPONENT_EMBED);
    return state;
}

struct denoiser_state denoiser_block(const struct denoiser *denoiser, struct run *run, int index, struct denoiser_state state) {
    if (!segment_begin(denoiser->watch, run, index)) return (struct denoiser_state){0};
    state = denoiser->class->block(denoiser, run, index, state);
    segment_end(denoiser->watch, index);
    return state;
}

struct tensor denoiser_finish(const struct denoiser *denoiser, struct run *run, struct denoiser_state state) {
    if (!segment_begin(denoiser->watch, run, denoiser->num_blocks)) return (struct tensor){0};
    struct tensor out = denoiser->class->finish(denoiser, run, state);
    segment_end(denoiser->watch, denoiser->num_blocks);
    return out;
}

struct tensor denoiser_first_input(const struct denoiser *denoiser, struct run *run, const struct denoiser_state *state) {
    if (!segment_begin(denoiser->watch, run, 0)) return (struct tensor){0};
    struct tensor input = denoiser->class->first_input(denoiser, run, state);
    segment_end(denoiser->watch, 0);
    return input;
}

int64_t denoiser_state_rows(const struct denoiser_state *state, int level) {
    const struct cut *cut = cut_at_level(state->cut, level);
    return cut != NULL ? cut_count(cut, cut->me) / cut->columns : (state->rows + (1 << level) - 1) >> level;
}

int64_t denoiser_state_columns(const struct denoiser_state *state, int level) {
    return (state->columns + (1 << level) - 1) >> level;
}

void denoiser_keep_state(struct run *run, size_t scope, struct denoiser_state *state) {
    struct tensor *kept[3 + DENOISER_MAX_SKIPS] = {&state->picture, &state->text, &state->cond};
    for (int i = 0; i < state->num_skips; i++) kept[3 + i] = &state->skips[i];
    run_leave_all(run, scope, kept, 3 + state->num_skips);
}

struct denoiser_state denoiser_blocks(const struct denoiser *denoiser, struct run *run, int first, int end, size_t scope,
                                      struct denoiser_state state) {
    for (int i = first; i < end && !run_failed(run); i++) {
        state = denoiser_block(denoiser, run, i, state);
        denoiser_keep_state(run, scope, &state);
    }
    return state;
}

struct denoiser_inputs denoiser_upload(struct run *run, const struct denoiser_inputs *inputs) {
    struct denoiser_inputs in = *inputs;
    struct tensor *const tensors[] = {&in.latents, &in.text, &in.pooled, &in.text_mask, &in.text_2, &in.text_2_mask};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) *tensors[i] = run_upload(run, *tensors[i]);
    return in;
}

struct tensor denoiser_forward(const struct denoiser *denoiser, struct run *run, const struct denoiser_inputs *inputs) {
    size_t before = run_enter(run);
    struct denoiser_inputs in = denoiser_upload(run, inputs);
    size_t scope = run_enter(run);
    struct denoiser_state state = denoiser_embed(denoiser, run, &in, DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_TEXT);
    state = denoiser_blocks(denoiser, run, 0, denoiser->num_blocks, scope, state);
    if (run_failed(run)) return (struct tensor){0};
    return run_leave(run, before, denoiser_finish(denoiser, run, state));
}
