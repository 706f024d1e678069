/* Every way of keeping a model in memory gives the same picture to the bit, in every family; and so do the stages one by one. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "pipelines/pipeline.h"

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

int main(void) {
    for (int i = 0; i < SIDE * SIDE * 3; i++) pixels[i] = (uint8_t)(i * 7 + i / 96);
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) test_same_picture(models[i], i % 2 == 0 ? TESSERA_F32 : TESSERA_BF16);
    test_states_that_do_not_fit();
    return CHECK_REPORT();
}
