/* FlowMatchEulerDiscreteScheduler against diffusers' schedules and samples, and configurations that
 * are refused. */
#include <unistd.h>

#include "case_io.h"
#include "check.h"
#include "schedulers/scheduler.h"

#define STATIC "tests/cases/scheduler_flow_euler_10/scheduler_config.json"
#define DYNAMIC "tests/cases/scheduler_flow_euler_dynamic_10/scheduler_config.json"

static void check_near(const struct case_io *c, const char *what, const float *got, const struct tensor *want, int64_t first,
                       int64_t count) {
    double worst = want->data == NULL ? INFINITY : 0.0;
    for (int64_t i = 0; want->data != NULL && i < count; i++) {
        double b = case_element(want, first + i), difference = fabs((double)got[i] - b);
        worst = isfinite(difference) ? fmax(worst, difference / (c->atol + c->rtol * fabs(b))) : INFINITY;
    }
    CHECK(worst <= 1.0, "%s: %g times the tolerance", what, worst);
}

/* From in.sample through every step to out.samples. */
static void check_steps(const struct case_io *c, const struct scheduler *scheduler) {
    struct tensor start = case_tensor(c, "in.sample"), outputs = case_tensor(c, "in.model_outputs"),
                  samples = case_tensor(c, "out.samples");
    struct tensor inputs = case_tensor(c, "mid.model_inputs");
    int64_t count = tensor_count(&start);
    float *sample = case_floats(&start), *output = case_floats(&outputs), *scaled = malloc((size_t)count * sizeof *scaled);
    struct scheduler_state state = {0};
    for (int i = 0; i < scheduler->num_steps; i++) {
        scheduler->class->scale_model_input(scheduler, i, scaled, sample, (size_t)count);
        check_near(c, "model input", scaled, &inputs, i * count, count);
        scheduler_step(scheduler, &state, i, sample, output + i * count, NULL, (size_t)count);
        check_near(c, "sample", sample, &samples, i * count, count);
    }
    free(scaled);
    free(output);
    free(sample);
}

static void test_case(const char *folder, bool dynamic) {
    struct case_io c;
    tessera_error error = {0};
    int64_t steps = 0;
    double mu = 0;
    struct scheduler *scheduler = NULL;
    CHECK(case_open(folder, &c, &error) == TESSERA_OK, "%s", error.message);
    CHECK(scheduler_open(folder, NULL, &scheduler, &error) == TESSERA_OK, "%s", error.message);
    if (c.json != NULL && scheduler != NULL) {
        CHECK(json_int(c.json, "steps", 0, 1, 1000, &steps, &error) == TESSERA_OK, "%s", error.message);
        CHECK(json_double(c.json, "mu", 0.0, &mu, &error) == TESSERA_OK, "%s", error.message);
        CHECK(scheduler->needs_mu == dynamic && (json_find(c.json, "mu") != NULL) == dynamic, "%s: dynamic shifting", folder);
        scheduler->sigmas_from_steps = dynamic;
        CHECK(scheduler_set_timesteps(scheduler, (int)steps, (float)mu, &error) == TESSERA_OK, "%s", error.message);
        struct tensor timesteps = case_tensor(&c, "out.timesteps"), sigmas = case_tensor(&c, "mid.sigmas");
        check_near(&c, "timesteps", scheduler->timesteps, &timesteps, 0, steps);
        check_near(&c, "sigmas", scheduler->sigmas, &sigmas, 0, steps + 1);
        CHECK(scheduler->init_noise_sigma == 1.0f && !scheduler->class->wants_noise, "noise of deviation 1, and none later");
        check_steps(&c, scheduler);
    }
    scheduler_free(scheduler);
    case_close(&c);
}

/* diffusers' calculate_shift: a line through (256, 0.5) and (4096, 1.15). */
static void test_mu(void) {
    tessera_error error = {0};
    struct scheduler *scheduler = NULL;
    CHECK(scheduler_open(DYNAMIC, NULL, &scheduler, &error) == TESSERA_OK, "%s", error.message);
    if (scheduler != NULL) {
        CHECK(fabsf(scheduler_mu(scheduler, 256) - 0.5f) < 1e-6f && fabsf(scheduler_mu(scheduler, 4096) - 1.15f) < 1e-6f, "mu at the ends");
        CHECK(fabsf(scheduler_mu(scheduler, 2176) - 0.825f) < 1e-6f, "mu half-way is %g", (double)scheduler_mu(scheduler, 2176));
        CHECK(scheduler_set_timesteps(scheduler, 4, NAN, &error) == TESSERA_ERROR_ARGUMENT && strstr(error.message, "mu") != NULL, "%s",
              error.message);
    }
    scheduler_free(scheduler);
    CHECK(scheduler_open(STATIC, NULL, &scheduler, &error) == TESSERA_OK, "%s", error.message);
    if (scheduler != NULL) CHECK(scheduler_mu(scheduler, 4096) == 0.0f, "no mu without dynamic shifting");
    scheduler_free(scheduler);
}

/* Noise is mixed in by the step's sigma; numbers of steps that make no sense are refused. */
static void test_noise_and_bounds(void) {
    tessera_error error = {0};
    struct scheduler *scheduler = NULL;
    CHECK(scheduler_open(STATIC, NULL, &scheduler, &error) == TESSERA_OK, "%s", error.message);
    if (scheduler == NULL) return;
    CHECK(scheduler_set_timesteps(scheduler, 8, 0.0f, &error) == TESSERA_OK, "%s", error.message);
    const float sample[2] = {2.0f, -1.0f}, noise[2] = {-3.0f, 0.5f};
    for (int i = 0; i < 8; i++) {
        float out[2], sigma = scheduler->sigmas[i];
        scheduler->class->add_noise(scheduler, i, out, sample, noise, 2);
        CHECK(fabsf(out[0] - (2.0f - 5.0f * sigma)) < 1e-5f && fabsf(out[1] - (-1.0f + 1.5f * sigma)) < 1e-5f, "noise at step %d", i);
        CHECK(scheduler->sigmas[i + 1] < sigma, "sigmas fall");
    }
    CHECK(scheduler_set_timesteps(scheduler, 0, 0.0f, &error) == TESSERA_ERROR_ARGUMENT && strstr(error.message, "num_inference_steps"),
          "%s", error.message);
    scheduler_free(scheduler);
}

/* A configuration with `fields`: opening it gives `status`; a refusal names the file and `field`. */
static void check_config(const char *fields, tessera_status status, const char *field) {
    char folder[] = "/tmp/tessera-test-XXXXXX";
    tessera_error error = {0};
    struct scheduler *scheduler = NULL;
    CHECK(mkdtemp(folder) != NULL, "no temporary folder");
    char *path = file_join(folder, "scheduler_config.json");
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fprintf(file, "{%s}", fields) > 0 && fclose(file) == 0, "cannot write %s", path);
    tessera_status got = scheduler_open(folder, NULL, &scheduler, &error);
    CHECK(got == status, "%s: status %d: %s", fields, got, error.message);
    if (status != TESSERA_OK)
        CHECK(scheduler == NULL && strstr(error.message, path) && strstr(error.message, field), "%s: %s", fields, error.message);
    scheduler_free(scheduler);
    unlink(path);
    rmdir(folder);
    free(path);
}

#define FLOW "\"_class_name\": \"FlowMatchEulerDiscreteScheduler\""

static void test_configs(void) {
    check_config(FLOW, TESSERA_OK, "");
    check_config("\"shift\": 3.0", TESSERA_ERROR_FORMAT, "_class_name");
    check_config("\"_class_name\": \"SomeScheduler\"", TESSERA_ERROR_UNSUPPORTED, "SomeScheduler");
    check_config(FLOW ", \"invert_sigmas\": true", TESSERA_ERROR_UNSUPPORTED, "invert_sigmas");
    check_config(FLOW ", \"use_karras_sigmas\": true, \"use_beta_sigmas\": true", TESSERA_ERROR_FORMAT, "use_beta_sigmas");
    check_config(FLOW ", \"stochastic_sampling\": true", TESSERA_ERROR_UNSUPPORTED, "stochastic_sampling");
    check_config(FLOW ", \"time_shift_type\": \"cubic\"", TESSERA_ERROR_UNSUPPORTED, "time_shift_type");
    check_config(FLOW ", \"shift\": 0", TESSERA_ERROR_FORMAT, "shift");
    check_config(FLOW ", \"shift\": \"three\"", TESSERA_ERROR_FORMAT, "shift");
    check_config(FLOW ", \"shift_terminal\": 1.0", TESSERA_ERROR_FORMAT, "shift_terminal");
    check_config(FLOW ", \"num_train_timesteps\": 0", TESSERA_ERROR_FORMAT, "num_train_timesteps");
    check_config(FLOW ", \"use_karras_sigmas\": true, \"use_exponential_sigmas\": true", TESSERA_ERROR_FORMAT, "use_exponential_sigmas");
    check_config(FLOW ", \"use_dynamic_shifting\": true, \"max_image_seq_len\": 256", TESSERA_ERROR_FORMAT, "max_image_seq_len");
}

int main(void) {
    test_case("tests/cases/scheduler_flow_euler_10", false);
    test_case("tests/cases/scheduler_flow_euler_25", false);
    test_case("tests/cases/scheduler_flow_euler_dynamic_10", true);
    test_case("tests/cases/scheduler_flow_euler_dynamic_25", true);
    test_mu();
    test_noise_and_bounds();
    test_configs();
    return CHECK_REPORT();
}
