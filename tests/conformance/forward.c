/* Kinds vae and denoiser: one forward pass. Cases hold pictures as [N, C, H, W]; the engine's are [N, H, W, C]. */
#include <stdio.h>

#include "conformance.h"
#include "denoiser_case.h"

static void check_picture(struct conformance_case *c, const char *name, struct tensor got) {
    struct tensor wanted = case_picture(&c->io, name);
    case_check(c, name, got, wanted);
    free(wanted.data);
}

/* Channels first .. first + count of [N, H, W, C], in the run's arena. */
static struct tensor channels(struct conformance_case *c, struct tensor t, int64_t first, int64_t count) {
    struct tensor out = run_tensor(&c->run, DTYPE_F32, SHAPE(t.shape[0], t.shape[1], t.shape[2], count));
    if (run_failed(&c->run)) return out;
    int64_t positions = t.shape[0] * t.shape[1] * t.shape[2];
    for (int64_t i = 0; i < positions; i++)
        memcpy((float *)out.data + i * count, (const float *)t.data + i * t.shape[3] + first, (size_t)count * sizeof(float));
    return out;
}

static void check_vae(struct conformance_case *c, const struct autoencoder *vae) {
    struct tensor image = case_tensor(&c->io, "in.image"), latents = case_tensor(&c->io, "in.latents");
    bool tiling = false;
    tessera_error error = {0};
    if (json_bool(c->io.json, "tiling", false, &tiling, &error) != TESSERA_OK) case_error(c, &error);
    if (image.data != NULL && case_tensor(&c->io, "out.mean").data != NULL) {
        struct tensor x = case_channels_last(&image), moments = autoencoder_kl_encode(vae, &c->run, x);
        free(x.data);
        if (!run_failed(&c->run)) check_picture(c, "out.mean", channels(c, moments, 0, vae->latent_channels));
        if (!run_failed(&c->run)) check_picture(c, "out.logvar", channels(c, moments, vae->latent_channels, vae->latent_channels));
    }
    if (latents.data != NULL && case_tensor(&c->io, "out.image").data != NULL) {
        struct tensor z = case_channels_last(&latents);
        struct tensor picture = tiling ? autoencoder_kl_decode_tiled(vae, &c->run, z) : autoencoder_kl_decode(vae, &c->run, z);
        free(z.data);
        if (!run_failed(&c->run)) check_picture(c, "out.image", picture);
    }
    if (run_failed(&c->run)) case_error(c, &c->run.error);
}

void conform_vae(struct conformance_case *c) {
    struct component component;
    if (!case_component(c, &component)) return;
    if (component.autoencoder == NULL)
        case_fail(c, "model/ is no autoencoder");
    else
        check_vae(c, component.autoencoder);
    component_close(&component);
}

static void check_denoiser(struct conformance_case *c, const struct denoiser *denoiser) {
    struct denoiser_case inputs = denoiser_case_read(&c->io);
    if (inputs.in.latents.data == NULL || inputs.in.timesteps == NULL) {
        case_fail(c, "in.hidden_states or in.sample [N, C, H, W] (or packed, with in.img_ids) or in.timestep is missing");
    } else {
        struct tensor out = denoiser_forward(denoiser, &c->run, &inputs.in);
        if (run_failed(&c->run))
            case_error(c, &c->run.error);
        else
            check_picture(c, "out.sample", out);
    }
    denoiser_case_free(&inputs);
}

void conform_denoiser(struct conformance_case *c) {
    struct component component;
    if (!case_component(c, &component)) return;
    if (component.denoiser == NULL)
        case_fail(c, "model/ is no denoiser");
    else
        check_denoiser(c, component.denoiser);
    component_close(&component);
}
