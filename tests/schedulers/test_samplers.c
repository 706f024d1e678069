/* Every sampler against diffusers 0.42.1: the schedule, the scaled model inputs and each sample on
 * the way (cases scheduler_*), the x_0 that each output predicts, and the words with which
 * configurations that we lack are refused. */
#include <unistd.h>

#include "case_io.h"
#include "check.h"
#include "schedulers/scheduler.h"

static const char *const case_names[] = {
    "ddim_10",
    "ddim_25",
    "ddim_v_trailing_zsnr_10",
    "ddim_v_trailing_zsnr_25",
    "ddpm_leading_10",
    "ddpm_leading_25",
    "dpmpp_2m_10",
    "dpmpp_2m_25",
    "dpmpp_2m_karras_10",
    "dpmpp_2m_karras_25",
    "dpmpp_2m_sde_10",
    "dpmpp_2m_sde_25",
    "euler_10",
    "euler_25",
    "euler_ancestral_10",
    "euler_ancestral_25",
    "euler_karras_v_10",
    "euler_karras_v_25",
    "flow_euler_10",
    "flow_euler_25",
    "flow_euler_dynamic_10",
    "flow_euler_dynamic_25",
    "lcm_10",
    "lcm_25",
    "pndm_10",
    "pndm_25",
    "unipc_10",
    "unipc_25",
    "euler_beta_10",
    "euler_exponential_10",
    "euler_sigma_min_10",
    "euler_turbo_1",
    "euler_v_zsnr_10",
    "dpmpp_2m_beta_10",
    "dpmpp_2m_exponential_10",
    "dpmpp_2m_sigma_min_10",
    "unipc_beta_10",
    "unipc_karras_10",
    "flow_euler_beta_10",
    "flow_euler_karras_10",
    "flow_euler_exponential_10",
    "ddim_eta_10",
    "ddim_sample_10",
    "dpmpp_2m_heun_10",
    "dpmpp_2m_sde_heun_10",
    "dpmpp_2m_lu_10",
    "dpmpp_2m_flow_10",
    "dpmpp_2m_zsnr_10",
    "dpmpp_3m_10",
    "dpmpp_3m_sde_25",
    "dpmpp_3m_sigma_min_10",
    "unipc_flow_10",
    "unipc_3m_10",
    "unipc_3m_flow_25",
    "unipc_3m_bh1_10",
    "unipc_bh1_10",
    "unipc_3m_uncorrected_10",
    "unipc_3m_noise_10",
    "unipc_noise_v_10",
    "unipc_noise_sample_10",
    "pndm_v_10",
    "lcm_timestep_scaling_10",
    "flow_euler_terminal_10",
    "flow_euler_linear_10",
    "ddim_bare_10",
    "ddpm_bare_10",
    "pndm_bare_10",
    "euler_bare_10",
    "euler_ancestral_bare_10",
    "dpmpp_2m_bare_10",
    "unipc_bare_10",
    "lcm_bare_10",
    "flow_euler_bare_10",
};

/* The largest difference in units of the case's tolerance; infinite where something is no number. */
static double worst(const struct case_io *c, const float *got, const float *want, int64_t count) {
    double largest = 0.0;
    for (int64_t i = 0; i < count; i++) {
        double difference = fabs((double)got[i] - (double)want[i]) / (c->atol + c->rtol * fabs((double)want[i]));
        if (!(difference <= largest)) largest = isfinite(difference) ? difference : INFINITY;
    }
    return largest;
}

static void check_steps(const char *name, const struct case_io *c, struct scheduler *s, const float *outputs, const float *want) {
    struct tensor sample = case_tensor(c, "in.sample"), noises = case_tensor(c, "in.noises"), inputs = case_tensor(c, "mid.model_inputs");
    int64_t count = tensor_count(&sample);
    double step_worst = 0.0, input_worst = 0.0;
    float *x = case_floats(&sample), *input = case_floats(&sample);
    struct scheduler_state state;
    tessera_error error;
    CHECK(scheduler_state_init(s, (size_t)count, &state, &error) == TESSERA_OK, "%s: %s", name, error.message);
    CHECK((noises.data != NULL) == s->wants_noise, "%s: wants_noise is %d", name, s->wants_noise);
    for (int i = 0; i < s->num_steps && (noises.data != NULL) == s->wants_noise; i++) {
        s->class->scale_model_input(s, i, input, x, (size_t)count);
        if (inputs.data != NULL) input_worst = fmax(input_worst, worst(c, input, (const float *)inputs.data + i * count, count));
        scheduler_step(s, &state, i, x, outputs + i * count, noises.data == NULL ? NULL : (const float *)noises.data + i * count,
                       (size_t)count);
        step_worst = fmax(step_worst, worst(c, x, want + i * count, count));
    }
    CHECK(step_worst <= 1.0, "%s: samples differ by %g times the tolerance", name, step_worst);
    CHECK(input_worst <= 1.0, "%s: model inputs differ by %g times the tolerance", name, input_worst);
    printf("%-28s samples %.4f of the tolerance, model inputs %.4f\n", name, step_worst, input_worst);
    scheduler_state_free(&state);
    free(x);
    free(input);
}

/* alpha_t and sigma_t of a step: x_t = alpha_t x_0 + sigma_t epsilon. `sigmas` are the case's own,
 * or NULL where it counts in alpha_bar. */
static void noise_level(const struct scheduler *s, const float *sigmas, int step, bool flow, double *alpha_t, double *sigma_t) {
    double sigma = sigmas != NULL ? (double)sigmas[step] : 0.0, alpha_bar = 1.0 / (1.0 + sigma * sigma);
    if (sigmas == NULL) alpha_bar = (double)s->alpha_bar[(int)s->timesteps[step]];
    *alpha_t = flow ? 1.0 - sigma : sqrt(alpha_bar);
    *sigma_t = flow ? sigma : sqrt(1.0 - alpha_bar);
}

/* x_0 by the definition of what the model predicts (Salimans and Ho 2022, section 4; Liu et al.
 * 2022). */
static double defined_x_0(const char *type, double alpha_t, double sigma_t, double x_t, double output) {
    if (strcmp(type, "epsilon") == 0) return (x_t - sigma_t * output) / alpha_t;
    if (strcmp(type, "v_prediction") == 0) return alpha_t * x_t - sigma_t * output;
    return strcmp(type, "sample") == 0 ? output : x_t - sigma_t * output; /* else the velocity of a flow */
}

/* Each step's x_0 is that of the case's own sample and output; where the schedule ends without
 * noise, the last one is the last sample. */
static void check_x_0(const char *name, const struct case_io *c, struct scheduler *s, const char *config, const float *sigmas, const float *outputs,
                      const float *want) {
    struct json *json = NULL;
    tessera_error error = {0};
    const char *type = "", *class = s->class->name;
    bool flow = s->flow_matching, clips = false;
    if (scheduler_read_config(config, &json, &error) == TESSERA_OK) json_string(json, "prediction_type", "epsilon", &type, &error);
    json_bool(json, "use_flow_sigmas", flow, &flow, &error);
    double range = 1.0;
    if (strncmp(class, "DDIM", 4) == 0 || strncmp(class, "DDPM", 4) == 0) json_bool(json, "clip_sample", true, &clips, &error);
    json_double(json, "clip_sample_range", 1.0, &range, &error);
    struct tensor first = case_tensor(c, "in.sample");
    int64_t count = tensor_count(&first);
    float *x_0 = case_floats(&first);
    bool grows = strncmp(class, "Euler", 5) == 0; /* samples have variance sigma^2 + 1 */
    double most = 0;
    for (int i = 0; i < s->num_steps; i++) {
        const float *x = i == 0 ? first.data : want + (i - 1) * count, *output = outputs + i * count;
        double alpha_t, sigma_t;
        noise_level(s, sigmas, i, flow, &alpha_t, &sigma_t);
        scheduler_predict_x_0(s, i, x_0, x, output, (size_t)count);
        for (int64_t j = 0; j < count; j++) {
            double x_t = grows ? (double)x[j] * alpha_t : (double)x[j];
            double wanted = defined_x_0(s->flow_matching ? "flow" : type, alpha_t, sigma_t, x_t, (double)output[j]);
            if (clips) wanted = fmin(fmax(wanted, -range), range);
            double scale = strcmp(type, "epsilon") == 0 && !s->flow_matching ? alpha_t : 1.0; /* what is divided by alpha_t is as much less exact */
            double off = scale * fabs((double)x_0[j] - wanted) / (c->atol + c->rtol * fabs(scale * wanted));
            if (!(off <= most)) most = isfinite(off) ? off : INFINITY;
        }
    }
    CHECK(most <= 1.0, "%s: x_0 differs by %g times the tolerance", name, most);
    if (sigmas != NULL && sigmas[s->num_steps] == 0.0f)
        CHECK(worst(c, x_0, want + (s->num_steps - 1) * count, count) <= 1.0, "%s: the last x_0 is another than the last sample", name);
    free(x_0);
    json_free(json);
}

static void check_case(const char *name) {
    char folder[256], config[300];
    struct case_io c;
    struct scheduler *s = NULL;
    tessera_error error = {0};
    int64_t steps = 0;
    double mu = 0.0;
    snprintf(folder, sizeof folder, "tests/cases/scheduler_%s", name);
    snprintf(config, sizeof config, "%s/scheduler_config.json", folder);
    CHECK(case_open(folder, &c, &error) == TESSERA_OK, "%s: %s", name, error.message);
    if (c.json == NULL) return;
    tessera_status status = json_int(c.json, "steps", 0, 1, 1000, &steps, &error);
    if (status == TESSERA_OK) status = json_double(c.json, "mu", 0.0, &mu, &error);
    if (status == TESSERA_OK) status = scheduler_open(config, NULL, &s, &error);
    if (status == TESSERA_OK) {
        s->sigmas_from_steps = json_find(c.json, "mu") != NULL; /* these cases pass Flux's line of sigmas */
        status = scheduler_set_timesteps(s, (int)steps, (float)mu, &error);
    }
    CHECK(status == TESSERA_OK, "%s: %s", name, error.message);
    struct tensor timesteps = case_tensor(&c, "out.timesteps"), sigmas = case_tensor(&c, "mid.sigmas");
    struct tensor outputs = case_tensor(&c, "in.model_outputs"), want = case_tensor(&c, "out.samples");
    bool complete = status == TESSERA_OK && timesteps.data != NULL && outputs.data != NULL && want.data != NULL;
    bool fits = complete && s->num_steps == tensor_count(&timesteps);
    CHECK(fits, "%s: %d steps", name, status == TESSERA_OK ? s->num_steps : -1);
    if (fits) {
        CHECK(worst(&c, s->timesteps, timesteps.data, s->num_steps) <= 0.1, "%s: timesteps", name);
        CHECK(sigmas.data == NULL || worst(&c, s->sigmas, sigmas.data, s->num_steps + 1) <= 0.1, "%s: sigmas", name);
        check_steps(name, &c, s, outputs.data, want.data);
        check_x_0(name, &c, s, config, sigmas.data, outputs.data, want.data);
    }
    scheduler_free(s);
    case_close(&c);
}

static tessera_status open_text(const char *text, struct scheduler **out, tessera_error *error) {
    char path[96];
    snprintf(path, sizeof path, "/tmp/%d-scheduler_config_of_test.json", (int)getpid());
    FILE *file = fopen(path, "w");
    if (file == NULL) return TESSERA_ERROR_IO;
    fputs(text, file);
    fclose(file);
    tessera_status status = scheduler_open(path, NULL, out, error);
    remove(path);
    return status;
}

/* A configuration of `class` with one more field is refused, by name of file and field. */
static void check_refused(const char *class, const char *field, const char *value, tessera_status expected) {
    char text[512];
    struct scheduler *s = NULL;
    tessera_error error = {0};
    snprintf(text, sizeof text, "{\"_class_name\": \"%s\", \"%s\": %s}", class, field, value);
    tessera_status status = open_text(text, &s, &error);
    CHECK(status == expected, "%s with %s %s: status %d, %s", class, field, value, (int)status, error.message);
    CHECK(strstr(error.message, field) != NULL && strstr(error.message, "scheduler_config_of_test.json") != NULL, "%s", error.message);
    scheduler_free(s);
}

static void check_refusals(void) {
    static const char *const all[] = {"DDIMScheduler",
                                      "DDPMScheduler",
                                      "PNDMScheduler",
                                      "EulerDiscreteScheduler",
                                      "EulerAncestralDiscreteScheduler",
                                      "DPMSolverMultistepScheduler",
                                      "UniPCMultistepScheduler",
                                      "LCMScheduler"};
    const tessera_status unsupported = TESSERA_ERROR_UNSUPPORTED, format = TESSERA_ERROR_FORMAT;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        check_refused(all[i], "trained_betas", "[0.1, 0.2]", unsupported);
        check_refused(all[i], "beta_schedule", "\"sigmoid\"", unsupported);
        check_refused(all[i], "timestep_spacing", "\"sideways\"", unsupported);
        check_refused(all[i], "prediction_type", "\"flow_prediction\"", unsupported);
        check_refused(all[i], "beta_start", "-1", format);
        check_refused(all[i], "num_train_timesteps", "1", format);
    }
    check_refused("DDIMScheduler", "thresholding", "true", unsupported);
    check_refused("DDPMScheduler", "variance_type", "\"learned_range\"", unsupported);
    check_refused("PNDMScheduler", "skip_prk_steps", "false", unsupported);
    check_refused("EulerDiscreteScheduler", "interpolation_type", "\"log_linear\"", unsupported);
    check_refused("EulerDiscreteScheduler", "timestep_type", "\"continuous\"", unsupported);
    check_refused("EulerAncestralDiscreteScheduler", "prediction_type", "\"sample\"", unsupported);
    check_refused("DPMSolverMultistepScheduler", "algorithm_type", "\"dpmsolver\"", unsupported);
    check_refused("DPMSolverMultistepScheduler", "solver_order", "4", format);
    check_refused("DPMSolverMultistepScheduler", "lambda_min_clipped", "-5.1", unsupported);
    check_refused("DPMSolverMultistepScheduler", "flow_shift", "-1", format);
    check_refused("EulerDiscreteScheduler", "use_flow_sigmas", "true", unsupported);
    check_refused("UniPCMultistepScheduler", "solver_type", "\"bh3\"", unsupported);
    check_refused("UniPCMultistepScheduler", "solver_order", "4", unsupported);
    check_refused("UniPCMultistepScheduler", "predict_x0", "false", unsupported);
    check_refused("UniPCMultistepScheduler", "predict_x0",
                  "false, \"prediction_type\": \"flow_prediction\", \"use_flow_sigmas\": true, \"final_sigmas_type\": \"sigma_min\"",
                  unsupported);
    check_refused("UniPCMultistepScheduler", "disable_corrector", "[-1]", format);
    check_refused("UniPCMultistepScheduler", "lower_order_final", "false", unsupported);
    check_refused("UniPCMultistepScheduler", "lower_order_final",
                  "false, \"solver_order\": 3, \"use_karras_sigmas\": true, \"final_sigmas_type\": \"sigma_min\"", unsupported);
}

/* Every class at every spacing and any number of steps gives numbers, and refuses more steps than
 * training had. */
static void check_extremes(void) {
    static const char *const spacings[] = {"leading", "linspace", "trailing"};
    static const int step_counts[] = {1, 2, 3, 7, 49, 61};
    const float outputs[3] = {0.5f, -1.0f, 2.0f}, noise[3] = {0.1f, -0.2f, 0.3f};
    for (const char *const *name = scheduler_names() + 1; *name != NULL; name++) {
        for (int i = 0; i < 3 * 6; i++) {
            char text[256];
            struct scheduler *s = NULL;
            struct scheduler_state state = {0};
            tessera_error error = {0};
            int steps = step_counts[i / 3];
            float x[3] = {1.0f, -0.5f, 0.25f};
            snprintf(text, sizeof text,
                     "{\"_class_name\": \"%s\", \"timestep_spacing\": \"%s\", \"skip_prk_steps\": true, \"original_inference_steps\": 70, "
                     "\"solver_type\": \"bh1\"}",
                     *name, spacings[i % 3]);
            tessera_status status = open_text(text, &s, &error);
            if (status == TESSERA_OK) status = scheduler_set_timesteps(s, steps, 0.0f, &error);
            if (status == TESSERA_OK) status = scheduler_state_init(s, 3, &state, &error);
            CHECK(status == TESSERA_OK, "%s, %d steps: %s", *name, steps, error.message);
            for (int step = 0; status == TESSERA_OK && step < s->num_steps; step++) scheduler_step(s, &state, step, x, outputs, noise, 3);
            CHECK(isfinite(x[0]) && isfinite(x[1]) && isfinite(x[2]), "%s, %d steps, %s: %g %g %g", *name, steps, spacings[i % 3], x[0],
                  x[1], x[2]);
            CHECK(scheduler_set_timesteps(s, 1001, 0.0f, &error) == TESSERA_ERROR_ARGUMENT, "%s", *name);
            scheduler_state_free(&state);
            scheduler_free(s);
        }
    }
}

/* The last step of DDPM, to timestep 0, adds no noise, whatever the variance: it ends at x_0. */
static void check_ddpm_end(void) {
    static const char *const variances[] = {"fixed_small", "fixed_small_log", "fixed_large"};
    const float output[2] = {0.5f, -0.25f}, noise[2] = {1.0f, -1.0f};
    for (int i = 0; i < 3; i++) {
        char text[160];
        struct scheduler *s = NULL;
        struct scheduler_state state = {0};
        tessera_error error = {0};
        float x[2] = {0.3f, -0.2f}, x_0[2];
        snprintf(text, sizeof text, "{\"_class_name\": \"DDPMScheduler\", \"variance_type\": \"%s\"}", variances[i]);
        tessera_status status = open_text(text, &s, &error);
        if (status == TESSERA_OK) status = scheduler_set_timesteps(s, 10, 0.0f, &error);
        CHECK(status == TESSERA_OK && s->timesteps[9] == 0.0f, "%s: %s", variances[i], error.message);
        scheduler_predict_x_0(s, 9, x_0, x, output, 2);
        scheduler_step(s, &state, 9, x, output, noise, 2);
        CHECK(fabsf(x[0] - x_0[0]) < 1e-6f && fabsf(x[1] - x_0[1]) < 1e-6f, "%s: ends at %g, %g instead of %g, %g", variances[i], (double)x[0],
              (double)x[1], (double)x_0[0], (double)x_0[1]);
        scheduler_free(s);
    }
}

/* One step of a class with these fields, the last of `steps`, on x [2]. */
static void last_step(const char *fields, int steps, float x[2], float x_0[2]) {
    const float output[2] = {0.5f, -0.25f};
    float history[2] = {0.1f, 0.7f};
    char text[320];
    struct scheduler *s = NULL;
    struct scheduler_state state = {0};
    tessera_error error = {0};
    snprintf(text, sizeof text, "{%s}", fields);
    tessera_status status = open_text(text, &s, &error);
    if (status == TESSERA_OK) status = scheduler_set_timesteps(s, steps, 0.0f, &error);
    if (status == TESSERA_OK) status = scheduler_state_init(s, 2, &state, &error);
    CHECK(status == TESSERA_OK, "%s: %s", fields, error.message);
    if (status == TESSERA_OK && s->num_steps > 1) scheduler_step(s, &state, s->num_steps - 2, history, output, NULL, 2);
    x[0] = 0.3f, x[1] = -0.2f;
    if (status == TESSERA_OK) scheduler_predict_x_0(s, s->num_steps - 1, x_0, x, output, 2);
    if (status == TESSERA_OK) scheduler_step(s, &state, s->num_steps - 1, x, output, NULL, 2);
    scheduler_state_free(&state);
    scheduler_free(s);
}

/* With set_alpha_to_one the last step of PNDM ends at x_0, otherwise before it. */
static void check_pndm_end(void) {
    float x[2], x_0[2], before[2];
    last_step("\"_class_name\": \"PNDMScheduler\", \"skip_prk_steps\": true, \"set_alpha_to_one\": true", 1, x, x_0);
    CHECK(fabsf(x[0] - x_0[0]) < 1e-5f && fabsf(x[1] - x_0[1]) < 1e-5f, "ends at %g, %g instead of %g, %g", (double)x[0], (double)x[1],
          (double)x_0[0], (double)x_0[1]);
    last_step("\"_class_name\": \"PNDMScheduler\", \"skip_prk_steps\": true, \"set_alpha_to_one\": false", 1, before, x_0);
    CHECK(fabsf(before[0] - x_0[0]) > 1e-3f, "%g", (double)before[0]);
}

/* euler_at_final: the last step is of first order, also where the schedule ends before 0. */
static void check_euler_at_final(void) {
#define DPM "\"_class_name\": \"DPMSolverMultistepScheduler\", \"final_sigmas_type\": \"sigma_min\", \"lower_order_final\": false, "
    float first[2], euler[2], second[2], x_0[2];
    last_step(DPM "\"solver_order\": 1", 20, first, x_0);
    last_step(DPM "\"solver_order\": 2, \"euler_at_final\": true", 20, euler, x_0);
    last_step(DPM "\"solver_order\": 2", 20, second, x_0);
    CHECK(euler[0] == first[0] && euler[1] == first[1], "%g, %g instead of %g, %g", (double)euler[0], (double)euler[1], (double)first[0],
          (double)first[1]);
    CHECK(second[0] != first[0], "%g", (double)second[0]);
}

int main(void) {
    for (size_t i = 0; i < sizeof case_names / sizeof case_names[0]; i++) check_case(case_names[i]);
    check_refusals();
    check_extremes();
    check_ddpm_end();
    check_pndm_end();
    check_euler_at_final();
    return CHECK_REPORT();
}
