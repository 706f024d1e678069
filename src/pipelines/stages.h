/* Stages: runs of neighbouring blocks, the member of a pipeline that has each run, and the skips
 * that it sends to others.
 *
 *     blocks   0 1 2 | 3 4 5 | 6 7 | 8 9        first = {0, 3, 6, 8, 10}
 *     member     0       1      0     2         ranks = {0, 1, 0, 2}: of a device map, whose members may have several runs
 *
 * A struct stages is one stage's view of all stages; a member with several runs has one struct for
 * each. A skip goes straight from the stage that makes it to the stage that uses it. Skips are a
 * stack: those that a stage receives lie below those that it makes. Skips that are left after its
 * blocks are for other stages. */
#ifndef TESSERA_PIPELINES_STAGES_H
#define TESSERA_PIPELINES_STAGES_H

#include "models/denoiser.h"

struct stages {
    int count, me;                /* me -1: this rank has no blocks */
    int *ranks;                   /* [count]: the pipeline's member that each stage is; owned */
    int *first;                   /* [count + 1]: stage s runs the blocks first[s] to first[s + 1] - 1; owned */
    int *comes; /* [count]: comes[s] skips are received from stage s; the stages' skips follow each other in stack order; owned */
    struct denoiser_map maps[DENOISER_MAX_SKIPS]; /* of those skips, in this order */
    bool returns;                 /* some member has several stages */
    int num_leaves;               /* skips on this stage's stack after its blocks, in stack order; */
    int goes[DENOISER_MAX_SKIPS]; /* the stage of each */
};

/* Makes stages with work in proportion to `speeds` ([count]; NULL: equal) for pictures of the
 * model's own size, or with the `given` numbers of blocks ([count], or NULL). `denoiser` may be a
 * description (without weights). ARGUMENT if there are fewer blocks than stages, or the given
 * numbers do not fit. Free it with stages_free. */
tessera_status stages_open(const struct denoiser *denoiser, int count, int me, const int *given, const double *speeds, struct stages *out,
                           tessera_error *error);
/* The same for a device map: blocks [num_blocks] has the member that runs each block; members may
 * come in any order and more than once.
 * *out: [*held], which the caller frees: each stage of `member` in the picture's order, or one with me -1 if it has no
 * blocks. */
tessera_status stages_open_placed(const struct denoiser *denoiser, const int *blocks, int member, struct stages **out, int *held,
                                  tessera_error *error);
void stages_free(struct stages *stages); /* zeros are allowed */

/* The work of a block: operations for a picture of the model's own size. */
double stages_work(const struct denoiser *denoiser, int block);

/* This stage's blocks; this rank has some. */
struct span stages_blocks(const struct stages *stages);
/* From the first block of a rank's `held` stages to its last one, with other ranks' blocks between;
 * {0, 0} if it has none. */
struct span stages_extent(const struct stages *stages, int held);

#endif
