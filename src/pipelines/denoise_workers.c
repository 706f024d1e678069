/* The denoising loop if workers compute some of the blocks (workers.h):
 *
 *     picture 1   prediction 0  embed, blocks | ~~~~~~~~ | blocks, finish
 *                 prediction 1  embed, blocks | ~~~~~~~~~~~~ | blocks, finish -> guidance, sampler -> next step
 *     picture 2   ...                  workers
 *
 * Each picture takes its step as soon as all predictions of the step are back. If answers may turn
 * out to be wrong later, the inputs of a picture's steps are kept, so that it can go back
 * (rewind.h). */
#include <stdlib.h>
#include <string.h>

#include "pipelines/flow.h"

/* The state of a unit where the workers' first block begins. */
static tessera_status approach(struct flow *f, struct unit u, struct denoiser_state *state, tessera_error *error) {
    size_t scope;
    TRY(flow_embed(f, u, state, &scope, error));
    f->d->blocks += f->d->workers->first;
    *state = denoiser_blocks(f->d->denoiser, f->d->run, 0, f->d->workers->first, scope, *state);
    return run_status(f->d->run, error);
}

static struct workers_unit workers_unit_of(struct unit u) {
    return (struct workers_unit){.picture = u.picture, .step = u.step, .prediction = u.prediction == BOTH_PREDICTIONS ? 0 : u.prediction};
}

typedef tessera_status workers_take(tessera_workers *, struct workers_unit, const struct denoiser_state *, tessera_error *);

/* Gives the workers each prediction of a picture's step. */
static tessera_status give_step(struct flow *f, int picture, int step, workers_take *take, tessera_error *error) {
    struct unit u = flow_unit_of(f, step, picture);
    do {
        struct denoiser_state state;
        size_t before = run_enter(f->d->run);
        TRY(approach(f, u, &state, error));
        TRY(take(f->d->workers, workers_unit_of(u), &state, error));
        arena_release(f->d->run->arena, before);
    } while (f->predictions_apart && u.prediction++ == 0);
    return TESSERA_OK;
}

static tessera_status begin_step(struct flow *f, int picture, tessera_error *error) {
    struct course *c = &f->courses[picture];
    c->predictions_here = 0;
    c->checked = false;
    if (f->d->report != NULL) TRY(f->d->report(f->d->user, picture, c->step, error));
    return give_step(f, picture, c->step, f->d->workers->calls->send, error);
}

/* The blocks behind the workers', and the prediction. */
static tessera_status arrive(struct flow *f, struct unit u, struct denoiser_state state, tessera_error *error) {
    const struct denoising *d = f->d;
    size_t scope = run_enter(d->run);
    struct tensor *const fields[] = {&state.picture, &state.text, &state.text_mask, &state.cond};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) *fields[i] = run_upload(d->run, *fields[i]);
    for (int i = 0; i < state.num_skips; i++) state.skips[i] = run_upload(d->run, state.skips[i]);
    struct tensor out = state.picture;
    if (!d->workers->finish) {
        f->d->blocks += d->denoiser->num_blocks - d->workers->end;
        state = denoiser_blocks(d->denoiser, d->run, d->workers->end, d->denoiser->num_blocks, scope, state);
        out = run_failed(d->run) ? (struct tensor){0} : denoiser_finish(d->denoiser, d->run, state);
    }
    TRY(run_status(d->run, error));
    f->predictions = f->courses[u.picture].predictions;
    return flow_store_predictions(f, u, out, error);
}

/* Some of a picture's steps are looked at once more. */
static tessera_status check_steps(struct flow *f, int picture, tessera_error *error) {
    struct course *c = &f->courses[picture];
    size_t bytes = (size_t)f->count * sizeof(float);
    if (!f->d->workers->rewinds) return TESSERA_OK;
    int *steps = malloc((size_t)f->steps * sizeof *steps), count = 0;
    float *last = malloc(bytes);
    struct scheduler_state scratch = {0};
    tessera_status status = steps != NULL && last != NULL ? TESSERA_OK : flow_out_of_memory(error);
    if (status == TESSERA_OK) count = f->d->workers->calls->draw(f->d->workers, picture, steps);
    if (count > 0) memcpy(last, f->x[picture], bytes);
    for (int i = 0; i < count && status == TESSERA_OK; i++) {
        status = rewind_to(&c->past, steps[i], f->x[picture], &scratch, error);
        if (status == TESSERA_OK) status = give_step(f, picture, steps[i], f->d->workers->calls->check, error);
    }
    if (count > 0) memcpy(f->x[picture], last, bytes);
    scheduler_state_free(&scratch);
    free(last);
    free(steps);
    return status;
}

/* One prediction of a picture's step has come; all of them: its step, and the next one begins. */
static tessera_status take_row(struct flow *f, struct workers_unit at, const struct denoiser_state *state, tessera_error *error) {
    struct course *c = &f->courses[at.picture];
    struct unit u = {.step = at.step,
                     .picture = at.picture,
                     .patch = PATCHES_WHOLE,
                     .prediction = f->predictions_apart ? at.prediction : BOTH_PREDICTIONS};
    size_t before = run_enter(f->d->run);
    TRY(arrive(f, u, *state, error));
    arena_release(f->d->run->arena, before);
    if (++c->predictions_here < (f->predictions_apart ? 2 : 1)) return TESSERA_OK;
    TRY(flow_take_step(f, u, error));
    return ++c->step < f->steps ? begin_step(f, at.picture, error) : TESSERA_OK;
}

static tessera_status go_back(struct flow *f, struct workers_unit to, tessera_error *error) {
    struct course *c = &f->courses[to.picture];
    c->step = to.step;
    TRY(rewind_to(&c->past, to.step, f->x[to.picture], &f->states[to.picture], error));
    return begin_step(f, to.picture, error);
}

static bool all_done(const struct flow *f) {
    for (int i = 0; i < f->pictures; i++)
        if (f->courses[i].step < f->steps) return false;
    return true;
}

/* All pictures have taken their last step, and nothing is under way: those that were not checked
 * are. *any: there were some. */
static tessera_status check_pictures(struct flow *f, bool *any, tessera_error *error) {
    *any = false;
    for (int i = 0; i < f->pictures; i++) {
        if (f->courses[i].checked) continue;
        f->courses[i].checked = *any = true;
        TRY(check_steps(f, i, error));
    }
    return TESSERA_OK;
}

static tessera_status follow_workers(struct flow *f, tessera_error *error) {
    const struct denoising *d = f->d;
    for (int i = 0; i < f->pictures; i++) TRY(begin_step(f, i, error));
    for (;;) {
        struct workers_unit at = {0};
        struct denoiser_state state;
        enum workers_event event = WORKERS_NOTHING;
        TRY(d->workers->calls->take(d->workers, &at, &state, &event, error));
        if (event == WORKERS_STATE) TRY(take_row(f, at, &state, error));
        if (event == WORKERS_REWIND) TRY(go_back(f, at, error));
        if (event != WORKERS_NOTHING) continue;
        bool checks = false;
        if (all_done(f)) {
            TRY(check_pictures(f, &checks, error));
            if (!checks) break; /* what they led to has come as an event, too */
            continue;
        }
        if (d->report != NULL) TRY(d->report(d->user, 0, f->courses[0].step, error)); /* is it to stop? */
    }
    for (int i = 0; i < f->pictures && d->report != NULL; i++) TRY(d->report(d->user, i, f->steps, error));
    return TESSERA_OK;
}

tessera_status flow_run_with_workers(struct flow *f, tessera_error *error) {
    const struct denoising *d = f->d;
    const struct workers_job job = {.denoiser = d->denoiser,
                                    .run = d->run,
                                    .folder = d->folder,
                                    .pictures = f->pictures,
                                    .steps = f->steps,
                                    .predictions = f->predictions_apart ? 2 : 1};
    tessera_status status = d->workers->calls->begin(d->workers, &job, error);
    if (status == TESSERA_OK) status = follow_workers(f, error);
    d->workers->calls->end(d->workers);
    return status;
}

tessera_status flow_check_workers(const struct flow *f, tessera_error *error) {
    const struct denoising *d = f->d;
    if (d->workers == NULL) return TESSERA_OK;
    if (team_size(d->team) > 1 || f->patches > 1)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                         "workers: one process uses them by itself: start it without mpirun, and leave "
                         "num-pipeline-patch out");
    if (d->step_cache != NULL)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "step cache %s: not with workers, which compute every step", d->step_cache);
    return TESSERA_OK;
}

tessera_status flow_open_courses(struct flow *f, tessera_error *error) {
    const struct denoising *d = f->d;
    size_t count = (size_t)f->count;
    f->courses = calloc((size_t)f->pictures, sizeof *f->courses);
    if (f->courses == NULL) return flow_out_of_memory(error);
    for (int i = 0; i < f->pictures; i++) {
        struct course *c = &f->courses[i];
        c->predictions = malloc(2 * count * sizeof(float));
        if (c->predictions == NULL) return flow_out_of_memory(error);
        if (d->workers->rewinds) TRY(rewind_open(&c->past, d->scheduler, d->first_step, f->steps, count, f->x[i], error));
    }
    return TESSERA_OK;
}

void flow_close_courses(struct flow *f) {
    for (int i = 0; f->courses != NULL && i < f->pictures; i++) {
        free(f->courses[i].predictions);
        rewind_close(&f->courses[i].past);
    }
    free(f->courses);
}
