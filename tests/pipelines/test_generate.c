/* The public API on the embedded model: requests that make no sense, cancelling, and that a picture
 * depends on its request alone. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "check.h"
#include "tessera.h"

#define MODEL "models/emoji"

static void shell(const char *format, const char *folder) {
    char command[512];
    snprintf(command, sizeof command, format, folder);
    CHECK(system(command) == 0, "%s", command);
}

static void expect_error(tessera_model *model, tessera_request request, tessera_status status, const char *word) {
    tessera_error error = {0};
    tessera_image image = TESSERA_IMAGE;
    tessera_status got = tessera_generate(model, &request, &image, &error);
    CHECK(got == status && strstr(error.message, word) != NULL, "wanted status %d and \"%s\", got %d: %s", status, word, got,
          error.message);
    CHECK(image.pixels == NULL, "a failed request leaves no picture (%s)", word);
}

static void test_bad_requests(tessera_model *model) {
    tessera_request good = TESSERA_REQUEST, r;
    tessera_request_defaults(model, false, &good);
    CHECK(good.width == 128 && good.num_inference_steps == 20 && good.guidance_scale == 4.0f && good.max_sequence_length == 0,
          "generation_defaults.json is honoured: %d %d %g", good.width, good.num_inference_steps, good.guidance_scale);
    r = good, r.width = 100, expect_error(model, r, TESSERA_ERROR_ARGUMENT, "multiples of 16");
    r = good, r.height = 0, expect_error(model, r, TESSERA_ERROR_ARGUMENT, "size");
    r = good, r.width = 1024, expect_error(model, r, TESSERA_ERROR_ARGUMENT, "512");
    r = good, r.num_inference_steps = 0, expect_error(model, r, TESSERA_ERROR_ARGUMENT, "steps");
    r = good, r.num_images = 0, expect_error(model, r, TESSERA_ERROR_ARGUMENT, "num-images");
    r = good, r.strength = 1.5f, expect_error(model, r, TESSERA_ERROR_ARGUMENT, "strength");
    r = good, r.scheduler = "NoSuchScheduler", expect_error(model, r, TESSERA_ERROR_UNSUPPORTED, "NoSuchScheduler");
    r = good, r.scheduler = "DDIMScheduler", expect_error(model, r, TESSERA_ERROR_UNSUPPORTED, "flow matching");
    r = good, r.prompt = NULL, expect_error(model, r, TESSERA_ERROR_ARGUMENT, "prompt");
}

static void test_bad_folders(void) {
    tessera_error error = {0};
    CHECK(tessera_model_open("no/such/folder", NULL, &error) == NULL && strstr(error.message, "no/such/folder"), "%s", error.message);
    CHECK(tessera_model_open("src", NULL, &error) == NULL && strstr(error.message, "model_index.json"), "%s", error.message);
    CHECK(tessera_model_open(NULL, NULL, &error) == NULL && error.status == TESSERA_ERROR_ARGUMENT, "NULL folder");
    tessera_model_free(NULL);
}

static bool cancel_at_step_three(void *user, tessera_phase phase, int done, int total) {
    (void)total;
    int *calls = user;
    (*calls)++;
    return !(phase == TESSERA_PHASE_DENOISE && done == 3);
}

static void test_cancel(tessera_model *model) {
    tessera_request r = TESSERA_REQUEST;
    tessera_request_defaults(model, false, &r);
    int calls = 0;
    r.progress = cancel_at_step_three, r.progress_user = &calls;
    expect_error(model, r, TESSERA_ERROR_CANCELLED, "stopped");
    CHECK(calls > 3, "the callback is called per step: %d", calls);
}

/* Picture 1 of two, made alone, and picture 1 made after picture 0, are the same; other seeds and
 * pictures are not. */
static void test_pictures_depend_on_request_alone(tessera_model *model) {
    tessera_error error = {0};
    tessera_request r = TESSERA_REQUEST;
    tessera_request_defaults(model, false, &r);
    tessera_image two = TESSERA_IMAGE, one = TESSERA_IMAGE;
    r.prompt = "red apple", r.num_inference_steps = 2, r.num_images = 2, r.seed = 5;
    CHECK(tessera_generate(model, &r, &two, &error) == TESSERA_OK && two.count == 2, "%s", error.message);
    r.first_image = 1;
    CHECK(tessera_generate(model, &r, &one, &error) == TESSERA_OK && one.count == 1, "%s", error.message);
    size_t size = (size_t)one.width * (size_t)one.height * 3;
    CHECK(memcmp(two.pixels + size, one.pixels, size) == 0, "picture 1 differs when it is made alone");
    CHECK(memcmp(two.pixels, one.pixels, size) != 0, "pictures 0 and 1 are the same");
    size_t wrong = 0;
    for (size_t i = 0; i < size; i++) wrong += one.pixels[i] != (uint8_t)lrintf(one.pixels_f32[i] * 255.0f);
    CHECK(wrong == 0, "%zu bytes are not the nearest to the numbers that they come from", wrong);
    tessera_image_free(&two);
    tessera_image_free(&one);
}

/* What a program takes of each picture as it is finished. */
struct taken {
    const tessera_image *wanted;
    int count, most; /* pictures to take before the program refuses */
};

static tessera_status take(void *user, int image, const tessera_image *picture, tessera_error *error) {
    struct taken *taken = user;
    size_t size = (size_t)picture->width * (size_t)picture->height * 3;
    size_t latents = (size_t)picture->latent_channels * (size_t)picture->latent_height * (size_t)picture->latent_width;
    if (taken->count == taken->most) {
        snprintf(error->message, sizeof error->message, "no room");
        return TESSERA_ERROR_IO;
    }
    CHECK(picture->count == 1 && image == 1 + taken->count, "picture %d comes as number %d", 1 + taken->count, image);
    CHECK(memcmp(picture->pixels, taken->wanted->pixels + (size_t)image * size, size) == 0, "picture %d's pixels", image);
    CHECK(memcmp(picture->latents, taken->wanted->latents + (size_t)image * latents, latents * sizeof(float)) == 0, "its latents");
    taken->count++;
    return TESSERA_OK;
}

static void test_delivered_pictures_are_the_same(tessera_model *model, bool from_picture) {
    tessera_error error = {0};
    tessera_request r = TESSERA_REQUEST;
    tessera_image all = TESSERA_IMAGE, image = TESSERA_IMAGE;
    struct taken taken = {.wanted = &all, .most = 10};
    tessera_request_defaults(model, from_picture, &r);
    r.prompt = "red apple", r.num_inference_steps = 2, r.num_images = 3, r.width = r.height = 64;
    uint8_t start[64 * 64 * 3] = {0};
    if (from_picture) r.init_image = start, r.strength = 0;
    CHECK(tessera_generate(model, &r, &all, &error) == TESSERA_OK && all.count == 3, "%s", error.message);
    r.first_image = 1, r.deliver = take, r.deliver_user = &taken;
    CHECK(tessera_generate(model, &r, &image, &error) == TESSERA_OK && taken.count == 2, "%d pictures: %s", taken.count, error.message);
    CHECK(image.count == 2 && image.pixels == NULL && image.pixels_f32 == NULL && image.latents == NULL, "they are not returned again");
    tessera_image_free(&image);
    taken.count = 0, taken.most = 1;
    CHECK(tessera_generate(model, &r, &image, &error) == TESSERA_ERROR_IO && strstr(error.message, "no room"), "%s", error.message);
    tessera_image_free(&all);
}

/* Requests of one text read it once, wherever they stand in a job, and become the pictures that
 * each makes alone. */
static void test_job_reads_each_text_once(tessera_model *model) {
    enum { REQUESTS = 4 };
    static const char *const prompts[REQUESTS] = {"red apple", "a crab", "red apple", "red apple"};
    tessera_error error = {0};
    tessera_request requests[REQUESTS];
    for (int i = 0; i < REQUESTS; i++) {
        requests[i] = (tessera_request)TESSERA_REQUEST;
        tessera_request_defaults(model, false, &requests[i]);
        requests[i].prompt = prompts[i], requests[i].seed = (uint64_t)i;
        requests[i].num_inference_steps = 2, requests[i].width = requests[i].height = 64;
    }
    requests[3].clip_skip = 1; /* the same words, read in another way */
    tessera_job *job = tessera_job_new(model, requests, REQUESTS, &error);
    CHECK(job != NULL && tessera_job_run(job, &error) == TESSERA_OK, "%s", error.message);
    for (int i = 0; i < REQUESTS; i++) {
        tessera_image alone = TESSERA_IMAGE;
        const tessera_image *image = tessera_job_image(job, i);
        CHECK(tessera_generate(model, &requests[i], &alone, &error) == TESSERA_OK, "%s", error.message);
        CHECK(image != NULL && memcmp(image->pixels, alone.pixels, 64 * 64 * 3) == 0, "picture %d differs in a job", i);
        bool reads = image != NULL && image->operations_text > 0;
        CHECK(reads == (i != 2), "request %d of the job %s its text", i, reads ? "reads" : "does not read");
        tessera_image_free(&alone);
    }
    tessera_job_free(job);
}

/* Takes the scheduler's file away, at the folder in `user`, once the first request has reached its
 * steps. */
static bool take_scheduler(void *user, tessera_phase phase, int done, int total) {
    (void)total;
    if (phase == TESSERA_PHASE_DENOISE && done == 1) shell("rm -f %s/scheduler/scheduler_config.json", (const char *)user);
    return true;
}

/* A job opens the scheduler's file for its first request alone; the next call notices that it is
 * gone. */
static void test_job_opens_scheduler_once(void) {
    char folder[] = "build-test-XXXXXX";
    if (mkdtemp(folder) == NULL) return;
    shell("cp -r " MODEL "/. %s", folder);
    tessera_error error = {0};
    tessera_request requests[2];
    tessera_model *model = tessera_model_open(folder, NULL, &error);
    CHECK(model != NULL, "%s", error.message);
    for (int i = 0; i < 2 && model != NULL; i++) {
        requests[i] = (tessera_request)TESSERA_REQUEST;
        tessera_request_defaults(model, false, &requests[i]);
        requests[i].prompt = "red apple", requests[i].num_inference_steps = 2 + i, requests[i].width = requests[i].height = 64;
        requests[i].progress = take_scheduler, requests[i].progress_user = folder;
    }
    tessera_image wanted = TESSERA_IMAGE;
    requests[1].progress = NULL;
    CHECK(tessera_generate(model, &requests[1], &wanted, &error) == TESSERA_OK, "%s", error.message);
    tessera_job *job = tessera_job_new(model, requests, 2, &error);
    CHECK(tessera_job_run(job, &error) == TESSERA_OK, "%s", error.message);
    const tessera_image *image = tessera_job_image(job, 1);
    CHECK(image != NULL && memcmp(image->pixels, wanted.pixels, 64 * 64 * 3) == 0, "the second picture differs in a job");
    if (model != NULL) expect_error(model, requests[1], TESSERA_ERROR_IO, "scheduler_config.json");
    tessera_job_free(job);
    tessera_image_free(&wanted);
    tessera_model_free(model);
    shell("rm -r %s", folder);
}

/* Noise that is given leads to the picture of the seed that draws it. */
static void test_given_latents(tessera_model *model) {
    enum { CHANNELS = 8, SIDE = 8, COUNT = CHANNELS * SIDE * SIDE };
    tessera_error error = {0};
    tessera_request r = TESSERA_REQUEST;
    tessera_image drawn = TESSERA_IMAGE, given = TESSERA_IMAGE;
    float noise[COUNT];
    struct random_generator generator;
    tessera_request_defaults(model, false, &r);
    r.prompt = "red apple", r.num_inference_steps = 2, r.width = r.height = 64, r.seed = 3;
    CHECK(tessera_generate(model, &r, &drawn, &error) == TESSERA_OK && drawn.latent_channels == CHANNELS, "%s", error.message);
    random_seed(&generator, 3);
    random_normal(&generator, noise, COUNT);
    r.seed = 4, r.latents = noise, r.num_latents = COUNT;
    CHECK(tessera_generate(model, &r, &given, &error) == TESSERA_OK, "%s", error.message);
    CHECK(memcmp(drawn.latents, given.latents, sizeof noise) == 0, "given noise is another seed's");
    tessera_image_free(&drawn);
    tessera_image_free(&given);
    r.num_latents--;
    expect_error(model, r, TESSERA_ERROR_ARGUMENT, "latents");
}

int main(void) {
    tessera_error error = {0};
    tessera_model *model = tessera_model_open(MODEL, NULL, &error);
    CHECK(model != NULL, "%s", error.message);
    if (model == NULL) return CHECK_REPORT();
    test_bad_folders();
    test_bad_requests(model);
    test_cancel(model);
    test_pictures_depend_on_request_alone(model);
    test_delivered_pictures_are_the_same(model, false);
    test_delivered_pictures_are_the_same(model, true);
    test_given_latents(model);
    test_job_reads_each_text_once(model);
    test_job_opens_scheduler_once();
    tessera_model_free(model);
    return CHECK_REPORT();
}
