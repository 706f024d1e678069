/* FlowMatchEulerDiscreteScheduler: Euler steps along a rectified flow (Esser et al. 2024, "Scaling
 * Rectified Flow Transformers").
 *
 *     z_t = (1 - sigma) x_0 + sigma noise          the model predicts dz/dsigma = noise - x_0
 *     z_{i+1} = z_i + (sigma_{i+1} - sigma_i) v
 *
 * The schedule is a line of sigmas, shifted towards noise: by `shift` (their equation 23), or by
 * mu, which grows with the number of picture tokens (dynamic shifting); then, if the configuration
 * says so, stretched to end at shift_terminal and laid out anew (Karras et al. 2022, equation 5, or
 * geometrically). After diffusers 0.42.1, whose static schedule is shifted twice: its ends once
 * when it is built, and every sigma when steps are set. Left out, and refused: invert_sigmas,
 * stochastic_sampling. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "schedulers/classes.h"
#include "schedulers/noise_schedule.h"

enum spacing { SPACING_SHIFTED, SPACING_KARRAS, SPACING_EXPONENTIAL, SPACING_BETA };

struct flow_match_euler {
    double shift, shift_terminal; /* shift_terminal 0: none */
    double base_shift, max_shift;
    int64_t base_image_seq_len, max_image_seq_len;
    bool dynamic, linear_time_shift;
    enum spacing spacing;
};

static tessera_status refuse(const struct json *json, const char *field, tessera_error *error) {
    bool set;
    TRY(json_bool(json, field, false, &set, error));
    if (!set) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: field %s is true, which this scheduler does not support; set it to false",
                     json_path(json), field);
}

static tessera_status configure_spacing(struct flow_match_euler *flow, const struct json *json, tessera_error *error) {
    bool karras, exponential, beta;
    TRY(json_bool(json, "use_karras_sigmas", false, &karras, error));
    TRY(json_bool(json, "use_exponential_sigmas", false, &exponential, error));
    TRY(json_bool(json, "use_beta_sigmas", false, &beta, error));
    if (karras + exponential + beta > 1) {
        return error_set(error, TESSERA_ERROR_FORMAT,
                         "%s: fields use_karras_sigmas, use_exponential_sigmas and use_beta_sigmas exclude each other; set one to true",
                         json_path(json));
    }
    flow->spacing = karras ? SPACING_KARRAS : exponential ? SPACING_EXPONENTIAL : beta ? SPACING_BETA : SPACING_SHIFTED;
    return TESSERA_OK;
}

static tessera_status configure_dynamic(struct flow_match_euler *flow, const struct json *json, tessera_error *error) {
    const char *type;
    TRY(json_bool(json, "use_dynamic_shifting", false, &flow->dynamic, error));
    TRY(json_string(json, "time_shift_type", "exponential", &type, error));
    flow->linear_time_shift = strcmp(type, "linear") == 0;
    if (!flow->linear_time_shift && strcmp(type, "exponential") != 0) {
        return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: field time_shift_type is \"%s\"; it must be exponential or linear",
                         json_path(json), type);
    }
    TRY(json_double(json, "base_shift", 0.5, &flow->base_shift, error));
    TRY(json_double(json, "max_shift", 1.15, &flow->max_shift, error));
    TRY(json_int(json, "base_image_seq_len", 256, 1, 1 << 24, &flow->base_image_seq_len, error));
    TRY(json_int(json, "max_image_seq_len", 4096, 1, 1 << 24, &flow->max_image_seq_len, error));
    if (flow->dynamic && flow->base_image_seq_len == flow->max_image_seq_len) {
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: fields base_image_seq_len and max_image_seq_len must differ", json_path(json));
    }
    return TESSERA_OK;
}

static tessera_status configure(struct scheduler *scheduler, const struct json *json, tessera_error *error) {
    struct flow_match_euler *flow = calloc(1, sizeof *flow);
    if (flow == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", json_path(json));
    scheduler->config = flow;
    TRY(refuse(json, "invert_sigmas", error));
    TRY(refuse(json, "stochastic_sampling", error));
    TRY(json_double(json, "shift", 1.0, &flow->shift, error));
    TRY(json_double(json, "shift_terminal", 0.0, &flow->shift_terminal, error));
    if (!(flow->shift > 0.0 && flow->shift < 1e6)) {
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: field shift is %g; it must be positive", json_path(json), flow->shift);
    }
    if (!(flow->shift_terminal >= 0.0 && flow->shift_terminal < 1.0)) {
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: field shift_terminal is %g; it must be at least 0 and below 1", json_path(json),
                         flow->shift_terminal);
    }
    TRY(configure_spacing(flow, json, error));
    TRY(configure_dynamic(flow, json, error));
    scheduler->needs_mu = flow->dynamic;
    return TESSERA_OK;
}

/* Equation 23 of Esser et al. */
static double shifted(double shift, double sigma) {
    return shift * sigma / (1.0 + (shift - 1.0) * sigma);
}

static double time_shifted(const struct scheduler *scheduler, double mu, double sigma) {
    const struct flow_match_euler *flow = scheduler->config;
    double m = flow->linear_time_shift ? mu : scheduler->functions->exp(mu);
    return m / (m + (1.0 / sigma - 1.0));
}

/* Where the line of sigmas starts and ends before shifting. */
static void line_ends(const struct scheduler *scheduler, int num_steps, double *first, double *last) {
    const struct flow_match_euler *flow = scheduler->config;
    *first = 1.0;
    if (scheduler->sigmas_from_steps) {
        *last = 1.0 / num_steps;
        return;
    }
    *last = (double)(1.0f / (float)scheduler->num_train_timesteps);
    if (!flow->dynamic) *last = (double)(float)shifted(flow->shift, *last);
}

/* numpy.linspace(first, last, count)[i]; a single point is the first. */
static double line_at(double first, double last, int count, int i) {
    return count == 1 ? first : first + (last - first) * i / (count - 1);
}

/* 1 - (1 - sigma) / scale, so that the last one becomes shift_terminal. */
static tessera_status stretch_to_terminal(double *sigmas, int count, double shift_terminal, tessera_error *error) {
    double scale = (1.0 - sigmas[count - 1]) / (1.0 - shift_terminal);
    if (!(scale > 0.0)) {
        return error_set(error, TESSERA_ERROR_ARGUMENT, "num_inference_steps is %d; a scheduler with shift_terminal needs at least 2",
                         count);
    }
    for (int i = 0; i < count; i++) sigmas[i] = 1.0 - (1.0 - sigmas[i]) / scale;
    return TESSERA_OK;
}

static void respace(const struct elementary *f, double *sigmas, int count, enum spacing spacing) {
    const double rho = 7.0; /* Karras et al., section 3 */
    double first = sigmas[0], last = sigmas[count - 1];
    for (int i = 0; i < count; i++) {
        if (spacing == SPACING_KARRAS) sigmas[i] = f->pow(line_at(f->pow(first, 1.0 / rho), f->pow(last, 1.0 / rho), count, i), rho);
        if (spacing == SPACING_BETA) sigmas[i] = last + noise_schedule_beta_quantile(f, 1.0 - line_at(0.0, 1.0, count, i)) * (first - last);
        if (spacing == SPACING_EXPONENTIAL) sigmas[i] = f->exp(line_at(f->log(first), f->log(last), count, i));
    }
}

static tessera_status set_timesteps(struct scheduler *scheduler, int num_steps, float mu, tessera_error *error) {
    const struct flow_match_euler *flow = scheduler->config;
    if (flow->dynamic && !(isfinite(mu) && (mu > 0.0f || !flow->linear_time_shift))) {
        return error_set(error, TESSERA_ERROR_ARGUMENT, "mu is %g; dynamic shifting of this type needs a finite%s one", (double)mu,
                         flow->linear_time_shift ? ", positive" : "");
    }
    double *sigmas = calloc((size_t)num_steps, sizeof *sigmas);
    if (sigmas == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for %d steps", num_steps);
    double first, last;
    line_ends(scheduler, num_steps, &first, &last);
    for (int i = 0; i < num_steps; i++) {
        double sigma = line_at(first, last, num_steps, i);
        sigmas[i] = flow->dynamic ? time_shifted(scheduler, (double)mu, sigma) : shifted(flow->shift, sigma);
    }
    tessera_status status = TESSERA_OK;
    if (flow->shift_terminal > 0.0) status = stretch_to_terminal(sigmas, num_steps, flow->shift_terminal, error);
    if (status == TESSERA_OK) respace(scheduler->functions, sigmas, num_steps, flow->spacing);
    for (int i = 0; i < num_steps; i++) {
        scheduler->sigmas[i] = (float)sigmas[i];
        scheduler->timesteps[i] = scheduler->sigmas[i] * (float)scheduler->num_train_timesteps;
    }
    scheduler->sigmas[num_steps] = 0.0f;
    free(sigmas);
    return status;
}

static void scale_model_input(const struct scheduler *scheduler, int step, float *out, const float *sample, size_t count) {
    memmove(out, sample, count * sizeof *out);
}

static void step_sample(const struct scheduler *scheduler, struct scheduler_state *state, int step, float *sample,
                        const float *model_output, const float *noise, size_t count) {
    float dt = scheduler->sigmas[step + 1] - scheduler->sigmas[step];
    for (size_t i = 0; i < count; i++) sample[i] = sample[i] + dt * model_output[i];
}

static void predict_x_0(const struct scheduler *scheduler, int step, float *x_0, const float *sample, const float *model_output, size_t count) {
    float sigma = scheduler->sigmas[step];
    for (size_t i = 0; i < count; i++) x_0[i] = sample[i] - sigma * model_output[i];
}

/* diffusers' scale_noise. */
static void add_noise(const struct scheduler *scheduler, int step, float *out, const float *sample, const float *noise, size_t count) {
    float sigma = scheduler->sigmas[step];
    for (size_t i = 0; i < count; i++) out[i] = sigma * noise[i] + (1.0f - sigma) * sample[i];
}

static float mu_for_tokens(const struct scheduler *scheduler, int64_t tokens) {
    const struct flow_match_euler *flow = scheduler->config;
    if (!flow->dynamic) return 0.0f;
    double m = (flow->max_shift - flow->base_shift) / (double)(flow->max_image_seq_len - flow->base_image_seq_len);
    double b = flow->base_shift - m * (double)flow->base_image_seq_len;
    return (float)((double)tokens * m + b);
}

static const char *const fields[] = {"shift", "use_dynamic_shifting", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas",
                                     NULL};

const struct scheduler_class flow_match_euler_class = {
    .name = "FlowMatchEulerDiscreteScheduler",
    .fields = fields,
    .configure = configure,
    .set_timesteps = set_timesteps,
    .scale_model_input = scale_model_input,
    .step = step_sample,
    .predict_x_0 = predict_x_0,
    .add_noise = add_noise,
    .mu = mu_for_tokens,
    .flow_matching = true,
};
