/* Models of one's own: a class that only the caller knows, in a pipeline and by itself, and raw
 * sampling's answers to wrong use.
 *
 * The class is Stable Diffusion 3's under another name, and its folder a copy of a case's.
 * examples/auraflow is a model that is new. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "case_io.h"
#include "check.h"
#include "models/registry.h"
#include "tessera_model.h"

#define CASE "tests/cases/pipefusion/pipefusion_p1_w0"
#define PIPELINE "tests/cases/pipeline_sd3/model"

static void shell(const char *format, const char *folder) {
    char command[512];
    snprintf(command, sizeof command, format, folder);
    CHECK(system(command) == 0, "%s", command);
}

/* ---- in a pipeline ---- */

static bool generate(const char *folder, const tessera_model_options *options, tessera_image *image, tessera_error *error) {
    tessera_model *model = tessera_model_open(folder, options, error);
    tessera_request request = TESSERA_REQUEST;
    tessera_request_defaults(model, false, &request);
    request.prompt = "a lion";
    request.num_inference_steps = 2;
    bool made = model != NULL && tessera_generate(model, &request, image, error) == TESSERA_OK;
    tessera_model_free(model);
    return made;
}

static void test_pipeline(void) {
    char folder[] = "build-test-XXXXXX";
    if (mkdtemp(folder) == NULL) return;
    shell("cp -r " PIPELINE "/. %s", folder);
    shell("sed -i 's/\"SD3Transformer2DModel\"/\"MyTransformer\"/' %s/transformer/config.json", folder);
    struct denoiser_class mine = sd3_transformer_class;
    mine.name = "MyTransformer";
    const struct denoiser_class *const classes[] = {&mine};
    tessera_model_options plain = {.struct_size = sizeof(tessera_model_options), .dtype = TESSERA_F32, .threads = 1}, own = plain;
    own.denoisers = classes, own.num_denoisers = 1;
    tessera_image wanted = TESSERA_IMAGE, got = TESSERA_IMAGE;
    tessera_error error = {0};
    CHECK(generate(PIPELINE, &plain, &wanted, &error), "%s", error.message);
    CHECK(!generate(folder, &plain, &got, &error) && strstr(error.message, "MyTransformer") != NULL, "%s", error.message);
    CHECK(generate(folder, &own, &got, &error), "%s", error.message);
    size_t bytes = (size_t)wanted.width * (size_t)wanted.height * 3 * sizeof(float);
    CHECK(got.pixels_f32 != NULL && wanted.pixels_f32 != NULL && memcmp(got.pixels_f32, wanted.pixels_f32, bytes) == 0,
          "the pictures differ");
    own.denoisers = NULL;
    CHECK(!generate(folder, &own, &got, &error) && error.status == TESSERA_ERROR_ARGUMENT, "%s", error.message);
    tessera_image_free(&wanted);
    tessera_image_free(&got);
    shell("rm -r %s", folder);
}

/* ---- by itself ---- */

struct steps {
    int count;
    bool finite;
};

static void count_steps(void *user, int step, const float *prediction, const float *latents) {
    struct steps *steps = user;
    CHECK(step == steps->count, "step %d after %d", step, steps->count);
    steps->count++;
    steps->finite = isfinite(prediction[0]) && isfinite(latents[0]);
}

static tessera_sampling sampling_of(const struct case_io *c) {
    return (tessera_sampling){
        .denoiser = CASE "/../model",
        .scheduler = CASE,
        .dtype = TESSERA_F32,
        .threads = 1,
        .num_inference_steps = 6,
        .guidance_scale = 4.0f,
        .inputs = {.text = case_tensor(c, "in.encoder_hidden_states"), .pooled = case_tensor(c, "in.pooled_projections")},
        .rows = case_tensor(c, "in.sample").shape[2],
        .columns = case_tensor(c, "in.sample").shape[3]};
}

static void test_case(const struct case_io *c) {
    tessera_sampling s = sampling_of(c);
    struct tensor noise = case_tensor(c, "in.sample"), x = case_channels_last(&noise), last = case_tensor(c, "out.latents");
    struct steps steps = {0};
    tessera_error error = {0};
    s.report = count_steps, s.user = &steps;
    CHECK(tessera_sample(&s, x.data, (size_t)tensor_count(&x), &error) == TESSERA_OK, "%s", error.message);
    CHECK(steps.count == 6 && steps.finite && s.blocks == 36 && s.blocks_skipped == 0, "%d steps, %d blocks", steps.count, (int)s.blocks);
    last.data = (float *)last.data + 5 * tensor_count(&noise);
    last.ndim = 4;
    for (int i = 0; i < 4; i++) last.shape[i] = noise.shape[i];
    struct tensor wanted = case_channels_last(&last);
    struct case_difference d = case_compare(c, &x, &wanted);
    CHECK(d.worst <= 1.0, "error %g of the tolerance", d.worst);
    free(wanted.data);
    free(x.data);
}

/* A sampler that adds noise in each step: the seed's, and nothing else's. The caller frees. */
static float *sample_noisily(const struct case_io *c, uint64_t seed) {
    tessera_sampling s = sampling_of(c);
    struct tensor noise = case_tensor(c, "in.sample"), x = case_channels_last(&noise);
    tessera_error error = {0};
    s.scheduler = "tests/cases/scheduler_euler_ancestral_10", s.seed = seed;
    CHECK(tessera_sample(&s, x.data, (size_t)tensor_count(&x), &error) == TESSERA_OK, "%s", error.message);
    CHECK(isfinite(((float *)x.data)[0]), "latents are finite");
    return x.data;
}

static void test_noise(const struct case_io *c) {
    struct tensor sample = case_tensor(c, "in.sample");
    float *one = sample_noisily(c, 1), *again = sample_noisily(c, 1), *other = sample_noisily(c, 2);
    CHECK(memcmp(one, again, tensor_bytes(&sample)) == 0, "a seed gives the same latents again");
    CHECK(memcmp(one, other, tensor_bytes(&sample)) != 0, "another seed gives others");
    free(one);
    free(again);
    free(other);
}

/* Stops before step 2. */
static bool stop_at_2(void *user, tessera_phase phase, int done, int total) {
    *(int *)user = done;
    CHECK(phase == TESSERA_PHASE_DENOISE && total == 6, "phase %d, %d steps", (int)phase, total);
    return done < 2;
}

static void test_stop(const struct case_io *c) {
    tessera_sampling s = sampling_of(c);
    struct tensor noise = case_tensor(c, "in.sample"), x = case_channels_last(&noise);
    tessera_error error = {0};
    int done = -1;
    s.progress = stop_at_2, s.progress_user = &done;
    CHECK(tessera_sample(&s, x.data, (size_t)tensor_count(&x), &error) == TESSERA_ERROR_CANCELLED && done == 2, "after %d: %s", done,
          error.message);
    free(x.data);
}

/* ---- guidance in patches ---- */

/* The first step's prediction. */
static void keep_first(void *user, int step, const float *prediction, const float *latents) {
    struct tensor *kept = user;
    (void)latents;
    if (step == 0) memcpy(kept->data, prediction, tensor_bytes(kept));
}

/* [rows, columns, channels] in two patches, none of whose steps goes as a whole; the caller frees. */
static float *predict_in_patches(const struct case_io *c, float scale, float rescale) {
    tessera_sampling s = sampling_of(c);
    tessera_mesh mesh = {.struct_size = sizeof mesh, .num_pipeline_patch = 2, .warmup_steps = -1};
    struct tensor noise = case_tensor(c, "in.sample"), x = case_channels_last(&noise), kept = x;
    tessera_error error = {0};
    kept.data = calloc(1, tensor_bytes(&x));
    s.mesh = &mesh, s.guidance_scale = scale, s.guidance_rescale = rescale, s.report = keep_first, s.user = &kept;
    CHECK(tessera_sample(&s, x.data, (size_t)tensor_count(&x), &error) == TESSERA_OK, "%s", error.message);
    free(x.data);
    return kept.data;
}

static double deviation_of(const float *e, int64_t count) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < count; i++) sum += e[i], squares += (double)e[i] * e[i];
    return sqrt(squares / (double)count - sum / (double)count * (sum / (double)count));
}

/* The second patch's prediction is scaled by the deviations of both patches, the first one's by its
 * own: it is all there is. */
static void test_rescale_in_patches(const struct case_io *c) {
    struct tensor noise = case_tensor(c, "in.sample");
    int64_t count = tensor_count(&noise), half = count / 2;
    float *prompt = predict_in_patches(c, 1.0f, 0.0f), *guided = predict_in_patches(c, 4.0f, 0.0f),
          *rescaled = predict_in_patches(c, 4.0f, 1.0f);
    double first = deviation_of(prompt, half) / deviation_of(guided, half), both = deviation_of(prompt, count) / deviation_of(guided, count);
    double alone = deviation_of(prompt + half, half) / deviation_of(guided + half, half);
    CHECK(fabs(both - alone) > 1e-3 && fabs(both - first) > 1e-3, "the patches are alike: %g, %g, %g", first, alone, both);
    for (int64_t i = 0; i < count; i++) {
        double wanted = guided[i] * (i < half ? first : both);
        CHECK(fabs(rescaled[i] - wanted) < 1e-4, "number %d: %g instead of %g", (int)i, rescaled[i], wanted);
        if (fabs(rescaled[i] - wanted) >= 1e-4) break;
    }
    free(prompt);
    free(guided);
    free(rescaled);
}

static void refuse(const tessera_sampling *s, size_t count, tessera_status status, const char *word) {
    float *x = calloc(count, sizeof *x);
    tessera_sampling copy = *s;
    tessera_error error = {0};
    CHECK(tessera_sample(&copy, x, count, &error) == status && strstr(error.message, word) != NULL, "%s: %s", word, error.message);
    free(x);
}

static void test_misuse(const struct case_io *c) {
    const tessera_sampling good = sampling_of(c);
    struct tensor sample = case_tensor(c, "in.sample");
    size_t count = (size_t)tensor_count(&sample);
    tessera_error error = {0};
    tessera_sampling s = good;
    CHECK(tessera_sample(NULL, NULL, 0, &error) == TESSERA_ERROR_ARGUMENT && tessera_sample(&s, NULL, 0, NULL) != TESSERA_OK, "NULL");
    refuse(&good, count - 1, TESSERA_ERROR_ARGUMENT, "latents");
    s.inputs.text.shape[0] = 1;
    refuse(&s, count, TESSERA_ERROR_ARGUMENT, "inputs.text");
    s = good, s.inputs.text = (struct tensor){0};
    refuse(&s, count, TESSERA_ERROR_ARGUMENT, "text");
    s = good, s.rows++;
    refuse(&s, count, TESSERA_ERROR_ARGUMENT, "multiples of 2");
    s = good, s.num_inference_steps = 0;
    refuse(&s, count, TESSERA_ERROR_ARGUMENT, "steps: 0");
    tessera_mesh mesh = TESSERA_MESH;
    s = good, s.mesh = &mesh, mesh.tensor = 64;
    refuse(&s, count, TESSERA_ERROR_ARGUMENT, "64 ranks");
    mesh.tensor = 1, mesh.cfg = 2;
    s = good, s.mesh = &mesh, s.guidance_scale = 0;
    refuse(&s, count, TESSERA_ERROR_ARGUMENT, "cfg degree 2");
    s = good, s.guidance_scale = NAN;
    refuse(&s, count, TESSERA_ERROR_ARGUMENT, "guidance_scale");
    s = good, s.num_denoisers = -1;
    refuse(&s, count, TESSERA_ERROR_ARGUMENT, "denoisers");
    s = good, s.denoiser = "tests/cases/vae_sd/model";
    refuse(&s, count, TESSERA_ERROR_FORMAT, "no denoiser");
    s = good, s.denoiser = "no/such/folder";
    refuse(&s, count, TESSERA_ERROR_IO, "no/such/folder");
    s = good, s.step_cache = "nocache";
    refuse(&s, count, TESSERA_ERROR_ARGUMENT, "nocache");
}

int main(void) {
    struct case_io c;
    tessera_error error = {0};
    test_pipeline();
    CHECK(case_open(CASE, &c, &error) == TESSERA_OK, "%s", error.message);
    if (error.status == TESSERA_OK) {
        test_case(&c);
        test_noise(&c);
        test_stop(&c);
        test_rescale_in_patches(&c);
        test_misuse(&c);
    }
    case_close(&c);
    return CHECK_REPORT();
}
