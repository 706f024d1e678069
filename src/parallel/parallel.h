/* What a rank knows of the others while it runs a model.
 *
 * Models and layers never see it: they hold a struct run, and the few layers in which positions of a picture meet hand it on to
 * exchange.h. A run without one (NULL), or one whose groups have one member each, is alone and computes everything.
 *
 * The same struct serves the denoiser and the autoencoder, over other groups. */
#ifndef TESSERA_PARALLEL_PARALLEL_H
#define TESSERA_PARALLEL_PARALLEL_H

#include "comm/collectives.h"
#include "comm/stats.h"
#include "parallel/cut.h"
#include "parallel/displaced.h"
#include "parallel/patches.h"

struct parallel {
    struct comm *rows;           /* the ranks among which the positions of a picture are cut: ring x ulysses, in this order */
    struct comm *ring;           /* of those, the ones that pass keys and values around (Liu et al. 2023) */
    struct comm *ulysses;        /* of those, the ones that exchange heads for positions (Jacobs et al. 2023) */
    struct comm *tensor;         /* the ranks among which weights are cut (Shoeybi et al. 2019) */
    struct displaced *displaced; /* patches whose neighbours are one step behind; NULL: everything is exact */
    struct patches *patches;     /* a picture that goes through the blocks in parts; NULL: as a whole */
    const double *shares;        /* [members of rows + 1] where each one's part of a picture ends, from 0 to 1; NULL: equal parts */
    const double *head_shares;   /* [members of ulysses + 1] the same of heads */
    int64_t text_tokens; /* that go through the blocks: where displaced patches do not split them, unequal parts leave room; 0: none */
    struct cut *cuts[8]; /* those in use, owned; see exchange_cut_tokens */
    int num_cuts;
};

void parallel_free(struct parallel *parallel); /* the cuts; groups are borrowed */

static inline bool parallel_cuts_rows(const struct parallel *parallel) {
    return parallel != NULL && comm_size(parallel->rows) > 1;
}

#endif
