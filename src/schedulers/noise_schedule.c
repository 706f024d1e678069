/* The noise schedule in float32 as diffusers 0.42.1 computes it (see noise_schedule.h).
 *
 *     beta_t (configured)  ->  alpha_bar_t = prod (1 - beta_s)  ->  sigma = sqrt((1 - alpha_bar) / alpha_bar)
 *
 * Sums and products that numpy makes in double are double here, and float32 where torch makes them:
 * a product of a thousand factors shows the difference. One departure: where rounding gives numpy's
 * trailing spacing one timestep too many (61 steps of 1000), it is left out here. Left out, and
 * refused: trained_betas. */
#include "schedulers/noise_schedule.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const prediction_names[] = {"epsilon", "v_prediction", "sample", NULL};
static const char *const flow_prediction_names[] = {"epsilon", "v_prediction", "sample", "flow_prediction", NULL};
static const char *const beta_names[] = {"linear", "scaled_linear", "squaredcos_cap_v2", NULL};
static const char *const spacing_names[] = {"leading", "linspace", "trailing", NULL};
static const char *const final_sigma_names[] = {"zero", "sigma_min", NULL};

tessera_status noise_schedule_refuse_true(const struct json *json, const char *field, tessera_error *error) {
    bool set;
    TRY(json_bool(json, field, false, &set, error));
    if (!set) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: field %s is true, which this scheduler does not support; set it to false",
                     json_path(json), field);
}

tessera_status noise_schedule_refuse_set(const struct json *json, const char *field, tessera_error *error) {
    if (json_find(json, field) == NULL) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: field %s is set, which this scheduler does not support; set it to null",
                     json_path(json), field);
}

tessera_status noise_schedule_choice(const struct json *json, const char *field, const char *const *names, int fallback, int *out,
                                     tessera_error *error) {
    const char *value;
    TRY(json_string(json, field, names[fallback], &value, error));
    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(names[i], value) == 0) {
            *out = i;
            return TESSERA_OK;
        }
    }
    char known[256] = "";
    for (int i = 0; names[i] != NULL; i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i == 0 ? "" : ", ", names[i]);
    }
    return error_set(error, TESSERA_ERROR_UNSUPPORTED, "%s: field %s is \"%s\", which this scheduler does not support; choose from: %s",
                     json_path(json), field, value, known);
}

/* torch.linspace(first, last, count)[i] in float32, counted from the nearer end, multiplied and
 * added with one rounding. */
static float line_at(float first, float last, int count, int i) {
    float step = (last - first) / (float)(count - 1);
    return i < count / 2 ? fmaf(step, (float)i, first) : fmaf(-step, (float)(count - 1 - i), last);
}

/* alpha_bar(t), t from 0 to 1: equation 17 of Nichol and Dhariwal 2021, "Improved Denoising
 * Diffusion Probabilistic Models". */
static double cosine_alpha_bar(double t) {
    double c = elementary_cos((t + 0.008) / 1.008 * M_PI / 2.0);
    return c * c;
}

static float beta_at(enum beta_schedule kind, double beta_start, double beta_end, int count, int i) {
    if (kind == BETAS_LINEAR) return line_at((float)beta_start, (float)beta_end, count, i);
    if (kind == BETAS_SCALED_LINEAR) {
        float root = line_at((float)sqrt(beta_start), (float)sqrt(beta_end), count, i);
        return root * root;
    }
    const double max_beta = 0.999; /* their section 3.2 */
    return (float)fmin(1.0 - cosine_alpha_bar((i + 1.0) / count) / cosine_alpha_bar((double)i / count), max_beta);
}

/* alpha_bar_t = prod_{s <= t} (1 - beta_s), accumulated in double as torch.cumprod does; `values`
 * holds beta on entry. */
static void accumulate(float *values, int count) {
    double product = 1.0;
    for (int i = 0; i < count; i++) {
        product *= (double)(1.0f - values[i]);
        values[i] = (float)product;
    }
}

/* Lin et al. 2023, algorithm 1: shifts and scales sqrt(alpha_bar) so that it ends at 0; alpha_bar
 * to beta. */
static void rescale_to_zero_snr(float *values, int count) {
    float first = sqrtf(values[0]), last = sqrtf(values[count - 1]);
    float scale = first / (first - last), previous = 1.0f;
    for (int i = 0; i < count; i++) {
        float root = (sqrtf(values[i]) - last) * scale;
        float alpha_bar = root * root;
        values[i] = 1.0f - (i == 0 ? alpha_bar : alpha_bar / previous);
        previous = alpha_bar;
    }
}

static tessera_status fill_alpha_bar(struct scheduler *scheduler, const struct noise_schedule *noise, const struct json *json,
                                     const struct noise_defaults *defaults, tessera_error *error) {
    double beta_start, beta_end;
    bool zero_snr = false;
    int count = scheduler->num_train_timesteps;
    TRY(json_double(json, "beta_start", defaults->beta_start, &beta_start, error));
    TRY(json_double(json, "beta_end", defaults->beta_end, &beta_end, error));
    if (!defaults->ignores_zero_snr) TRY(json_bool(json, "rescale_betas_zero_snr", false, &zero_snr, error));
    if (!(beta_start > 0.0 && beta_start <= beta_end && beta_end < 1.0)) {
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: fields beta_start %g and beta_end %g must rise between 0 and 1", json_path(json),
                         beta_start, beta_end);
    }
    if (count < 2) {
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: field num_train_timesteps is %d; this scheduler needs at least 2",
                         json_path(json), count);
    }
    scheduler->alpha_bar = malloc((size_t)count * sizeof *scheduler->alpha_bar);
    if (scheduler->alpha_bar == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "%s: out of memory", json_path(json));
    for (int i = 0; i < count; i++) scheduler->alpha_bar[i] = beta_at(noise->beta_schedule, beta_start, beta_end, count, i);
    accumulate(scheduler->alpha_bar, count);
    if (zero_snr) {
        rescale_to_zero_snr(scheduler->alpha_bar, count);
        accumulate(scheduler->alpha_bar, count);
        if (defaults->keeps_finite_sigmas) scheduler->alpha_bar[count - 1] = 0x1p-24f; /* float16's smallest number */
    }
    return TESSERA_OK;
}

tessera_status noise_schedule_configure(struct scheduler *scheduler, struct noise_schedule *noise, const struct json *json,
                                        const struct noise_defaults *defaults, tessera_error *error) {
    int choice;
    int64_t steps_offset;
    TRY(noise_schedule_refuse_set(json, "trained_betas", error));
    const char *const *predictions = defaults->knows_flow ? flow_prediction_names : prediction_names;
    TRY(noise_schedule_choice(json, "prediction_type", predictions, PREDICTION_EPSILON, &choice, error));
    noise->prediction_type = (enum prediction_type)choice;
    TRY(noise_schedule_choice(json, "beta_schedule", beta_names, (int)defaults->beta_schedule, &choice, error));
    noise->beta_schedule = (enum beta_schedule)choice;
    TRY(noise_schedule_choice(json, "timestep_spacing", spacing_names, (int)defaults->timestep_spacing, &choice, error));
    noise->timestep_spacing = (enum timestep_spacing)choice;
    TRY(json_int(json, "steps_offset", 0, 0, scheduler->num_train_timesteps, &steps_offset, error));
    noise->steps_offset = (int)steps_offset;
    return fill_alpha_bar(scheduler, noise, json, defaults, error);
}

tessera_status noise_schedule_configure_clipping(struct noise_schedule *noise, const struct json *json, bool fallback,
                                                 tessera_error *error) {
    double range;
    TRY(noise_schedule_refuse_true(json, "thresholding", error));
    TRY(json_bool(json, "clip_sample", fallback, &noise->clip_sample, error));
    TRY(json_double(json, "clip_sample_range", 1.0, &range, error));
    if (!(range > 0.0)) {
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: field clip_sample_range is %g; it must be positive", json_path(json), range);
    }
    noise->clip_sample_range = (float)range;
    return TESSERA_OK;
}

static tessera_status configure_sigma_end(const struct json *json, const char *field, double *out, tessera_error *error) {
    TRY(json_double(json, field, 0.0, out, error));
    if (json_find(json, field) == NULL || (*out > 0.0 && *out < 1e6)) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: field %s is %g; it must be positive", json_path(json), field, *out);
}

/* The one sigma schedule that is chosen. A class without flow sigmas refuses them; as in diffusers,
 * one without Lu's ignores those. */
static tessera_status choose_sigmas(const struct json *json, const struct noise_defaults *defaults, enum sigma_schedule *out,
                                    tessera_error *error) {
    static const struct {
        const char *field;
        enum sigma_schedule kind;
    } choices[] = {{"use_karras_sigmas", SIGMAS_KARRAS},
                   {"use_exponential_sigmas", SIGMAS_EXPONENTIAL},
                   {"use_beta_sigmas", SIGMAS_BETA},
                   {"use_flow_sigmas", SIGMAS_FLOW},
                   {"use_lu_lambdas", SIGMAS_LU}};
    int chosen = 0, count = defaults->knows_lu ? 5 : 4;
    *out = SIGMAS_TRAINED;
    if (!defaults->knows_flow) TRY(noise_schedule_refuse_true(json, "use_flow_sigmas", error));
    for (int i = 0; i < count; i++) {
        bool set = false;
        TRY(json_bool(json, choices[i].field, false, &set, error));
        if (set) *out = choices[i].kind;
        chosen += set;
    }
    if (chosen <= 1) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT,
                     "%s: fields use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas, use_flow_sigmas and use_lu_lambdas exclude each "
                     "other; set one to true",
                     json_path(json));
}

static tessera_status configure_flow(struct scheduler *scheduler, struct noise_schedule *noise, const struct json *json,
                                     tessera_error *error) {
    TRY(json_double(json, "flow_shift", 1.0, &noise->flow_shift, error));
    if (!(noise->flow_shift > 0.0 && noise->flow_shift < 1e6))
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: field flow_shift is %g; it must be positive", json_path(json), noise->flow_shift);
    scheduler->flow_matching = noise->prediction_type == PREDICTION_FLOW;
    if (!scheduler->flow_matching || noise->sigma_schedule == SIGMAS_FLOW) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_UNSUPPORTED,
                     "%s: field prediction_type is \"flow_prediction\" without flow sigmas; set use_flow_sigmas to true", json_path(json));
}

tessera_status noise_schedule_configure_sigmas(struct scheduler *scheduler, struct noise_schedule *noise, const struct json *json,
                                               const struct noise_defaults *defaults, tessera_error *error) {
    int final_sigma;
    TRY(choose_sigmas(json, defaults, &noise->sigma_schedule, error));
    if (defaults->knows_flow) TRY(configure_flow(scheduler, noise, json, error));
    TRY(configure_sigma_end(json, "sigma_min", &noise->sigma_min, error));
    TRY(configure_sigma_end(json, "sigma_max", &noise->sigma_max, error));
    TRY(noise_schedule_choice(json, "final_sigmas_type", final_sigma_names, 0, &final_sigma, error));
    noise->ends_at_sigma_min = final_sigma == 1;
    return TESSERA_OK;
}

/* numpy.linspace(first, last, count)[i]; a single point is the first. */
static double ramp_at(double first, double last, int count, int i) {
    if (count == 1) return first;
    return i == count - 1 ? last : i * ((last - first) / (count - 1)) + first;
}

/* `whole`: linspace is rounded. `beyond`: leading and linspace lay out one more, the last, and drop
 * it. */
static tessera_status space(const struct scheduler *scheduler, const struct noise_schedule *noise, int num_steps, bool whole, bool beyond,
                            double *timesteps, tessera_error *error) {
    int total = scheduler->num_train_timesteps, count = num_steps + (beyond && noise->timestep_spacing != SPACING_TRAILING);
    if (count > total) {
        return error_set(error, TESSERA_ERROR_ARGUMENT, "num_inference_steps is %d; this scheduler was trained on %d and does at most %d",
                         num_steps, total, total - (count - num_steps));
    }
    double ratio = (double)total / num_steps, stride = (total - ratio) - total; /* numpy.arange's own rounding */
    for (int i = 0; i < num_steps; i++) {
        int rank = count - 1 - i; /* timesteps fall */
        if (noise->timestep_spacing == SPACING_LEADING) timesteps[i] = (double)rank * (total / count) + noise->steps_offset;
        if (noise->timestep_spacing == SPACING_TRAILING) timesteps[i] = rint(total + i * stride) - 1.0;
        if (noise->timestep_spacing == SPACING_LINSPACE) {
            double t = ramp_at(0.0, total - 1.0, count, rank);
            timesteps[i] = whole ? rint(t) : (double)(float)t;
        }
    }
    return TESSERA_OK;
}

tessera_status noise_schedule_set_timesteps(struct scheduler *scheduler, const struct noise_schedule *noise, int num_steps,
                                            tessera_error *error) {
    double *timesteps = malloc((size_t)num_steps * sizeof *timesteps);
    if (timesteps == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for %d steps", num_steps);
    tessera_status status = space(scheduler, noise, num_steps, true, false, timesteps, error);
    for (int i = 0; i < num_steps && status == TESSERA_OK; i++) {
        scheduler->timesteps[i] = (float)timesteps[i];
        if (timesteps[i] < 0.0 || timesteps[i] >= scheduler->num_train_timesteps) {
            status = error_set(error, TESSERA_ERROR_ARGUMENT,
                               "num_inference_steps is %d: with steps_offset %d, timestep %g lies beyond the %d of training", num_steps,
                               noise->steps_offset, timesteps[i], scheduler->num_train_timesteps);
        }
    }
    free(timesteps);
    return status;
}

float noise_schedule_alpha_bar(const struct scheduler *scheduler, int timestep) {
    int last = scheduler->num_train_timesteps - 1;
    return scheduler->alpha_bar[timestep < 0 ? 0 : timestep > last ? last : timestep];
}

/* The training schedule's sigma at a timestep. */
static float trained_sigma(const struct scheduler *scheduler, int timestep) {
    float alpha_bar = noise_schedule_alpha_bar(scheduler, timestep);
    return sqrtf((1.0f - alpha_bar) / alpha_bar);
}

/* numpy.interp over the training schedule. */
static double interpolated_sigma(const struct scheduler *scheduler, double t) {
    if (t <= 0.0) return (double)trained_sigma(scheduler, 0);
    int low = (int)fmin(t, scheduler->num_train_timesteps - 1);
    double a = (double)trained_sigma(scheduler, low), b = (double)trained_sigma(scheduler, low + 1);
    return t >= scheduler->num_train_timesteps - 1 ? a : (b - a) * (t - low) + a;
}

/* The timestep whose sigma this is, between two of training by interpolation in log sigma. */
static double timestep_of_sigma(const struct scheduler *scheduler, double sigma) {
    const struct elementary *f = scheduler->functions;
    double log_sigma = f->log(fmax(sigma, 1e-10));
    int low = 0, high = scheduler->num_train_timesteps - 1; /* sigma rises with t: the last one not above sigma */
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if ((double)f->logf(trained_sigma(scheduler, middle)) <= log_sigma)
            low = middle;
        else
            high = middle;
    }
    float a = f->logf(trained_sigma(scheduler, low)), b = f->logf(trained_sigma(scheduler, low + 1));
    double w = fmin(fmax(((double)a - log_sigma) / (double)(a - b), 0.0), 1.0);
    return (1.0 - w) * low + w * (low + 1);
}

enum { BETA_TERMS = 64, BETA_HALVINGS = 60 };

/* The integral of (t (1 - t))^-0.4 from 0 to x <= 1/2: the sum over n of (0.4)_n / n! x^(n + 0.6) /
 * (n + 0.6). */
static double beta_integral(const struct elementary *f, double x) {
    double sum = 0.0, term = f->pow(x, 0.6);
    for (int n = 0; n < BETA_TERMS; n++) {
        sum += term / (n + 0.6);
        term *= x * (n + 0.4) / (n + 1.0);
    }
    return sum;
}

double noise_schedule_beta_quantile(const struct elementary *f, double p) {
    if (p > 0.5) return 1.0 - noise_schedule_beta_quantile(f, 1.0 - p);
    if (p <= 0.0) return 0.0;
    double whole = 2.0 * beta_integral(f, 0.5), low = 0.0, high = 0.5;
    for (int i = 0; i < BETA_HALVINGS; i++) {
        double middle = (low + high) / 2.0;
        if (beta_integral(f, middle) < p * whole)
            low = middle;
        else
            high = middle;
    }
    return (low + high) / 2.0;
}

/* Karras et al. 2022, equation 5; or the same ends joined by the beta distribution, or
 * geometrically, which is Lu et al.'s even line of lambda too (2022, "DPM-Solver", section 3.3). */
static double spaced_sigma(const struct elementary *f, enum sigma_schedule kind, double sigma_max, double sigma_min, int count, int i) {
    const double rho = 7.0; /* their section 3 */
    if (kind == SIGMAS_BETA) return sigma_min + noise_schedule_beta_quantile(f, 1.0 - ramp_at(0.0, 1.0, count, i)) * (sigma_max - sigma_min);
    if (kind == SIGMAS_EXPONENTIAL || kind == SIGMAS_LU) return f->exp(ramp_at(f->log(sigma_max), f->log(sigma_min), count, i));
    double first = f->pow(sigma_max, 1.0 / rho), last = f->pow(sigma_min, 1.0 / rho);
    return f->pow(first + ramp_at(0.0, 1.0, count, i) * (last - first), rho);
}

/* Sigmas of timesteps [num_steps], which Karras, exponential and beta sigmas replace by those that
 * fit them. `whole_range`: these sigmas span the training schedule instead of the given timesteps. */
static tessera_status fill_sigmas(struct scheduler *scheduler, const struct noise_schedule *noise, bool whole_range, double *timesteps,
                                  tessera_error *error) {
    int count = scheduler->num_steps;
    double sigma_max = interpolated_sigma(scheduler, whole_range ? scheduler->num_train_timesteps - 1 : timesteps[0]);
    double sigma_min = interpolated_sigma(scheduler, whole_range ? 0.0 : timesteps[count - 1]);
    if (noise->sigma_max > 0.0) sigma_max = noise->sigma_max;
    if (noise->sigma_min > 0.0) sigma_min = noise->sigma_min;
    for (int i = 0; i < count; i++) {
        double sigma = interpolated_sigma(scheduler, timesteps[i]);
        if (noise->sigma_schedule != SIGMAS_TRAINED) {
            sigma = spaced_sigma(scheduler->functions, noise->sigma_schedule, sigma_max, sigma_min, count, i);
            timesteps[i] = timestep_of_sigma(scheduler, sigma);
        }
        scheduler->sigmas[i] = (float)sigma;
        if (!(isfinite(scheduler->sigmas[i]) && scheduler->sigmas[i] > 0.0f)) {
            return error_set(error, TESSERA_ERROR_ARGUMENT,
                             "num_inference_steps is %d: sigma %d of this schedule is %g; it must be positive", count, i, sigma);
        }
    }
    scheduler->sigmas[count] = noise->ends_at_sigma_min ? trained_sigma(scheduler, 0) : 0.0f;
    return TESSERA_OK;
}

tessera_status noise_schedule_set_sigmas(struct scheduler *scheduler, const struct noise_schedule *noise, int num_steps,
                                         tessera_error *error) {
    double *timesteps = malloc((size_t)num_steps * sizeof *timesteps);
    if (timesteps == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for %d steps", num_steps);
    tessera_status status = space(scheduler, noise, num_steps, false, false, timesteps, error);
    if (status == TESSERA_OK) status = fill_sigmas(scheduler, noise, false, timesteps, error);
    float sigma_max = 0.0f;
    for (int i = 0; i < num_steps && status == TESSERA_OK; i++) {
        scheduler->timesteps[i] = (float)timesteps[i];
        sigma_max = fmaxf(sigma_max, scheduler->sigmas[i]);
    }
    scheduler->init_noise_sigma = noise->timestep_spacing == SPACING_LEADING ? sqrtf(sigma_max * sigma_max + 1.0f) : sigma_max;
    free(timesteps);
    return status;
}

tessera_status noise_schedule_set_multistep(struct scheduler *scheduler, const struct noise_schedule *noise, int num_steps, bool rounds,
                                            tessera_error *error) {
    double *timesteps = malloc((size_t)num_steps * sizeof *timesteps);
    if (timesteps == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for %d steps", num_steps);
    tessera_status status = space(scheduler, noise, num_steps, true, true, timesteps, error);
    if (status == TESSERA_OK) status = fill_sigmas(scheduler, noise, true, timesteps, error);
    for (int i = 0; i < num_steps && status == TESSERA_OK; i++) {
        bool round = rounds && (noise->sigma_schedule == SIGMAS_KARRAS || noise->sigma_schedule == SIGMAS_LU);
        scheduler->timesteps[i] = (float)(round ? rint(timesteps[i]) : trunc(timesteps[i]));
    }
    free(timesteps);
    return status;
}

void noise_schedule_set_flow(struct scheduler *scheduler, const struct noise_schedule *noise, int num_steps, double first, double last) {
    const double below_one = 1e-6; /* lambda is finite there */
    for (int i = 0; i < num_steps; i++) {
        double line = ramp_at(first, last, num_steps + 1, i);
        double sigma = fmin(noise->flow_shift * line / (1.0 + (noise->flow_shift - 1.0) * line), 1.0 - below_one);
        scheduler->sigmas[i] = (float)sigma;
        scheduler->timesteps[i] = (float)trunc(sigma * scheduler->num_train_timesteps);
    }
    scheduler->sigmas[num_steps] = noise->ends_at_sigma_min ? trained_sigma(scheduler, 0) : 0.0f;
}

void noise_schedule_from_sigma(const struct noise_schedule *noise, float sigma, float *alpha_t, float *sigma_t) {
    bool flow = noise->sigma_schedule == SIGMAS_FLOW;
    *alpha_t = flow ? 1.0f - sigma : 1.0f / sqrtf(sigma * sigma + 1.0f);
    *sigma_t = flow ? sigma : sigma * *alpha_t;
}

float noise_schedule_lambda(const struct scheduler *scheduler, const struct noise_schedule *noise, float sigma) {
    float alpha_t, sigma_t;
    noise_schedule_from_sigma(noise, sigma, &alpha_t, &sigma_t);
    return scheduler->functions->logf(alpha_t) - scheduler->functions->logf(sigma_t);
}

void noise_schedule_keep_input(const struct scheduler *scheduler, int step, float *out, const float *sample, size_t count) {
    memmove(out, sample, count * sizeof *out);
}

void noise_schedule_scale_input(const struct scheduler *scheduler, int step, float *out, const float *sample, size_t count) {
    float sigma = scheduler->sigmas[step], scale = sqrtf(sigma * sigma + 1.0f);
    for (size_t i = 0; i < count; i++) out[i] = sample[i] / scale;
}

static void mix(float alpha_t, float sigma_t, float *out, const float *sample, const float *noise, size_t count) {
    for (size_t i = 0; i < count; i++) out[i] = alpha_t * sample[i] + sigma_t * noise[i];
}

void noise_schedule_add_noise(const struct scheduler *scheduler, int step, float *out, const float *sample, const float *noise,
                              size_t count) {
    float alpha_bar = noise_schedule_alpha_bar(scheduler, (int)scheduler->timesteps[step]);
    mix(sqrtf(alpha_bar), sqrtf(1.0f - alpha_bar), out, sample, noise, count);
}

void noise_schedule_add_sigma(const struct scheduler *scheduler, int step, float *out, const float *sample, const float *noise,
                              size_t count) {
    mix(1.0f, scheduler->sigmas[step], out, sample, noise, count);
}

void noise_schedule_add_preserving(const struct scheduler *scheduler, int step, float *out, const float *sample, const float *noise,
                                   size_t count) {
    float alpha_t, sigma_t;
    noise_schedule_from_sigma(scheduler->config, scheduler->sigmas[step], &alpha_t, &sigma_t);
    mix(alpha_t, sigma_t, out, sample, noise, count);
}

/* ---- predictions of x_0 ---- */

static void predict(const struct noise_schedule *noise, float alpha_t, float sigma_t, float *x_0, const float *sample, const float *model_output,
                    size_t count) {
    for (size_t i = 0; i < count; i++) x_0[i] = noise_schedule_x_0(noise, alpha_t, sigma_t, sample[i], model_output[i]);
}

void noise_schedule_predict_at_timestep(const struct scheduler *scheduler, int step, float *x_0, const float *sample, const float *model_output,
                                        size_t count) {
    float alpha_bar_t = noise_schedule_alpha_bar(scheduler, (int)scheduler->timesteps[step]);
    predict(scheduler->config, sqrtf(alpha_bar_t), sqrtf(1.0f - alpha_bar_t), x_0, sample, model_output, count);
}

void noise_schedule_predict_at_sigma(const struct scheduler *scheduler, int step, float *x_0, const float *sample, const float *model_output,
                                     size_t count) {
    float sigma = scheduler->sigmas[step];
    for (size_t i = 0; i < count; i++) x_0[i] = noise_schedule_x_0_at_sigma(scheduler->config, sigma, sample[i], model_output[i]);
}

void noise_schedule_predict_preserving(const struct scheduler *scheduler, int step, float *x_0, const float *sample, const float *model_output,
                                       size_t count) {
    float alpha_t, sigma_t;
    noise_schedule_from_sigma(scheduler->config, scheduler->sigmas[step], &alpha_t, &sigma_t);
    predict(scheduler->config, alpha_t, sigma_t, x_0, sample, model_output, count);
}
