/* See denoise.h. One step of one picture:
 *
 *     e = denoiser(x, t), for the negative prompt and the prompt
 *     e = e_negative + s (e_prompt - e_negative)                                    (Ho and Salimans 2022, equation 6)
 *     e = phi e std(e_prompt) / std(e) + (1 - phi) e                                (Lin et al. 2023, equations 15 and 16)
 *     x = scheduler_step(x, e)
 *
 * The work is a list of units, the same on every rank: a step of a picture, or of one row of its guidance, or of one part of its rows. Each
 * stage of the pipeline goes through the list and runs its blocks of every unit, while the others do theirs of units before and after:
 *
 *     stage 0   embed, blocks  |1|2|3|4|1|2|...      parts of a picture: part 1 of the next step may begin when its last step is taken,
 *     stage 1          blocks    |1|2|3|4|1|...      which needs part 1 alone (Fang et al. 2024, PipeFusion, figure 3)
 *     stage 2  blocks, finish      |1|2|3|4|...
 *                     + guidance, sampler --> x of the part, to stage 0
 *
 * Without a pipeline there is one stage, and a unit is a step. A picture in parts knows what other parts were one step before (pipefusion.h):
 * its first steps are taken as a whole. With one part a pipeline is exact; then the rows of guidance, and several pictures, keep the stages
 * busy. Samplers remember each part's history; what guidance rescaling needs of the whole picture are the other parts' sums of the step
 * before.
 *
 * Where workers compute blocks, units of all pictures are under way at once, and each picture goes on by itself: denoise_workers.c. */
#include "pipelines/denoise.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipelines/flow.h"

tessera_status flow_out_of_memory(tessera_error *error) {
    return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for the denoising of a picture");
}

/* ---- units ---- */

static bool is_whole(const struct flow *f, int step) {
    return f->parts == 1 || step < f->whole_steps;
}

/* The first unit of a step of a picture. */
struct unit flow_unit_of(const struct flow *f, int step, int picture) {
    bool whole = is_whole(f, step);
    return (struct unit){
        .step = step, .picture = picture, .part = whole ? PATCHES_WHOLE : 0, .row = whole && f->row_by_row ? 0 : BOTH_ROWS};
}

/* The part after this one, of the same step and picture or the next; unit.step == f->steps is the end. */
static struct unit next_part(const struct flow *f, struct unit u) {
    if (u.part != PATCHES_WHOLE && ++u.part < f->parts) return u;
    return u.picture + 1 < f->pictures ? flow_unit_of(f, u.step, u.picture + 1) : flow_unit_of(f, u.step + 1, 0);
}

static struct unit next_unit(const struct flow *f, struct unit u) {
    if (u.row != 0) return next_part(f, u);
    u.row = 1;
    return u;
}

/* Units of one kind have states of the same shapes, but for their batch: the whole, or a part. */
static int kind_of(struct unit u) {
    return u.part + 1;
}

/* Where a unit's rows lie in the latents, in positions. */
static struct span positions_of(const struct flow *f, struct unit u) {
    if (u.part == PATCHES_WHOLE) return (struct span){0, f->positions};
    int64_t unit = f->d->denoiser->patch_size * f->d->columns;
    struct span rows = cut_share(f->d->rows / f->d->denoiser->patch_size, f->parts, u.part);
    return (struct span){rows.first * unit, rows.count * unit};
}

/* What the step under way of a picture predicts; NULL where nobody wants to see it. */
static float *x_0_of(const struct flow *f, int picture) {
    return f->x_0 != NULL ? f->x_0 + (int64_t)picture * f->count : NULL;
}

/* The latents of a unit are those of its step: if they are the picture's last ones, the first stage has all of them. */
static void tell_arrived(const struct flow *f, struct unit u) {
    bool all = u.part == PATCHES_WHOLE || u.part == f->parts - 1, ends = u.step == f->steps - 1;
    const float *x = f->x[u.picture];
    if (all && f->d->arrived != NULL) f->d->arrived(f->d->user, u.picture, u.step + 1, x, ends ? x : x_0_of(f, u.picture));
}

/* ---- what a unit begins with ---- */

/* Member 0 of the pipeline tells of each step. */
static bool tells(const struct flow *f) {
    return comm_rank(f->pipe) == 0;
}

/* Where members have several stages messages come in one order. */
static bool is_ordered(const struct flow *f) {
    return f->d->stages != NULL && f->d->stages->returns;
}

/* Must the latents of unit `a` be here before `u`? Those of its picture's step before must; where messages are ordered, all before it. */
static bool is_due(const struct flow *f, struct unit a, struct unit u) {
    int step = is_ordered(f) && a.step < f->steps - 1 ? a.step : a.step + 1; /* none come of the last step */
    if (step != u.step) return step < u.step;
    if (a.picture != u.picture) return a.picture < u.picture;
    return !is_ordered(f) && a.part <= u.part;
}

/* Takes the latents that have come from the last stage until those that are due are among them. */
static tessera_status await_latents(struct flow *f, struct unit u, tessera_error *error) {
    while (f->relays->latents != NULL && is_due(f, f->arriving, u)) {
        struct unit a = f->arriving;
        struct span at = positions_of(f, a);
        int64_t channels = f->d->channels, first = at.first * channels;
        float *x_0 = x_0_of(f, a.picture);
        TRY(relay_take_latents(f->relays, f->x[a.picture] + first, x_0 != NULL ? x_0 + first : NULL, at.count * channels, error));
        tell_arrived(f, a);
        f->arriving = next_part(f, a);
        if (f->arriving.step < f->steps - 1) TRY(relay_expect_latents(f->relays, positions_of(f, f->arriving).count * channels, error));
    }
    return TESSERA_OK;
}

/* Row `row` of an input of both prompts, or both rows. */
static struct tensor row_of(struct tensor t, int row) {
    if (row == BOTH_ROWS || t.data == NULL || t.shape[0] == 1) return t;
    t.shape[0] = 1;
    t.data = (char *)t.data + (size_t)row * tensor_bytes(&t);
    return t;
}

/* The rows of guidance that this rank computes in a unit. */
static int rows_at_hand(const struct flow *f, struct unit u) {
    if (!f->d->guided) return BOTH_ROWS;
    return team_degree(f->d->team, MESH_CFG) == 2 ? team_coordinate(f->d->team, MESH_CFG) : u.row;
}

/* The rows of guidance that this rank computes in all units of a step together. */
static int batch_of(const struct flow *f) {
    return f->d->guided && team_degree(f->d->team, MESH_CFG) == 1 ? 2 : 1;
}

/* What the denoiser reads at `at` of a picture's latents, as the sampler scales them, into `to` [at, channels + extra_channels]. */
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
    int row = rows_at_hand(f, u);
    struct denoiser_inputs in = d->inputs;
    in.latents =
        tensor_of(NULL, DTYPE_F32, SHAPE(d->guided && row == BOTH_ROWS ? 2 : 1, d->rows, d->columns, d->channels + d->extra_channels));
    struct tensor *const tensors[] = {&in.text, &in.pooled, &in.text_mask, &in.text_2, &in.text_2_mask, &in.guidance, &in.size_conditions};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) *tensors[i] = row_of(*tensors[i], row);
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
    struct span at = positions_of(f, u);
    float *latents = run_map(d->run, &in.latents, MAP_WRITE), *room = run_map(d->run, &scratch, MAP_ROOM);
    for (int64_t b = 0; b < batch && !run_failed(d->run); b++)
        read_latents(f, u, at, latents + (b * f->positions + at.first) * channels, room);
    run_unmap(d->run, &scratch, room, MAP_ROOM);
    run_unmap(d->run, &in.latents, latents, MAP_WRITE);
    return in;
}

/* Text that blocks change goes with the first part: parts after it read what it left. */
static bool has_text(const struct flow *f, struct unit u) {
    return u.part <= 0 || !f->d->denoiser->text_stream;
}

/* What other stages need to know of a unit. */
static struct relay_unit relay_unit_of(const struct flow *f, struct unit u, const struct denoiser_inputs *forms) {
    return (struct relay_unit){.inputs = forms, .kind = kind_of(u), .batch = rows_at_hand(f, u) + 1, .text = has_text(f, u)};
}

/* The unit's first state. */
tessera_status flow_embed(struct flow *f, struct unit u, struct denoiser_state *state, size_t *scope, tessera_error *error) {
    const struct denoiser *denoiser = f->d->denoiser;
    float timesteps[2];
    TRY(await_latents(f, u, error));
    struct denoiser_inputs in = inputs_of(f, u, timesteps);
    *scope = run_enter(f->d->run);
    unsigned wanted = DENOISER_CARRIES_PICTURE | (has_text(f, u) ? (unsigned)DENOISER_CARRIES_TEXT : 0u);
    *state = denoiser_embed(denoiser, f->d->run, &in, wanted);
    return run_status(f->d->run, error);
}

/* What the stage before has made of the unit; *skipped: its blocks were left out. */
static tessera_status take_state(struct flow *f, struct unit u, struct denoiser_state *state, bool *skipped, tessera_error *error) {
    struct unit after = next_unit(f, u);
    bool ends = after.step == f->steps;
    struct denoiser_inputs forms = input_forms(f, u), forms_after = ends ? forms : input_forms(f, after);
    struct relay_unit unit = relay_unit_of(f, u, &forms), next = relay_unit_of(f, ends ? u : after, &forms_after);
    return relay_take(&f->relays[f->at], &unit, ends ? NULL : &next, state, skipped, error);
}

/* ---- what a unit ends with ---- */

static tessera_status send_state(struct flow *f, struct unit u, const struct denoiser_state *state, bool skipped, tessera_error *error) {
    struct denoiser_inputs forms = input_forms(f, u);
    struct relay_unit unit = relay_unit_of(f, u, &forms);
    return relay_send(&f->relays[f->at], &unit, state, skipped, error);
}

/* Rows of guidance in `out`, F32 [rows, part, columns, channels or more], to their places in f->predictions; the other rank's row joins
 * them where two ranks share them. A learned variance, the channels behind the first, is left out. */
tessera_status flow_store_predictions(struct flow *f, struct unit u, struct tensor out, tessera_error *error) {
    const struct denoising *d = f->d;
    int row = rows_at_hand(f, u);
    struct span at = positions_of(f, u);
    size_t bytes = (size_t)(at.count * d->channels) * sizeof(float);
    float *both[] = {f->predictions + at.first * d->channels, f->predictions + f->count + at.first * d->channels};
    float *predicted = run_map(d->run, &out, MAP_READ);
    for (int64_t b = 0; b < out.shape[0] && predicted != NULL; b++) {
        const float *from = predicted + b * at.count * out.shape[3];
        float *to = both[row == BOTH_ROWS ? b : row];
        for (int64_t i = 0; i < at.count; i++, from += out.shape[3], to += d->channels) memcpy(to, from, (size_t)d->channels * sizeof *to);
    }
    run_unmap(d->run, &out, predicted, MAP_READ);
    TRY(run_status(d->run, error));
    if (!d->guided || team_degree(d->team, MESH_CFG) == 1) return TESSERA_OK;
    struct comm *group = d->team->mesh->group[MESH_CFG];
    struct tensor joined = run_tensor(d->run, DTYPE_F32, SHAPE(2, at.count, d->channels));
    char *rows = run_map(d->run, &joined, MAP_ROOM);
    TRY(run_status(d->run, error));
    comm_label(group, "cfg");
    tessera_status status = comm_all_gather(group, both[row], rows, (const size_t[]){bytes, bytes}, error);
    if (status == TESSERA_OK) memcpy(both[1 - row], rows + (size_t)(1 - row) * bytes, bytes);
    run_unmap(d->run, &joined, rows, MAP_ROOM);
    return status;
}

static void add_sums(double *sum, double *squares, const float *e, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        *sum += e[i];
        *squares += (double)e[i] * e[i];
    }
}

static double deviation(double sum, double squares, double count) {
    double mean = sum / count;
    return sqrt(squares / count - mean * mean);
}

/* Gives e, the guided prediction at `at`, the deviation that the prompt's own has, by the share guidance_rescale. */
static void rescale_guided(struct flow *f, struct unit u, struct span at, const float *prompt, float *e) {
    float rescale = f->d->guidance_rescale;
    int64_t width = f->d->channels;
    struct sums all = {0};
    for (int p = 0; p < f->parts; p++) {
        struct unit part = {.part = f->parts > 1 ? p : PATCHES_WHOLE};
        struct span rows = positions_of(f, part);
        struct sums *s = &f->sums[p];
        if (u.part == PATCHES_WHOLE || u.part == p) {
            *s = (struct sums){.count = (double)(rows.count * width)};
            add_sums(&s->prompt, &s->prompt_squares, prompt + (rows.first - at.first) * width, rows.count * width);
            add_sums(&s->guided, &s->guided_squares, e + (rows.first - at.first) * width, rows.count * width);
        }
        all.count += s->count;
        all.prompt += s->prompt;
        all.prompt_squares += s->prompt_squares;
        all.guided += s->guided;
        all.guided_squares += s->guided_squares;
    }
    float ratio = (float)(deviation(all.prompt, all.prompt_squares, all.count) / deviation(all.guided, all.guided_squares, all.count));
    for (int64_t i = 0; i < at.count * width; i++) e[i] = rescale * (e[i] * ratio) + (1.0f - rescale) * e[i];
}

/* The guided prediction of the unit's positions into f->prediction. */
static void guide(struct flow *f, struct unit u, struct span at) {
    const struct denoising *d = f->d;
    int64_t first = at.first * d->channels, count = at.count * d->channels;
    const float *negative = f->predictions + first, *prompt = negative + f->count;
    float *e = f->prediction + first;
    if (!d->guided) {
        memcpy(e, negative, (size_t)count * sizeof *e);
        return;
    }
    for (int64_t i = 0; i < count; i++) e[i] = negative[i] + d->guidance_scale * (prompt[i] - negative[i]);
    if (d->guidance_rescale > 0.0f) rescale_guided(f, u, at, prompt, e);
}

/* What the sampler remembers of a unit's positions: a view of the whole picture's memory from the first step in parts on. */
static struct scheduler_state *state_of(struct flow *f, struct unit u) {
    struct scheduler_state *whole = &f->states[u.picture];
    if (u.part == PATCHES_WHOLE) return whole;
    struct scheduler_state *view = &f->states[f->pictures + u.part];
    if (u.step == f->whole_steps) *view = scheduler_state_part(f->d->scheduler, whole, (size_t)(positions_of(f, u).first * f->d->channels));
    return view;
}

/* What a stochastic sampler adds: a step that is taken again has the noise it had. */
static const float *noise_of(struct flow *f, struct unit u) {
    const float *before = f->courses != NULL && f->d->workers->rewinds ? rewind_noise(&f->courses[u.picture].past, u.step) : NULL;
    return before != NULL ? before : f->d->fresh_noise(f->d->user, u.picture);
}

/* The sampler's step of a part, and the new latents on their way to the first stage. */
tessera_status flow_take_step(struct flow *f, struct unit u, tessera_error *error) {
    const struct denoising *d = f->d;
    struct span at = positions_of(f, u);
    int64_t first = at.first * d->channels, count = at.count * d->channels;
    float *x = f->x[u.picture] + first, *x_0 = f->x_0 != NULL ? x_0_of(f, u.picture) + first : NULL;
    guide(f, u, at);
    if (x_0 != NULL) scheduler_predict_x_0(d->scheduler, d->first_step + u.step, x_0, x, f->prediction + first, (size_t)count);
    if (u.part <= 0 && d->fresh_noise != NULL) f->noise = noise_of(f, u);
    if (f->courses != NULL && d->workers->rewinds) TRY(rewind_note(&f->courses[u.picture].past, u.step, f->prediction, f->noise, error));
    scheduler_step(d->scheduler, state_of(f, u), d->first_step + u.step, x, f->prediction + first,
                   f->noise != NULL ? f->noise + first : NULL, (size_t)count);
    bool done = u.part == PATCHES_WHOLE || u.part == f->parts - 1;
    if (done && d->observe != NULL) d->observe(d->user, u.picture, d->first_step + u.step, f->prediction, f->x[u.picture]);
    if (tells(f)) tell_arrived(f, u);
    return u.step == f->steps - 1 ? TESSERA_OK : relay_send_latents(f->relays, x, x_0, count, error);
}

/* ---- a unit ---- */

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

/* The prediction of a picture whose parts are pictures of their own: this rank's part, and the others' beside it. */
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

static tessera_status run_unit(struct flow *f, struct unit u, tessera_error *error) {
    struct denoising *d = f->d;
    if (f->stage < 0) return TESSERA_OK;
    size_t scope = run_enter(d->run);
    struct strategy_moment moment = {.steps = f->steps, .step = u.step, .part = u.part, .row = u.row == BOTH_ROWS ? 0 : u.row};
    moment.rows = batch_of(f);
    parallel_begin(&f->chain, &moment);
    TRY(parallel_splits_pictures(&f->chain) ? run_split(f, u, error) : run_stage(f, u, error));
    if (f->stage == f->stages - 1 && u.row != 0) TRY(flow_take_step(f, u, error));
    arena_release(d->run->arena, scope);
    return TESSERA_OK;
}

/* This rank's stages one after the other, each with the rows of guidance that follow each other: while one is at another rank the other one is
 * computed. *u becomes the unit after them. */
static tessera_status run_rows(struct flow *f, struct unit *u, tessera_error *error) {
    struct unit first = *u;
    int rows = first.row == 0 ? 2 : 1;
    for (f->at = 0; f->at < f->held; f->at++) {
        f->stage = f->relays[f->at].stage;
        *u = first;
        for (int row = 0; row < rows; row++, *u = next_unit(f, *u)) TRY(run_unit(f, *u, error));
        relay_pass(&f->relays[f->at], rows);
    }
    f->stage = f->relays->stage;
    return TESSERA_OK;
}

static tessera_status report(const struct flow *f, struct unit u, tessera_error *error) {
    bool begins = u.part <= 0 && u.row <= 0;
    return begins && f->d->report != NULL ? f->d->report(f->d->user, u.picture, u.step, error) : TESSERA_OK;
}

static tessera_status run_units(struct flow *f, tessera_error *error) {
    for (struct unit u = flow_unit_of(f, 0, 0); u.step < f->steps;) {
        if (f->stage != 0) TRY(await_latents(f, u, error));
        TRY(report(f, u, error));
        TRY(run_rows(f, &u, error));
    }
    for (int i = 0; i < f->pictures && comm_size(f->pipe) > 1; i++) {
        int last = f->d->stages->ranks[f->stages - 1];
        comm_label(f->pipe, "latents");
        TRY(comm_broadcast(f->pipe, last, f->x[i], (size_t)f->count * sizeof(float), error));
        if (tells(f) && last != 0) tell_arrived(f, (struct unit){.step = f->steps - 1, .picture = i, .part = PATCHES_WHOLE});
    }
    for (int i = 0; i < f->pictures; i++) {
        if (f->d->report != NULL) TRY(f->d->report(f->d->user, i, f->steps, error));
    }
    return TESSERA_OK;
}

/* ---- beginning and end ---- */

/* Is each row of guidance a unit of its own, where the picture goes as a whole? A step cache decides over both. */
static bool goes_row_by_row(const struct team *team, const tessera_workers *workers, bool guided, bool has_cache) {
    if (workers != NULL) return guided;
    return team_stages(team) > 1 && guided && team_degree(team, MESH_CFG) == 1 && !has_cache;
}

int denoise_at_once(const struct team *team, const tessera_workers *workers, bool guided, bool has_cache, int pictures) {
    int stages = team_stages(team), rows = goes_row_by_row(team, workers, guided, has_cache) ? 2 : 1;
    if (workers != NULL) {
        int most = (workers->at_once + rows - 1) / rows;
        return pictures < most ? pictures : most;
    }
    if (stages == 1 || team->choice.parts > 1) return 1;
    int enough = (stages + 2 * (rows - 1)) / rows; /* a picture is back at the first stage stages + rows - 1 units after it began */
    return pictures < enough ? pictures : enough;
}

static tessera_status open_caches(struct flow *f, tessera_error *error) {
    struct denoising *d = f->d;
    const struct team *team = d->team;
    if (d->step_cache == NULL) return TESSERA_OK;
    int kind = 0;
    while (step_cache_kind_name(kind) != NULL && strcmp(step_cache_kind_name(kind), d->step_cache) != 0) kind++;
    if (kind == STEP_CACHE_KINDS)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "step cache \"%s\": it must be fbcache or teacache", d->step_cache);
    if (parallel_splits_pictures(&f->chain))
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "step cache %s: not with naive patches, which are pictures of their own",
                         d->step_cache);
    if (d->run->backend->reproducible && team_size(team) > 1)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                         "step cache %s: reproducible kernels have one only where a rank makes a picture alone, as it adds sums over ranks",
                         d->step_cache);
    f->caches = calloc((size_t)f->pictures * (size_t)f->held, sizeof *f->caches);
    if (f->caches == NULL) return flow_out_of_memory(error);
    struct comm *groups[STEP_CACHE_GROUPS] = {0};
    if (team->mesh != NULL)
        groups[0] = team->mesh->group[MESH_ROWS], groups[1] = team->mesh->group[MESH_CFG], groups[2] = team->mesh->group[MESH_TENSOR];
    for (int i = 0; i < f->pictures * f->held; i++)
        TRY(step_cache_open(&f->caches[i], (enum step_cache_kind)kind, d->step_cache_threshold, d->denoiser, f->parts > 1 ? f->parts : 0,
                            groups, error));
    return TESSERA_OK;
}

static tessera_status check_parts(const struct flow *f, tessera_error *error) {
    const struct denoising *d = f->d;
    int64_t rows = d->rows / d->denoiser->patch_size, columns = d->columns / d->denoiser->patch_size;
    int sharers = comm_size(f->chain.rows);
    if (f->parts == 1) return TESSERA_OK;
    if (rows < f->parts)
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "num-pipeline-patch %d: the picture has %lld rows of patches: at most %lld are possible", f->parts,
                         (long long)rows, (long long)rows);
    if (rows / f->parts * columns >= sharers) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_ARGUMENT,
                     "a part of %lld tokens cannot be cut over %d ranks: lower num-pipeline-patch, ring or ulysses",
                     (long long)(rows / f->parts * columns), sharers);
}

static tessera_status open_flow(struct flow *f, tessera_error *error) {
    struct denoising *d = f->d;
    TRY(flow_check_workers(f, error));
    TRY(team_compose(d->team, &f->chain, error));
    f->chain.text_tokens = d->denoiser->text_stream ? d->inputs.text.shape[1] : 0;
    d->run->parallel = team_needs_chain(d->team) ? &f->chain : NULL;
    TRY(check_parts(f, error));
    size_t count = (size_t)f->count, views = f->parts > 1 ? (size_t)f->parts : 0;
    f->states = calloc((size_t)f->pictures + views, sizeof *f->states);
    f->predictions = f->prediction_memory = malloc(3 * count * sizeof(float));
    f->sums = calloc((size_t)f->parts, sizeof *f->sums);
    if (d->shows_x_0) f->x_0 = calloc((size_t)f->pictures * count, sizeof *f->x_0);
    f->relays = calloc((size_t)f->held, sizeof *f->relays);
    if (f->states == NULL || f->predictions == NULL || f->sums == NULL || f->relays == NULL || (d->shows_x_0 && f->x_0 == NULL))
        return flow_out_of_memory(error);
    f->prediction = f->predictions + 2 * count;
    TRY(relay_open(f->relays, f->held, f->pipe, d->denoiser, d->stages, d->run, f->parts + 1, error));
    for (int k = 0; k < f->held; k++) f->relays[k].may_skip = d->step_cache != NULL, f->relays[k].shows_x_0 = d->shows_x_0;
    for (int i = 0; i < f->pictures; i++) TRY(scheduler_state_init(d->scheduler, count, &f->states[i], error));
    TRY(open_caches(f, error));
    return d->workers != NULL ? flow_open_courses(f, error) : TESSERA_OK;
}

static void close_flow(struct flow *f) {
    struct denoising *d = f->d;
    if (f->relays != NULL) relay_close(f->relays, f->held);
    free(f->relays);
    parallel_free(&f->chain);
    for (int i = 0; f->states != NULL && i < f->pictures; i++) scheduler_state_free(&f->states[i]);
    for (int i = 0; f->caches != NULL && i < f->pictures * f->held; i++) {
        d->blocks_skipped += f->caches[i].blocks_skipped;
        step_cache_close(&f->caches[i]);
    }
    flow_close_courses(f);
    free(f->caches);
    free(f->states);
    free(f->prediction_memory);
    free(f->sums);
    free(f->x_0);
}

tessera_status denoise_pictures(struct denoising *d, int pictures, float *const *x, tessera_error *error) {
    const struct team *team = d->team;
    struct flow f = {.d = d,
                     .pictures = pictures,
                     .steps = d->scheduler->num_steps - d->first_step,
                     .parts = team->choice.parts > 1 ? team->choice.parts : 1,
                     .whole_steps = team->whole_steps,
                     .x = x,
                     .positions = d->rows * d->columns,
                     .count = d->rows * d->columns * d->channels,
                     .pipe = team->mesh != NULL ? team->mesh->group[MESH_PIPEFUSION] : NULL,
                     .held = d->num_stages > 1 ? d->num_stages : 1,
                     .stage = d->stages != NULL ? d->stages->me : 0,
                     .stages = d->stages != NULL ? d->stages->count : 1};
    f.row_by_row = goes_row_by_row(team, d->workers, d->guided, d->step_cache != NULL);
    f.arriving = flow_unit_of(&f, 0, 0);
    struct parallel *before = d->run->parallel;
    tessera_error local = {0};
    tessera_status status = open_flow(&f, &local);
    if (status == TESSERA_OK) status = d->workers != NULL ? flow_run_with_workers(&f, &local) : run_units(&f, &local);
    if (status == TESSERA_OK) status = parallel_reset(&f.chain, &local);
    if (status != TESSERA_OK) team_job_fail(d->team, &local); /* before buffers go: nothing more comes into them */
    parallel_reset(&f.chain, NULL);
    close_flow(&f);
    d->run->parallel = before;
    return status == TESSERA_OK ? TESSERA_OK : error_set(error, status, "%s", local.message);
}
