/* The planner as others use it: include/tessera_plan.h and libtessera.so alone. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "tessera_plan.h"

static bool lists(const char *const *names, const char *name) {
    for (; *names != NULL; names++)
        if (strcmp(*names, name) == 0) return true;
    return false;
}

static void test_library(void) {
    CHECK(strcmp(tessera_version(), TESSERA_VERSION) == 0, "%s", tessera_version());
    CHECK(lists(tessera_families(), "StableDiffusion3Pipeline") && lists(tessera_schedulers(), "EulerDiscreteScheduler"), "lists");
    tessera_error error;
    tessera_model *model = tessera_model_open(TESSERA_EMBEDDED_MODEL, NULL, &error);
    CHECK(model != NULL, "%s", error.message);
    CHECK(strcmp(tessera_model_pipeline_class(model), "StableDiffusion3Pipeline") == 0, "%s", tessera_model_pipeline_class(model));
    tessera_model_free(model);
}

/* Each family describes itself, and diffusers' picture-to-picture classes are the same families. */
static void test_families(void) {
    static const char *const with_t5[] = {"StableDiffusion3Pipeline", "FluxPipeline", "FluxControlPipeline", "PixArtAlphaPipeline",
                                          "PixArtSigmaPipeline", "HunyuanDiTPipeline", NULL};
    for (const char *const *name = tessera_families(); *name != NULL; name++) {
        tessera_family family = TESSERA_FAMILY;
        CHECK(tessera_family_describe(*name, &family), "%s", *name);
        CHECK((family.t5_encoder != NULL) == lists(with_t5, *name), "%s: T5 is %s", *name, family.t5_encoder);
        CHECK(family.is_unet == (family.t5_encoder == NULL), "%s: U-Net %d", *name, family.is_unet);
        CHECK(family.has_control == (strcmp(*name, "FluxControlPipeline") == 0), "%s: control %d", *name, family.has_control);
        CHECK(family.distilled == (strncmp(*name, "Flux", 4) == 0), "%s: distilled %d", *name, family.distilled);
    }
    tessera_family family = TESSERA_FAMILY;
    CHECK(tessera_family_describe("StableDiffusion3Img2ImgPipeline", &family) && strcmp(family.t5_encoder, "text_encoder_3") == 0 &&
              family.flow_matching && !family.rounds_sizes,
          "SD3 from picture to picture");
    CHECK(tessera_family_describe("HunyuanDiTPipeline", &family) && family.rounds_sizes && !family.flow_matching, "HunyuanDiT");
    CHECK(!tessera_family_describe("NoPipeline", &family) && !tessera_family_describe(NULL, &family), "families that are not there");
    CHECK(!tessera_family_describe("FluxPipeline", NULL) && !tessera_family_describe("FluxPipeline", &(tessera_family){0}), "no struct");
}

static void test_plans(void) {
    tessera_error error;
    tessera_plan_machine machine = TESSERA_PLAN_MACHINE;
    tessera_plan_request request = TESSERA_PLAN_REQUEST;
    machine.ranks = 4;
    machine.operations = 1e11;
    request.steps = 5;
    tessera_plans *plans = tessera_plans_open(TESSERA_EMBEDDED_MODEL, NULL, &request, &machine, false, &error);
    CHECK(plans != NULL, "%s", error.message);
    if (plans == NULL) return;
    tessera_plan_model model = TESSERA_PLAN_MODEL;
    CHECK(tessera_plans_model(plans, &model) && model.steps == 5 && model.ranks == 4 && model.operations == 1e11, "%d steps", model.steps);
    CHECK(tessera_plans_count(plans) > 3, "%d plans", tessera_plans_count(plans));
    for (int i = 0; i < tessera_plans_count(plans); i++) {
        tessera_plan plan = TESSERA_PLAN;
        CHECK(tessera_plans_get(plans, i, &plan) && plan.exact && plan.picture_seconds > 0 && plan.mesh_text[0] != 0, "plan %d", i);
        const tessera_plan_degrees *d = &plan.degrees;
        CHECK(d->data * d->cfg * d->pipefusion * d->patch * d->ring * d->ulysses * d->tensor == 4, "plan %d: %s", i, plan.mesh_text);
        bool shares = d->data < 4;
        CHECK((tessera_plans_step_bytes(plans, i, 0) > 0) == shares, "plan %d: %s", i, plan.mesh_text);
    }
    tessera_plan none = {0}, plan = TESSERA_PLAN;
    CHECK(!tessera_plans_get(plans, 0, &none) && !tessera_plans_get(plans, -1, &plan), "no size; no such plan");
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);
    CHECK(tessera_plans_draw(plans, 0, stream, &error) == TESSERA_OK, "%s", error.message);
    fclose(stream);
    CHECK(strncmp(text, "<svg", 4) == 0 || strstr(text, "<svg") != NULL, "%.40s", text);
    free(text);
    tessera_plans_free(plans);
}

/* A plan is for the latents that a picture of this size is made of, in resolution bins and without. */
static void check_size(const char *name, int width, int height, bool bins) {
    tessera_error error;
    tessera_plan_request planned = TESSERA_PLAN_REQUEST;
    tessera_plan_model plan = TESSERA_PLAN_MODEL;
    tessera_plan_machine machine = TESSERA_PLAN_MACHINE;
    machine.operations = 1e11;
    planned.width = width, planned.height = height, planned.no_resolution_binning = !bins;
    tessera_plans *plans = tessera_plans_open(name, NULL, &planned, &machine, false, &error);
    CHECK(plans != NULL && tessera_plans_model(plans, &plan), "%s: %s", name, error.message);
    tessera_model *model = tessera_model_open(name, NULL, &error);
    tessera_request request = TESSERA_REQUEST;
    tessera_image image = TESSERA_IMAGE;
    CHECK(model != NULL && tessera_request_defaults(model, false, &request), "%s: %s", name, error.message);
    request.prompt = "a lion", request.use_resolution_binning = request.use_resolution_binning && bins;
    if (width > 0) request.width = width, request.height = height;
    request.num_inference_steps = 1, request.latents_only = true;
    CHECK(tessera_generate(model, &request, &image, &error) == TESSERA_OK, "%s: %s", name, error.message);
    CHECK(image.latent_height == plan.latent_rows && image.latent_width == plan.latent_columns,
          "%s, %dx%d%s: latents %dx%d, planned %lldx%lld", name, width, height, bins ? "" : " as it is", image.latent_width,
          image.latent_height, (long long)plan.latent_columns, (long long)plan.latent_rows);
    tessera_image_free(&image);
    tessera_model_free(model);
    tessera_plans_free(plans);
}

static void test_sizes(void) {
    static const char *const models[] = {"tests/cases/pipeline_pixart_sigma_bins/model", "tests/cases/pipeline_hunyuandit/model",
                                         TESSERA_EMBEDDED_MODEL};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        for (int bins = 0; bins < 2; bins++) {
            check_size(models[i], 0, 0, bins);
            check_size(models[i], 192, 128, bins);
            check_size(models[i], 320, 224, bins);
        }
}

static void test_refused(void) {
    tessera_error error;
    tessera_plan_machine machine = TESSERA_PLAN_MACHINE;
    machine.bandwidth = 0;
    CHECK(tessera_plans_open(TESSERA_EMBEDDED_MODEL, NULL, NULL, &machine, false, &error) == NULL && error.status == TESSERA_ERROR_ARGUMENT,
          "%s", error.message);
    machine.struct_size = 0;
    CHECK(tessera_plans_open(TESSERA_EMBEDDED_MODEL, NULL, NULL, &machine, false, &error) == NULL && strstr(error.message, "struct_size"),
          "%s", error.message);
    CHECK(tessera_plans_open("no/such/model", NULL, NULL, NULL, false, &error) == NULL && error.message[0] != 0, "%s", error.message);
    CHECK(tessera_plans_open(NULL, NULL, NULL, NULL, false, NULL) == NULL && tessera_plans_count(NULL) == 0, "NULL");
    tessera_plans_free(NULL);
}

int main(void) {
    test_library();
    test_families();
    test_plans();
    test_sizes();
    test_refused();
    return CHECK_REPORT();
}
