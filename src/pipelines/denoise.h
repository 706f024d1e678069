/* The denoising loop: it makes latents from noise, step by step, on all ranks of a picture. See
 * denoise.c. */
#ifndef TESSERA_PIPELINES_DENOISE_H
#define TESSERA_PIPELINES_DENOISE_H

#include "pipelines/stages.h"
#include "pipelines/step_cache.h"
#include "pipelines/team.h"
#include "pipelines/workers.h"
#include "schedulers/scheduler.h"

/* What to denoise, and how. Everything is borrowed. */
struct denoising {
    const struct denoiser *denoiser; /* at least this rank's stage of it */
    const struct stages *stages;     /* [num_stages] this rank's stages, in their order; NULL: it has all blocks */
    int num_stages;
    const struct scheduler *scheduler;
    struct team *team;
    struct run *run;
    tessera_workers *workers;      /* that compute some of the blocks, if this process is the only rank; or NULL */
    const char *folder;            /* the denoiser's, for the workers */
    struct denoiser_inputs inputs; /* [negative, prompt] if guided, else [prompt]; without latents and timesteps */
    bool guided;                   /* e = e_negative + guidance_scale (e_prompt - e_negative) */
    float guidance_scale, guidance_rescale;
    int first_step;                  /* among the scheduler's steps */
    int64_t rows, columns, channels; /* of the latents */
    const float *const *extra; /* for each picture [rows, columns, extra_channels] that the denoiser reads after the latents; or NULL */
    int64_t extra_channels;
    /* A step cache: its name (NULL: none) and its threshold (0: its own). `blocks` counts blocks,
     * blocks_skipped those that it left out. */
    const char *step_cache;
    float step_cache_threshold;
    int64_t blocks, blocks_skipped;
    /* Callbacks; each may be NULL.
     *   fresh_noise   returns a stochastic sampler's noise [count] for one picture's next step; called once per step
     *   report        called before each step and after the last, on every rank; its failure ends the work on all ranks
     *   observe       called after a step of a picture, on the ranks that take it, with the guided prediction and the new
     *                 sample, [rows, columns, channels] each
     *   arrived       called after a step of a picture, on the first stage, with the new sample and, if shows_x_0 (the
     *                 same on all ranks), with the x_0 that the step predicted; after the last step x_0 is the
     * sample */
    bool shows_x_0;
    void *user;
    const float *(*fresh_noise)(void *user, int picture);
    tessera_status (*report)(void *user, int picture, int steps_done, tessera_error *error);
    void (*observe)(void *user, int picture, int step, const float *prediction, const float *x);
    void (*arrived)(void *user, int picture, int steps_done, const float *x, const float *x_0);
};

/* How many pictures to pass to denoise_pictures together so that all stages of a pipeline, or all
 * workers (NULL: none), have work; at most `pictures`. */
int denoise_at_once(const struct team *team, const tessera_workers *workers, bool guided, bool has_cache, int pictures);

/* x[i]: [rows, columns, channels], noised as the first step needs it; afterwards the latents, on
 * every rank. If a rank fails, all ranks return its failure. */
tessera_status denoise_pictures(struct denoising *d, int pictures, float *const *x, tessera_error *error);

#endif
