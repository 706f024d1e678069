/* Samplers: the noise schedule and the step from one sample to the next.
 *
 * A scheduler (schedule, configuration) is read-only while a picture is made; what changes from
 * step to step lives in a scheduler_state, so that patches of one picture can each have their own.
 * All numbers are float32 as in diffusers. */
#ifndef TESSERA_SCHEDULERS_SCHEDULER_H
#define TESSERA_SCHEDULERS_SCHEDULER_H

#include "base/elementary.h"
#include "base/json.h"

struct scheduler {
    const struct scheduler_class *class;
    const struct elementary *functions; /* the C library's once opened; for the caller to change before scheduler_set_timesteps */
    int num_train_timesteps;
    int num_steps;          /* after scheduler_set_timesteps: calls of the model, which may be more than were asked for (PNDM) */
    float *timesteps;       /* [num_steps] */
    float *sigmas;          /* [num_steps + 1], the last one the end of the schedule; zeros where a sampler counts in alpha_bar */
    float *alpha_bar;       /* [num_train_timesteps]; NULL for flows */
    bool needs_mu;          /* dynamic shifting */
    bool sigmas_from_steps; /* for the caller to set: shift the line from 1 to 1/num_steps (what Flux's pipeline passes as its own
                             * sigmas) instead of the training schedule's (Stable Diffusion 3, the default) */
    bool flow_matching; /* for models that predict the velocity from noise to data (rectified flow); the others want noise, v or x_0 */
    float init_noise_sigma;
    bool wants_noise; /* step takes fresh noise: its class's word, or that of the configuration */
    void *config;     /* the class's own */
};

enum { SCHEDULER_MAX_HISTORY = 5 };

/* What a sampler remembers of one sample; for scheduler_state_init to set up before its first step. */
struct scheduler_state {
    float *memory;                         /* owned */
    float *history[SCHEDULER_MAX_HISTORY]; /* views of it, [count] each, in the class's order */
    int counter;                           /* steps taken */
};

struct scheduler_class {
    const char *name; /* diffusers' class name */
    tessera_status (*configure)(struct scheduler *, const struct json *config, tessera_error *);
    tessera_status (*set_timesteps)(struct scheduler *, int num_steps, float mu, tessera_error *);
    void (*scale_model_input)(const struct scheduler *, int step, float *out, const float *sample, size_t count);
    void (*step)(const struct scheduler *, struct scheduler_state *, int step, float *sample, const float *model_output, const float *noise,
                 size_t count);
    /* x_0 [count]: see scheduler_predict_x_0. */
    void (*predict_x_0)(const struct scheduler *, int step, float *x_0, const float *sample, const float *model_output, size_t count);
    /* Picture to picture: sample with noise at `step`. */
    void (*add_noise)(const struct scheduler *, int step, float *out, const float *sample, const float *noise, size_t count);
    float (*mu)(const struct scheduler *, int64_t tokens); /* may be NULL: no dynamic shifting */
    const char *const *fields;                             /* of the configuration, which a request may set; NULL at the end */
    bool flow_matching; /* whatever the configuration; ask scheduler.flow_matching */
    bool wants_noise;   /* step takes fresh noise, whatever the configuration; ask scheduler.wants_noise */
    int num_history;    /* buffers in scheduler_state.history */
};

/* From a scheduler folder or a scheduler_config.json; `class_name` overrides the file's _class_name
 * if not NULL. */
tessera_status scheduler_open(const char *path, const char *class_name, struct scheduler **out, tessera_error *error);
/* The configuration alone, for any number of schedulers; the caller frees it. */
tessera_status scheduler_read_config(const char *path, struct json **out, tessera_error *error);
/* A configuration of the same name with the fields of `overrides`, a JSON object, in place of its
 * own; the caller frees it. ARGUMENT where `overrides` is no object. */
tessera_status scheduler_merge_config(const struct json *config, const char *overrides, struct json **out, tessera_error *error);
/* From a configuration, which the caller keeps. */
tessera_status scheduler_open_config(const struct json *config, const char *class_name, struct scheduler **out, tessera_error *error);
/* The same with `overrides`, a JSON object or NULL, whose fields go before those of the
 * configuration: ARGUMENT where it is no object, UNSUPPORTED where the class has no such field. */
tessera_status scheduler_open_with(const struct json *config, const char *class_name, const char *overrides, struct scheduler **out,
                                   tessera_error *error);
void scheduler_free(struct scheduler *scheduler);
/* mu is used only where needs_mu. */
tessera_status scheduler_set_timesteps(struct scheduler *scheduler, int num_steps, float mu, tessera_error *error);
/* diffusers' calculate_shift: mu for a sequence of picture tokens; 0 without dynamic shifting. */
float scheduler_mu(const struct scheduler *scheduler, int64_t tokens);
/* For samples of `count` numbers; scheduler_state_free ends it. MEMORY if there is none. */
tessera_status scheduler_state_init(const struct scheduler *, size_t count, struct scheduler_state *, tessera_error *);
/* A view of the sample's numbers from `offset` on, with memory borrowed from `whole`: a part of a
 * picture that from now on takes its steps by itself. It needs no scheduler_state_free. */
struct scheduler_state scheduler_state_from(const struct scheduler *, const struct scheduler_state *whole, size_t offset);
/* A state that is all zeros is fine, too. */
void scheduler_state_free(struct scheduler_state *);
/* `noise` [count] where scheduler.wants_noise, otherwise it may be NULL. */
void scheduler_step(const struct scheduler *, struct scheduler_state *, int step, float *sample, const float *model_output,
                    const float *noise, size_t count);
/* x_0 [count], the sample without noise that the model's output predicts at `step`: diffusers'
 * pred_original_sample. `sample` is the one that scheduler_step has not changed yet. */
void scheduler_predict_x_0(const struct scheduler *, int step, float *x_0, const float *sample, const float *model_output, size_t count);
/* Names of all classes, NULL at the end. */
const char *const *scheduler_names(void);

#endif
