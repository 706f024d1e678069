/* Requests that make sense for no model: each names its field; the extremes that do make sense pass. */
#include "pipelines/request.h"

#include <math.h>
#include <string.h>

#include "check.h"

static const tessera_request good = {.prompt = "", .width = 64, .height = 64, .num_inference_steps = 1, .num_images = 1, .strength = 1};

static void refused(tessera_request r, const char *word) {
    tessera_error error = {0};
    CHECK(request_check(&r, &error) == TESSERA_ERROR_ARGUMENT && strstr(error.message, word) != NULL, "wanted \"%s\": %s", word,
          error.message);
}

static void passes(tessera_request r) {
    tessera_error error = {0};
    CHECK(request_check(&r, &error) == TESSERA_OK, "%s", error.message);
}

int main(void) {
    tessera_request r;
    passes(good);
    r = good, r.num_inference_steps = 100000, r.clip_skip = 1000, r.width = r.height = 65536, passes(r);
    r = good, r.num_images = 10000, r.first_image = 9999, r.made_images = 1, passes(r);
    char longest[TESSERA_PROMPT_BYTES + 2] = "";
    memset(longest, 'x', TESSERA_PROMPT_BYTES);
    r = good, r.prompt = longest, passes(r);
    longest[TESSERA_PROMPT_BYTES] = 'x', refused(r, "prompt: longer than 16384 bytes");
    r = good, r.prompt = NULL, refused(r, "prompt");
    r = good, r.num_inference_steps = 0, refused(r, "steps: 0");
    r = good, r.num_inference_steps = 100001, refused(r, "steps");
    r = good, r.num_images = 10001, refused(r, "num-images");
    r = good, r.num_images = 2, r.first_image = 2, refused(r, "num-images");
    r = good, r.num_images = 2, r.first_image = 1, r.made_images = 2, refused(r, "num-images");
    r = good, r.height = 65537, refused(r, "65536 pixels");
    r = good, r.max_sequence_length = -1, refused(r, "max-sequence-length");
    r = good, r.clip_skip = -1, refused(r, "clip-skip");
    r = good, r.crop_top = -1, refused(r, "crops-coords-top-left (top)");
    r = good, r.target_width = 1 << 21, refused(r, "target-size (width)");
    r = good, r.guidance_scale = NAN, refused(r, "guidance-scale");
    r = good, r.true_cfg_scale = INFINITY, refused(r, "true-cfg-scale");
    r = good, r.guidance_rescale = -0.1f, refused(r, "guidance-rescale");
    r = good, r.strength = 1.1f, refused(r, "strength");
    return CHECK_REPORT();
}
