/* Kind pipeline: prompt to picture through the public interface, as a user of the library runs it.
 *
 * case.json: prompt (or prompts: a batch, whose noise is one draw), height, width, steps, seed,
 * num_images, `call`, whose names are diffusers', and what pipeline_call.h reads beside these.
 * in.init_image [H, W, 3] 8-bit makes it picture to picture. Wanted are out.image [N, 3, H, W] in
 * [0, 1], or out.image_crop, the part of it that "crop" [top, left, rows, columns] names, and
 * out.latents [N, C, h, w] or, as Flux's pipeline gives them, packed: [N, h/2 w/2, C 2 2]. */
#include <math.h>
#include <stdio.h>

#include <cjson/cJSON.h>

#include "conformance.h"
#include "fenced/fenced.h"
#include "pipeline_call.h"

/* [n, ...] pictures first .. first + count of a case tensor. */
static struct tensor pictures(struct tensor t, int first, int count) {
    int64_t each = tensor_count(&t) / t.shape[0];
    t.data = (float *)t.data + first * each;
    t.shape[0] = count;
    return t;
}

/* The image's pixels, or the part of them that the case holds, in memory that the caller frees.
 * Empty if that is not within them. */
static struct tensor image_part(const tessera_image *image, const int64_t crop[4]) {
    int64_t top = crop[0], left = crop[1], rows = crop[2], columns = crop[3];
    if (top + rows > image->height || left + columns > image->width) return (struct tensor){0};
    struct tensor out =
        tensor_of(malloc((size_t)(image->count * rows * columns * 3) * sizeof(float)), DTYPE_F32, SHAPE(image->count, rows, columns, 3));
    for (int64_t i = 0; i < image->count * rows; i++) {
        int64_t row = (i / rows) * image->height + top + i % rows;
        memcpy((float *)out.data + i * columns * 3, image->pixels_f32 + (row * image->width + left) * 3,
               (size_t)columns * 3 * sizeof(float));
    }
    return out;
}

/* [N, C, h, w] as patches [N, h/2 w/2, C 2 2] (channel, row, column within the patch); the caller
 * frees .data. */
static struct tensor packed_latents(const tessera_image *image) {
    int64_t channels = image->latent_channels, rows = image->latent_height, columns = image->latent_width;
    struct tensor out = tensor_of(malloc((size_t)(image->count * channels * rows * columns) * sizeof(float)), DTYPE_F32,
                                  SHAPE(image->count, (rows / 2) * (columns / 2), channels * 4));
    float *to = out.data;
    for (int64_t n = 0; n < image->count; n++)
        for (int64_t patch = 0; patch < (rows / 2) * (columns / 2); patch++)
            for (int64_t k = 0; k < channels * 4; k++) {
                int64_t y = patch / (columns / 2) * 2 + k / 2 % 2, x = patch % (columns / 2) * 2 + k % 2;
                *to++ = image->latents[((n * channels + k / 4) * rows + y) * columns + x];
            }
    return out;
}

static double picture_psnr(const float *a, const float *b, int64_t count) {
    double squares = 0;
    for (int64_t i = 0; i < count; i++) squares += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    return squares == 0 ? 200.0 : 10.0 * log10((double)count / squares);
}

static void check_latents(struct conformance_case *c, const tessera_image *image, int first) {
    struct tensor wanted = case_tensor(&c->io, "out.latents");
    if (wanted.data == NULL) return;
    if (wanted.shape[0] < first + image->count) {
        case_fail(c, "out.latents holds too few pictures");
        return;
    }
    struct tensor got =
        tensor_of(image->latents, DTYPE_F32, SHAPE(image->count, image->latent_channels, image->latent_height, image->latent_width));
    struct tensor packed = wanted.ndim == 3 ? packed_latents(image) : (struct tensor){0};
    case_check(c, "out.latents", packed.data != NULL ? packed : got, pictures(wanted, first, image->count));
    free(packed.data);
}

static void check_pixels(struct conformance_case *c, struct tensor got, struct tensor wanted) {
    if (got.data == NULL || tensor_count(&got) != tensor_count(&wanted) || got.shape[2] != wanted.shape[2]) {
        case_fail(c, "out.image: another size of the picture");
        return;
    }
    double psnr = picture_psnr(got.data, wanted.data, tensor_count(&wanted));
    c->psnr = c->psnr == 0 ? psnr : fmin(c->psnr, psnr);
    if (c->dtype == DTYPE_F32) {
        case_check(c, "out.image", got, wanted);
        return;
    }
    c->compared++;
    if (c->psnr < BF16_PICTURE_DB) case_fail(c, "out.image: %.1f dB of at least %.0f", c->psnr, BF16_PICTURE_DB);
}

static void check_image(struct conformance_case *c, const tessera_image *image, int first) {
    tessera_error error;
    int64_t crop[4] = {0, 0, image->height, image->width};
    int numbers;
    if (json_ints(c->io.json, "crop", 0, 1 << 16, crop, 4, &numbers, &error) != TESSERA_OK) {
        case_error(c, &error);
        return;
    }
    struct tensor want_image = case_tensor(&c->io, numbers == 4 ? "out.image_crop" : "out.image");
    if (want_image.data == NULL || want_image.ndim != 4 || want_image.shape[0] < first + image->count) {
        case_fail(c, "out.image holds too few pictures");
        return;
    }
    struct tensor part = pictures(want_image, first, image->count), wanted = case_channels_last(&part), got = image_part(image, crop);
    check_pixels(c, got, wanted);
    if (c->dtype == DTYPE_F32) check_latents(c, image, first);
    free(got.data);
    free(wanted.data);
}

static tessera_status generate(struct conformance_case *c, tessera_model *model, tessera_error *error) {
    tessera_request request = TESSERA_REQUEST;
    tessera_request_defaults(model, false, &request);
    TRY(pipeline_call_read(&c->io, &request, error));
    int batch = pipeline_call_prompts(&c->io), each = request.num_images;
    request.num_images = batch * each; /* each draw of noise is for the whole batch */
    for (int i = 0; i < batch; i++) {
        tessera_image image = TESSERA_IMAGE;
        TRY(pipeline_call_prompt(&c->io, i, &request, error));
        request.first_image = i * each;
        TRY(tessera_generate(model, &request, &image, error));
        int made = image.count;
        image.count = each; /* those after are other prompts' */
        check_image(c, &image, i * each);
        image.count = made;
        tessera_image_free(&image);
    }
    return TESSERA_OK;
}

void conform_pipeline(struct conformance_case *c) {
    tessera_error error = {0};
    char *folder = case_model_folder(c);
    struct pipeline_model m = {.options = {.struct_size = sizeof(tessera_model_options),
                                           .dtype = c->dtype == DTYPE_F32 ? TESSERA_F32 : TESSERA_BF16,
                                           .threads = c->run.backend->threads,
                                           .kernels = c->run.backend->reproducible ? TESSERA_KERNELS_REPRODUCIBLE : TESSERA_KERNELS_BEST,
                                           .device = c->run.backend->shares_host ? NULL : &fenced_device}};
    tessera_model *model = NULL;
    if (pipeline_model_read(c->folder, &c->io, &m, &error) == TESSERA_OK) model = tessera_model_open(folder, &m.options, &error);
    if (model == NULL || generate(c, model, &error) != TESSERA_OK) case_error(c, &error);
    tessera_model_free(model);
    pipeline_model_free(&m);
    free(folder);
}
