/* A whole forward pass, cut at every block boundary: what any strategy does, on one rank.
 *
 * Between blocks only the state lives; each block's temporaries and the state before it are given back. */
#include "models/denoiser.h"

struct tensor denoiser_forward(const struct denoiser *denoiser, struct run *run, const struct denoiser_inputs *inputs) {
    size_t scope = run_enter(run);
    struct denoiser_state state = denoiser->class->embed(denoiser, run, inputs);
    for (int i = 0; i < denoiser->num_blocks && !run_failed(run); i++) {
        state = denoiser->class->block(denoiser, run, i, state);
        struct tensor *kept[3 + DENOISER_MAX_SKIPS] = {&state.picture, &state.text, &state.cond};
        for (int s = 0; s < state.num_skips; s++) kept[3 + s] = &state.skips[s];
        run_leave_all(run, scope, kept, 3 + state.num_skips);
    }
    if (run_failed(run)) return (struct tensor){0};
    return run_leave(run, scope, denoiser->class->finish(denoiser, run, state));
}
