/* What a request is where nobody says: what diffusers' signatures have (make_defaults.py), for text
 * and for picture to picture. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "pipelines/pipeline.h"

static const struct pipeline_class *const classes[] = {
    &stable_diffusion_class, &stable_diffusion_xl_class, &stable_diffusion_3_class, &flux_class,
    &flux_control_class,     &pixart_alpha_class,        &pixart_sigma_class,       &hunyuandit_class,
};

/* `name` is a pipeline's of diffusers; a field that it has must be `ours`. */
static void check(const struct json *json, const char *name, const char *field, double ours) {
    char path[96];
    double theirs;
    tessera_error error = {0};
    snprintf(path, sizeof path, "%s.%s", name, field);
    if (json_find(json, path) == NULL) return;
    CHECK(json_double(json, path, 0.0, &theirs, &error) == TESSERA_OK && fabs(theirs - ours) < 1e-6, "%s is %g in diffusers, %g here", path,
          theirs, ours);
}

static void check_class(const struct json *json, const struct pipeline_class *class) {
    char img2img[64];
    int stem = (int)(strlen(class->name) - strlen("Pipeline"));
    CHECK(json_find(json, class->name) != NULL, "%s is not in the table", class->name);
    check(json, class->name, "num_inference_steps", class->num_inference_steps);
    check(json, class->name, "guidance_scale", class->guidance_scale);
    check(json, class->name, "max_sequence_length", class->max_sequence_length);
    check(json, class->name, "true_cfg_scale", 1.0);
    check(json, class->name, "guidance_rescale", 0.0);
    check(json, class->name, "eta", 0.0);
    snprintf(img2img, sizeof img2img, "%.*sImg2ImgPipeline", stem, class->name);
    check(json, img2img, "num_inference_steps", class->img2img_steps > 0 ? class->img2img_steps : class->num_inference_steps);
    check(json, img2img, "guidance_scale", class->img2img_guidance_scale > 0 ? class->img2img_guidance_scale : class->guidance_scale);
    check(json, img2img, "strength", class->strength);
    check(json, img2img, "max_sequence_length", class->max_sequence_length);
}

int main(void) {
    struct json *json = NULL;
    tessera_error error = {0};
    CHECK(json_open("tests/pipelines/defaults.json", 0, &json, &error) == TESSERA_OK, "%s", error.message);
    for (size_t i = 0; json != NULL && i < sizeof classes / sizeof *classes; i++) check_class(json, classes[i]);
    json_free(json);
    return CHECK_REPORT();
}
