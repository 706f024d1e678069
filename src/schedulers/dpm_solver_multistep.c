/* DPMSolverMultistepScheduler: DPM-Solver++ of first and second order (Lu et al. 2022, "DPM-Solver++: Fast Solver for Guided Sampling of
 * Diffusion Probabilistic Models", algorithm 2), and its SDE variant (their section 6).
 *
 *     lambda = log(alpha / sigma), h = lambda_t - lambda_s, r_0 = h_0 / h
 *     D_0 = x_0(s),  D_1 = (x_0(s) - x_0(s_1)) / r_0
 *     ODE  x_t = sigma_t/sigma_s x - alpha_t (e^-h - 1) (D_0 + D_1/2)                                      equation 9 and algorithm 2
 *     SDE  x_t = sigma_t/sigma_s e^-h x + alpha_t (1 - e^-2h) (D_0 + D_1/2) + sigma_t sqrt(1 - e^-2h) noise
 *
 * D_1/2 is the midpoint form; "heun" has another factor before D_1. The first step is of first order, and so is the last where
 * diffusers 0.42.1 makes it so. Left out, and refused: third order, the noise-predicting algorithms, lu and flow sigmas, a clipped
 * lambda, predicted variances, dynamic thresholding. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "schedulers/classes.h"
#include "schedulers/noise_schedule.h"

/* diffusers takes other solvers' names for its own, so that one configuration serves several classes. */
static const char *const algorithm_names[] = {"dpmsolver++", "deis", "sde-dpmsolver++", NULL};
static const char *const solver_names[] = {"midpoint", "logrho", "bh1", "bh2", "heun", NULL};

enum { SHORT_SCHEDULE = 15 }; /* lower_order_final matters for fewer steps than these */

struct dpm_solver {
    struct noise_schedule noise;
    bool second_order, heun, sde;
    bool lower_order_final, euler_at_final;
};

static tessera_status configure_solver(struct dpm_solver *solver, const struct json *json, tessera_error *error) {
    int64_t order;
    int algorithm, type;
    TRY(noise_schedule_choice(json, "algorithm_type", algorithm_names, 0, &algorithm, error));
    TRY(noise_schedule_choice(json, "solver_type", solver_names, 0, &type, error));
    TRY(json_int(json, "solver_order", 2, 1, 3, &order, error));
    if (order == 3)
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: field solver_order is 3; this scheduler does 1 and 2", json_path(json));
    TRY(json_bool(json, "lower_order_final", true, &solver->lower_order_final, error));
    TRY(json_bool(json, "euler_at_final", false, &solver->euler_at_final, error));
    solver->second_order = order == 2;
    solver->sde = strcmp(algorithm_names[algorithm], "sde-dpmsolver++") == 0;
    solver->heun = strcmp(solver_names[type], "heun") == 0;
    return TESSERA_OK;
}

/* A variance that the model learned would be half of its output; pipelines leave it out before a sampler sees it. */
static tessera_status refuse_learned_variance(const struct json *json, tessera_error *error) {
    const char *type = NULL;
    TRY(json_string(json, "variance_type", NULL, &type, error));
    if (type == NULL || strncmp(type, "learned", 7) != 0) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                     "%s: field variance_type is \"%s\", which this scheduler does not support; set it to null", json_path(json), type);
}

static tessera_status configure(struct scheduler *scheduler, const struct json *json, tessera_error *error) {
    static const struct noise_defaults defaults = {NOISE_DEFAULT_BETAS, .timestep_spacing = SPACING_LINSPACE, .keeps_finite_sigmas = true};
    struct dpm_solver *solver = calloc(1, sizeof *solver);
    if (solver == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", json_path(json));
    scheduler->config = solver;
    TRY(noise_schedule_refuse_true(json, "thresholding", error));
    TRY(noise_schedule_refuse_true(json, "use_lu_lambdas", error));
    TRY(noise_schedule_refuse_true(json, "use_dynamic_shifting", error));
    TRY(noise_schedule_refuse_set(json, "lambda_min_clipped", error));
    TRY(refuse_learned_variance(json, error));
    TRY(noise_schedule_configure(scheduler, &solver->noise, json, &defaults, error));
    TRY(noise_schedule_configure_sigmas(&solver->noise, json, error));
    TRY(configure_solver(solver, json, error));
    scheduler->wants_noise = solver->sde;
    return TESSERA_OK;
}

static tessera_status set_timesteps(struct scheduler *scheduler, int num_steps, float mu, tessera_error *error) {
    const struct dpm_solver *solver = scheduler->config;
    bool rounds = solver->noise.beta_schedule != BETAS_SQUAREDCOS_CAP_V2;
    return noise_schedule_set_multistep(scheduler, &solver->noise, num_steps, rounds, error);
}

static bool is_first_order(const struct scheduler *scheduler, const struct scheduler_state *state, int step) {
    const struct dpm_solver *solver = scheduler->config;
    if (!solver->second_order || state->counter == 0) return true;
    if (step != scheduler->num_steps - 1) return false;
    bool is_short = scheduler->num_steps < SHORT_SCHEDULE;
    return solver->euler_at_final || (solver->lower_order_final && is_short) || !solver->noise.ends_at_sigma_min;
}

/* The factors of x, D_0, D_1 and noise. */
struct factors {
    float x, d_0, d_1, noise;
};

static struct factors step_factors(const struct dpm_solver *solver, float sigma_to, float sigma_from) {
    float alpha_t, sigma_t, alpha_s, sigma_s;
    noise_schedule_from_sigma(sigma_to, &alpha_t, &sigma_t);
    noise_schedule_from_sigma(sigma_from, &alpha_s, &sigma_s);
    float h = noise_schedule_lambda(sigma_to) - noise_schedule_lambda(sigma_from);
    if (solver->sde) {
        float rest = 1.0f - expf(-2.0f * h), d_1 = 0.5f * (alpha_t * rest);
        if (solver->heun) d_1 = alpha_t * (rest / (-2.0f * h) + 1.0f);
        return (struct factors){sigma_t / sigma_s * expf(-h), alpha_t * rest, d_1, sigma_t * sqrtf(rest)};
    }
    float rest = expf(-h) - 1.0f, d_1 = -0.5f * (alpha_t * rest);
    if (solver->heun) d_1 = alpha_t * (rest / h + 1.0f);
    return (struct factors){sigma_t / sigma_s, -alpha_t * rest, d_1, 0.0f};
}

static void step_sample(const struct scheduler *scheduler, struct scheduler_state *state, int step, float *sample,
                        const float *model_output, const float *noise, size_t count) {
    const struct dpm_solver *solver = scheduler->config;
    const float *sigmas = scheduler->sigmas;
    bool first_order = is_first_order(scheduler, state, step);
    struct factors f = step_factors(solver, sigmas[step + 1], sigmas[step]);
    float alpha_s, sigma_s, reciprocal_r_0 = 0.0f, *last_x_0 = state->history[0];
    noise_schedule_from_sigma(sigmas[step], &alpha_s, &sigma_s);
    if (!first_order) {
        float lambda_s = noise_schedule_lambda(sigmas[step]), h = noise_schedule_lambda(sigmas[step + 1]) - lambda_s;
        reciprocal_r_0 = 1.0f / ((lambda_s - noise_schedule_lambda(sigmas[step - 1])) / h);
    }
    for (size_t i = 0; i < count; i++) {
        float x_0 = noise_schedule_x_0(&solver->noise, alpha_s, sigma_s, sample[i], model_output[i]);
        float x_t = f.x * sample[i] + f.d_0 * x_0;
        if (!first_order) x_t += f.d_1 * (reciprocal_r_0 * (x_0 - last_x_0[i]));
        sample[i] = solver->sde ? x_t + f.noise * noise[i] : x_t;
        last_x_0[i] = x_0;
    }
}

static const char *const fields[] = {"prediction_type",        "timestep_spacing", "rescale_betas_zero_snr", "use_karras_sigmas",
                                     "use_exponential_sigmas", "use_beta_sigmas",  "final_sigmas_type",      NULL};

const struct scheduler_class dpm_solver_multistep_class = {
    .name = "DPMSolverMultistepScheduler",
    .fields = fields,
    .configure = configure,
    .set_timesteps = set_timesteps,
    .scale_model_input = noise_schedule_keep_input,
    .step = step_sample,
    .add_noise = noise_schedule_add_preserving,
    .num_history = 1,
};
