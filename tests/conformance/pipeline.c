/* Kind pipeline: prompt to picture through the public interface, as a user of the library runs it.
 *
 * case.json: prompt (or prompts: a batch, whose noise is one draw), height, width, steps, seed, num_images, and `call`, whose names are
 * diffusers'. in.init_image [H, W, 3] 8-bit makes it picture to picture. */
#include <math.h>
#include <stdio.h>

#include <cjson/cJSON.h>

#include "conformance.h"

static tessera_status read_request(struct conformance_case *c, tessera_request *r, tessera_error *error) {
    const struct json *json = c->io.json;
    int64_t width, height, steps, seed, images, length;
    double guidance, strength;
    TRY(json_int(json, "width", r->width, 1, 1 << 16, &width, error));
    TRY(json_int(json, "height", r->height, 1, 1 << 16, &height, error));
    TRY(json_int(json, "steps", r->num_inference_steps, 1, 10000, &steps, error));
    TRY(json_int(json, "seed", 0, 0, INT64_C(1) << 52, &seed, error));
    TRY(json_int(json, "num_images", 1, 1, 100, &images, error));
    TRY(json_int(json, "call.max_sequence_length", r->max_sequence_length, 0, 4096, &length, error));
    TRY(json_double(json, "call.guidance_scale", r->guidance_scale, &guidance, error));
    TRY(json_double(json, "call.strength", 1.0, &strength, error));
    TRY(json_string(json, "prompt", "", &r->prompt, error));
    TRY(json_string(json, "call.negative_prompt", NULL, &r->negative_prompt, error));
    r->width = (int)width, r->height = (int)height, r->num_inference_steps = (int)steps, r->seed = (uint64_t)seed,
    r->num_images = (int)images;
    r->max_sequence_length = (int)length, r->guidance_scale = (float)guidance, r->strength = (float)strength;
    struct tensor init = case_tensor(&c->io, "in.init_image");
    if (init.data == NULL) return TESSERA_OK;
    if (init.dtype != DTYPE_U8 || init.ndim != 3 || init.shape[0] != height || init.shape[1] != width || init.shape[2] != 3)
        return error_set(error, TESSERA_ERROR_FORMAT, "%s: in.init_image must be U8 [height, width, 3]", c->folder);
    r->init_image = init.data;
    return TESSERA_OK;
}

/* [n, C, H, W] pictures first .. first + count of a case tensor. */
static struct tensor pictures(struct tensor t, int first, int count) {
    int64_t each = tensor_count(&t) / t.shape[0];
    t.data = (float *)t.data + first * each;
    t.shape[0] = count;
    return t;
}

static double picture_psnr(const float *a, const float *b, int64_t count) {
    double squares = 0;
    for (int64_t i = 0; i < count; i++) squares += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    return squares == 0 ? 200.0 : 10.0 * log10((double)count / squares);
}

static void check_image(struct conformance_case *c, const tessera_image *image, int first) {
    struct tensor want_image = case_tensor(&c->io, "out.image"), want_latents = case_tensor(&c->io, "out.latents");
    if (want_image.data == NULL || want_image.shape[0] < first + image->count) {
        case_fail(c, "out.image holds too few pictures");
        return;
    }
    struct tensor part = pictures(want_image, first, image->count), wanted = case_channels_last(&part);
    struct tensor got = tensor_of(image->pixels_f32, DTYPE_F32, SHAPE(image->count, image->height, image->width, 3));
    double psnr = picture_psnr(got.data, wanted.data, tensor_count(&wanted));
    c->psnr = c->psnr == 0 ? psnr : fmin(c->psnr, psnr);
    if (c->dtype == DTYPE_F32) {
        case_check(c, "out.image", got, wanted);
        struct tensor latents =
            tensor_of(image->latents, DTYPE_F32, SHAPE(image->count, image->latent_channels, image->latent_height, image->latent_width));
        if (want_latents.data != NULL) case_check(c, "out.latents", latents, pictures(want_latents, first, image->count));
    } else {
        c->compared++;
        if (c->psnr < BF16_PICTURE_DB) case_fail(c, "out.image: %.1f dB of at least %.0f", c->psnr, BF16_PICTURE_DB);
    }
    free(wanted.data);
}

static tessera_status generate(struct conformance_case *c, tessera_model *model, tessera_error *error) {
    tessera_request request = tessera_request_default(model);
    TRY(read_request(c, &request, error));
    const cJSON *prompts = json_find(c->io.json, "prompts");
    int batch = prompts != NULL ? cJSON_GetArraySize(prompts) : 1, each = request.num_images;
    for (int i = 0; i < batch; i++) {
        tessera_image image;
        if (prompts != NULL) request.prompt = cJSON_GetStringValue(cJSON_GetArrayItem(prompts, i));
        request.first_image = i * each, request.num_images = (i + 1) * each;
        TRY(tessera_generate(model, &request, &image, error));
        check_image(c, &image, i * each);
        tessera_image_free(&image);
    }
    return TESSERA_OK;
}

void conform_pipeline(struct conformance_case *c) {
    tessera_error error = {0};
    char *folder = case_model_folder(c);
    tessera_model_options options = {.dtype = c->dtype == DTYPE_F32 ? TESSERA_F32 : TESSERA_BF16};
    tessera_model *model = tessera_model_open(folder, &options, &error);
    if (model == NULL || generate(c, model, &error) != TESSERA_OK) case_error(c, &error);
    tessera_model_free(model);
    free(folder);
}
