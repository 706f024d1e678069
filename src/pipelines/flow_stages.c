/* A stage's work on a unit. It begins with the latents, or with the state from the stage before,
 * and ends with a state for the next stage, or with the predictions and the step. See flow.h. */
#include "pipelines/flow.h"

#include <string.h>

/* Units of one kind have states of the same shapes, but for their batch: the whole, or a patch. */
static int kind_of(struct unit u) {
    return u.patch + 1;
}

/* The predictions that this rank computes in all units of a step together. */
static int batch_of(const struct flow *f) {
    return f->d->guided && team_degree(f->d->team, MESH_CFG) == 1 ? 2 : 1;
}

/* The input for one prediction, from that for both; or all of it. */
static struct tensor input_of(struct tensor t, int prediction) {
    if (prediction == BOTH_PREDICTIONS || t.data == NULL || t.shape[0] == 1) return t;
    t.shape[0] = 1;
    t.data = (char *)t.data + (size_t)prediction * tensor_bytes(&t);
    return t;
}

/* What the denoiser reads at `at` of a picture's latents, as the sampler scales them, into `to`
 * [at, channels + extra_channels]. */
static void read_latents(const struct flow *f, struct unit u, struct span at, float *to, float *scratch) {
    const struct denoising *d = f->d;
    int64_t first = at.first * d->channels, count = at.count * d->channels;
    float *scaled = d->extra != NULL ? scratch : to;
    d->scheduler->class->scale_model_input(d->scheduler, d->first_step + u.step, scaled, f->x[u.picture] + first, (size_t)count);
    if (d->extra == NULL) return;
    const float *extra = d->extra[u.picture] + at.first * d->extra_channels;
    for (int64_t i = 0; i < at.count; i++, to += d->channels + d->extra_channels) {
        memcpy(to, scaled + i * d->channels, (size_t)d->channels * sizeof *to);
        memcpy(to + d->channels, extra + i * d->extra_channels, (size_t)d->extra_channels * sizeof *to);
    }
}

/* The forms of the denoiser's inputs in a unit; all but the latents have their data. */
static struct denoiser_inputs input_forms(const struct flow *f, struct unit u) {
    const struct denoising *d = f->d;
    int prediction = flow_predictions_held(f, u);
    struct denoiser_inputs in = d->inputs;
    in.latents = tensor_of(
        NULL, DTYPE_F32, SHAPE(d->guided && prediction == BOTH_PREDICTIONS ? 2 : 1, d->rows, d->columns, d->channels + d->extra_channels));
    struct tensor *const tensors[] = {&in.text, &in.pooled, &in.text_mask, &in.text_2, &in.text_2_mask, &in.guidance, &in.size_conditions};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) *tensors[i] = input_of(*tensors[i], prediction);
    return in;
}

/* The denoiser's inputs on the first stage; of the latents the unit's positions. */
static struct denoiser_inputs inputs_of(struct flow *f, struct unit u, float timesteps[2]) {
    const struct denoising *d = f->d;
    struct denoiser_inputs in = input_forms(f, u);
    int64_t batch = in.latents.shape[0], channels = in.latents.shape[3];
    in.latents = run_tensor(d->run, DTYPE_F32, in.latents.ndim, in.latents.shape);
    struct tensor scratch = d->extra != NULL ? run_tensor(d->run, DTYPE_F32, SHAPE(f->count)) : (struct tensor){0};
    timesteps[0] = timesteps[1] = d->scheduler->timesteps[d->first_step + u.step];
    in.timesteps = timesteps;
    struct span at = flow_positions(f, u);
    float *latents = run_map(d->run, &in.latents, MAP_WRITE), *room = run_map(d->run, &scratch, MAP_ROOM);
    for (int64_t b = 0; b < batch && !run_failed(d->run); b++)
        read_latents(f, u, at, latents + (b * f->positions + at.first) * channels, room);
    run_unmap(d->run, &scratch, room, MAP_ROOM);
    run_unmap(d->run, &in.latents, latents, MAP_WRITE);
    return in;
}

/* Text that blocks change goes with the first patch: patches after it read what it left. */
static bool has_text(const struct flow *f, struct unit u) {
    return u.patch <= 0 || !f->d->denoiser->text_stream;
}

/* What other stages need to know of a unit. */
static struct relay_unit relay_unit_of(const struct flow *f, struct unit u, const struct denoiser_inputs *forms) {
    return (struct relay_unit){.inputs = forms, .kind = kind_of(u), .batch = flow_predictions_held(f, u) + 1, .text = has_text(f, u)};
}

tessera_status flow_embed(struct flow *f, struct unit u, struct denoiser_state *state, size_t *scope, tessera_error *error) {
    const struct denoiser *denoiser = f->d->denoiser;
    float timesteps[2];
    TRY(flow_await_latents(f, u, error));
    struct denoiser_inputs in = inputs_of(f, u, timesteps);
    *scope = run_enter(f->d->run);
    unsigned wanted = DENOISER_CARRIES_PICTURE | (has_text(f, u) ? (unsigned)DENOISER_CARRIES_TEXT : 0u);
    *state = denoiser_embed(denoiser, f->d->run, &in, wanted);
    return run_status(f->d->run, error);
}

/* What the stage before has made of the unit; *skipped: its blocks were left out. */
static tessera_status take_state(struct flow *f, struct unit u, struct denoiser_state *state, bool *skipped, tessera_error *error) {
    struct unit after = flow_next_unit(f, u);
    bool ends = after.step == f->steps;
    struct denoiser_inputs forms = input_forms(f, u), forms_after = ends ? forms : input_forms(f, after);
    struct relay_unit unit = relay_unit_of(f, u, &forms), next = relay_unit_of(f, ends ? u : after, &forms_after);
    return relay_take(&f->relays[f->at], &unit, ends ? NULL : &next, state, skipped, error);
}

static tessera_status send_state(struct flow *f, struct unit u, const struct denoiser_state *state, bool skipped, tessera_error *error) {
    struct denoiser_inputs forms = input_forms(f, u);
    struct relay_unit unit = relay_unit_of(f, u, &forms);
    return relay_send(&f->relays[f->at], &unit, state, skipped, error);
}

/* This stage's blocks, as far as a step cache does not leave them out. */
static struct denoiser_state run_blocks(struct flow *f, struct unit u, size_t scope, struct denoiser_state state, bool *skipped) {
    struct denoising *d = f->d;
    struct span blocks = d->stages != NULL ? stages_blocks(&d->stages[f->at]) : (struct span){0, d->denoiser->num_blocks};
    struct step_cache *cache = f->caches != NULL ? &f->caches[u.picture * f->held + f->at] : NULL;
    d->blocks += blocks.count;
    return step_cache_run(cache, d->denoiser, d->run, blocks, scope, kind_of(u), u.step == f->steps - 1, state, skipped);
}

/* From the unit's inputs, or the stage before, to the next stage, or the step. */
static tessera_status run_stage(struct flow *f, struct unit u, tessera_error *error) {
    struct denoising *d = f->d;
    struct run *run = d->run;
    struct denoiser_state state;
    bool skipped = false;
    size_t scope = run_enter(run);
    TRY(f->stage == 0 ? flow_embed(f, u, &state, &scope, error) : take_state(f, u, &state, &skipped, error));
    state = run_blocks(f, u, scope, state, &skipped);
    TRY(run_status(run, error));
    if (f->stage < f->stages - 1) return send_state(f, u, &state, skipped, error);
    struct tensor out = denoiser_finish(d->denoiser, run, state);
    TRY(run_status(run, error));
    return flow_store_predictions(f, u, out, error);
}

/* The prediction of a picture whose patches are pictures of their own: this rank's patch, and the
 * others' beside it. */
static tessera_status run_split(struct flow *f, struct unit u, tessera_error *error) {
    struct denoising *d = f->d;
    float timesteps[2];
    struct denoiser_inputs in = inputs_of(f, u, timesteps);
    struct tensor latents = in.latents;
    d->blocks += d->denoiser->num_blocks;
    in.latents = exchange_split(d->run, latents, d->denoiser->patch_size);
    struct tensor out = run_failed(d->run) ? (struct tensor){0} : denoiser_forward(d->denoiser, d->run, &in);
    out = exchange_unite(d->run, out, latents, d->denoiser->patch_size);
    TRY(run_status(d->run, error));
    return flow_store_predictions(f, u, out, error);
}

tessera_status flow_run_unit(struct flow *f, struct unit u, tessera_error *error) {
    struct denoising *d = f->d;
    if (f->stage < 0) return TESSERA_OK;
    size_t scope = run_enter(d->run);
    struct strategy_moment moment = {
        .steps = f->steps, .step = u.step, .patch = u.patch, .prediction = u.prediction == BOTH_PREDICTIONS ? 0 : u.prediction};
    moment.predictions = batch_of(f);
    parallel_begin(&f->chain, &moment);
    TRY(parallel_splits_pictures(&f->chain) ? run_split(f, u, error) : run_stage(f, u, error));
    if (f->stage == f->stages - 1 && u.prediction != 0) TRY(flow_take_step(f, u, error));
    arena_release(d->run->arena, scope);
    return TESSERA_OK;
}
