/* Parts of a component (registry.h) while they are computed: who watches them learns when a part's weights are needed, and when not any more.
 *
 *     before(embed) embed after(embed)   before(0) block 0 after(0)   ...   before(finish) finish after(finish)
 *
 * So weights may come and go while a model computes: only those of the part that is computed must be there. Who keeps a whole model in
 * memory watches nothing. */
#ifndef TESSERA_MODELS_PART_H
#define TESSERA_MODELS_PART_H

#include "nn/run.h"

/* The part before the blocks, which follow from 0 on; num_blocks is the part that finishes. */
enum { COMPONENT_EMBED = -1 };

struct part_watch {
    void *user;
    /* The part is about to be computed: once this returns TESSERA_OK its weights must be in memory, until `after`. An error becomes the
     * run's, and the part is not computed. */
    tessera_status (*before)(void *user, int part, tessera_error *error);
    /* The part's operators have been called, or one of them failed; comes once for each `before` that succeeded. A backend may still have
     * to run them: it does so before component_drop_block gives memory back. */
    void (*after)(void *user, int part);
};

/* Brackets of a part's computation; `watch` may be NULL. False if the run has failed: then nothing is computed, and part_end is not called. */
bool part_begin(const struct part_watch *watch, struct run *run, int part);
void part_end(const struct part_watch *watch, int part);

#endif
