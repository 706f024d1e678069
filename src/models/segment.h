/* Segments of a component (registry.h) while they are computed: who watches them learns when a
 * segment's weights are needed, and when not any more.
 *
 *     before(embed) embed after(embed)   before(0) block 0 after(0)   ...   before(finish) finish after(finish)
 *
 * So weights may come and go while a model computes: only those of the segment that is computed
 * must be there. Who keeps a whole model in memory watches nothing. */
#ifndef TESSERA_MODELS_SEGMENT_H
#define TESSERA_MODELS_SEGMENT_H

#include "nn/run.h"

/* The segment before the blocks, which follow from 0 on; num_blocks is the segment that finishes. */
enum { COMPONENT_EMBED = -1 };

struct segment_watch {
    void *user;
    /* The segment is about to be computed: once this returns TESSERA_OK its weights must be in
     * memory, until `after`. An error becomes the run's, and the segment is not computed. */
    tessera_status (*before)(void *user, int segment, tessera_error *error);
    /* The segment's operators have been called, or one of them failed; comes once for each `before`
     * that succeeded. A backend may still have to run them: it does so before component_drop_block
     * gives memory back. */
    void (*after)(void *user, int segment);
};

/* Brackets of a segment's computation; `watch` may be NULL. False if the run has failed: then
 * nothing is computed, and segment_end is not called. */
bool segment_begin(const struct segment_watch *watch, struct run *run, int segment);
void segment_end(const struct segment_watch *watch, int segment);

#endif
