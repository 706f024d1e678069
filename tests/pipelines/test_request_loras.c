/* LoRA files of requests: each picture is, bit for bit, that of a model that was opened with the
 * same files, in whatever order requests with different sets follow one another, and after one that
 * fails. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "tessera.h"

#define MODEL "tests/cases/pipeline_sd15/model"
#define LORA "tests/cases/pipeline_sd15_lora/lora.safetensors"
#define KOHYA "tests/cases/pipeline_sd15_lora_kohya/lora.safetensors"
enum { WIDTH = 64, STEPS = 2, MOST = 2 };

/* A set of files with their scales. */
struct set {
    int count;
    tessera_lora loras[MOST];
};
#define FILE_OF(name, factor)                                                                                                              \
    { .struct_size = sizeof(tessera_lora), .path = name, .scale = factor }
static const struct set none, one = {1, {FILE_OF(LORA, 1.0f)}}, weaker = {1, {FILE_OF(LORA, 0.3f)}}, other = {1, {FILE_OF(KOHYA, 1.0f)}},
                              both = {2, {FILE_OF(LORA, 1.0f), FILE_OF(KOHYA, 1.0f)}}, missing = {1, {FILE_OF("no such file", 1.0f)}},
                              alien = {1, {FILE_OF("tests/cases/pipeline_flux_lora/lora.safetensors", 1.0f)}};

static tessera_model *open_with(const struct set *set) {
    tessera_error error = {0};
    tessera_model_options options = TESSERA_MODEL_OPTIONS;
    options.loras = set->loras, options.num_loras = set->count, options.threads = 1;
    tessera_model *model = tessera_model_open(MODEL, &options, &error);
    CHECK(model != NULL, "%s", error.message);
    return model;
}

/* By a job, which has copies of the list, or at once. */
static tessera_status make(tessera_model *model, const struct set *set, bool by_job, tessera_image *image, tessera_error *error) {
    tessera_request r = TESSERA_REQUEST;
    tessera_request_defaults(model, false, &r);
    r.prompt = "a crab", r.seed = 5;
    r.width = r.height = WIDTH, r.num_inference_steps = STEPS;
    struct set *copy = malloc(sizeof *copy); /* a job must not look at it later */
    if (copy == NULL) return TESSERA_ERROR_MEMORY;
    *copy = *set;
    r.loras = copy->loras, r.num_loras = copy->count;
    tessera_status status;
    if (by_job) {
        tessera_job *job = tessera_job_new(model, &r, 1, error);
        memset(copy, 0xff, sizeof *copy);
        status = job == NULL ? error->status : tessera_job_run(job, error);
        const tessera_image *made = status == TESSERA_OK ? tessera_job_image(job, 0) : NULL;
        if (made != NULL && (image->pixels = malloc(WIDTH * WIDTH * 3)) != NULL) memcpy(image->pixels, made->pixels, WIDTH * WIDTH * 3);
        tessera_job_free(job);
    } else {
        status = tessera_generate(model, &r, image, error);
    }
    free(copy);
    return status;
}

/* The picture of a model that has the set for its own. */
static uint8_t *wanted(const struct set *set) {
    tessera_error error = {0};
    tessera_image image = TESSERA_IMAGE;
    tessera_model *model = open_with(set);
    CHECK(make(model, &none, false, &image, &error) == TESSERA_OK, "%s", error.message);
    tessera_model_free(model);
    uint8_t *pixels = malloc(WIDTH * WIDTH * 3);
    if (pixels != NULL && image.pixels != NULL) memcpy(pixels, image.pixels, WIDTH * WIDTH * 3);
    tessera_image_free(&image);
    return pixels;
}

static void expect(const char *what, tessera_model *model, const struct set *set, bool by_job, const uint8_t *want) {
    tessera_error error = {0};
    tessera_image image = TESSERA_IMAGE;
    CHECK(make(model, set, by_job, &image, &error) == TESSERA_OK, "%s: %s", what, error.message);
    CHECK(image.pixels != NULL && memcmp(image.pixels, want, WIDTH * WIDTH * 3) == 0, "%s: another picture", what);
    tessera_image_free(&image);
}

static void expect_failure(const char *what, tessera_model *model, const struct set *set, tessera_status status, const char *words) {
    tessera_error error = {0};
    tessera_image image = TESSERA_IMAGE;
    CHECK(make(model, set, true, &image, &error) == status && strstr(error.message, words) != NULL, "%s: %s", what, error.message);
    tessera_image_free(&image);
}

int main(void) {
    uint8_t *plain = wanted(&none), *with_one = wanted(&one), *with_weaker = wanted(&weaker), *with_both = wanted(&both);
    CHECK(memcmp(plain, with_one, WIDTH * WIDTH * 3) != 0 && memcmp(with_one, with_weaker, WIDTH * WIDTH * 3) != 0,
          "LoRA changes pictures");
    tessera_model *model = open_with(&none);
    expect("no LoRA", model, &none, false, plain);
    expect("one", model, &one, true, with_one);
    expect("the same again", model, &one, false, with_one);
    expect("weaker", model, &weaker, true, with_weaker);
    expect_failure("a file that is not there", model, &missing, TESSERA_ERROR_IO, "no such file");
    expect("after the failure", model, &weaker, true, with_weaker);
    expect_failure("another model's", model, &alien, TESSERA_ERROR_FORMAT, "LoRA for another model");
    expect("none after a failure", model, &none, true, plain);
    expect("two", model, &both, true, with_both);
    tessera_model_free(model);

    model = open_with(&one);
    expect("the model's own and one more", model, &other, true, with_both);
    expect("the model's own", model, &none, true, with_one);
    tessera_model_free(model);
    free(plain), free(with_one), free(with_weaker), free(with_both);
    return CHECK_REPORT();
}
