/* Displaced patches: what others computed one step before stands in for what they compute now (Li et al. 2024, DistriFusion, section 4.2).
 *
 *     step t, rank p:   own part fresh  +  the others' parts of step t - 1, which arrived while step t - 1's later layers and step t's
 *                       earlier ones were computed;  own part sent for step t + 1
 *
 * Steps with index <= warmup_steps are synchronous: exact, and they leave behind what the first displaced step reads. Every layer that
 * exchanges has a place of its own, found by its number within the step: all ranks go through the same layers in the same order.
 * The modes say what group norms do after warm-up and whether halos, keys and values are stale; tests/cases/DEFINITIONS.md has them in
 * full. */
#ifndef TESSERA_PARALLEL_DISPLACED_H
#define TESSERA_PARALLEL_DISPLACED_H

#include "comm/collectives.h"

enum sync_mode {
    SYNC_CORRECTED_ASYNC_GN, /* the others' statistics of the step before, moved by how much this rank's own have changed */
    SYNC_STALE_GN,           /* own statistics fresh, the others' of the step before */
    SYNC_SYNC_GN,            /* fresh statistics, stale rows, keys and values */
    SYNC_FULL_SYNC,          /* everything fresh: exact */
    SYNC_SEPARATE_GN,        /* own statistics alone */
    SYNC_NO_SYNC,            /* own statistics; rows, keys and values of the last synchronous step for ever */
    SYNC_MODES
};

struct displaced_place;

struct displaced {
    struct comm *group; /* borrowed: the patch axis */
    enum sync_mode mode;
    int warmup_steps;
    bool published_group_norm; /* variances times N / (N - 1), as the published code has it */
    /* while a picture is made */
    bool synchronous;
    int layer; /* the number of the next exchange in this step */
    struct displaced_place *places;
    int num_places, capacity;
};

/* "corrected_async_gn", ...; NULL behind the last. */
const char *sync_mode_name(int mode);

/* Before step `index` of a picture (0: the first one that is run). */
void displaced_step(struct displaced *displaced, int index);
/* Waits for what is under way and forgets everything: between pictures, and at the end. */
tessera_status displaced_reset(struct displaced *displaced, tessera_error *error);

/* An exchange of blocks among all members. bytes[i] is member i's block; blocks lie in rank order.
 * In a synchronous step, or if `fresh`, *all gets every block as it is now (`mine` is this rank's). Otherwise *all holds the blocks of one
 * step before, this rank's own too. The caller may overwrite its own block, or have displaced_send do it. *all is valid until the same layer
 * of the next step. */
tessera_status displaced_receive(struct displaced *displaced, const void *mine, const size_t *bytes, bool fresh, char **all,
                                 tessera_error *error);
/* After displaced_receive of the same layer, in a displaced step: puts `mine` into *all and, if the mode sends anything, starts sending it. */
tessera_status displaced_send(struct displaced *displaced, const void *mine, bool sends, tessera_error *error);

/* The same with the neighbours only: out[0] goes to the member above, out[1] to the one below; in[0], in[1] come from them (0 bytes at the
 * ends). Synchronous or displaced as above; in a displaced step `out` is sent for the next one unless the mode sends nothing. */
tessera_status displaced_neighbours(struct displaced *displaced, const void *const out[2], const size_t out_bytes[2], void *in[2],
                                    const size_t in_bytes[2], bool fresh, bool sends, tessera_error *error);

#endif
