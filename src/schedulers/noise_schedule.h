/* The noise schedule that a scheduler_config.json describes, shared by the samplers of
 * variance-preserving diffusion:
 *
 *     x_t = alpha_t x_0 + sigma_t epsilon,    alpha_t = sqrt(alpha_bar_t),  sigma_t = sqrt(1 - alpha_bar_t)
 *
 * Ho et al. 2020, "Denoising Diffusion Probabilistic Models", equation 4. Samplers that count in
 * noise levels instead of timesteps (Karras et al. 2022) use sigma = sigma_t / alpha_t. Field names
 * are diffusers'. What a field asks for and we lack is refused with TESSERA_ERROR_UNSUPPORTED,
 * naming file and field. */
#ifndef TESSERA_SCHEDULERS_NOISE_SCHEDULE_H
#define TESSERA_SCHEDULERS_NOISE_SCHEDULE_H

#include "schedulers/scheduler.h"

enum prediction_type { PREDICTION_EPSILON, PREDICTION_V, PREDICTION_SAMPLE, PREDICTION_FLOW };
enum beta_schedule { BETAS_LINEAR, BETAS_SCALED_LINEAR, BETAS_SQUAREDCOS_CAP_V2 };
enum timestep_spacing { SPACING_LEADING, SPACING_LINSPACE, SPACING_TRAILING };
enum sigma_schedule { SIGMAS_TRAINED, SIGMAS_KARRAS, SIGMAS_EXPONENTIAL, SIGMAS_BETA, SIGMAS_LU, SIGMAS_FLOW };

struct noise_schedule {
    enum prediction_type prediction_type;
    enum beta_schedule beta_schedule;
    enum timestep_spacing timestep_spacing;
    int steps_offset;
    bool clip_sample; /* x_0 is kept within +-clip_sample_range */
    float clip_sample_range;
    enum sigma_schedule sigma_schedule;
    double sigma_min, sigma_max; /* ends of Karras, exponential and beta sigmas; 0: the schedule's own */
    double flow_shift;           /* of SIGMAS_FLOW */
    bool ends_at_sigma_min;      /* final_sigmas_type: the trained schedule's smallest sigma instead of 0 */
};

/* What diffusers' classes assume where a field is missing, and which fields they know. */
struct noise_defaults {
    double beta_start, beta_end;
    enum beta_schedule beta_schedule;
    enum timestep_spacing timestep_spacing;
    bool ignores_zero_snr;    /* the class has no rescale_betas_zero_snr */
    bool keeps_finite_sigmas; /* counts in sigmas: alpha_bar_T = 2^-24 where it would be 0 */
    bool knows_flow;          /* use_flow_sigmas, flow_shift, and flow_prediction among the prediction types */
    bool knows_lu;            /* use_lu_lambdas */
};

/* The defaults of most classes. */
#define NOISE_DEFAULT_BETAS .beta_start = 0.0001, .beta_end = 0.02, .beta_schedule = BETAS_LINEAR

/* Reads the fields that all samplers share and fills scheduler->alpha_bar [num_train_timesteps],
 * which the scheduler owns. */
tessera_status noise_schedule_configure(struct scheduler *scheduler, struct noise_schedule *noise, const struct json *json,
                                        const struct noise_defaults *defaults, tessera_error *error);
/* clip_sample and clip_sample_range, for the samplers that know them. */
tessera_status noise_schedule_configure_clipping(struct noise_schedule *noise, const struct json *json, bool fallback,
                                                 tessera_error *error);
/* use_karras_sigmas and the flags like it, sigma_min, sigma_max, final_sigmas_type, for the
 * samplers that know them; after noise_schedule_configure. */
tessera_status noise_schedule_configure_sigmas(struct scheduler *scheduler, struct noise_schedule *noise, const struct json *json,
                                               const struct noise_defaults *defaults, tessera_error *error);

/* UNSUPPORTED if a boolean field is true. */
tessera_status noise_schedule_refuse_true(const struct json *json, const char *field, tessera_error *error);
/* UNSUPPORTED if a field is there and not null. */
tessera_status noise_schedule_refuse_set(const struct json *json, const char *field, tessera_error *error);
/* The index of a field's value among `names` (NULL at the end), `fallback` if absent; UNSUPPORTED
 * if it is none of them. */
tessera_status noise_schedule_choice(const struct json *json, const char *field, const char *const *names, int fallback, int *out,
                                     tessera_error *error);

/* The quantile of the beta distribution with alpha = beta = 0.6, from 0 at p = 0 to 1 at p = 1:
 * where beta sigmas lie between their ends (Lee et al. 2024, "Beta Sampling is All You Need", arXiv
 * 2407.12173). */
double noise_schedule_beta_quantile(const struct elementary *f, double p);

/* Timesteps fall as timestep_spacing says (Lin et al. 2023, "Common Diffusion Noise Schedules and
 * Sample Steps are Flawed", table 2). All three: ARGUMENT for more steps than training had. */
/* Sets scheduler->timesteps for the samplers that look up alpha_bar at them: whole, and within the
 * training schedule. */
tessera_status noise_schedule_set_timesteps(struct scheduler *scheduler, const struct noise_schedule *noise, int num_steps,
                                            tessera_error *error);
/* Sets timesteps, sigmas and init_noise_sigma for the samplers whose samples have variance sigma^2 +
 * 1. */
tessera_status noise_schedule_set_sigmas(struct scheduler *scheduler, const struct noise_schedule *noise, int num_steps,
                                         tessera_error *error);
/* Sets timesteps and sigmas for the multistep samplers: whole timesteps, the last of the training
 * schedule left to the end, and Karras sigmas over the whole of it. `rounds`: the timesteps of
 * Karras and Lu sigmas are rounded, not cut. */
tessera_status noise_schedule_set_multistep(struct scheduler *scheduler, const struct noise_schedule *noise, int num_steps, bool rounds,
                                            tessera_error *error);

/* Sets timesteps and sigmas of a flow: the line from `first` to `last`, which is left to the end,
 * shifted by flow_shift. */
void noise_schedule_set_flow(struct scheduler *scheduler, const struct noise_schedule *noise, int num_steps, double first, double last);

/* alpha_bar at a timestep. */
float noise_schedule_alpha_bar(const struct scheduler *scheduler, int timestep);
/* alpha_t and sigma_t of a noise level sigma; of a flow, 1 - sigma and sigma. */
void noise_schedule_from_sigma(const struct noise_schedule *noise, float sigma, float *alpha_t, float *sigma_t);
/* lambda_t = log(alpha_t / sigma_t) of a noise level sigma, half the logarithm of the
 * signal-to-noise ratio. */
float noise_schedule_lambda(const struct scheduler *scheduler, const struct noise_schedule *noise, float sigma);
/* scheduler_class.scale_model_input: unchanged, and divided by sqrt(sigma^2 + 1). */
void noise_schedule_keep_input(const struct scheduler *scheduler, int step, float *out, const float *sample, size_t count);
void noise_schedule_scale_input(const struct scheduler *scheduler, int step, float *out, const float *sample, size_t count);
/* scheduler_class.predict_x_0, of samplers that look up alpha_bar at timesteps, whose samples have
 * variance sigma^2 + 1, and that preserve it; scheduler->config begins with a struct
 * noise_schedule. */
void noise_schedule_predict_at_timestep(const struct scheduler *scheduler, int step, float *x_0, const float *sample, const float *model_output,
                                        size_t count);
void noise_schedule_predict_at_sigma(const struct scheduler *scheduler, int step, float *x_0, const float *sample, const float *model_output,
                                     size_t count);
void noise_schedule_predict_preserving(const struct scheduler *scheduler, int step, float *x_0, const float *sample, const float *model_output,
                                       size_t count);
/* scheduler_class.add_noise, in alpha_bar and in sigmas (there with variance sigma^2 + 1, or
 * preserved, where scheduler->config begins with a struct noise_schedule). */
void noise_schedule_add_noise(const struct scheduler *scheduler, int step, float *out, const float *sample, const float *noise,
                              size_t count);
void noise_schedule_add_sigma(const struct scheduler *scheduler, int step, float *out, const float *sample, const float *noise,
                              size_t count);
void noise_schedule_add_preserving(const struct scheduler *scheduler, int step, float *out, const float *sample, const float *noise,
                                   size_t count);

/* x_0 from the model's output at x_t; v is alpha_t epsilon - sigma_t x_0 (Salimans and Ho 2022,
 * "Progressive Distillation", appendix D), a flow's velocity epsilon - x_0 (Liu et al. 2022, "Flow
 * Straight and Fast"). */
static inline float noise_schedule_x_0(const struct noise_schedule *noise, float alpha_t, float sigma_t, float x_t, float output) {
    float x_0 = noise->prediction_type == PREDICTION_EPSILON ? (x_t - sigma_t * output) / alpha_t
                : noise->prediction_type == PREDICTION_V     ? alpha_t * x_t - sigma_t * output
                : noise->prediction_type == PREDICTION_FLOW  ? x_t - sigma_t * output
                                                             : output;
    if (!noise->clip_sample) return x_0;
    return x_0 < -noise->clip_sample_range ? -noise->clip_sample_range : x_0 > noise->clip_sample_range ? noise->clip_sample_range : x_0;
}

/* The same where x has variance sigma^2 + 1 (Karras et al. 2022, equation 7 with their table 1's
 * scalings). */
static inline float noise_schedule_x_0_at_sigma(const struct noise_schedule *noise, float sigma, float x, float output) {
    if (noise->prediction_type == PREDICTION_EPSILON) return x - sigma * output;
    if (noise->prediction_type == PREDICTION_SAMPLE) return output;
    float variance = sigma * sigma + 1.0f;
    return output * (-sigma / __builtin_sqrtf(variance)) + x / variance;
}

#endif
