/* One request under way: what generate.c sets up and the files that do the work (denoise.c,
 * picture.c) read. Private to this room. */
#ifndef TESSERA_PIPELINES_GENERATION_H
#define TESSERA_PIPELINES_GENERATION_H

#include "base/random.h"
#include "pipelines/pipeline.h"

struct generation {
    struct pipeline *pipeline;
    const tessera_request *request;
    const struct generation_control *control;
    tessera_image *image;
    tessera_image one;                                     /* room for the present picture if the request has `deliver`; else empty */
    struct run own[PIPELINE_ROLES], *runs[PIPELINE_ROLES]; /* roles of one backend share a run */
    struct scheduler *scheduler;
    struct prompt_states states;
    int width, height;               /* pixels at which the model works: the request's, or those of a resolution bin */
    int64_t rows, columns, channels; /* of the latents */
    int64_t positions, count;        /* rows * columns; times channels */
    int64_t patch_size;
    int first_step;                    /* picture to picture leaves out the steps before */
    bool keeps_init;                   /* strength 0: the result is the init picture */
    bool guided;                       /* then states are [negative, prompt] */
    float guidance_scale;              /* e = e_negative + guidance_scale (e_prompt - e_negative) if guided */
    struct random_generator generator; /* after the pictures' noise: the start of each picture's fresh noise */
    float *noise;                      /* [num_images, channels, rows, columns] as drawn */
    float *fresh_noise;     /* of one step: like noise, then [rows, columns, channels] of one picture; NULL if the sampler uses none */
    float *init_latents;    /* [rows, columns, channels], or NULL */
    float *control_latents; /* [num_images, rows, columns, channels], or NULL */
    float *scratch;         /* of two pictures */
    tessera_states *states_out; /* of tessera_encode alone, and these of tessera_decode: */
    const float *given_latents;
    size_t given_values;
};

/* Copies the request's own states, in place of the encoders', into g->states. ARGUMENT if they are
 * not what its guidance needs; FORMAT if numbers are not finite. (states.c) */
tessera_status generation_take_states(struct generation *g, tessera_error *error);
/* Copies g->states to the host; `out` owns them. (states.c) */
tessera_status generation_give_states(struct generation *g, tessera_states *out, tessera_error *error);
/* Seconds, without those that components take to open. (generation.c, as the next one) */
double generation_clock(const struct generation *g);
/* Tells the caller how far a phase is; CANCELLED if the caller stops the work. */
tessera_status generation_report(const struct generation *g, tessera_phase phase, int done, int total, tessera_error *error);
/* Makes the latents of the request's pictures first .. first + count, each in x[i] [rows, columns,
 * channels]. (latents.c) */
tessera_status generation_denoise(struct generation *g, int first, int count, float *const *x, tessera_error *error);
/* Encodes the request's control picture, once for each picture that is made of it, and its init
 * picture, once. It draws from the generator in the order of diffusers' latent_dist.sample. Does
 * nothing if the request has neither picture. (picture.c) */
tessera_status generation_encode(struct generation *g, struct random_generator *generator, tessera_error *error);
/* Copies the init picture to all pictures of g->image, for strength 0. (picture.c) */
tessera_status generation_keep_init(struct generation *g, tessera_error *error);
/* Decodes latents x into picture `made` of the request: into its place in g->image, or for the
 * caller's `deliver`. (picture.c) */
tessera_status generation_decode(struct generation *g, int made, const float *x, tessera_error *error);

#endif
