/* The steps that a picture has taken, so that it can go back to an earlier one: latents, the
 * sampler's history and noise.
 *
 * A sampler's history follows from its inputs, so these are kept: the first latents, and for each
 * step the guided prediction and the noise. To go back to step s, the sampler takes the steps 0 ..
 * s - 1 again. That is elementwise work and gives the same bits. */
#ifndef TESSERA_PIPELINES_REWIND_H
#define TESSERA_PIPELINES_REWIND_H

#include "schedulers/scheduler.h"

struct rewind {
    const struct scheduler *scheduler; /* borrowed */
    int first_step, steps;             /* the first one among the scheduler's; how many the picture takes */
    size_t count;                      /* numbers of the latents */
    float *start;                      /* [count] before the first step; owned */
    float **predictions, **noises;     /* [steps], each [count] after the step; owned; noises: NULL if the sampler uses none */
};

/* `x`: the latents before the first step. MEMORY; call rewind_close also then. */
tessera_status rewind_open(struct rewind *rewind, const struct scheduler *scheduler, int first_step, int steps, size_t count,
                           const float *x, tessera_error *error);
void rewind_close(struct rewind *rewind); /* zeros are allowed */
/* The noise of a step that was drawn before; else NULL. */
const float *rewind_noise(const struct rewind *rewind, int step);
/* Keeps the inputs of the next step. If the step is taken again, its noise stays the same. MEMORY.
 */
tessera_status rewind_note(struct rewind *rewind, int step, const float *prediction, const float *noise, tessera_error *error);
/* Makes x and the sampler's state as they were before `step`; `state` comes from
 * scheduler_state_init. MEMORY. */
tessera_status rewind_to(const struct rewind *rewind, int step, float *x, struct scheduler_state *state, tessera_error *error);

#endif
