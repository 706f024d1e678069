/* UniPCMultistepScheduler: a predictor and a corrector that share the model's outputs (Zhao et al. 2023, "UniPC: A Unified
 * Predictor-Corrector Framework for Fast Sampling of Diffusion Models", algorithms 5 to 8 with data prediction, B_2(h) = e^h - 1).
 *
 *     lambda = log(alpha / sigma), hh = -(lambda_t - lambda_s), B = e^hh - 1, r_1 = (lambda_s1 - lambda_s) / h, D_1 = (m_1 - m_0) / r_1
 *     predictor  x_t   = sigma_t/sigma_s x - alpha_t B m_0 - alpha_t B  rho_p D_1                          rho_p = 1/2
 *     corrector  x_t^c = sigma_t/sigma_s x - alpha_t B m_0 - alpha_t B (rho_1 D_1 + rho_2 (m_t - m_0))
 *
 * m is the x_0 that the model predicted; the corrector redoes the last step once its end has been seen. rho_1 and rho_2 solve the two
 * equations of their theorem 3.1; at first order rho_2 = 1/2. As in diffusers 0.42.1, bh1 is refused (its last step is not a number),
 * as are order 3, noise prediction, solver_p, disable_corrector and dynamic thresholding. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "schedulers/classes.h"
#include "schedulers/noise_schedule.h"

/* diffusers takes other solvers' names for bh2. */
static const char *const solver_names[] = {"bh2", "midpoint", "heun", "logrho", NULL};

/* Buffers of scheduler_state. */
enum { M_0, M_1, M_NEW, LAST_SAMPLE, NUM_HISTORY };

struct unipc {
    struct noise_schedule noise;
    int solver_order;
    bool lower_order_final;
};

static tessera_status configure_solver(struct unipc *unipc, const struct json *json, tessera_error *error) {
    int64_t order, disabled;
    int solver, num_disabled;
    bool predict_x0;
    TRY(noise_schedule_choice(json, "solver_type", solver_names, 0, &solver, error));
    TRY(json_int(json, "solver_order", 2, 1, 1000, &order, error));
    if (order > 2) {
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: field solver_order is %d; this scheduler does 1 and 2", json_path(json),
                         (int)order);
    }
    TRY(json_bool(json, "predict_x0", true, &predict_x0, error));
    if (!predict_x0)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: field predict_x0 is false; this scheduler needs true", json_path(json));
    TRY(json_ints(json, "disable_corrector", 0, 1 << 24, &disabled, 1, &num_disabled, error));
    if (num_disabled > 0) {
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: field disable_corrector is not empty, which this scheduler needs",
                         json_path(json));
    }
    TRY(json_bool(json, "lower_order_final", true, &unipc->lower_order_final, error));
    if (!unipc->lower_order_final && order > 1 && !unipc->noise.ends_at_sigma_min) {
        return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                         "%s: field lower_order_final is false, where the last step to sigma 0 needs it; set it to true", json_path(json));
    }
    unipc->solver_order = (int)order;
    return TESSERA_OK;
}

static tessera_status configure(struct scheduler *scheduler, const struct json *json, tessera_error *error) {
    static const struct noise_defaults defaults = {
        NOISE_DEFAULT_BETAS, .timestep_spacing = SPACING_LINSPACE, .keeps_finite_sigmas = true, .knows_flow = true};
    struct unipc *unipc = calloc(1, sizeof *unipc);
    if (unipc == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", json_path(json));
    scheduler->config = unipc;
    TRY(noise_schedule_refuse_true(json, "thresholding", error));
    TRY(noise_schedule_refuse_true(json, "use_dynamic_shifting", error));
    TRY(noise_schedule_refuse_set(json, "solver_p", error));
    TRY(noise_schedule_refuse_set(json, "shift_terminal", error));
    TRY(noise_schedule_configure(scheduler, &unipc->noise, json, &defaults, error));
    TRY(noise_schedule_configure_sigmas(scheduler, &unipc->noise, json, &defaults, error));
    return configure_solver(unipc, json, error);
}

static tessera_status set_timesteps(struct scheduler *scheduler, int num_steps, float mu, tessera_error *error) {
    const struct unipc *unipc = scheduler->config;
    if (unipc->noise.sigma_schedule == SIGMAS_FLOW)
        noise_schedule_set_flow(scheduler, &unipc->noise, num_steps, 1.0, 1.0 / scheduler->num_train_timesteps);
    else
        TRY(noise_schedule_set_multistep(scheduler, &unipc->noise, num_steps, true, error));
    bool own_end = unipc->noise.ends_at_sigma_min && unipc->noise.sigma_schedule != SIGMAS_TRAINED;
    if (own_end) scheduler->sigmas[num_steps] = scheduler->sigmas[num_steps - 1];
    return TESSERA_OK;
}

/* The order of a step that `counter` steps came before. */
static int order_of(const struct scheduler *scheduler, int step, int counter) {
    const struct unipc *unipc = scheduler->config;
    int order = unipc->solver_order, left = scheduler->num_steps - step;
    if (unipc->lower_order_final && left < order) order = left;
    return counter + 1 < order ? counter + 1 : order;
}

/* What predictor and corrector share on the way from sigmas[from] to the next: the factors of x and m_0, and r_1 (order 2). */
struct update {
    float x, m_0, hh, r_1;
};

static struct update update_from(const struct scheduler *scheduler, int from, int order) {
    const struct noise_schedule *noise = scheduler->config;
    const float *sigmas = scheduler->sigmas;
    float alpha_t, sigma_t, alpha_s, sigma_s, lambda_s = noise_schedule_lambda(scheduler, noise, sigmas[from]);
    noise_schedule_from_sigma(noise, sigmas[from + 1], &alpha_t, &sigma_t);
    noise_schedule_from_sigma(noise, sigmas[from], &alpha_s, &sigma_s);
    float h = noise_schedule_lambda(scheduler, noise, sigmas[from + 1]) - lambda_s;
    float r_1 = order == 2 ? (noise_schedule_lambda(scheduler, noise, sigmas[from - 1]) - lambda_s) / h : 1.0f;
    return (struct update){sigma_t / sigma_s, -alpha_t * scheduler->functions->expm1f(-h), -h, r_1};
}

/* UniC: `sample` becomes the corrected one; m_t is what the model makes of the sample before correction. */
static void correct(const struct scheduler *scheduler, const struct scheduler_state *state, int step, float *sample, const float *m_t,
                    size_t count) {
    int order = order_of(scheduler, step - 1, state->counter - 1);
    const float *m_0 = state->history[M_0], *m_1 = state->history[M_1], *x = state->history[LAST_SAMPLE];
    struct update u = update_from(scheduler, step - 1, order);
    float rho_1 = 0.0f, rho_2 = 0.5f;
    if (order == 2) {
        float growth = scheduler->functions->expm1f(u.hh), phi_2 = growth / u.hh - 1.0f, phi_3 = phi_2 / u.hh - 0.5f;
        float b_1 = phi_2 / growth, b_2 = phi_3 * 2.0f / growth;
        rho_1 = (b_1 - b_2) / (1.0f - u.r_1); /* rho_1 + rho_2 = b_1, r_1 rho_1 + rho_2 = b_2 */
        rho_2 = b_1 - rho_1;
    }
    for (size_t i = 0; i < count; i++) {
        float correction = rho_2 * (m_t[i] - m_0[i]);
        if (order == 2) correction += rho_1 * ((m_1[i] - m_0[i]) / u.r_1);
        sample[i] = u.x * x[i] + u.m_0 * m_0[i] + u.m_0 * correction;
    }
}

/* UniP. */
static void predict(const struct scheduler *scheduler, const struct scheduler_state *state, int step, float *sample, size_t count) {
    int order = order_of(scheduler, step, state->counter);
    const float *m_0 = state->history[M_0], *m_1 = state->history[M_1];
    struct update u = update_from(scheduler, step, order);
    for (size_t i = 0; i < count; i++) {
        float x_t = u.x * sample[i] + u.m_0 * m_0[i];
        sample[i] = order == 2 ? x_t + u.m_0 * (0.5f * ((m_1[i] - m_0[i]) / u.r_1)) : x_t;
    }
}

static void step_sample(const struct scheduler *scheduler, struct scheduler_state *state, int step, float *sample,
                        const float *model_output, const float *noise, size_t count) {
    const struct unipc *unipc = scheduler->config;
    float alpha_t, sigma_t, **history = state->history, *m_t = history[M_NEW];
    noise_schedule_from_sigma(&unipc->noise, scheduler->sigmas[step], &alpha_t, &sigma_t);
    for (size_t i = 0; i < count; i++) m_t[i] = noise_schedule_x_0(&unipc->noise, alpha_t, sigma_t, sample[i], model_output[i]);
    if (state->counter > 0) correct(scheduler, state, step, sample, m_t, count);
    history[M_NEW] = history[M_1];
    history[M_1] = history[M_0];
    history[M_0] = m_t;
    memcpy(history[LAST_SAMPLE], sample, count * sizeof *sample);
    predict(scheduler, state, step, sample, count);
}

static const char *const fields[] = {"prediction_type",        "timestep_spacing", "rescale_betas_zero_snr", "use_karras_sigmas",
                                     "use_exponential_sigmas", "use_beta_sigmas",  "use_flow_sigmas",        "flow_shift",
                                     "final_sigmas_type",      NULL};

const struct scheduler_class unipc_multistep_class = {
    .name = "UniPCMultistepScheduler",
    .fields = fields,
    .configure = configure,
    .set_timesteps = set_timesteps,
    .scale_model_input = noise_schedule_keep_input,
    .step = step_sample,
    .add_noise = noise_schedule_add_preserving,
    .num_history = NUM_HISTORY,
};
