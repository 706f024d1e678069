/* Kind denoiser: one forward pass, on every exact mesh of the world. */
#include "conformance.h"
#include "denoiser_case.h"
#include "spread.h"

void conform_denoiser(struct conformance_case *c) {
    struct spread_denoiser d = {0};
    struct denoiser_case inputs = denoiser_case_read(&c->io);
    if (inputs.in.latents.data == NULL || inputs.in.timesteps == NULL) {
        case_fail(c, "in.hidden_states or in.sample [N, C, H, W] (or packed, with in.img_ids) or in.timestep is missing");
    } else if (spread_open(c, false, inputs.in.latents, &d)) {
        struct tensor out = spread_predict(c, &d, &inputs.in);
        struct tensor wanted = case_picture(&c->io, "out.sample");
        if (out.data != NULL) case_check(c, "out.sample", out, wanted);
        free(wanted.data);
    }
    spread_close(&d);
    denoiser_case_free(&inputs);
}
