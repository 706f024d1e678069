/* A denoising under way. Private to denoise.c and these files:
 *
 *     denoise.c           opens a denoising and goes through the list of units
 *     flow_units.c        the list, and where a unit lies in its picture
 *     flow_stages.c       what a stage of the pipeline does with a unit
 *     flow_guidance.c     from predictions to the guided one
 *     flow_steps.c        the sampler's step, and where its latents go
 *     denoise_workers.c   replaces the list if workers compute blocks */
#ifndef TESSERA_PIPELINES_FLOW_H
#define TESSERA_PIPELINES_FLOW_H

#include "pipelines/denoise.h"
#include "pipelines/relay.h"
#include "pipelines/rewind.h"

enum { BOTH_PREDICTIONS = -1 };

/* A piece of work; see denoise.c. */
struct unit {
    int step, picture;
    int patch;      /* or PATCHES_WHOLE */
    int prediction; /* 0 of the negative prompt, 1 of the prompt; or BOTH_PREDICTIONS */
};

/* What guidance rescaling knows of one patch: of e_prompt and of the guided e. */
struct guidance_sums {
    double count, prompt, prompt_squares, guided, guided_squares; /* count 0: nothing yet */
};

/* A denoising under way on this rank. */
struct flow {
    struct denoising *d;
    int pictures, steps, patches, whole_steps;
    float *const *x;
    int64_t positions, count; /* of a picture's latents: rows * columns; times channels */
    bool predictions_apart;   /* in steps of the whole picture, a unit is one prediction */
    struct parallel chain;    /* the denoiser's strategies, with what they keep of the pictures */
    /* the pipeline */
    struct comm *pipe; /* NULL: one stage */
    int held, at;      /* how many stages this rank has, and which of them works */
    int stage, stages; /* its number; -1: this rank has no blocks */
    struct relay *relays; /* [held] */
    struct unit arriving; /* on a rank that takes latents: whose come next */
    /* the last stage */
    float *predictions, *prediction; /* [2, count]; [count] guided */
    float *prediction_memory;        /* of both; owned */
    struct scheduler_state *states;  /* [pictures], then [patches] views of the first one's */
    struct guidance_sums *sums;      /* [patches] */
    const float *noise;
    float *x_0;                /* [pictures, count] that the last step of each predicted, or NULL; also on ranks that take latents */
    struct step_cache *caches; /* [pictures, held], or NULL */
    struct course *courses;    /* [pictures] if workers compute blocks; or NULL */
};

/* How far a picture is, if pictures go on independently. */
struct course {
    int step, predictions_here; /* the present step (flow.steps: the picture is done), and how many of its predictions have come back */
    bool checked;        /* after its last step */
    float *predictions;  /* [2, count]; owned */
    struct rewind past;  /* zeros if no picture ever goes back */
};

/* ---- flow_units.c ---- */

tessera_status flow_out_of_memory(tessera_error *error);
/* The first unit of a step of a picture. */
struct unit flow_unit_of(const struct flow *f, int step, int picture);
/* The patch after this one, or the unit, of the same step and picture or the next; unit.step ==
 * f->steps is the end. */
struct unit flow_next_patch(const struct flow *f, struct unit u);
struct unit flow_next_unit(const struct flow *f, struct unit u);
/* Where a unit's rows lie in the latents, in positions. */
struct span flow_positions(const struct flow *f, struct unit u);
/* The predictions that this rank computes in a unit: one, or BOTH_PREDICTIONS. */
int flow_predictions_held(const struct flow *f, struct unit u);

/* ---- flow_guidance.c ---- */

/* Predictions in `out`, F32 [predictions, rows of the patch, columns, channels or more], to their
 * places in f->predictions; the other rank's joins them where two ranks share them. A learned
 * variance, the channels behind the first, is left out. */
tessera_status flow_store_predictions(struct flow *f, struct unit u, struct tensor out, tessera_error *error);
/* The guided prediction of the unit's positions `at` into f->prediction. */
void flow_guide(struct flow *f, struct unit u, struct span at);

/* ---- flow_steps.c ---- */

/* Guidance and the sampler's step, of what is in f->predictions; the new latents are on their way
 * to the first stage. */
tessera_status flow_take_step(struct flow *f, struct unit u, tessera_error *error);
/* Takes the latents that have come from the last stage until those that are due before `u` are
 * among them. */
tessera_status flow_await_latents(struct flow *f, struct unit u, tessera_error *error);
/* Does this rank tell of each step? Member 0 of the pipeline does. */
bool flow_tells(const struct flow *f);
/* Calls `arrived` if the unit's latents are its picture's last ones of the step. */
void flow_tell_arrived(const struct flow *f, struct unit u);

/* ---- flow_stages.c ---- */

/* The unit's first state; *scope: of run_enter before it was made. */
tessera_status flow_embed(struct flow *f, struct unit u, struct denoiser_state *state, size_t *scope, tessera_error *error);
/* This rank's work on a unit at its stage f->at, with the step where it is the last one. */
tessera_status flow_run_unit(struct flow *f, struct unit u, tessera_error *error);

/* ---- denoise_workers.c ---- */

/* UNSUPPORTED where workers are given together with what does not go with them. */
tessera_status flow_check_workers(const struct flow *f, tessera_error *error);
tessera_status flow_open_courses(struct flow *f, tessera_error *error);
void flow_close_courses(struct flow *f);
/* All steps of all pictures. */
tessera_status flow_run_with_workers(struct flow *f, tessera_error *error);

#endif
