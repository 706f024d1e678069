/* Trying a model that has no pipeline yet. Included by tessera_model.h. */
#ifndef TESSERA_MODEL_SAMPLING_H
#define TESSERA_MODEL_SAMPLING_H

#include "tessera_model/denoiser.h"

/* The denoising loop alone: raw inputs and noise in, latents out. */
typedef struct tessera_sampling {
    const char *denoiser;  /* a folder with config.json and weights */
    const char *scheduler; /* a folder with scheduler_config.json, or that file */
    /* As in tessera_model_options. mesh->data: each group makes a picture of its own. */
    const struct denoiser_class *const *denoisers;
    int num_denoisers;
    tessera_dtype dtype;
    int threads;
    tessera_kernels kernels;
    const tessera_mesh *mesh;
    int num_inference_steps;
    /* e_negative + guidance_scale (e_prompt - e_negative): two rows of inputs, the negative
     * prompt's first. 0: one prediction, one row. */
    float guidance_scale, guidance_rescale;
    struct denoiser_inputs inputs; /* without latents and timesteps */
    const char *step_cache;        /* as in tessera_request */
    float step_cache_threshold;
    int64_t rows, columns; /* of the latents */
    uint64_t seed;         /* of a stochastic sampler's noise, drawn as torch draws it on a CPU */
    /* After each step: the guided prediction and the new latents, [rows, columns, channels] each,
     * in the processes that take the step. */
    void (*report)(void *user, int step, const float *prediction, const float *latents);
    void *user;
    tessera_progress progress; /* as in tessera_request, phase TESSERA_PHASE_DENOISE; may be NULL */
    void *progress_user;
    int64_t blocks, blocks_skipped; /* out: as in tessera_image */
} tessera_sampling;

/* latents: F32 [rows, columns, channels], noise as the scheduler's first step wants it, of `count`
 * numbers; afterwards the picture's, in every process of its group. Weights are opened and closed
 * here. ARGUMENT errors name what does not fit the model; CANCELLED where progress says so. */
tessera_status tessera_sample(tessera_sampling *sampling, float *latents, size_t count, tessera_error *error);

#endif
