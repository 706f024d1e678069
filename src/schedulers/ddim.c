/* DDIMScheduler: deterministic steps (Song et al. 2021, "Denoising Diffusion Implicit Models",
 * equation 12 with sigma_t = 0).
 *
 *     x_prev = sqrt(alpha_bar_prev) x_0 + sqrt(1 - alpha_bar_prev) epsilon
 *
 * with x_0 and epsilon from the model's output. "prev" is num_train_timesteps / num_inference_steps
 * (rounded down) before t, whatever the spacing, as in diffusers 0.42.1; before timestep 0
 * alpha_bar is 1 or that of timestep 0 (set_alpha_to_one). With eta (an argument of diffusers'
 * step, a field of the configuration here) above 0, equation 16 adds noise of the deviation
 *
 *     sigma = eta sqrt((1 - alpha_bar_prev) / (1 - alpha_bar_t)) sqrt(1 - alpha_bar_t / alpha_bar_prev)
 *
 * and epsilon's factor becomes sqrt(1 - alpha_bar_prev - sigma^2). Left out:
 * use_clipped_model_output; refused: dynamic thresholding. */
#include <math.h>
#include <stdlib.h>

#include "schedulers/classes.h"
#include "schedulers/noise_schedule.h"

struct ddim {
    struct noise_schedule noise;
    float final_alpha_bar, eta;
    int stride; /* from t to prev */
};

static tessera_status configure(struct scheduler *scheduler, const struct json *json, tessera_error *error) {
    static const struct noise_defaults defaults = {NOISE_DEFAULT_BETAS, .timestep_spacing = SPACING_LEADING};
    bool set_alpha_to_one;
    double eta;
    struct ddim *ddim = calloc(1, sizeof *ddim);
    if (ddim == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", json_path(json));
    scheduler->config = ddim;
    TRY(noise_schedule_configure(scheduler, &ddim->noise, json, &defaults, error));
    TRY(noise_schedule_configure_clipping(&ddim->noise, json, true, error));
    TRY(json_bool(json, "set_alpha_to_one", true, &set_alpha_to_one, error));
    TRY(json_double(json, "eta", 0.0, &eta, error));
    if (!(eta >= 0.0 && eta <= 1.0))
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: field eta is %g; it must lie between 0 and 1", json_path(json), eta);
    ddim->eta = (float)eta;
    scheduler->wants_noise = eta > 0.0;
    ddim->final_alpha_bar = set_alpha_to_one ? 1.0f : scheduler->alpha_bar[0];
    return TESSERA_OK;
}

static tessera_status set_timesteps(struct scheduler *scheduler, int num_steps, float mu, tessera_error *error) {
    struct ddim *ddim = scheduler->config;
    ddim->stride = scheduler->num_train_timesteps / num_steps;
    return noise_schedule_set_timesteps(scheduler, &ddim->noise, num_steps, error);
}

static float predicted_epsilon(enum prediction_type type, float alpha_t, float sigma_t, float x_t, float output) {
    if (type == PREDICTION_EPSILON) return output;
    if (type == PREDICTION_V) return alpha_t * output + sigma_t * x_t;
    return (x_t - alpha_t * output) / sigma_t;
}

static void step_sample(const struct scheduler *scheduler, struct scheduler_state *state, int step, float *sample,
                        const float *model_output, const float *noise, size_t count) {
    const struct ddim *ddim = scheduler->config;
    int t = (int)scheduler->timesteps[step], prev = t - ddim->stride;
    float alpha_bar_t = noise_schedule_alpha_bar(scheduler, t);
    float alpha_bar_prev = prev >= 0 ? noise_schedule_alpha_bar(scheduler, prev) : ddim->final_alpha_bar;
    float alpha_t = sqrtf(alpha_bar_t), sigma_t = sqrtf(1.0f - alpha_bar_t);
    float variance = (1.0f - alpha_bar_prev) / (1.0f - alpha_bar_t) * (1.0f - alpha_bar_t / alpha_bar_prev);
    float deviation = ddim->eta > 0.0f ? ddim->eta * sqrtf(variance) : 0.0f;
    float alpha_prev = sqrtf(alpha_bar_prev), sigma_prev = sqrtf(1.0f - alpha_bar_prev - deviation * deviation);
    for (size_t i = 0; i < count; i++) {
        float x_0 = noise_schedule_x_0(&ddim->noise, alpha_t, sigma_t, sample[i], model_output[i]);
        float epsilon = predicted_epsilon(ddim->noise.prediction_type, alpha_t, sigma_t, sample[i], model_output[i]);
        sample[i] = alpha_prev * x_0 + sigma_prev * epsilon;
        if (deviation > 0.0f) sample[i] += deviation * noise[i];
    }
}

static const char *const fields[] = {"prediction_type", "timestep_spacing", "rescale_betas_zero_snr", "eta", NULL};

const struct scheduler_class ddim_class = {
    .name = "DDIMScheduler",
    .fields = fields,
    .configure = configure,
    .set_timesteps = set_timesteps,
    .scale_model_input = noise_schedule_keep_input,
    .step = step_sample,
    .predict_x_0 = noise_schedule_predict_at_timestep,
    .add_noise = noise_schedule_add_noise,
};
