/* A picture that goes through the blocks in parts, one after another (Fang et al. 2024, PipeFusion, section 4): so that each stage of a
 * pipeline has a part to work on.
 *
 *     whole step      all rows at once; every attention layer's keys and values are kept
 *     step in parts   part p = 0, 1, ...: its queries, fresh, meet its keys and values and those of the parts before it, of this step, and
 *                     those of the parts after it, of the step before
 *     the first step  in parts: the parts after it have left nothing yet, and attention leaves them out
 *
 * Text that has a stream of its own comes with part 0 (and with a whole step); its keys and values are kept for the other parts. So a
 * result depends on the number of parts alone, not on how many stages or ranks work on them.
 * The keys and values of a layer are kept by the rank that computes it: all positions, its heads. */
#ifndef TESSERA_PARALLEL_PATCHES_H
#define TESSERA_PARALLEL_PATCHES_H

#include "parallel/cut.h"

enum { PATCHES_WHOLE = -1 };

struct patches_store;

struct patches {
    int count;     /* of parts */
    int current;   /* the part at hand, or PATCHES_WHOLE */
    int row, rows; /* the first picture of the batch at hand, among those of all passes of a step */
    int layer;     /* the number of the next attention layer */
    struct patches_store *stores;
    int num_stores, capacity;
};

/* Before each pass through this rank's blocks: part `current`, or PATCHES_WHOLE, of a batch that begins with row `row` of `rows`. */
void patches_begin(struct patches *patches, int current, int row, int rows);
/* Forgets everything: between pictures, and at the end. */
void patches_reset(struct patches *patches);
/* The rows of the part at hand, of a picture's: rows * p / count up to rows * (p + 1) / count. */
struct span patches_rows(const struct patches *patches, int64_t rows);

#endif
