/* UniPCMultistepScheduler: a predictor and a corrector that share the model's outputs (Zhao et al.
 * 2023, "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models",
 * algorithms 5 to 8), of first to third order.
 *
 *     lambda = log(alpha / sigma), h = lambda_t - lambda_s, hh = -h, B = e^hh - 1 (bh2) or hh (bh1)
 *     r_i = (lambda_si - lambda_s) / h,  D_i = (m_i - m_0) / r_i  for the points before s;  r_t = 1, D_t = m_t - m_0
 *     predictor  x_t   = sigma_t/sigma_s x - alpha_t (e^hh - 1) m_0 - alpha_t B  sum of rho_i D_i
 *     corrector  x_t^c = the same with rho_t D_t in the sum
 *
 * m is the x_0 that the model predicted; the corrector redoes the last step once its end has been
 * seen. The weights rho solve the equations of their theorem 3.1, one more for the corrector: sum
 * of rho_i r_i^(k-1) = b_k, b_k = k! phi_(k+1)(hh) / (B / hh). A lone weight is 1/2. With
 * predict_x0 false m is the noise, alpha and sigma change places, and hh = h.
 *
 * As diffusers 0.42.1, but for bh1's last step to sigma 0, where diffusers has no number: at first
 * order B does not matter. Left out, and refused: orders above 3, solver_p and dynamic
 * thresholding; and a step to sigma 0 that would divide by it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "schedulers/classes.h"
#include "schedulers/noise_schedule.h"

/* diffusers takes other solvers' names for bh2. */
static const char *const solver_names[] = {"bh2", "midpoint", "heun", "logrho", "bh1", NULL};
enum { SOLVER_BH1 = 4 };

enum { MAX_ORDER = 3, MAX_UNCORRECTED = 64 };

/* Buffers of scheduler_state: the model's outputs, M_0 the newest. */
enum { M_0, M_1, M_2, M_NEW, LAST_SAMPLE, NUM_HISTORY };

struct unipc {
    struct noise_schedule noise;
    int solver_order;
    bool bh1;
    bool predicts_noise;
    bool lower_order_final;
    int64_t uncorrected[MAX_UNCORRECTED]; /* disable_corrector: the steps that are not redone */
    int num_uncorrected;
};

/* What a step of length 0 or infinity would make no number of. */
static tessera_status check_last_step(const struct unipc *unipc, const struct json *json, tessera_error *error) {
    bool to_zero = !unipc->noise.ends_at_sigma_min, stands = !to_zero && unipc->noise.sigma_schedule != SIGMAS_TRAINED;
    if (to_zero && unipc->predicts_noise) {
        return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                         "%s: field predict_x0 is false, with which no step can end at sigma 0; set it to true, or final_sigmas_type to "
                         "\"sigma_min\"",
                         json_path(json));
    }
    if (unipc->lower_order_final || unipc->solver_order == 1 || !(to_zero || (stands && unipc->solver_order == MAX_ORDER))) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                     "%s: field lower_order_final is false, where the last step to sigma %s needs it; set it to true", json_path(json),
                     to_zero ? "0" : "sigma_min");
}

static tessera_status configure_solver(struct unipc *unipc, const struct json *json, tessera_error *error) {
    int64_t order;
    int solver;
    bool predict_x0;
    TRY(noise_schedule_choice(json, "solver_type", solver_names, 0, &solver, error));
    TRY(json_int(json, "solver_order", 2, 1, 1000, &order, error));
    if (order > MAX_ORDER) {
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: field solver_order is %d; this scheduler does 1, 2 and 3", json_path(json),
                         (int)order);
    }
    TRY(json_bool(json, "predict_x0", true, &predict_x0, error));
    TRY(json_ints(json, "disable_corrector", 0, 1 << 24, unipc->uncorrected, MAX_UNCORRECTED, &unipc->num_uncorrected, error));
    TRY(json_bool(json, "lower_order_final", true, &unipc->lower_order_final, error));
    unipc->solver_order = (int)order;
    unipc->bh1 = solver == SOLVER_BH1;
    unipc->predicts_noise = !predict_x0;
    if (unipc->predicts_noise && unipc->noise.prediction_type == PREDICTION_FLOW) {
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: field predict_x0 is false, which flow_prediction excludes; set it to true",
                         json_path(json));
    }
    return check_last_step(unipc, json, error);
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

/* One way from sigmas[from] to the next: the factors of x, m_0 and the sum, and what is in the sum. */
struct update {
    float x, m_0, sum;
    int num_points;           /* points before s in the sum */
    float ratios[MAX_ORDER];  /* r_i; the corrector's r_t after them */
    float weights[MAX_ORDER]; /* rho */
};

/* Gauss's elimination in place; b becomes the solution. The matrix is Vandermonde's, of different
 * ratios: no pivot is 0. */
static void solve(float matrix[MAX_ORDER][MAX_ORDER], float *b, int count) {
    for (int k = 0; k < count; k++) {
        for (int i = k + 1; i < count; i++) {
            float factor = matrix[i][k] / matrix[k][k];
            for (int j = k; j < count; j++) matrix[i][j] -= factor * matrix[k][j];
            b[i] -= factor * b[k];
        }
    }
    for (int k = count - 1; k >= 0; k--) {
        for (int j = k + 1; j < count; j++) b[k] -= matrix[k][j] * b[j];
        b[k] /= matrix[k][k];
    }
}

/* rho of `count` points at the ratios: theorem 3.1's equations. */
static void fill_weights(struct update *u, int count, float hh, float growth, float b_h) {
    float matrix[MAX_ORDER][MAX_ORDER], phi = growth / hh - 1.0f, factorial = 1.0f;
    for (int k = 0; k < count; k++) {
        for (int i = 0; i < count; i++) matrix[k][i] = k == 0 ? 1.0f : matrix[k - 1][i] * u->ratios[i];
        u->weights[k] = phi * factorial / b_h;
        factorial *= (float)(k + 2);
        phi = phi / hh - 1.0f / factorial;
    }
    solve(matrix, u->weights, count);
}

static struct update update_from(const struct scheduler *scheduler, int from, int order, bool corrects) {
    const struct unipc *unipc = scheduler->config;
    const struct noise_schedule *noise = &unipc->noise;
    const float *sigmas = scheduler->sigmas;
    float alpha_t, sigma_t, alpha_s, sigma_s, lambda_s = noise_schedule_lambda(scheduler, noise, sigmas[from]);
    noise_schedule_from_sigma(noise, sigmas[from + 1], &alpha_t, &sigma_t);
    noise_schedule_from_sigma(noise, sigmas[from], &alpha_s, &sigma_s);
    float h = noise_schedule_lambda(scheduler, noise, sigmas[from + 1]) - lambda_s, hh = unipc->predicts_noise ? h : -h;
    float growth = scheduler->functions->expm1f(hh), b_h = unipc->bh1 ? hh : growth, scale = unipc->predicts_noise ? sigma_t : alpha_t;
    struct update u = {.x = unipc->predicts_noise ? alpha_t / alpha_s : sigma_t / sigma_s,
                       .m_0 = -scale * growth,
                       .sum = -scale * b_h,
                       .num_points = order - 1,
                       .weights = {0.5f}};
    for (int i = 0; i < u.num_points; i++) u.ratios[i] = (noise_schedule_lambda(scheduler, noise, sigmas[from - 1 - i]) - lambda_s) / h;
    u.ratios[u.num_points] = 1.0f;
    int count = u.num_points + corrects;
    if (count > 1) fill_weights(&u, count, hh, growth, b_h);
    return u;
}

/* The sample from the one at s; m_t, the corrector's, may be NULL. */
static void apply(const struct update *u, const struct scheduler_state *state, const float *x, const float *m_t, float *sample, size_t count) {
    const float *m_0 = state->history[M_0];
    for (size_t i = 0; i < count; i++) {
        float sum = 0.0f;
        for (int k = 0; k < u->num_points; k++) sum += u->weights[k] * ((state->history[M_1 + k][i] - m_0[i]) / u->ratios[k]);
        if (m_t != NULL) sum += u->weights[u->num_points] * (m_t[i] - m_0[i]);
        float x_t = u->x * x[i] + u->m_0 * m_0[i];
        sample[i] = u->num_points > 0 || m_t != NULL ? x_t + u->sum * sum : x_t; /* bh1's factor of nothing may be infinite */
    }
}

static bool is_corrected(const struct unipc *unipc, int step) {
    for (int i = 0; i < unipc->num_uncorrected; i++)
        if (unipc->uncorrected[i] == step) return false;
    return true;
}

/* m of the sample before correction. */
static void convert(const struct scheduler *scheduler, int step, const float *sample, const float *model_output, float *m, size_t count) {
    const struct unipc *unipc = scheduler->config;
    enum prediction_type type = unipc->noise.prediction_type;
    float alpha_t, sigma_t;
    noise_schedule_from_sigma(&unipc->noise, scheduler->sigmas[step], &alpha_t, &sigma_t);
    for (size_t i = 0; i < count; i++) {
        float x_t = sample[i], output = model_output[i];
        if (!unipc->predicts_noise)
            m[i] = noise_schedule_x_0(&unipc->noise, alpha_t, sigma_t, x_t, output);
        else if (type == PREDICTION_SAMPLE)
            m[i] = (x_t - alpha_t * output) / sigma_t;
        else
            m[i] = type == PREDICTION_V ? alpha_t * output + sigma_t * x_t : output;
    }
}

static void step_sample(const struct scheduler *scheduler, struct scheduler_state *state, int step, float *sample,
                        const float *model_output, const float *noise, size_t count) {
    float **history = state->history, *m_t = history[M_NEW];
    convert(scheduler, step, sample, model_output, m_t, count);
    if (state->counter > 0 && is_corrected(scheduler->config, step - 1)) {
        struct update u = update_from(scheduler, step - 1, order_of(scheduler, step - 1, state->counter - 1), true);
        apply(&u, state, history[LAST_SAMPLE], m_t, sample, count);
    }
    history[M_NEW] = history[M_2];
    history[M_2] = history[M_1];
    history[M_1] = history[M_0];
    history[M_0] = m_t;
    memcpy(history[LAST_SAMPLE], sample, count * sizeof *sample);
    struct update u = update_from(scheduler, step, order_of(scheduler, step, state->counter), false);
    apply(&u, state, sample, NULL, sample, count);
}

static const char *const fields[] = {"prediction_type",        "timestep_spacing", "rescale_betas_zero_snr", "use_karras_sigmas",
                                     "use_exponential_sigmas", "use_beta_sigmas",  "use_flow_sigmas",        "flow_shift",
                                     "solver_order",           "final_sigmas_type", NULL};

const struct scheduler_class unipc_multistep_class = {
    .name = "UniPCMultistepScheduler",
    .fields = fields,
    .configure = configure,
    .set_timesteps = set_timesteps,
    .scale_model_input = noise_schedule_keep_input,
    .step = step_sample,
    .predict_x_0 = noise_schedule_predict_preserving,
    .add_noise = noise_schedule_add_preserving,
    .num_history = NUM_HISTORY,
};
