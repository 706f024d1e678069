/* A denoiser case's inputs and pictures as the engine has them, for whichever family the case is of.
 *
 * Cases hold pictures as [N, C, H, W], the engine's are [N, H, W, C]; Flux's are packed patches
 * (known by in.img_ids), and its timesteps are divided by 1000. A UNet calls its latents in.sample
 * and its pooled text in.text_embeds. */
#ifndef TESSERA_TESTS_DENOISER_CASE_H
#define TESSERA_TESTS_DENOISER_CASE_H

#include "case_io.h"
#include "models/denoiser.h"

struct denoiser_case {
    struct denoiser_inputs in; /* lent: from the case, or from the three below */
    float *latents, *timesteps, *sizes;
};

/* The caller frees .data; empty where the case has no such picture. */
static inline struct tensor case_picture(const struct case_io *c, const char *name) {
    struct tensor stored = case_tensor(c, name), ids = case_tensor(c, "in.img_ids");
    if (ids.data != NULL) return case_unpacked(&stored, &ids);
    return stored.data != NULL && stored.ndim == 4 ? case_channels_last(&stored) : (struct tensor){0};
}

/* Whichever of two names the case has. */
static inline const char *case_name(const struct case_io *c, const char *first, const char *second) {
    return case_tensor(c, first).data != NULL ? first : second;
}

/* SDXL's time_ids, HunyuanDiT's image_meta_size, or PixArt's resolution [B, 2] and aspect ratio [B,
 * 1] side by side in *sizes; empty where there are none. */
static inline struct tensor case_size_conditions(const struct case_io *c, float **sizes) {
    struct tensor resolution = case_tensor(c, "in.resolution"), ratio = case_tensor(c, "in.aspect_ratio");
    if (resolution.data == NULL || ratio.data == NULL) return case_tensor(c, case_name(c, "in.time_ids", "in.image_meta_size"));
    int64_t batch = resolution.shape[0];
    *sizes = malloc((size_t)batch * 3 * sizeof **sizes);
    for (int64_t b = 0; b < batch; b++) {
        memcpy(*sizes + 3 * b, (const float *)resolution.data + 2 * b, 2 * sizeof(float));
        (*sizes)[3 * b + 2] = ((const float *)ratio.data)[b];
    }
    return tensor_of(*sizes, DTYPE_F32, SHAPE(batch, 3));
}

/* in.latents.data or in.timesteps is NULL where the case lacks them. */
static inline struct denoiser_case denoiser_case_read(const struct case_io *c) {
    struct denoiser_case d = {0};
    struct tensor latents = case_picture(c, case_name(c, "in.sample", "in.hidden_states")), timestep = case_tensor(c, "in.timestep");
    float factor = case_tensor(c, "in.img_ids").data != NULL ? 1000.0f : 1.0f;
    d.latents = latents.data;
    d.timesteps = case_floats(&timestep);
    for (int64_t i = 0; d.timesteps != NULL && i < tensor_count(&timestep); i++) d.timesteps[i] *= factor;
    d.in = (struct denoiser_inputs){.latents = latents,
                                    .timesteps = d.timesteps,
                                    .text = case_tensor(c, "in.encoder_hidden_states"),
                                    .text_mask = case_tensor(c, case_name(c, "in.encoder_attention_mask", "in.text_embedding_mask")),
                                    .pooled = case_tensor(c, case_name(c, "in.text_embeds", "in.pooled_projections")),
                                    .text_2 = case_tensor(c, "in.encoder_hidden_states_t5"),
                                    .text_2_mask = case_tensor(c, "in.text_embedding_mask_t5"),
                                    .size_conditions = case_size_conditions(c, &d.sizes),
                                    .guidance = case_tensor(c, "in.guidance")};
    return d;
}

static inline void denoiser_case_free(struct denoiser_case *d) {
    free(d->latents);
    free(d->timesteps);
    free(d->sizes);
}

#endif
