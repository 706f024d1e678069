/* A picture that goes through the blocks in patches, one after another (Fang et al. 2024, PipeFusion,
 * section 4): so that each stage of a pipeline has a patch to work on.
 *
 *     whole step      all rows at once; every attention layer's keys and values are kept
 *     step in patches   patch p = 0, 1, ...: its queries, fresh, meet its keys and values and those of the patches before it, of this step, and
 *                     those of the patches after it, of the step before
 *     the first step  in patches: the patches after it have left nothing yet, and attention leaves them out
 *
 * Text that has a stream of its own comes with patch 0 (and with a whole step); its keys and values
 * are kept for the other patches. So a result depends on the number of patches alone, not on how many
 * stages or ranks work on them. The keys and values of a layer are kept by the rank that computes
 * it: all positions, its heads. */
#ifndef TESSERA_PARALLEL_PIPEFUSION_H
#define TESSERA_PARALLEL_PIPEFUSION_H

enum { PATCHES_WHOLE = -1 }; /* in the place of a patch's number */

#endif
