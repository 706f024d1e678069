/* The denoising loop: pictures from noise to latents, step by step, on all ranks that share the work. See denoise.c. */
#ifndef TESSERA_PIPELINES_DENOISE_H
#define TESSERA_PIPELINES_DENOISE_H

#include "pipelines/stages.h"
#include "pipelines/step_cache.h"
#include "pipelines/team.h"
#include "pipelines/workers.h"
#include "schedulers/scheduler.h"

/* What is denoised, and how. Everything is borrowed. */
struct denoising {
    const struct denoiser *denoiser; /* this rank's stage of it at least */
    const struct stages *stages;     /* [num_stages] of this rank's, in their order; NULL: all blocks are */
    int num_stages;
    const struct scheduler *scheduler;
    struct team *team;
    struct run *run;
    tessera_workers *workers; /* that compute some of the blocks, where this process is alone; NULL: nobody does */
    const char *folder;       /* of the denoiser: for them */
    struct denoiser_inputs inputs; /* of the negative prompt and the prompt where guided, else of one; without latents and timesteps */
    bool guided;                   /* e = e_negative + guidance_scale (e_prompt - e_negative) */
    float guidance_scale, guidance_rescale;
    int first_step;                  /* of the scheduler's */
    int64_t rows, columns, channels; /* of the latents */
    const float *const *extra; /* of each picture: [rows, columns, extra_channels] that the denoiser reads behind the latents; or NULL */
    int64_t extra_channels;
    /* A step cache: its name, NULL for none, and threshold, 0 for its own. Blocks and those it left out are counted here. */
    const char *step_cache;
    float step_cache_threshold;
    int64_t blocks, blocks_skipped;
    /* Callbacks; each may be NULL. fresh_noise: [count] of a stochastic sampler for one picture's next step, asked for once a step. report:
     * before each step and after the last, on every rank; its failure ends all. observe: after a step of a picture, on ranks that take it:
     * the guided prediction and the new sample, [rows, columns, channels] each. arrived: after a step of a picture, where the next one
     * begins (the first stage): the new sample, and, if shows_x_0 (the same on all ranks), the x_0 that the step predicted; after the last
     * step that is the sample. */
    bool shows_x_0;
    void *user;
    const float *(*fresh_noise)(void *user, int picture);
    tessera_status (*report)(void *user, int picture, int steps_done, tessera_error *error);
    void (*observe)(void *user, int picture, int step, const float *prediction, const float *x);
    void (*arrived)(void *user, int picture, int steps_done, const float *x, const float *x_0);
};

/* How many pictures to give to denoise_pictures together, so that all stages of a pipeline, or all workers (NULL: none), have work; at most
 * `pictures`. */
int denoise_at_once(const struct team *team, const tessera_workers *workers, bool guided, bool has_cache, int pictures);

/* x[i]: [rows, columns, channels], noised as the first step wants it; afterwards the latents, on every rank. After a failure all ranks
 * know. */
tessera_status denoise_pictures(struct denoising *d, int pictures, float *const *x, tessera_error *error);

#endif
