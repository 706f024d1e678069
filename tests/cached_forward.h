/* A step with a step cache on one rank. */
#ifndef TESSERA_TESTS_CACHED_FORWARD_H
#define TESSERA_TESTS_CACHED_FORWARD_H

#include "pipelines/step_cache.h"

/* denoiser_forward with a cache: one step of a whole picture, all blocks on this rank. */
static inline struct tensor cached_forward(struct step_cache *cache, const struct denoiser *denoiser, struct run *run,
                                            const struct denoiser_inputs *inputs, bool last_step) {
    bool skip = false;
    size_t before = run_enter(run);
    struct denoiser_inputs in = denoiser_upload(run, inputs);
    size_t scope = run_enter(run);
    struct denoiser_state state = denoiser_embed(denoiser, run, &in, DENOISER_CARRIES_PICTURE | DENOISER_CARRIES_TEXT);
    state = step_cache_run(cache, denoiser, run, (struct span){0, denoiser->num_blocks}, scope, 0, last_step, state, &skip);
    if (run_failed(run)) return (struct tensor){0};
    return run_leave(run, before, denoiser_finish(denoiser, run, state));
}

#endif
