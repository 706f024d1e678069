/* Every way of keeping a model in memory gives the same picture to the bit, in every family; and so
 * do the stages one by one. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "pipelines/offload.h"
#include "pipelines/pipeline.h"
#include "pipelines/text_ahead.h"
#include "tessera_stages.h"

static const char *const models[] = {
    "tests/cases/pipeline_sd15/model",   "tests/cases/pipeline_sd2_v_zero_snr/model", "tests/cases/pipeline_sdxl/model",
    "tests/cases/pipeline_sd3/model",    "tests/cases/pipeline_sd3_no_t5/model",      "tests/cases/pipeline_flux/model",
    "tests/cases/pipeline_pixart/model", "tests/cases/pipeline_pixart_alpha/model",   "tests/cases/pipeline_flux_control/model",
    "tests/cases/pipeline_hunyuandit/model",
};
enum { SIDE = 64 };

static const struct generation_control control;

static int open_components(const struct pipeline *p) {
    int count = 0;
    for (int i = 0; i < p->num_slots; i++) count += p->slots[i].is_open;
    return count;
}

static struct pipeline *open_model(const char *model, const char *offload, tessera_dtype dtype) {
    tessera_error error = {0};
    struct pipeline *p = NULL;
    tessera_model_options options = TESSERA_MODEL_OPTIONS;
    options.offload = offload, options.dtype = dtype, options.threads = 2;
    CHECK(pipeline_open(model, &options, &p, &error) == TESSERA_OK, "%s, %s: %s", model, offload, error.message);
    return p;
}

static uint8_t pixels[SIDE * SIDE * 3];

/* Two pictures, from a given one too where the family has no control picture. */
static tessera_request request_of(const struct pipeline *p, bool from_picture) {
    tessera_request r = p->defaults;
    r.prompt = "a lion", r.negative_prompt = "blue";
    r.width = r.height = SIDE;
    r.use_resolution_binning = false;
    r.num_inference_steps = 2, r.num_images = 2, r.seed = 5;
    if (p->class->has_control) r.control_image = pixels;
    if (from_picture) r.init_image = pixels, r.strength = 0.5f;
    return r;
}

static void check_same(const char *model, const char *what, const tessera_image *a, const tessera_image *b) {
    size_t count = (size_t)a->count * SIDE * SIDE * 3, latents = (size_t)a->count * (size_t)(a->latent_channels * a->latent_height * a->latent_width);
    bool good = a->pixels_f32 != NULL && b->pixels_f32 != NULL && a->count == b->count;
    CHECK(good && memcmp(a->latents, b->latents, latents * sizeof(float)) == 0, "%s, %s: other latents", model, what);
    CHECK(good && memcmp(a->pixels_f32, b->pixels_f32, count * sizeof(float)) == 0, "%s, %s: other pixels", model, what);
}

static tessera_image make(struct pipeline *p, bool from_picture) {
    tessera_error error = {0};
    tessera_image image = TESSERA_IMAGE;
    tessera_request r = request_of(p, from_picture);
    CHECK(pipeline_generate(p, &r, &control, &image, &error) == TESSERA_OK, "%s: %s", p->name, error.message);
    return image;
}

/* In blocks twice, so that what was freed comes again. */
static void check_offload(const char *model, const char *offload, tessera_dtype dtype, bool from_picture, const tessera_image *whole) {
    struct pipeline *p = open_model(model, offload, dtype);
    for (int round = 0; p != NULL && round < (strcmp(offload, "blocks") == 0 && !from_picture ? 2 : 1); round++) {
        tessera_image image = make(p, from_picture);
        check_same(model, offload, whole, &image);
        CHECK(open_components(p) == 0, "%s, %s: %d components are left open", model, offload, open_components(p));
        tessera_image_free(&image);
    }
    pipeline_free(p);
}

/* Each stage by a model of its own, which has opened nothing else. */
static void check_stages_apart(const char *model, tessera_dtype dtype, const tessera_image *whole) {
    tessera_error error = {0};
    tessera_states states = TESSERA_STATES;
    tessera_image latents = TESSERA_IMAGE, image = TESSERA_IMAGE;
    struct pipeline *p = open_model(model, "none", dtype);
    if (p == NULL) return;
    tessera_request r = request_of(p, false);
    tessera_image costs = TESSERA_IMAGE;
    CHECK(pipeline_encode(p, &r, &control, &states, &costs, &error) == TESSERA_OK, "%s: %s", model, error.message);
    CHECK(!p->slots[pipeline_slot_index(p, p->denoiser)].is_open, "%s: encoding opens the denoiser", model);
    pipeline_free(p);
    p = open_model(model, "none", dtype);
    r.states = &states, r.latents_only = true;
    CHECK(pipeline_generate(p, &r, &control, &latents, &error) == TESSERA_OK, "%s: %s", model, error.message);
    for (int i = 0; i < p->num_slots; i++)
        CHECK(!p->slots[i].is_open || strncmp(p->slots[i].name, "text_encoder", 12) != 0, "%s: %s is open", model, p->slots[i].name);
    pipeline_free(p);
    p = open_model(model, "none", dtype);
    size_t values = (size_t)latents.count * (size_t)(latents.latent_channels * latents.latent_height * latents.latent_width);
    CHECK(pipeline_decode(p, &r, latents.latents, values - 1, &image, &error) == TESSERA_ERROR_ARGUMENT, "%s: too few latents", model);
    r.latents_only = false;
    CHECK(pipeline_decode(p, &r, latents.latents, values, &image, &error) == TESSERA_OK, "%s: %s", model, error.message);
    CHECK(open_components(p) == 1, "%s: decoding opens %d components", model, open_components(p));
    pipeline_free(p);
    check_same(model, "three stages", whole, &image);
    tessera_states_free(&states);
    tessera_image_free(&latents);
    tessera_image_free(&image);
}

static void test_same_picture(const char *model, tessera_dtype dtype) {
    static const char *const ways[] = {"stages", "blocks"};
    for (int from_picture = 0; from_picture < 2; from_picture++) {
        struct pipeline *p = open_model(model, "none", dtype);
        if (p == NULL) return;
        bool possible = !from_picture || (!p->class->has_control && strstr(model, "sd15") != NULL);
        tessera_image whole = possible ? make(p, from_picture) : (tessera_image)TESSERA_IMAGE;
        pipeline_free(p);
        for (size_t i = 0; possible && i < sizeof ways / sizeof *ways; i++) check_offload(model, ways[i], dtype, from_picture, &whole);
        if (!from_picture && possible) check_stages_apart(model, dtype, &whole);
        tessera_image_free(&whole);
    }
}

/* Without a limit, on a machine of so much memory, or in such a control group: the same picture in
 * the first way that fits, or none. The sizes of the components are made up, so that no way is like
 * another. */
static void test_small_machines(const char *model) {
    static const struct {
        size_t mib;
        enum offload way;
    } machines[] = {{8192, OFFLOAD_NONE}, {2048, OFFLOAD_STAGES}, {1024, OFFLOAD_BLOCKS}, {16, OFFLOAD_NONE}};
    struct pipeline *p = open_model(model, "auto", TESSERA_F32);
    tessera_image whole = TESSERA_IMAGE;
    if (p != NULL) whole = make(p, false);
    for (size_t i = 0; p != NULL && i < sizeof machines / sizeof *machines; i++) {
        tessera_error error = {0};
        tessera_image image = TESSERA_IMAGE;
        tessera_request r = request_of(p, false);
        p->machine_memory = machines[i].mib << 20, p->is_judged = false;
        for (int k = 0; k < p->num_slots; k++) p->slots[k].whole = (size_t)1 << 30;
        bool fits = pipeline_generate(p, &r, &control, &image, &error) == TESSERA_OK;
        CHECK(fits == (machines[i].mib > 16) && (!fits || p->offload == machines[i].way), "%s in %zu MiB: way %d: %s", model, machines[i].mib, p->offload,
              error.message);
        if (fits) check_same(model, "a small machine", &whole, &image);
        CHECK(fits || (error.status == TESSERA_ERROR_MEMORY && strstr(error.message, "than the memory of 16 MiB") != NULL), "%s: %s", model, error.message);
        tessera_image_free(&image);
    }
    tessera_image_free(&whole);
    pipeline_free(p);
}

/* States that do not fit the guidance, or are none. */
static void test_states_that_do_not_fit(void) {
    tessera_error error = {0};
    tessera_states states = TESSERA_STATES;
    tessera_image image = TESSERA_IMAGE;
    struct pipeline *p = open_model(models[0], "none", TESSERA_F32);
    if (p == NULL) return;
    tessera_request r = request_of(p, false);
    r.guidance_scale = 1.0f;
    tessera_image costs = TESSERA_IMAGE;
    CHECK(pipeline_encode(p, &r, &control, &states, &costs, &error) == TESSERA_OK, "%s", error.message);
    r.states = &states;
    CHECK(pipeline_generate(p, &r, &control, &image, &error) == TESSERA_OK, "%s", error.message);
    tessera_image_free(&image);
    r.guidance_scale = 7.5f;
    CHECK(pipeline_generate(p, &r, &control, &image, &error) == TESSERA_ERROR_ARGUMENT && strstr(error.message, "negative") != NULL, "%s",
          error.message);
    r.guidance_scale = 1.0f;
    states.states[0].data[7] = 0.0f / 0.0f;
    CHECK(pipeline_generate(p, &r, &control, &image, &error) == TESSERA_ERROR_FORMAT && strstr(error.message, "NaN") != NULL, "%s", error.message);
    states.states[0].data[7] = 0;
    states.states[0].shape[2]++;
    states.states[0].shape[1] -= 4; /* no more numbers than there are */
    CHECK(pipeline_generate(p, &r, &control, &image, &error) != TESSERA_OK, "another width is taken");
    states.states[0].name = "txet";
    CHECK(pipeline_generate(p, &r, &control, &image, &error) == TESSERA_ERROR_ARGUMENT, "%s", error.message);
    tessera_states_free(&states);
    pipeline_free(p);
    tessera_model_options options = TESSERA_MODEL_OPTIONS;
    options.offload = "some";
    CHECK(pipeline_open(models[0], &options, &p, &error) == TESSERA_ERROR_ARGUMENT && strstr(error.message, TESSERA_OFFLOADS) != NULL, "%s",
          error.message);
}

/* ---- several prompts ---- */

enum { PROMPTS = 4 };

static tessera_request prompt_of(const tessera_model *model, int i) {
    static const char *const texts[PROMPTS] = {"a lion", "a red apple and a very long list of words that no encoder of this model reads to the end", "a lion", ""};
    tessera_request r = TESSERA_REQUEST;
    tessera_request_defaults(model, false, &r);
    r.prompt = texts[i], r.negative_prompt = i % 2 == 0 ? "blue" : "green";
    r.width = r.height = SIDE;
    r.use_resolution_binning = false;
    r.num_inference_steps = 1, r.seed = (uint64_t)i;
    if (r.max_sequence_length > 16) r.max_sequence_length = 16;
    return r;
}

/* The picture of one request and the bytes that were read for it; with states that are given, if
 * `states`. */
static uint64_t bytes_of_one(tessera_model *model, tessera_request r, bool states, tessera_image *image) {
    tessera_error error = {0};
    tessera_states text = TESSERA_STATES;
    tessera_status status = states ? tessera_encode(model, &r, &text, &error) : TESSERA_OK;
    if (states) r.states = &text;
    if (status == TESSERA_OK) status = tessera_generate(model, &r, image, &error);
    CHECK(status == TESSERA_OK, "%s", error.message);
    tessera_states_free(&text);
    return image->disk_bytes;
}

/* Where components do not stay open, encoders are loaded once for all prompts of a job, and
 * pictures are those of requests by themselves. */
static void test_prompts_together(const char *folder, const char *offload) {
    tessera_error error = {0};
    tessera_model_options options = TESSERA_MODEL_OPTIONS;
    options.offload = offload, options.dtype = TESSERA_F32, options.threads = 2;
    tessera_model *model = tessera_model_open(folder, &options, &error);
    CHECK(model != NULL, "%s: %s", folder, error.message);
    if (model == NULL) return;
    tessera_request requests[PROMPTS];
    for (int i = 0; i < PROMPTS; i++) requests[i] = prompt_of(model, i);
    uint64_t whole = 0, without_text = 0, together = 0;
    tessera_job *job = tessera_job_new(model, requests, PROMPTS, &error);
    CHECK(job != NULL && tessera_job_run(job, &error) == TESSERA_OK, "%s: %s", folder, error.message);
    for (int i = 0; i < PROMPTS && tessera_job_image(job, i) != NULL; i++) {
        tessera_image image = TESSERA_IMAGE;
        if (i == 0) without_text = bytes_of_one(model, requests[i], true, &image);
        tessera_image_free(&image);
        whole = bytes_of_one(model, requests[i], false, &image);
        check_same(folder, "prompts together", &image, tessera_job_image(job, i));
        together += tessera_job_image(job, i)->disk_bytes;
        tessera_image_free(&image);
    }
    CHECK(whole > without_text && without_text > 0, "%s: text is read of %llu bytes", folder, (unsigned long long)(whole - without_text));
    uint64_t once = whole + (PROMPTS - 1) * without_text; /* or less: a part that turns out to be of no use may be on its way when all is done */
    CHECK(together < once + (whole - without_text) / 2, "%s, %s: %llu bytes are read, %llu for one picture, %llu of them not for text", folder, offload,
          (unsigned long long)together, (unsigned long long)whole, (unsigned long long)without_text);
    tessera_job_free(job);
    tessera_model_free(model);
}

/* What is kept has a bound. */
static void test_room_ahead(void) {
    struct text_ahead ahead = {.room = 200, .bytes = 100};
    struct prompt_reading reading = {.mask = tensor_of(pixels, DTYPE_F32, SHAPE(1, 25))};
    CHECK(text_ahead_has_room(&ahead, reading), "100 bytes beside 100 fit into 200");
    reading.states.pooled = tensor_of(pixels, DTYPE_F32, SHAPE(1, 1));
    CHECK(!text_ahead_has_room(&ahead, reading), "104 bytes do not");
    struct pipeline p = {.memory_limit = (size_t)1 << 30, .base_memory = ((size_t)1 << 30) - cpu_library_bytes() - 1000, .held_memory = 300};
    CHECK(offload_room(&p, 5000) == 1000, "%zu bytes of 1000, of which 300 are held", offload_room(&p, 5000));
    CHECK(offload_room(&p, 500) == 500, "%zu bytes, 500 at most", offload_room(&p, 500));
}

int main(void) {
    for (int i = 0; i < SIDE * SIDE * 3; i++) pixels[i] = (uint8_t)(i * 7 + i / 96);
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) test_same_picture(models[i], i % 2 == 0 ? TESSERA_F32 : TESSERA_BF16);
    test_small_machines(models[0]), test_small_machines(models[5]);
    test_states_that_do_not_fit();
    test_prompts_together("tests/cases/pipeline_sd15/model", "stages");
    test_prompts_together("tests/cases/pipeline_sdxl/model", "stages");
    test_prompts_together("tests/cases/pipeline_sd3/model", "stages");
    test_prompts_together("tests/cases/pipeline_flux/model", "blocks");
    test_prompts_together("tests/cases/pipeline_pixart/model", "stages");
    test_room_ahead();
    return CHECK_REPORT();
}
