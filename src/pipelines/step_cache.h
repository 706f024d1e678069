/* Step caches: steps that reuse what a transformer's blocks added to the picture's tokens in an
 * earlier step.
 *
 *     h_0 --block 0--> h_1 --...--> h_L          c: the last step that was computed; d(a, b) = sum |a - b| / sum |b|
 *
 *     first block    block 0 runs; where d(h_1 - h_0, the same in step c) < threshold:   h_L = h_1 + (h_L - h_1 in step c)
 *     tea            m is what block 0's attention is given; a += p(d(m, m one step before)), and where a < threshold:
 *                    h_L = h_0 + (h_L - h_0 in step c); otherwise, and in the first and the last step, blocks run and a = 0
 *
 * First-block cache: ParaAttention, and diffusers' hooks/first_block_cache.py. TeaCache: Liu et al.
 * 2025, "Timestep Embedding Tells: It's Time to Cache for Video Diffusion Model", arXiv 2411.19108,
 * equations 5 to 7; p is the denoiser's change_polynomial. tests/cases/DEFINITIONS.md, section 4,
 * has both in full, and how published code differs.
 *
 * The sums go over all tokens of both predictions, and over all ranks that hold some of them, so
 * that all decide alike. A cache is for one picture. The picture may be made in patches (of a
 * pipeline), each with a state and decisions of its own. Blocks may be cut into stages: the first
 * stage decides, and each adds what its own blocks added. For each patch a stage keeps one tensor
 * of the picture's tokens in their element type; the first stage keeps two. Left out: U-Nets, whose
 * blocks do not add to one stream of tokens. */
#ifndef TESSERA_PIPELINES_STEP_CACHE_H
#define TESSERA_PIPELINES_STEP_CACHE_H

#include "comm/collectives.h"
#include "models/denoiser.h"

enum step_cache_kind { STEP_CACHE_FIRST_BLOCK, STEP_CACHE_TEA, STEP_CACHE_KINDS };
enum { STEP_CACHE_GROUPS = 3 };

struct step_cache_patch;

struct step_cache {
    enum step_cache_kind kind;
    double threshold;
    struct comm *groups[STEP_CACHE_GROUPS]; /* borrowed; see step_cache_open */
    struct step_cache_patch *patches;       /* owned */
    int num_patches;
    double compared;                /* with the threshold in the last decision; NaN: there was nothing to compare */
    int64_t blocks, blocks_skipped; /* how many were due since opening, in all patches; how many of them did not run */
};

/* "fbcache", "teacache"; NULL after the last. */
const char *step_cache_kind_name(int kind);

/* Opens a cache for one picture. threshold 0: the kind's default. `patches`: how many beside the
 * whole picture, 0 without a pipeline. The groups are those over which a picture's tokens and its
 * predictions are spread: the cut group, then cfg, and tensor if weights are cut. Sums go over one
 * after the other; NULL or a group of one costs nothing. Errors: ARGUMENT if the threshold is
 * negative or not finite, UNSUPPORTED if the denoiser has no first_input, MEMORY. */
tessera_status step_cache_open(struct step_cache *cache, enum step_cache_kind kind, double threshold, const struct denoiser *denoiser,
                               int patches, struct comm *const groups[STEP_CACHE_GROUPS], tessera_error *error);
/* Zeros, and a closed cache, are allowed. */
void step_cache_close(struct step_cache *cache);

/* Runs a stage's `blocks` on `state`, or adds what they added last time; `scope` as in
 * denoiser_blocks. The result has the form that the blocks give it, but a stage that does not run
 * leaves no skips. patch: 0, the whole picture, or 1 .. patches. The first step of a patch always
 * computes, and the first patch's makes the cache forget the whole picture's state. *skip: set if
 * block 0 is among the blocks; otherwise the caller passes it, from the first stage. cache NULL:
 * the blocks run, and *skip stays. All ranks of the groups call this in the same order. */
struct denoiser_state step_cache_run(struct step_cache *cache, const struct denoiser *denoiser, struct run *run, struct span blocks,
                                     size_t scope, int patch, bool last_step, struct denoiser_state state, bool *skip);

#endif
