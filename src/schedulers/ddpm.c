/* DDPMScheduler: ancestral sampling (Ho et al. 2020, "Denoising Diffusion Probabilistic Models",
 * equations 6 and 7).
 *
 *     x_prev ~ N(mu~(x_t, x_0), variance)
 *     mu~ = sqrt(alpha_bar_prev) beta_t / (1 - alpha_bar_t) x_0 + sqrt(alpha_t) (1 - alpha_bar_prev) / (1 - alpha_bar_t) x_t
 *
 * alpha_t = alpha_bar_t / alpha_bar_prev and beta_t = 1 - alpha_t span the way to the next timestep
 * of the schedule; after the last, alpha_bar is 1. The variance is beta~_t (fixed_small, equation
 * 7) or beta_t (fixed_large, their section 3.2). Left out, and refused: learned variances,
 * fixed_large_log, dynamic thresholding. */
#include <math.h>
#include <stdlib.h>

#include "schedulers/classes.h"
#include "schedulers/noise_schedule.h"

enum variance_type { VARIANCE_SMALL, VARIANCE_SMALL_LOG, VARIANCE_LARGE };

static const char *const variance_names[] = {"fixed_small", "fixed_small_log", "fixed_large", NULL};

struct ddpm {
    struct noise_schedule noise;
    int variance_type;
};

static tessera_status configure(struct scheduler *scheduler, const struct json *json, tessera_error *error) {
    static const struct noise_defaults defaults = {NOISE_DEFAULT_BETAS, .timestep_spacing = SPACING_LEADING};
    struct ddpm *ddpm = calloc(1, sizeof *ddpm);
    if (ddpm == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", json_path(json));
    scheduler->config = ddpm;
    TRY(noise_schedule_configure(scheduler, &ddpm->noise, json, &defaults, error));
    TRY(noise_schedule_configure_clipping(&ddpm->noise, json, true, error));
    return noise_schedule_choice(json, "variance_type", variance_names, VARIANCE_SMALL, &ddpm->variance_type, error);
}

static tessera_status set_timesteps(struct scheduler *scheduler, int num_steps, float mu, tessera_error *error) {
    const struct ddpm *ddpm = scheduler->config;
    return noise_schedule_set_timesteps(scheduler, &ddpm->noise, num_steps, error);
}

/* The noise's standard deviation. */
static float deviation(const struct elementary *f, int variance_type, float alpha_bar_t, float alpha_bar_prev, float beta_t) {
    float small = fmaxf((1.0f - alpha_bar_prev) / (1.0f - alpha_bar_t) * beta_t, 1e-20f); /* diffusers': its logarithm must exist */
    if (variance_type == VARIANCE_SMALL_LOG) return f->expf(0.5f * f->logf(small));
    return sqrtf(variance_type == VARIANCE_LARGE ? beta_t : small);
}

static void step_sample(const struct scheduler *scheduler, struct scheduler_state *state, int step, float *sample,
                        const float *model_output, const float *noise, size_t count) {
    const struct ddpm *ddpm = scheduler->config;
    int t = (int)scheduler->timesteps[step];
    bool last = step == scheduler->num_steps - 1;
    float alpha_bar_t = noise_schedule_alpha_bar(scheduler, t);
    float alpha_bar_prev = last ? 1.0f : noise_schedule_alpha_bar(scheduler, (int)scheduler->timesteps[step + 1]);
    float alpha_t = alpha_bar_t / alpha_bar_prev, beta_t = 1.0f - alpha_t;
    float x_0_coefficient = sqrtf(alpha_bar_prev) * beta_t / (1.0f - alpha_bar_t);
    float x_t_coefficient = sqrtf(alpha_t) * (1.0f - alpha_bar_prev) / (1.0f - alpha_bar_t);
    float root_t = sqrtf(alpha_bar_t), sigma_t = sqrtf(1.0f - alpha_bar_t);
    float noise_scale = t > 0 ? deviation(scheduler->functions, ddpm->variance_type, alpha_bar_t, alpha_bar_prev, beta_t) : 0.0f;
    for (size_t i = 0; i < count; i++) {
        float x_0 = noise_schedule_x_0(&ddpm->noise, root_t, sigma_t, sample[i], model_output[i]);
        sample[i] = x_0_coefficient * x_0 + x_t_coefficient * sample[i] + noise_scale * noise[i];
    }
}

static const char *const fields[] = {"prediction_type", "timestep_spacing", "rescale_betas_zero_snr", NULL};

const struct scheduler_class ddpm_class = {
    .name = "DDPMScheduler",
    .fields = fields,
    .configure = configure,
    .set_timesteps = set_timesteps,
    .scale_model_input = noise_schedule_keep_input,
    .step = step_sample,
    .predict_x_0 = noise_schedule_predict_at_timestep,
    .add_noise = noise_schedule_add_noise,
    .wants_noise = true,
};
