/* See quality.h. */
#include "quality.h"

#include <math.h>
#include <stdlib.h>

#include "metrics/ssim.h"

static const char *const prompts[QUALITY_MOST] = {
    "red apple",
    "a lion on a blue background",
    "cat face",
    "rocket on a black background",
    "strawberry",
    "hot dog",
    "soccer ball",
    "pizza on a green background",
    "an octopus on a yellow background",
    "sailboat",
    "a picture of a penguin on a pink background",
    "hot air balloon",
    "a tiger emoji on a white background",
    "grinning face",
    "a turtle emoji",
    "house with garden",
    "a crab on a grey background",
    "face with tears of joy",
    "a fox",
    "a picture of a rose on a black background",
    "a lemon on a purple background",
    "a panda emoji",
    "bicycle on an orange background",
    "a butterfly on a green background",
};

static tessera_status make_one(tessera_model *model, const struct quality_way *way, int i, struct quality_pictures *out,
                               tessera_error *error) {
    tessera_image image = TESSERA_IMAGE;
    tessera_request request = TESSERA_REQUEST;
    tessera_request_defaults(model, false, &request);
    request.prompt = prompts[i];
    request.seed = (uint64_t)i;
    request.width = way->width > 0 ? way->width : 128;
    request.height = way->height > 0 ? way->height : 128;
    if (way->scheduler != NULL) request.scheduler = way->scheduler;
    request.num_inference_steps = way->steps > 0 ? way->steps : 20;
    request.guidance_scale = 4;
    request.step_cache = way->step_cache;
    request.step_cache_threshold = way->step_cache_threshold;
    tessera_status status = tessera_generate(model, &request, &image, error);
    out->blocks += image.blocks;
    out->blocks_skipped += image.blocks_skipped;
    out->width = image.width, out->height = image.height;
    out->count = 3 * (size_t)image.width * (size_t)image.height;
    out->pixels[i] = image.pixels_f32;
    image.pixels_f32 = NULL;
    tessera_image_free(&image);
    return status;
}

tessera_status quality_make(const char *model_folder, const struct quality_way *way, int count, struct quality_pictures *out,
                            tessera_error *error) {
    *out = (struct quality_pictures){0};
    tessera_mesh mesh = way->mesh;
    mesh.struct_size = sizeof mesh;
    tessera_model_options options = {.struct_size = sizeof(tessera_model_options),
                                     .dtype = TESSERA_F32,
                                     .threads = way->threads,
                                     .mesh = &mesh,
                                     .transformer = way->transformer};
    tessera_model *model = tessera_model_open(model_folder, &options, error);
    if (model == NULL) return error->status;
    tessera_status status = TESSERA_OK;
    for (int i = 0; i < count && status == TESSERA_OK; i++) status = make_one(model, way, i, out, error);
    tessera_model_free(model);
    return status;
}

void quality_free(struct quality_pictures *pictures) {
    for (int i = 0; i < QUALITY_MOST; i++) free(pictures->pixels[i]);
    *pictures = (struct quality_pictures){0};
}

double quality_decibel(const struct quality_pictures *a, const struct quality_pictures *b, int i) {
    double sum = 0;
    for (size_t j = 0; j < a->count; j++) {
        double d = (double)a->pixels[i][j] - (double)b->pixels[i][j];
        sum += d * d;
    }
    return sum == 0 ? QUALITY_EQUAL : -10 * log10(sum / (double)a->count);
}

tessera_status quality_similarity(const struct quality_pictures *a, const struct quality_pictures *b, int i, double *out,
                                  tessera_error *error) {
    return ssim_of_floats(a->pixels[i], b->pixels[i], a->width, a->height, 1, out, error);
}
