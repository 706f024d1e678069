/* DPMSolverMultistepScheduler: DPM-Solver++ of first to third order (Lu et al. 2022, "DPM-Solver++:
 * Fast Solver for Guided Sampling of Diffusion Probabilistic Models", algorithm 2), and its SDE
 * variant (their section 6).
 *
 *     lambda = log(alpha / sigma), h = lambda_t - lambda_s, r_0 = h_0 / h, r_1 = h_1 / h
 *     D_0 = x_0(s),  D_1 = (x_0(s) - x_0(s_1)) / r_0,  D_2 = 0                                            second order
 *     D_10 = (x_0(s) - x_0(s_1)) / r_0,  D_11 = (x_0(s_1) - x_0(s_2)) / r_1,                              third order
 *     D_2 = (D_10 - D_11) / (r_0 + r_1),  D_1 = D_10 + r_0 D_2
 *     phi_1 = e^-h - 1,  phi_2 = phi_1 / h + 1,  phi_3 = (phi_1 + h) / h^2 - 1/2                          SDE: 2h in place of h
 *     ODE  x_t = sigma_t/sigma_s x - alpha_t (phi_1 D_0 - phi_2 D_1 + phi_3 D_2)                          equation 9 and algorithm 2
 *     SDE  x_t = sigma_t/sigma_s e^-h x - alpha_t (phi_1 D_0 - phi_2 D_1 + phi_3 D_2) + sigma_t sqrt(-phi_1) noise
 *
 * At second order "midpoint" has half of D_0's factor before D_1, "heun" phi_2. The first steps are
 * of lower order, and so are the last where diffusers 0.42.1 makes them so; its SDE has + 1/2 in
 * phi_3. Left out, and refused: the noise-predicting algorithms, a clipped lambda, predicted
 * variances, dynamic thresholding. */
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
    int order;
    bool heun, sde;
    bool lower_order_final, euler_at_final;
};

static tessera_status configure_solver(struct dpm_solver *solver, const struct json *json, tessera_error *error) {
    int64_t order;
    int algorithm, type;
    TRY(noise_schedule_choice(json, "algorithm_type", algorithm_names, 0, &algorithm, error));
    TRY(noise_schedule_choice(json, "solver_type", solver_names, 0, &type, error));
    TRY(json_int(json, "solver_order", 2, 1, 3, &order, error));
    TRY(json_bool(json, "lower_order_final", true, &solver->lower_order_final, error));
    TRY(json_bool(json, "euler_at_final", false, &solver->euler_at_final, error));
    solver->order = (int)order;
    solver->sde = strcmp(algorithm_names[algorithm], "sde-dpmsolver++") == 0;
    solver->heun = strcmp(solver_names[type], "heun") == 0;
    return TESSERA_OK;
}

/* A variance that the model learned would be half of its output; pipelines leave it out before a
 * sampler sees it. */
static tessera_status refuse_learned_variance(const struct json *json, tessera_error *error) {
    const char *type = NULL;
    TRY(json_string(json, "variance_type", NULL, &type, error));
    if (type == NULL || strncmp(type, "learned", 7) != 0) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                     "%s: field variance_type is \"%s\", which this scheduler does not support; set it to null", json_path(json), type);
}

static tessera_status configure(struct scheduler *scheduler, const struct json *json, tessera_error *error) {
    static const struct noise_defaults defaults = {NOISE_DEFAULT_BETAS,         .timestep_spacing = SPACING_LINSPACE,
                                                   .keeps_finite_sigmas = true, .knows_flow = true,
                                                   .knows_lu = true};
    struct dpm_solver *solver = calloc(1, sizeof *solver);
    if (solver == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", json_path(json));
    scheduler->config = solver;
    TRY(noise_schedule_refuse_true(json, "thresholding", error));
    TRY(noise_schedule_refuse_true(json, "use_dynamic_shifting", error));
    TRY(noise_schedule_refuse_set(json, "lambda_min_clipped", error));
    TRY(refuse_learned_variance(json, error));
    TRY(noise_schedule_configure(scheduler, &solver->noise, json, &defaults, error));
    TRY(noise_schedule_configure_sigmas(scheduler, &solver->noise, json, &defaults, error));
    TRY(configure_solver(solver, json, error));
    scheduler->wants_noise = solver->sde;
    return TESSERA_OK;
}

static tessera_status set_timesteps(struct scheduler *scheduler, int num_steps, float mu, tessera_error *error) {
    const struct dpm_solver *solver = scheduler->config;
    bool rounds = solver->noise.beta_schedule != BETAS_SQUAREDCOS_CAP_V2;
    if (solver->noise.sigma_schedule == SIGMAS_FLOW) {
        noise_schedule_set_flow(scheduler, &solver->noise, num_steps, 1.0 - 1.0 / scheduler->num_train_timesteps, 0.0);
        return TESSERA_OK;
    }
    return noise_schedule_set_multistep(scheduler, &solver->noise, num_steps, rounds, error);
}

static int order_of(const struct scheduler *scheduler, const struct scheduler_state *state, int step) {
    const struct dpm_solver *solver = scheduler->config;
    int order = state->counter < solver->order ? state->counter + 1 : solver->order, left = scheduler->num_steps - step;
    bool lower = solver->lower_order_final && scheduler->num_steps < SHORT_SCHEDULE;
    if (left == 1 && (solver->euler_at_final || lower || !solver->noise.ends_at_sigma_min)) return 1;
    return left == 2 && lower && order > 2 ? 2 : order;
}

/* The factors of x, D_0, D_1, D_2 and noise. */
struct factors {
    float x, d_0, d_1, d_2, noise;
};

static struct factors step_factors(const struct scheduler *scheduler, float sigma_to, float sigma_from, int order) {
    const struct dpm_solver *solver = scheduler->config;
    float alpha_t, sigma_t, alpha_s, sigma_s;
    noise_schedule_from_sigma(&solver->noise, sigma_to, &alpha_t, &sigma_t);
    noise_schedule_from_sigma(&solver->noise, sigma_from, &alpha_s, &sigma_s);
    float h = noise_schedule_lambda(scheduler, &solver->noise, sigma_to) - noise_schedule_lambda(scheduler, &solver->noise, sigma_from);
    bool phi_2 = order == 3 || solver->heun;
    if (solver->sde) {
        float rest = 1.0f - scheduler->functions->expf(-2.0f * h), d_1 = 0.5f * (alpha_t * rest);
        if (phi_2) d_1 = alpha_t * (rest / (-2.0f * h) + 1.0f);
        float d_2 = alpha_t * ((rest - 2.0f * h) / (4.0f * h * h) - 0.5f);
        return (struct factors){sigma_t / sigma_s * scheduler->functions->expf(-h), alpha_t * rest, d_1, d_2, sigma_t * sqrtf(rest)};
    }
    float rest = scheduler->functions->expf(-h) - 1.0f, d_1 = -0.5f * (alpha_t * rest);
    if (phi_2) d_1 = alpha_t * (rest / h + 1.0f);
    return (struct factors){sigma_t / sigma_s, -alpha_t * rest, d_1, -alpha_t * ((rest + h) / (h * h) - 0.5f), 0.0f};
}

/* 1 / r_0 and 1 / r_1 of a step, as far as its order needs them. */
static void reciprocal_ratios(const struct scheduler *scheduler, int step, int order, float ratios[2]) {
    const struct dpm_solver *solver = scheduler->config;
    const float *sigmas = scheduler->sigmas + step;
    float h = noise_schedule_lambda(scheduler, &solver->noise, sigmas[1]) - noise_schedule_lambda(scheduler, &solver->noise, sigmas[0]);
    for (int i = 0; i + 1 < order; i++) {
        float h_i =
            noise_schedule_lambda(scheduler, &solver->noise, sigmas[-i]) - noise_schedule_lambda(scheduler, &solver->noise, sigmas[-i - 1]);
        ratios[i] = 1.0f / (h_i / h);
    }
}

static void step_sample(const struct scheduler *scheduler, struct scheduler_state *state, int step, float *sample,
                        const float *model_output, const float *noise, size_t count) {
    const struct dpm_solver *solver = scheduler->config;
    const float *sigmas = scheduler->sigmas;
    int order = order_of(scheduler, state, step);
    struct factors f = step_factors(scheduler, sigmas[step + 1], sigmas[step], order);
    float alpha_s, sigma_s, ratios[2] = {1.0f, 1.0f}, *last = state->history[0], *before = state->history[1];
    noise_schedule_from_sigma(&solver->noise, sigmas[step], &alpha_s, &sigma_s);
    reciprocal_ratios(scheduler, step, order, ratios);
    float r_0 = 1.0f / ratios[0], sum = 1.0f / (r_0 + 1.0f / ratios[1]);
    for (size_t i = 0; i < count; i++) {
        float x_0 = noise_schedule_x_0(&solver->noise, alpha_s, sigma_s, sample[i], model_output[i]);
        float x_t = f.x * sample[i] + f.d_0 * x_0, d_1 = ratios[0] * (x_0 - last[i]);
        if (order == 2) x_t += f.d_1 * d_1;
        if (order == 3) {
            float d_2 = sum * (d_1 - ratios[1] * (last[i] - before[i]));
            x_t += f.d_1 * (d_1 + r_0 * d_2) + f.d_2 * d_2;
        }
        sample[i] = solver->sde ? x_t + f.noise * noise[i] : x_t;
        before[i] = last[i];
        last[i] = x_0;
    }
}

static const char *const fields[] = {"prediction_type",        "timestep_spacing", "rescale_betas_zero_snr", "use_karras_sigmas",
                                     "use_exponential_sigmas", "use_beta_sigmas",  "use_lu_lambdas",         "use_flow_sigmas",
                                     "flow_shift",             "solver_order",     "final_sigmas_type",      "algorithm_type",
                                     "solver_type",            NULL};

const struct scheduler_class dpm_solver_multistep_class = {
    .name = "DPMSolverMultistepScheduler",
    .fields = fields,
    .configure = configure,
    .set_timesteps = set_timesteps,
    .scale_model_input = noise_schedule_keep_input,
    .step = step_sample,
    .predict_x_0 = noise_schedule_predict_preserving,
    .add_noise = noise_schedule_add_preserving,
    .num_history = 2,
};
