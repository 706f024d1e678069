/* The steps that a picture has taken, so that it can go back to an earlier one: latents, the sampler's history and noise.
 *
 * What a sampler remembers follows from its inputs, so these are kept, and going back to step s is to take the steps 0 .. s - 1 again:
 * x_0, and of each step the guided prediction and the noise. That is elementwise work, and gives the same bits. */
#ifndef TESSERA_PIPELINES_REWIND_H
#define TESSERA_PIPELINES_REWIND_H

#include "schedulers/scheduler.h"

struct rewind {
    const struct scheduler *scheduler; /* borrowed */
    int first_step, steps;             /* of the scheduler's; that the picture takes */
    size_t count;                      /* numbers of the latents */
    float *start;                      /* [count] before the first step; owned */
    float **predictions, **noises;     /* [steps], each [count] once the step was taken; owned; noises: NULL where the sampler wants none */
};

/* `x`: the latents before the first step. MEMORY; rewind_close either way. */
tessera_status rewind_open(struct rewind *rewind, const struct scheduler *scheduler, int first_step, int steps, size_t count,
                           const float *x, tessera_error *error);
void rewind_close(struct rewind *rewind); /* zeros are fine */
/* The noise of a step that was drawn before; else NULL. */
const float *rewind_noise(const struct rewind *rewind, int step);
/* Keeps what a step is about to be taken with; the noise of a step that is taken again stays as it was. MEMORY. */
tessera_status rewind_note(struct rewind *rewind, int step, const float *prediction, const float *noise, tessera_error *error);
/* x and the sampler's state as they were before `step`; `state` was set up by scheduler_state_init and is made anew. MEMORY. */
tessera_status rewind_to(const struct rewind *rewind, int step, float *x, struct scheduler_state *state, tessera_error *error);

#endif
