/* A loop of sampling over one model that a case describes: its inputs, and the latents after each
 * step. */
#ifndef TESSERA_TESTS_LOOP_H
#define TESSERA_TESTS_LOOP_H

#include "denoiser_case.h"
#include "parallel/strategy.h"
#include "schedulers/scheduler.h"
#include "spread.h"

struct loop {
    int64_t steps;
    double scale;      /* of guidance: e_0 + scale (e_1 - e_0); 0: one prediction */
    float embedded[2]; /* guidance as an input of the model, for each row of a batch */
    struct strategy_choice choice; /* patch: what the ranks of the ring axis do as patches; NULL: what the mesh says */
    struct scheduler *scheduler;
    struct scheduler_state state;
    struct denoiser_case given; /* its latents: the noise that the loop begins with */
    struct tensor latents;      /* F32 [1, H, W, C], owned: the picture at hand */
    struct tensor noise;        /* [steps, ...] as stored; empty where the case has none */
    struct tensor wanted;
};

/* loop_free ends it, on failure too. */
tessera_status loop_read(struct conformance_case *c, struct loop *loop, tessera_error *error);
void loop_free(struct loop *loop);
/* What the model is given besides latents and timesteps, for predictions first .. first + count. */
struct denoiser_inputs loop_inputs(const struct loop *loop, int64_t first, int64_t count);
/* Predictions for one step, by `predict`, of the predictions that are this rank's; then guided, on
 * every rank: e_0 + scale (e_1 - e_0), without a learned variance. Empty after a failure, which is
 * the case's outcome then. */
typedef struct tensor loop_predict(struct conformance_case *c, const struct loop *loop, int step, const struct denoiser_inputs *inputs,
                                   void *user);
struct tensor loop_guided(struct conformance_case *c, struct loop *loop, int step, loop_predict *predict, void *user);
/* Takes the step. */
void loop_step(struct loop *loop, int step, struct tensor prediction);
/* Step `index` of what the case wants, against a picture of the engine's. */
void loop_check(struct conformance_case *c, const char *name, struct tensor wanted, int64_t index, struct tensor got);

#endif
