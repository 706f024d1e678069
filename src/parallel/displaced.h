/* Displaced patches: what others computed one step before stands in for what they compute now (Li
 * et al. 2024, DistriFusion, section 4.2).
 *
 *     step t, rank p:   own values fresh  +  the others' of step t - 1, which arrived while step t - 1's later layers and step t's
 *                       earlier ones were computed;  own values sent for step t + 1
 *
 * Steps with index <= warmup_steps are synchronous: exact, and they leave behind what the first
 * displaced step reads. Every layer that exchanges has a place of its own, found by its number
 * within the step: all ranks go through the same layers in the same order. In displaced steps
 * `comm_checkpoint` places in a row share their messages: one to each other member once the last of
 * them is filled. The modes say what group norms do after warm-up and whether halos, keys and
 * values are stale; tests/cases/DEFINITIONS.md has them in full. */
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

/* Layers whose exchanges are one message: DistriFusion's default; less where a step then had fewer
 * messages than this to hide. */
enum { DISPLACED_CHECKPOINT = 60, DISPLACED_MESSAGES = 8 };

struct displaced_place;
struct displaced_group;

struct displaced {
    struct comm *group; /* borrowed: the patch axis */
    enum sync_mode mode;
    int warmup_steps;
    int steps;                 /* of a picture: the last one sends nothing for a next one; 0: not known */
    int comm_checkpoint;       /* layers whose exchanges are one message; 0: the default */
    bool published_group_norm; /* variances times N / (N - 1), as the published code has it */
    /* while a picture is made */
    bool synchronous, last;
    int layer; /* the number of the next exchange in this step */
    struct displaced_place *places;
    int num_places, capacity;
    struct displaced_group *groups; /* of places, once there is a displaced step; NULL before, and where the mode sends nothing */
    int num_groups;
    struct displaced_group *unsent; /* the one that is being filled */
    struct comm *messages;          /* the same members, for groups: so a fresh message never queues behind one that has time */
};

/* "corrected_async_gn", ...; NULL behind the last. */
const char *sync_mode_name(int mode);

/* Before step `index` of a picture (0: the first one that is run). What the step before has left
 * unsent, having skipped layers, is sent. */
void displaced_step(struct displaced *displaced, int index);
/* Waits for what is under way and forgets everything: between pictures. */
tessera_status displaced_reset(struct displaced *displaced, tessera_error *error);
/* The same at the end. */
void displaced_close(struct displaced *displaced);

/* What a layer exchanges, in bytes; the same at every step. */
struct displaced_sizes {
    const size_t *all;    /* [members] a block of each, that all get; NULL: none */
    size_t out[2], in[2]; /* rows to, and from, the member above and the one below; 0 at the ends */
};

/* Where it lies until the same layer of the next step: member i's block at all[i]. */
struct displaced_data {
    char **all;
    char *out[2], *in[2];
};

/* The next layer's exchange. In a displaced step *data holds what all have sent in the step before,
 * this rank's own, too. The caller now writes its own block and `out`, which then may no longer
 * change, and calls displaced_send. In a synchronous step, and in mode full_sync, fresh data of the
 * others now come, and the caller must wait for all of them (a member's block first, if it likes);
 * else waiting does nothing. */
tessera_status displaced_receive(struct displaced *displaced, const struct displaced_sizes *sizes, struct displaced_data *data,
                                 tessera_error *error);
void displaced_send(struct displaced *displaced);
tessera_status displaced_wait(struct displaced *displaced, int member, tessera_error *error);
tessera_status displaced_wait_all(struct displaced *displaced, tessera_error *error);

#endif
