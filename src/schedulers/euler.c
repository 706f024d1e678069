/* EulerDiscreteScheduler: Euler steps along the probability-flow ODE (Karras et al. 2022,
 * "Elucidating the Design Space of Diffusion-Based Generative Models", algorithm 2 without churn
 * and without its second-order correction).
 *
 *     x = x_t / alpha_t has variance sigma^2 + 1;    d = (x - x_0) / sigma;    x <- x + (sigma_next - sigma) d
 *
 * The model sees x / sqrt(sigma^2 + 1). Timesteps need not be whole: sigma is interpolated in the
 * training schedule, laid out by Karras' equation 5, geometrically, or by the beta distribution.
 * Left out: churn, an argument of diffusers' step; refused: log_linear interpolation, continuous
 * timesteps. */
#include <stdlib.h>

#include "schedulers/classes.h"
#include "schedulers/noise_schedule.h"

static const char *const interpolation_names[] = {"linear", NULL};
static const char *const timestep_type_names[] = {"discrete", NULL};

static tessera_status configure(struct scheduler *scheduler, const struct json *json, tessera_error *error) {
    static const struct noise_defaults defaults = {NOISE_DEFAULT_BETAS, .timestep_spacing = SPACING_LINSPACE, .keeps_finite_sigmas = true};
    int only;
    struct noise_schedule *noise = calloc(1, sizeof *noise);
    if (noise == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", json_path(json));
    scheduler->config = noise;
    TRY(noise_schedule_choice(json, "interpolation_type", interpolation_names, 0, &only, error));
    TRY(noise_schedule_choice(json, "timestep_type", timestep_type_names, 0, &only, error));
    TRY(noise_schedule_configure(scheduler, noise, json, &defaults, error));
    return noise_schedule_configure_sigmas(scheduler, noise, json, &defaults, error);
}

static tessera_status set_timesteps(struct scheduler *scheduler, int num_steps, float mu, tessera_error *error) {
    return noise_schedule_set_sigmas(scheduler, scheduler->config, num_steps, error);
}

static void step_sample(const struct scheduler *scheduler, struct scheduler_state *state, int step, float *sample,
                        const float *model_output, const float *noise, size_t count) {
    const struct noise_schedule *schedule = scheduler->config;
    float sigma = scheduler->sigmas[step], dt = scheduler->sigmas[step + 1] - sigma;
    for (size_t i = 0; i < count; i++) {
        float x_0 = noise_schedule_x_0_at_sigma(schedule, sigma, sample[i], model_output[i]);
        sample[i] = sample[i] + (sample[i] - x_0) / sigma * dt;
    }
}

static const char *const fields[] = {"prediction_type",        "timestep_spacing", "rescale_betas_zero_snr", "use_karras_sigmas",
                                     "use_exponential_sigmas", "use_beta_sigmas",  "final_sigmas_type",      NULL};

const struct scheduler_class euler_class = {
    .name = "EulerDiscreteScheduler",
    .fields = fields,
    .configure = configure,
    .set_timesteps = set_timesteps,
    .scale_model_input = noise_schedule_scale_input,
    .step = step_sample,
    .predict_x_0 = noise_schedule_predict_at_sigma,
    .add_noise = noise_schedule_add_sigma,
};
