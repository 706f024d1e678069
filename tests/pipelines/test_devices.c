/* Components of a model on several devices: whichever of text encoders, denoiser and autoencoder
 * lives on a device that the host cannot read, the picture is the CPU's bit for bit, and what moves
 * between devices is the prompts' states, once a request, and counted. */
#include <string.h>

#include "check.h"
#include "fenced/fenced.h"
#include "tessera.h"

enum { SIDE = 64, STEPS = 2, PICTURES = 2, PLACES = 8 };

static tessera_request request_of(const tessera_model *model) {
    tessera_request r = TESSERA_REQUEST;
    tessera_request_defaults(model, false, &r);
    r.prompt = "a red apple", r.negative_prompt = "blue";
    r.width = r.height = SIDE;
    r.num_inference_steps = STEPS;
    r.num_images = PICTURES;
    r.use_resolution_binning = false;
    return r;
}

/* Bit 0: text encoders, bit 1: the denoiser, bit 2: the autoencoder on the fenced device. */
static bool picture_of(const char *folder, int places, tessera_image *image) {
    tessera_model_options options = TESSERA_MODEL_OPTIONS;
    tessera_error error = {0};
    options.dtype = TESSERA_F32, options.threads = 1;
    options.text_device = places & 1 ? &fenced_device : NULL;
    options.denoiser_device = places & 2 ? &fenced_device : NULL;
    options.autoencoder_device = places & 4 ? &fenced_device : NULL;
    tessera_model *model = tessera_model_open(folder, &options, &error);
    CHECK(model != NULL, "%s, places %d: %s", folder, places, error.message);
    if (model == NULL) return false;
    tessera_request request = request_of(model);
    tessera_status status = tessera_generate(model, &request, image, &error);
    CHECK(status == TESSERA_OK, "%s, places %d: %s", folder, places, error.message);
    tessera_model_free(model);
    return status == TESSERA_OK;
}

static void test_model(const char *folder, uint64_t states) {
    tessera_image on_cpu = TESSERA_IMAGE;
    if (!picture_of(folder, 0, &on_cpu)) return;
    CHECK(on_cpu.bytes_moved == 0, "%s: %llu bytes moved on one device", folder, (unsigned long long)on_cpu.bytes_moved);
    for (int places = 1; places < PLACES; places++) {
        tessera_image image = TESSERA_IMAGE;
        bool apart = (places & 1) != (places >> 1 & 1);
        if (!picture_of(folder, places, &image)) continue;
        size_t pixels = (size_t)image.count * (size_t)image.width * (size_t)image.height * 3;
        CHECK(image.count == PICTURES && memcmp(image.pixels, on_cpu.pixels, pixels) == 0, "%s, places %d: other pictures", folder, places);
        CHECK(image.bytes_moved == (apart ? states : 0), "%s, places %d: %llu bytes moved, %llu are right", folder, places,
              (unsigned long long)image.bytes_moved, (unsigned long long)(apart ? states : 0));
        CHECK(image.bytes_copied > 0 && image.bytes_copied == on_cpu.bytes_copied, "%s, places %d: %llu bytes copied, on the CPU %llu", folder,
              places, (unsigned long long)image.bytes_copied, (unsigned long long)on_cpu.bytes_copied);
        tessera_image_free(&image);
    }
    tessera_image_free(&on_cpu);
}

int main(void) {
    const uint64_t prompts = 2, f32 = sizeof(float);
    test_model("tests/cases/pipeline_sd3/model", prompts * ((77 + 256) * 72 + 40) * f32); /* text of CLIP and T5, pooled text */
    test_model("tests/cases/pipeline_pixart/model", prompts * 300 * (40 + 1) * f32);      /* text and its mask */
    test_model("tests/cases/pipeline_sd15/model", prompts * 77 * 32 * f32);
    return CHECK_REPORT();
}
