/* Blocks that other machines compute: what the denoising loop asks of whoever sends states to them and takes their answers (split/client.h).
 *
 *     embed, blocks 0 .. first - 1 | send ... workers ... take | blocks end .. , finish, guidance, sampler
 *
 * Units, one prediction of one step of one picture each, are under way at the same time: as many as the workers can have. What has come may turn out
 * to be wrong later: then a picture goes back to an earlier step (rewind.h). All calls are made by one thread. */
#ifndef TESSERA_PIPELINES_WORKERS_H
#define TESSERA_PIPELINES_WORKERS_H

#include "models/denoiser.h"
#include "tessera_workers.h"

struct workers_unit {
    int picture, step, prediction; /* of the pictures of one workers_job, from 0 */
};

/* What is denoised; all of it stays until `end`. */
struct workers_job {
    const struct denoiser *denoiser;
    struct run *run;
    const char *folder; /* of the denoiser's config.json and weights */
    int pictures, steps, predictions;
};

enum workers_event {
    WORKERS_NOTHING, /* so far; or nothing is under way */
    WORKERS_STATE,   /* a unit's state behind the last remote block */
    WORKERS_REWIND   /* answers were wrong: all of unit.picture from unit.step on is void, also what is under way */
};

struct workers_calls {
    tessera_status (*begin)(tessera_workers *workers, const struct workers_job *job, tessera_error *error);
    /* Starts a unit: `state` enters block `first`; what is needed of it is copied. */
    tessera_status (*send)(tessera_workers *workers, struct workers_unit unit, const struct denoiser_state *state, tessera_error *error);
    /* Waits for the next event, for a moment at most. The state lies in the host's memory until the next call; with `finish` its picture is the
     * prediction. */
    tessera_status (*take)(tessera_workers *workers, struct workers_unit *unit, struct denoiser_state *state, enum workers_event *event,
                           tessera_error *error);
    /* Which steps of a picture that has taken its last one are to be checked again: [steps] of `out`, ascending. */
    int (*draw)(tessera_workers *workers, int picture, int *out);
    /* The same state that was sent for this unit, again: is what came of it right? What follows comes as an event. */
    tessera_status (*check)(tessera_workers *workers, struct workers_unit unit, const struct denoiser_state *state, tessera_error *error);
    void (*end)(tessera_workers *workers); /* gives up what is under way; after each begin, also one that failed */
};

/* The public handle; its owner's struct begins with it. */
struct tessera_workers {
    const struct workers_calls *calls;
    int first, end; /* blocks first .. end - 1 are computed elsewhere, */
    bool finish;    /* and what follows the last one */
    int at_once;    /* units that keep all workers busy */
    bool rewinds;   /* WORKERS_REWIND may come: steps are kept */
};

#endif
