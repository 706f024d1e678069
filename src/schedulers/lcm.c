/* LCMScheduler: multistep consistency sampling (Luo et al. 2023, "Latent Consistency Models",
 * algorithm 3 and equation 9).
 *
 *     f(x_t, t) = c_skip(t) x_t + c_out(t) x_0
 *     x_prev = sqrt(alpha_bar_prev) f + sqrt(1 - alpha_bar_prev) noise       but f itself at the last step
 *
 * c_skip and c_out are Song et al. 2023, "Consistency Models", equation 5 in its discrete form:
 * sigma_data 0.5, t scaled by timestep_scaling. Timesteps are drawn from those of the distillation,
 * original_inference_steps of them; timestep_spacing and steps_offset do not matter. Left out, and
 * refused: dynamic thresholding. */
#include <math.h>
#include <stdlib.h>

#include "schedulers/classes.h"
#include "schedulers/noise_schedule.h"

struct lcm {
    struct noise_schedule noise;
    int original_inference_steps;
    float timestep_scaling;
};

static tessera_status configure(struct scheduler *scheduler, const struct json *json, tessera_error *error) {
    static const struct noise_defaults defaults = {
        .beta_start = 0.00085, .beta_end = 0.012, .beta_schedule = BETAS_SCALED_LINEAR, .timestep_spacing = SPACING_LEADING};
    int64_t original_inference_steps;
    double timestep_scaling;
    struct lcm *lcm = calloc(1, sizeof *lcm);
    if (lcm == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", json_path(json));
    scheduler->config = lcm;
    TRY(noise_schedule_configure(scheduler, &lcm->noise, json, &defaults, error));
    TRY(noise_schedule_configure_clipping(&lcm->noise, json, false, error));
    TRY(json_int(json, "original_inference_steps", 50, 1, scheduler->num_train_timesteps, &original_inference_steps, error));
    TRY(json_double(json, "timestep_scaling", 10.0, &timestep_scaling, error));
    lcm->original_inference_steps = (int)original_inference_steps;
    lcm->timestep_scaling = (float)timestep_scaling;
    return TESSERA_OK;
}

static tessera_status set_timesteps(struct scheduler *scheduler, int num_steps, float mu, tessera_error *error) {
    const struct lcm *lcm = scheduler->config;
    int original = lcm->original_inference_steps, stride = scheduler->num_train_timesteps / original;
    if (num_steps > original) {
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "num_inference_steps is %d; this scheduler does at most original_inference_steps, %d", num_steps, original);
    }
    for (int i = 0; i < num_steps; i++) {
        int skipped = (int)floor(i * ((double)original / num_steps));
        scheduler->timesteps[i] = (float)((original - skipped) * stride - 1);
    }
    return TESSERA_OK;
}

static void step_sample(const struct scheduler *scheduler, struct scheduler_state *state, int step, float *sample,
                        const float *model_output, const float *noise, size_t count) {
    const struct lcm *lcm = scheduler->config;
    const float sigma_data_squared = 0.25f;
    bool last = step == scheduler->num_steps - 1;
    float t = scheduler->timesteps[step], scaled = t * lcm->timestep_scaling;
    float c_skip = sigma_data_squared / (scaled * scaled + sigma_data_squared);
    float c_out = scaled / sqrtf(scaled * scaled + sigma_data_squared);
    float alpha_bar_t = noise_schedule_alpha_bar(scheduler, (int)t);
    float alpha_bar_prev = last ? 1.0f : noise_schedule_alpha_bar(scheduler, (int)scheduler->timesteps[step + 1]);
    float alpha_t = sqrtf(alpha_bar_t), sigma_t = sqrtf(1.0f - alpha_bar_t);
    float alpha_prev = sqrtf(alpha_bar_prev), sigma_prev = sqrtf(1.0f - alpha_bar_prev);
    for (size_t i = 0; i < count; i++) {
        float x_0 = noise_schedule_x_0(&lcm->noise, alpha_t, sigma_t, sample[i], model_output[i]);
        float denoised = c_out * x_0 + c_skip * sample[i];
        sample[i] = last ? denoised : alpha_prev * denoised + sigma_prev * noise[i];
    }
}

static const char *const fields[] = {"prediction_type", "rescale_betas_zero_snr", NULL};

const struct scheduler_class lcm_class = {
    .name = "LCMScheduler",
    .fields = fields,
    .configure = configure,
    .set_timesteps = set_timesteps,
    .scale_model_input = noise_schedule_keep_input,
    .step = step_sample,
    .predict_x_0 = noise_schedule_predict_at_timestep,
    .add_noise = noise_schedule_add_noise,
    .wants_noise = true,
};
