/* What a stage of a pipeline hands on to the others, unit by unit: its state to the next stage, skips straight to the stages that use them,
 * and from the last stage the latents after a step, to the first one and to the pipeline's member 0, which tells of them. States go through denoiser_state_pack and _unpack (models/state.h).
 *
 *     stage 0 --state--> stage 1 --state--> stage 2        a unit: a step of a picture, of one of its predictions, or of a patch of it
 *        \                                   / ^
 *         \-------------- skips ------------/  |
 *     ^---------------- latents ---------------/
 *
 * Every stage goes through the same units in the same order, so that both sides know what comes next, and how long it is.
 *
 * A member with several stages (of a device map) has a relay for each. Messages between two members arrive in the order in which they were
 * sent, so then both sides keep to one order, by the stage that takes a message and by its unit: skips wait with their maker until it has
 * passed the stage before the one that takes them, latents are taken before the units that follow them, and nothing is expected early. */
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
    int kind; /* units of one kind have messages of one length, constants aside: the patch, from 1 on; 0 the whole */
    int batch;                            /* below RELAY_BATCHES: units of one batch have the same constants */
    bool text;                            /* blocks change the text with this unit, or only read it */
};

struct relay_line;

struct relay {
    struct relay *first; /* of this member's relays, which lie together; */
    int place, held;     /* this one's place among them, and how many there are */
    struct comm *pipe;   /* borrowed, as are the next three */
    const struct denoiser *denoiser;
    const struct stages *stages;
    struct run *run;
    int stage, count, kinds; /* stage -1: this member has no blocks */
    bool may_skip;                              /* a step cache may leave out a stage's blocks, and with them its skips */
    bool shows_x_0;                             /* latents go together with the x_0 that their step predicted */
    struct relay_line *from_before, *to_next;   /* states */
    struct relay_line **skips_from, **skips_to; /* [count]; NULL where none go; to a stage of this member's it is that one's line */
    struct parcel_line *latents, *latents_to[2]; /* from the last stage, where this member takes them; NULL where none go; of the first relay */
    struct state_store store;                   /* constants that came */
    struct state_message sent[RELAY_BATCHES], came[RELAY_BATCHES]; /* the digests of constants; constants 0: none yet */
};

/* Into relays [held], one for each of this member's `stages` [held] (NULL: one with all blocks). Zeros are closed. The stages of `pipe` (NULL:
 * this rank alone); kinds: of units. MEMORY. */
tessera_status relay_open(struct relay *relays, int held, struct comm *pipe, const struct denoiser *denoiser, const struct stages *stages,
                          struct run *run, int kinds, tessera_error *error);
/* Before its job ends, whose messages it waits for. */
void relay_close(struct relay *relays, int held);

/* The unit's state as it enters this stage's blocks, in the run's memory, until the unit after the next one is taken; *skipped: the stage before
 * left its blocks out. `next` (NULL: none) may arrive from now on. FORMAT, naming the field, where another state came than this
 * stage's blocks take, also where its message is longer or shorter. */
tessera_status relay_take(struct relay *relay, const struct relay_unit *unit, const struct relay_unit *next, struct denoiser_state *state,
                          bool *skipped, tessera_error *error);
/* The state that this stage's blocks left. */
tessera_status relay_send(struct relay *relay, const struct relay_unit *unit, const struct denoiser_state *state, bool skipped,
                          tessera_error *error);

/* This stage is done with `units` units that follow each other: what waited for that goes on its way. */
void relay_pass(struct relay *relay, int units);

/* Of the first relay. F32 latents: `count` of the sampler's, in the host's memory; to all that take them. x_0 is read and written where shows_x_0. */
tessera_status relay_send_latents(struct relay *relay, const float *x, const float *x_0, int64_t count, tessera_error *error);
tessera_status relay_take_latents(struct relay *relay, float *x, float *x_0, int64_t count, tessera_error *error);
/* The next ones may arrive. */
tessera_status relay_expect_latents(struct relay *relay, int64_t count, tessera_error *error);

#endif
