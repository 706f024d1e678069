/* One request being worked on: what generate.c sets up and the files that do the work (denoise.c, picture.c) read. Private to this room. */
#ifndef TESSERA_PIPELINES_GENERATION_H
#define TESSERA_PIPELINES_GENERATION_H

#include "base/random.h"
#include "pipelines/pipeline.h"

struct generation {
    struct pipeline *pipeline;
    const tessera_request *request;
    const struct generation_control *control;
    tessera_image *image;
    tessera_image one; /* room for the present picture, where pictures are delivered; else empty */
    struct run own[PIPELINE_ROLES], *runs[PIPELINE_ROLES]; /* roles of one backend share a run */
    struct scheduler *scheduler;
    struct prompt_states states;
    int width, height;               /* pixels that are worked at: the request's, or those of a resolution bin */
    int64_t rows, columns, channels; /* of the latents */
    int64_t positions, count;        /* rows * columns; times channels */
    int64_t patch_size;
    int first_step;                    /* picture to picture skips the steps before */
    bool keeps_init;                   /* strength 0: the init picture is the outcome */
    bool guided;                       /* the negative prompt is row 0 of the states, the prompt row 1 */
    float guidance_scale;              /* e_negative + guidance_scale (e_prompt - e_negative) where guided */
    struct random_generator generator; /* after the pictures' noise is drawn, where each picture's fresh noise begins */
    float *noise;                      /* [num_images, channels, rows, columns] as drawn */
    float *fresh_noise;     /* of one step: like noise, then [rows, columns, channels] of one picture; NULL if the sampler wants none */
    float *init_latents;    /* [rows, columns, channels], or NULL */
    float *control_latents; /* [num_images, rows, columns, channels], or NULL */
    float *scratch;         /* of two pictures */
    tessera_states *states_out; /* of tessera_encode alone, and these of tessera_decode: */
    const float *given_latents;
    size_t given_values;
};

/* The request's own states in place of the encoders', into g->states. ARGUMENT where they are not as its guidance needs them; FORMAT of
 * numbers that are not finite. (states.c) */
tessera_status generation_take_states(struct generation *g, tessera_error *error);
/* g->states on the host, owned by `out`. (states.c) */
tessera_status generation_give_states(struct generation *g, tessera_states *out, tessera_error *error);
/* Seconds, without those that components take to open. (generation.c, as the next one) */
double generation_clock(const struct generation *g);
/* Tells the caller how far a phase is; CANCELLED if it wants to stop. */
tessera_status generation_report(const struct generation *g, tessera_phase phase, int done, int total, tessera_error *error);
/* Latents of the request's pictures first .. first + count, each into x[i] [rows, columns, channels]. (latents.c) */
tessera_status generation_denoise(struct generation *g, int first, int count, float *const *x, tessera_error *error);
/* The latents of the request's control picture, drawn for each picture that is made of it, and of its init picture, drawn once; draws from
 * the generator in the order of diffusers' latent_dist.sample. Nothing where the request has neither. (picture.c) */
tessera_status generation_encode(struct generation *g, struct random_generator *generator, tessera_error *error);
/* The init picture as it is, to all pictures of g->image: strength 0. (picture.c) */
tessera_status generation_keep_init(struct generation *g, tessera_error *error);
/* Latents x to picture `made` of the request: to its place in g->image, or to the caller. (picture.c) */
tessera_status generation_decode(struct generation *g, int made, const float *x, tessera_error *error);

#endif
