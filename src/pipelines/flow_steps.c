/* The sampler's steps. The last stage of the pipeline takes a step and sends the latents to the
 * first stage, which begins the next step with them. See flow.h. */
#include "pipelines/flow.h"

bool flow_tells(const struct flow *f) {
    return comm_rank(f->pipe) == 0;
}

/* What the step under way of a picture predicts; NULL where nobody wants to see it. */
static float *x_0_of(const struct flow *f, int picture) {
    return f->x_0 != NULL ? f->x_0 + (int64_t)picture * f->count : NULL;
}

void flow_tell_arrived(const struct flow *f, struct unit u) {
    bool all = u.patch == PATCHES_WHOLE || u.patch == f->patches - 1, ends = u.step == f->steps - 1;
    const float *x = f->x[u.picture];
    if (all && f->d->arrived != NULL) f->d->arrived(f->d->user, u.picture, u.step + 1, x, ends ? x : x_0_of(f, u.picture));
}

/* What the sampler remembers of a unit's positions: a view of the whole picture's memory from the
 * first step in patches on. */
static struct scheduler_state *state_of(struct flow *f, struct unit u) {
    struct scheduler_state *whole = &f->states[u.picture];
    if (u.patch == PATCHES_WHOLE) return whole;
    struct scheduler_state *view = &f->states[f->pictures + u.patch];
    if (u.step == f->whole_steps)
        *view = scheduler_state_from(f->d->scheduler, whole, (size_t)(flow_positions(f, u).first * f->d->channels));
    return view;
}

/* What a stochastic sampler adds: a step that is taken again has the noise it had. */
static const float *noise_of(struct flow *f, struct unit u) {
    const float *before = f->courses != NULL && f->d->workers->rewinds ? rewind_noise(&f->courses[u.picture].past, u.step) : NULL;
    return before != NULL ? before : f->d->fresh_noise(f->d->user, u.picture);
}

tessera_status flow_take_step(struct flow *f, struct unit u, tessera_error *error) {
    const struct denoising *d = f->d;
    struct span at = flow_positions(f, u);
    int64_t first = at.first * d->channels, count = at.count * d->channels;
    float *x = f->x[u.picture] + first, *x_0 = f->x_0 != NULL ? x_0_of(f, u.picture) + first : NULL;
    flow_guide(f, u, at);
    if (x_0 != NULL) scheduler_predict_x_0(d->scheduler, d->first_step + u.step, x_0, x, f->prediction + first, (size_t)count);
    if (u.patch <= 0 && d->fresh_noise != NULL) f->noise = noise_of(f, u);
    if (f->courses != NULL && d->workers->rewinds) TRY(rewind_note(&f->courses[u.picture].past, u.step, f->prediction, f->noise, error));
    scheduler_step(d->scheduler, state_of(f, u), d->first_step + u.step, x, f->prediction + first,
                   f->noise != NULL ? f->noise + first : NULL, (size_t)count);
    bool done = u.patch == PATCHES_WHOLE || u.patch == f->patches - 1;
    if (done && d->observe != NULL) d->observe(d->user, u.picture, d->first_step + u.step, f->prediction, f->x[u.picture]);
    if (flow_tells(f)) flow_tell_arrived(f, u);
    return u.step == f->steps - 1 ? TESSERA_OK : relay_send_latents(f->relays, x, x_0, count, error);
}

/* Where members have several stages messages come in one order. */
static bool is_ordered(const struct flow *f) {
    return f->d->stages != NULL && f->d->stages->returns;
}

/* Must the latents of unit `a` be here before `u`? Those of its picture's step before must; where
 * messages are ordered, all before it. */
static bool is_due(const struct flow *f, struct unit a, struct unit u) {
    int step = is_ordered(f) && a.step < f->steps - 1 ? a.step : a.step + 1; /* none come of the last step */
    if (step != u.step) return step < u.step;
    if (a.picture != u.picture) return a.picture < u.picture;
    return !is_ordered(f) && a.patch <= u.patch;
}

tessera_status flow_await_latents(struct flow *f, struct unit u, tessera_error *error) {
    while (f->relays->latents != NULL && is_due(f, f->arriving, u)) {
        struct unit a = f->arriving;
        struct span at = flow_positions(f, a);
        int64_t channels = f->d->channels, first = at.first * channels;
        float *x_0 = x_0_of(f, a.picture);
        TRY(relay_take_latents(f->relays, f->x[a.picture] + first, x_0 != NULL ? x_0 + first : NULL, at.count * channels, error));
        flow_tell_arrived(f, a);
        f->arriving = flow_next_patch(f, a);
        if (f->arriving.step < f->steps - 1) TRY(relay_expect_latents(f->relays, flow_positions(f, f->arriving).count * channels, error));
    }
    return TESSERA_OK;
}
