/* Kinds vae and denoiser: one forward pass. Cases hold pictures as [N, C, H, W]; the engine's are [N, H, W, C]. */
#include <stdio.h>

#include "conformance.h"

/* A picture as the engine has it: channels last, and Flux's packed patches put back in their places. The caller frees .data. */
static struct tensor read_picture(struct conformance_case *c, const char *name) {
    struct tensor stored = case_tensor(&c->io, name), ids = case_tensor(&c->io, "in.img_ids");
    if (ids.data != NULL) return case_unpacked(&stored, &ids);
    return stored.data != NULL && stored.ndim == 4 ? case_channels_last(&stored) : (struct tensor){0};
}

/* The case's timesteps as the engine counts them, 0..1000; Flux's are stored divided by 1000. The caller frees. */
static float *read_timesteps(struct conformance_case *c, const struct tensor *stored) {
    float *timesteps = case_floats(stored), factor = case_tensor(&c->io, "in.img_ids").data != NULL ? 1000.0f : 1.0f;
    for (int64_t i = 0; timesteps != NULL && i < tensor_count(stored); i++) timesteps[i] *= factor;
    return timesteps;
}

static void check_picture(struct conformance_case *c, const char *name, struct tensor got) {
    struct tensor wanted = read_picture(c, name);
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

/* SDXL's time_ids, or PixArt's resolution [B, 2] and aspect ratio [B, 1] side by side in the run's arena; empty where there are none. */
static struct tensor read_size_conditions(struct conformance_case *c) {
    struct tensor resolution = case_tensor(&c->io, "in.resolution"), ratio = case_tensor(&c->io, "in.aspect_ratio");
    if (resolution.data == NULL || ratio.data == NULL) return case_tensor(&c->io, "in.time_ids");
    int64_t batch = resolution.shape[0];
    struct tensor both = nn_concat_rows(&c->run, nn_reshape(resolution, SHAPE(batch, 2, 1)), nn_reshape(ratio, SHAPE(batch, 1, 1)));
    return nn_reshape(both, SHAPE(batch, 3));
}

static void check_denoiser(struct conformance_case *c, const struct denoiser *denoiser) {
    const char *latents_name = case_tensor(&c->io, "in.sample").data != NULL ? "in.sample" : "in.hidden_states"; /* a UNet's name */
    struct tensor latents = read_picture(c, latents_name), timestep = case_tensor(&c->io, "in.timestep");
    if (latents.data == NULL || timestep.data == NULL) {
        case_fail(c, "in.hidden_states or in.sample [N, C, H, W] (or packed, with in.img_ids) or in.timestep is missing");
        free(latents.data);
        return;
    }
    float *timesteps = read_timesteps(c, &timestep);
    const char *pooled_name = case_tensor(&c->io, "in.text_embeds").data != NULL ? "in.text_embeds" : "in.pooled_projections";
    struct denoiser_inputs inputs = {.latents = latents,
                                     .timesteps = timesteps,
                                     .text = case_tensor(&c->io, "in.encoder_hidden_states"),
                                     .text_mask = case_tensor(&c->io, "in.encoder_attention_mask"),
                                     .pooled = case_tensor(&c->io, pooled_name),
                                     .size_conditions = read_size_conditions(c),
                                     .guidance = case_tensor(&c->io, "in.guidance")};
    struct tensor out = denoiser_forward(denoiser, &c->run, &inputs);
    if (run_failed(&c->run))
        case_error(c, &c->run.error);
    else
        check_picture(c, "out.sample", out);
    free(latents.data);
    free(timesteps);
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
