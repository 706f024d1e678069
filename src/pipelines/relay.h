/* What a stage of a pipeline sends to the others, unit by unit: its state to the next stage, and
 * skips straight to the stages that use them. The last stage sends the latents after a step to the
 * first one, and to the pipeline's member 0, which reports progress. States go through
 * denoiser_state_pack and _unpack (models/state.h).
 *
 *     stage 0 --state--> stage 1 --state--> stage 2        a unit: a step of a picture, of one of its predictions, or of a patch of it
 *        \                                   / ^
 *         \-------------- skips ------------/  |
 *     ^---------------- latents ---------------/
 *
 * Every stage goes through the same units in the same order, so both sides know what comes next and
 * how long it is.
 *
 * A member with several stages (of a device map) has a relay for each. Messages between two members
 * arrive in the order in which they were sent. So both sides then use one order: by the stage that
 * takes a message, and by its unit. Skips wait on the sender until it has passed the stage before
 * the one that takes them, latents are taken before the units that follow them, and no receive
 * starts early. */
#ifndef TESSERA_PIPELINES_RELAY_H
#define TESSERA_PIPELINES_RELAY_H

#include "models/state.h"
#include "parallel/parcel.h"
#include "pipelines/stages.h"

/* Batches: one prediction, or both together. */
enum { RELAY_BATCHES = 3 };

/* A unit, as far as messages differ by it. */
struct relay_unit {
    const struct denoiser_inputs *inputs; /* their shapes */
    int kind; /* units of one kind have messages of one length, without constants: the patch, from 1 on; 0: the whole */
    int batch;                            /* below RELAY_BATCHES: units of one batch have the same constants */
    bool text;                            /* blocks change the text in this unit, or only read it */
};

struct relay_line;

struct relay {
    struct relay *first; /* of this member's relays, an array; */
    int place, held;     /* this one's place among them, and how many there are */
    struct comm *pipe;   /* borrowed, as are the next three */
    const struct denoiser *denoiser;
    const struct stages *stages;
    struct run *run;
    int stage, count, kinds; /* stage -1: this member has no blocks */
    bool may_skip;           /* a step cache may leave out a stage's blocks, and then its skips */
    bool shows_x_0;          /* latents travel with the x_0 that their step predicted */
    struct relay_line *from_before, *to_next;   /* states */
    struct relay_line **skips_from, **skips_to; /* [count]; NULL without skips; to a stage of this member it is that stage's line */
    struct parcel_line *latents, *latents_to[2]; /* from the last stage, if this member takes them; NULL: none; of the first relay */
    struct state_store store;                   /* constants that came */
    struct state_message sent[RELAY_BATCHES], came[RELAY_BATCHES]; /* the digests of constants; constants 0: none yet */
};

/* Opens relays [held], one for each of this member's `stages` [held] (NULL: one with all blocks),
 * among the members of `pipe` (NULL: this rank alone). kinds: of units. relay_close may follow on
 * zeros. MEMORY. */
tessera_status relay_open(struct relay *relays, int held, struct comm *pipe, const struct denoiser *denoiser, const struct stages *stages,
                          struct run *run, int kinds, tessera_error *error);
/* Call it before its job ends; it waits for that job's messages. */
void relay_close(struct relay *relays, int held);

/* Receives the unit's state for this stage's blocks. It lies in the run's memory until you take the
 * unit after the next one. *skipped: the stage before left its blocks out. `next` (NULL: none) may
 * arrive from now on. FORMAT, with the field, if the state is not what this stage's blocks take,
 * also if its message is longer or shorter. */
tessera_status relay_take(struct relay *relay, const struct relay_unit *unit, const struct relay_unit *next, struct denoiser_state *state,
                          bool *skipped, tessera_error *error);
/* Sends the state after this stage's blocks. */
tessera_status relay_send(struct relay *relay, const struct relay_unit *unit, const struct denoiser_state *state, bool skipped,
                          tessera_error *error);

/* Call it when this stage is done with `units` units that follow each other: sends the messages
 * that waited for that. */
void relay_pass(struct relay *relay, int units);

/* Sends or takes the sampler's latents, `count` F32 numbers in the host's memory, with the first
 * relay. They go to all members that take them. x_0 counts only with shows_x_0. */
tessera_status relay_send_latents(struct relay *relay, const float *x, const float *x_0, int64_t count, tessera_error *error);
tessera_status relay_take_latents(struct relay *relay, float *x, float *x_0, int64_t count, tessera_error *error);
/* The next latents may arrive from now on. */
tessera_status relay_expect_latents(struct relay *relay, int64_t count, tessera_error *error);

#endif
