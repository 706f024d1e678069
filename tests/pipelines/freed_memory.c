/* Memory is given back: freed_memory MODEL. After a component is freed, this process holds what it
 * held before, within 5 %; while the component is there, so much more that this says something.
 * Each stage alone, then all together. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "check.h"
#include "pipelines/pipeline.h"

enum { SIDE = 256 };
#define LEAST ((size_t)40 << 20) /* that the denoiser adds */

static const struct generation_control control;

/* From now on the peak is that of what follows; false where the system does not allow it. */
static bool forget_peak(void) {
    int file = open("/proc/self/clear_refs", O_WRONLY);
    bool done = file >= 0 && write(file, "5", 1) == 1;
    if (file >= 0) close(file);
    return done;
}

static void check_back(const char *what, size_t before, size_t least) {
    size_t after = memory_resident(), peak = memory_peak_resident();
    CHECK(after <= before + before / 20, "%s: %zu kB before, %zu kB after", what, before >> 10, after >> 10);
    CHECK(peak >= before + least, "%s: %zu kB before, no more than %zu kB meanwhile", what, before >> 10, peak >> 10);
    printf("%s: %zu kB before, %zu kB meanwhile, %zu kB after\n", what, before >> 10, peak >> 10, after >> 10);
}

static void test_stages(struct pipeline *p, tessera_request r) {
    tessera_error error = {0};
    tessera_states states = TESSERA_STATES;
    tessera_image costs = TESSERA_IMAGE, latents = TESSERA_IMAGE, image = TESSERA_IMAGE;
    size_t before = memory_resident();
    forget_peak();
    CHECK(pipeline_encode(p, &r, &control, &states, &costs, &error) == TESSERA_OK, "%s", error.message);
    check_back("text encoders", before, 0);
    r.states = &states, r.latents_only = true;
    before = memory_resident();
    bool counts = forget_peak();
    CHECK(pipeline_generate(p, &r, &control, &latents, &error) == TESSERA_OK, "%s", error.message);
    check_back("denoiser", before, counts ? LEAST : 0);
    r.states = NULL, r.latents_only = false;
    size_t values = (size_t)latents.count * (size_t)(latents.latent_channels * latents.latent_height * latents.latent_width);
    before = memory_resident();
    forget_peak();
    CHECK(pipeline_decode(p, &r, latents.latents, values, &image, &error) == TESSERA_OK, "%s", error.message);
    check_back("autoencoder", before, 0);
    tessera_states_free(&states);
    tessera_image_free(&latents);
    tessera_image_free(&image);
}

int main(int argc, char **argv) {
    tessera_error error = {0};
    tessera_image image = TESSERA_IMAGE;
    struct pipeline *p = NULL;
    tessera_model_options options = TESSERA_MODEL_OPTIONS;
    options.offload = "stages", options.threads = 2;
    CHECK(argc == 2 && pipeline_open(argv[1], &options, &p, &error) == TESSERA_OK, "%s", error.message);
    if (p == NULL) return CHECK_REPORT();
    tessera_request r = p->defaults;
    r.prompt = "a lion", r.width = r.height = SIDE, r.num_inference_steps = 1;
    CHECK(pipeline_generate(p, &r, &control, &image, &error) == TESSERA_OK, "%s", error.message); /* libraries and tokenizers come, and stay */
    tessera_image_free(&image);
    test_stages(p, r);
    size_t before = memory_resident();
    bool counts = forget_peak();
    CHECK(pipeline_generate(p, &r, &control, &image, &error) == TESSERA_OK, "%s", error.message);
    tessera_image_free(&image);
    check_back("all stages", before, counts ? LEAST : 0);
    pipeline_free(p);
    return CHECK_REPORT();
}
