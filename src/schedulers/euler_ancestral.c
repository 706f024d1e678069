/* EulerAncestralDiscreteScheduler: Euler steps that go too far and add noise back, as ancestral
 * sampling does (Song et al. 2021, "Denoising Diffusion Implicit Models", equation 16 with eta = 1,
 * in the sigmas of Karras et al. 2022; after k-diffusion).
 *
 *     sigma_up^2 = sigma_next^2 (sigma^2 - sigma_next^2) / sigma^2,    sigma_down^2 = sigma_next^2 - sigma_up^2
 *     x <- x + (sigma_down - sigma) (x - x_0) / sigma + sigma_up noise
 *
 * diffusers' class knows neither Karras sigmas nor the prediction type "sample"; the latter is
 * refused. */
#include <math.h>
#include <stdlib.h>

#include "schedulers/classes.h"
#include "schedulers/noise_schedule.h"

static tessera_status configure(struct scheduler *scheduler, const struct json *json, tessera_error *error) {
    static const struct noise_defaults defaults = {NOISE_DEFAULT_BETAS, .timestep_spacing = SPACING_LINSPACE, .keeps_finite_sigmas = true};
    struct noise_schedule *noise = calloc(1, sizeof *noise);
    if (noise == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", json_path(json));
    scheduler->config = noise;
    TRY(noise_schedule_configure(scheduler, noise, json, &defaults, error));
    if (noise->prediction_type != PREDICTION_SAMPLE) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                     "%s: field prediction_type is \"sample\"; this scheduler needs epsilon or v_prediction", json_path(json));
}

static tessera_status set_timesteps(struct scheduler *scheduler, int num_steps, float mu, tessera_error *error) {
    return noise_schedule_set_sigmas(scheduler, scheduler->config, num_steps, error);
}

static void step_sample(const struct scheduler *scheduler, struct scheduler_state *state, int step, float *sample,
                        const float *model_output, const float *noise, size_t count) {
    const struct noise_schedule *schedule = scheduler->config;
    float sigma = scheduler->sigmas[step], sigma_next = scheduler->sigmas[step + 1];
    float sigma_up = sqrtf(sigma_next * sigma_next * (sigma * sigma - sigma_next * sigma_next) / (sigma * sigma));
    float sigma_down = sqrtf(sigma_next * sigma_next - sigma_up * sigma_up);
    float dt = sigma_down - sigma;
    for (size_t i = 0; i < count; i++) {
        float x_0 = noise_schedule_x_0_at_sigma(schedule, sigma, sample[i], model_output[i]);
        sample[i] = sample[i] + (sample[i] - x_0) / sigma * dt + noise[i] * sigma_up;
    }
}

static const char *const fields[] = {"prediction_type", "timestep_spacing", "rescale_betas_zero_snr", NULL};

const struct scheduler_class euler_ancestral_class = {
    .name = "EulerAncestralDiscreteScheduler",
    .fields = fields,
    .configure = configure,
    .set_timesteps = set_timesteps,
    .scale_model_input = noise_schedule_scale_input,
    .step = step_sample,
    .predict_x_0 = noise_schedule_predict_at_sigma,
    .add_noise = noise_schedule_add_sigma,
    .wants_noise = true,
};
