/* What a rank knows of the others while it runs a model.
 *
 * Models and layers never see it: they hold a struct run, and the few layers in which positions of
 * a picture meet hand it on to exchange.h. A run without one (NULL), or one whose groups have one
 * member each, is alone and computes everything.
 *
 * The same struct serves the denoiser and the autoencoder, over other groups. What ranks do where
 * positions meet is a chain of strategies (strategy.h), composed when the mesh is made. */
#ifndef TESSERA_PARALLEL_PARALLEL_H
#define TESSERA_PARALLEL_PARALLEL_H

#include "comm/collectives.h"
#include "comm/mesh.h"
#include "comm/stats.h"
#include "parallel/cut.h"
#include "parallel/displaced.h"
#include "parallel/naive_patches.h"
#include "parallel/pipefusion.h"

struct strategy;

/* Which strategies take part: what a mesh and options say of them. */
struct strategy_choice {
    int degrees[MESH_AXES];
    int patches;                           /* in which a picture goes through the blocks; 0 or 1: as a whole */
    const struct strategy *patch_strategy; /* of those with a patch degree the one that is meant; NULL: displaced patches */
    enum sync_mode sync_mode;
    int warmup_steps, comm_checkpoint;
    bool published_group_norm, split_text;
    enum naive_split split;
};

struct strategy_link {
    const struct strategy *strategy;
    struct comm *group; /* borrowed */
    void *state;        /* the strategy's own; NULL: it has none */
    bool owned;         /* the chain closes the state */
};

enum { PARALLEL_MAX_LINKS = 16, PARALLEL_MAX_CUTS = 8 };

struct parallel {
    struct comm *cut_group;                         /* the ranks among which the positions of a picture are cut */
    struct comm *tensor;                            /* the ranks among which weights are cut (Shoeybi et al. 2019) */
    struct strategy_choice choice;                  /* what the chain was composed of */
    struct strategy_link links[PARALLEL_MAX_LINKS]; /* outermost first */
    int num_links;
    const double *shares; /* [members of cut_group + 1] where each one's span of a picture ends, from 0 to 1; NULL: equal spans */
    const double *head_shares;           /* [members of ulysses + 1] the same of heads */
    int64_t text_tokens;                 /* that go through the blocks: where ranks have all of them, unequal spans leave room; 0: none */
    struct cut *cuts[PARALLEL_MAX_CUTS]; /* those in use, owned; see exchange_cut_tokens */
    int num_cuts;
};

/* The chain of the strategies that `choice` asks for, over a mesh's groups (group[axis], and
 * MESH_CUT for `cut_group`). parallel_free ends it. */
tessera_status parallel_compose(const struct strategy_choice *choice, struct comm *const group[MESH_GROUPS], struct parallel *out,
                                tessera_error *error);
/* A strategy more, at its place in the table; `state` stays the caller's. */
void parallel_add(struct parallel *parallel, const struct strategy *strategy, struct comm *group, void *state);
/* The cuts, and the states that the chain owns; groups are borrowed. */
void parallel_free(struct parallel *parallel);

/* Before each pass through a rank's blocks. */
struct strategy_moment {
    int steps, step;     /* of the picture, from 0: the first one that is run */
    int patch;           /* PipeFusion's, or PATCHES_WHOLE */
    int prediction, predictions; /* the first of this pass's batch, among those of all passes of a step */
};
void parallel_begin(struct parallel *parallel, const struct strategy_moment *moment);
/* Between pictures, after a failure too: waits for what is under way and forgets everything. */
tessera_status parallel_reset(struct parallel *parallel, tessera_error *error);
/* Is each patch of a picture one of its own, so that exchange_split and exchange_unite have
 * something to do? */
bool parallel_splits_pictures(const struct parallel *parallel);

static inline bool parallel_cuts_positions(const struct parallel *parallel) {
    return parallel != NULL && comm_size(parallel->cut_group) > 1;
}

#endif
