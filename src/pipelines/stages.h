/* Stages: runs of neighbouring blocks, each with the member of a pipeline that has it, and which skips it sends to whom.
 *
 *     blocks   0 1 2 | 3 4 5 | 6 7 | 8 9        first = {0, 3, 6, 8, 10}
 *     member     0       1      0     2         ranks = {0, 1, 0, 2}: of a device map, whose members may have several runs
 *
 * A struct stages is one stage's view of all of them; a member with several runs has one of each. A skip goes straight from the stage that
 * makes it to the stage that uses it. Skips are a stack; what a stage takes from others lies below what it makes itself, and what is left on
 * its stack when its blocks are done is for others. */
#ifndef TESSERA_PIPELINES_STAGES_H
#define TESSERA_PIPELINES_STAGES_H

#include "models/denoiser.h"

struct stages {
    int count, me;                /* me -1: this rank has no blocks */
    int *ranks;                   /* [count]: the pipeline's member that each stage is; owned */
    int *first;                   /* [count + 1]: stage s runs the blocks first[s] to first[s + 1] - 1; owned */
    int *comes;                   /* [count]: skips that this stage takes from stage s, bottom first, the stages one after another; owned */
    struct denoiser_map maps[DENOISER_MAX_SKIPS]; /* of those skips, in this order */
    bool returns;                 /* some member has several stages */
    int num_leaves;               /* skips on this stage's stack when it is done, bottom first, */
    int goes[DENOISER_MAX_SKIPS]; /* each to a stage */
};

/* Stages of work in proportion to `speeds` ([count]; NULL: equal) for pictures of the model's own size, or with the `given` numbers of
 * blocks ([count], or NULL). `denoiser` may be a description (without weights). ARGUMENT if there are fewer blocks than stages, or the
 * given numbers do not fit. stages_free ends it. */
tessera_status stages_open(const struct denoiser *denoiser, int count, int me, const int *given, const double *speeds, struct stages *out,
                           tessera_error *error);
/* The same as a device map has it: the pipeline's member that runs each block, blocks [num_blocks]; members may come in any order and again.
 * *out: [*held], the caller's to free, each stage of `member` in the picture's order; one, with me -1, where it has no blocks. */
tessera_status stages_open_placed(const struct denoiser *denoiser, const int *blocks, int member, struct stages **out, int *held,
                                  tessera_error *error);
void stages_free(struct stages *stages); /* zeros are fine */

/* The work by which blocks are dealt: operations for a picture of the model's own size. */
double stages_work(const struct denoiser *denoiser, int block);

/* This stage's blocks; this rank has some. */
struct span stages_blocks(const struct stages *stages);
/* From the first block of a rank's `held` stages to its last one, others' among them; {0, 0} where it has none. */
struct span stages_extent(const struct stages *stages, int held);

#endif
