/* PNDMScheduler: pseudo linear multistep (Liu et al. 2022, "Pseudo Numerical Methods for Diffusion
 * Models on Manifolds").
 *
 *     e' = Adams-Bashforth combination of the last four outputs (their equation 12; fewer while there are fewer)
 *     x_prev = sqrt(alpha_bar_prev / alpha_bar_t) x_t - (alpha_bar_prev - alpha_bar_t) e'
 *              / (alpha_bar_t sqrt(1 - alpha_bar_prev) + sqrt(alpha_bar_t (1 - alpha_bar_t) alpha_bar_prev))      (equation 9)
 *
 * Instead of Runge-Kutta steps the second timestep is visited twice: the first step is done again
 * with the mean of both outputs. So n steps take n + 1 calls of the model. Refused: skip_prk_steps
 * false (the Runge-Kutta start), prediction type "sample". */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "schedulers/classes.h"
#include "schedulers/noise_schedule.h"

/* Buffers of scheduler_state: outputs, the newest first, and the sample that the first step started
 * from. */
enum { NUM_OUTPUTS = 4, FIRST_SAMPLE = NUM_OUTPUTS, NUM_HISTORY };

struct pndm {
    struct noise_schedule noise;
    float final_alpha_bar;
    int stride; /* from t to prev */
};

static tessera_status configure(struct scheduler *scheduler, const struct json *json, tessera_error *error) {
    static const struct noise_defaults defaults = {NOISE_DEFAULT_BETAS, .timestep_spacing = SPACING_LEADING, .ignores_zero_snr = true};
    bool set_alpha_to_one, skip_prk_steps;
    struct pndm *pndm = calloc(1, sizeof *pndm);
    if (pndm == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", json_path(json));
    scheduler->config = pndm;
    TRY(noise_schedule_configure(scheduler, &pndm->noise, json, &defaults, error));
    TRY(json_bool(json, "set_alpha_to_one", false, &set_alpha_to_one, error));
    TRY(json_bool(json, "skip_prk_steps", false, &skip_prk_steps, error));
    if (!skip_prk_steps) {
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: field skip_prk_steps is false; this scheduler needs true (--skip-prk-steps, or --scheduler plms)",
                         json_path(json));
    }
    if (pndm->noise.prediction_type == PREDICTION_SAMPLE) {
        return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                         "%s: field prediction_type is \"sample\"; this scheduler needs epsilon or v_prediction", json_path(json));
    }
    pndm->final_alpha_bar = set_alpha_to_one ? 1.0f : scheduler->alpha_bar[0];
    return TESSERA_OK;
}

static tessera_status set_timesteps(struct scheduler *scheduler, int num_steps, float mu, tessera_error *error) {
    struct pndm *pndm = scheduler->config;
    pndm->stride = scheduler->num_train_timesteps / num_steps;
    TRY(noise_schedule_set_timesteps(scheduler, &pndm->noise, num_steps, error));
    if (num_steps == 1) return TESSERA_OK;
    memmove(scheduler->timesteps + 2, scheduler->timesteps + 1, ((size_t)num_steps - 1) * sizeof *scheduler->timesteps);
    scheduler->num_steps = num_steps + 1;
    return TESSERA_OK;
}

static void remember(struct scheduler_state *state, const float *model_output, size_t count) {
    float *oldest = state->history[NUM_OUTPUTS - 1];
    memmove(state->history + 1, state->history, (NUM_OUTPUTS - 1) * sizeof *state->history);
    state->history[0] = memcpy(oldest, model_output, count * sizeof *oldest);
}

/* e' of element i; `calls` of the model came before, the second of which is not among the outputs. */
static float combined(float *const *outputs, int calls, const float *model_output, size_t i) {
    if (calls == 0) return model_output[i];
    if (calls == 1) return (model_output[i] + outputs[0][i]) / 2.0f;
    if (calls == 2) return (3.0f * outputs[0][i] - outputs[1][i]) / 2.0f;
    if (calls == 3) return (23.0f * outputs[0][i] - 16.0f * outputs[1][i] + 5.0f * outputs[2][i]) / 12.0f;
    return 1.0f / 24.0f * (55.0f * outputs[0][i] - 59.0f * outputs[1][i] + 37.0f * outputs[2][i] - 9.0f * outputs[3][i]);
}

static void step_sample(const struct scheduler *scheduler, struct scheduler_state *state, int step, float *sample,
                        const float *model_output, const float *noise, size_t count) {
    const struct pndm *pndm = scheduler->config;
    int calls = state->counter, t = (int)scheduler->timesteps[step], prev = t - pndm->stride;
    if (calls == 0) memcpy(state->history[FIRST_SAMPLE], sample, count * sizeof *sample);
    if (calls == 1) {
        memcpy(sample, state->history[FIRST_SAMPLE], count * sizeof *sample);
        prev = t;
        t += pndm->stride;
    } else {
        remember(state, model_output, count);
    }
    float alpha_bar_t = noise_schedule_alpha_bar(scheduler, t);
    float alpha_bar_prev = prev >= 0 ? noise_schedule_alpha_bar(scheduler, prev) : pndm->final_alpha_bar;
    float beta_bar_t = 1.0f - alpha_bar_t, alpha_t = sqrtf(alpha_bar_t), sigma_t = sqrtf(beta_bar_t);
    float x_coefficient = sqrtf(alpha_bar_prev / alpha_bar_t);
    float divisor = alpha_bar_t * sqrtf(1.0f - alpha_bar_prev) + sqrtf(alpha_bar_t * beta_bar_t * alpha_bar_prev);
    for (size_t i = 0; i < count; i++) {
        float e = combined(state->history, calls, model_output, i);
        if (pndm->noise.prediction_type == PREDICTION_V) e = alpha_t * e + sigma_t * sample[i];
        sample[i] = x_coefficient * sample[i] - (alpha_bar_prev - alpha_bar_t) * e / divisor;
    }
}

static const char *const fields[] = {"prediction_type", "timestep_spacing", "skip_prk_steps", NULL};

const struct scheduler_class pndm_class = {
    .name = "PNDMScheduler",
    .fields = fields,
    .configure = configure,
    .set_timesteps = set_timesteps,
    .scale_model_input = noise_schedule_keep_input,
    .step = step_sample,
    .predict_x_0 = noise_schedule_predict_at_timestep,
    .add_noise = noise_schedule_add_noise,
    .num_history = NUM_HISTORY,
};
