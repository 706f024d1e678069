/* Blocks that other machines compute: the calls of the denoising loop to the client that sends
 * states and takes answers (split/client.h).
 *
 *     embed, blocks 0 .. first - 1 | send ... workers ... take | blocks end .. , finish, guidance, sampler
 *
 * Units, one prediction of one step of one picture each, are under way at the same time, as many as
 * the workers can take. An answer may turn out to be wrong later: then the picture goes back to an
 * earlier step (rewind.h). One thread makes all calls. */
#ifndef TESSERA_PIPELINES_WORKERS_H
#define TESSERA_PIPELINES_WORKERS_H

#include "models/denoiser.h"
#include "tessera_workers.h"

struct workers_unit {
    int picture, step, prediction; /* of the pictures of one workers_job, from 0 */
};

/* What to denoise; all of it must live until `end`. */
struct workers_job {
    const struct denoiser *denoiser;
    struct run *run;
    const char *folder; /* of the denoiser's config.json and weights */
    int pictures, steps, predictions;
};

enum workers_event {
    WORKERS_NOTHING, /* nothing yet; or nothing is under way */
    WORKERS_STATE,   /* a unit's state after the last remote block */
    WORKERS_REWIND   /* answers were wrong: discard unit.picture from unit.step on, also what is under way */
};

struct workers_calls {
    tessera_status (*begin)(tessera_workers *workers, const struct workers_job *job, tessera_error *error);
    /* Starts a unit: `state` enters block `first`. The call copies what it needs. */
    tessera_status (*send)(tessera_workers *workers, struct workers_unit unit, const struct denoiser_state *state, tessera_error *error);
    /* Waits briefly for the next event. The state lies in the host's memory until the next call;
     * with `finish` its picture is the prediction. */
    tessera_status (*take)(tessera_workers *workers, struct workers_unit *unit, struct denoiser_state *state, enum workers_event *event,
                           tessera_error *error);
    /* Draws the steps to check again of a picture that has taken its last step: writes them to
     * `out` [steps], ascending; returns how many. */
    int (*draw)(tessera_workers *workers, int picture, int *out);
    /* Checks the answer to a unit, whose state is passed again. The result comes as an event. */
    tessera_status (*check)(tessera_workers *workers, struct workers_unit unit, const struct denoiser_state *state, tessera_error *error);
    void (*end)(tessera_workers *workers); /* gives up what is under way; call it after each begin, also one that failed */
};

/* The public handle; its owner's struct begins with it. */
struct tessera_workers {
    const struct workers_calls *calls;
    int first, end; /* workers compute blocks first .. end - 1, */
    bool finish;    /* and what comes after the last block */
    int at_once;    /* units that keep all workers busy */
    bool rewinds;   /* WORKERS_REWIND may come, so steps must be kept */
};

#endif
