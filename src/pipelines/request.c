/* See request.h. */
#include "pipelines/request.h"

#include <math.h>
#include <string.h>

#include "pipelines/sized.h"

enum { MAX_SIDE = 1 << 16, MAX_STEPS = 100000, MAX_IMAGES = 10000, MAX_TOKENS = 1 << 16, MAX_LAYERS = 1000, MAX_CONDITION = 1 << 20 };

static tessera_status check_whole_numbers(const tessera_request *r, tessera_error *error) {
    const struct {
        const char *name;
        int value, low, high;
    } fields[] = {
        {"steps", r->num_inference_steps, 1, MAX_STEPS},
        {"num-images", r->num_images, 1, MAX_IMAGES},
        {"max-sequence-length", r->max_sequence_length, 0, MAX_TOKENS},
        {"clip-skip", r->clip_skip, 0, MAX_LAYERS},
        {"original-size (width)", r->original_width, 0, MAX_CONDITION},
        {"original-size (height)", r->original_height, 0, MAX_CONDITION},
        {"crops-coords-top-left (left)", r->crop_left, 0, MAX_CONDITION},
        {"crops-coords-top-left (top)", r->crop_top, 0, MAX_CONDITION},
        {"target-size (width)", r->target_width, 0, MAX_CONDITION},
        {"target-size (height)", r->target_height, 0, MAX_CONDITION},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].value < fields[i].low || fields[i].value > fields[i].high)
            return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: %d: must lie between %d and %d", fields[i].name, fields[i].value,
                             fields[i].low, fields[i].high);
    return TESSERA_OK;
}

static tessera_status check_numbers(const tessera_request *r, tessera_error *error) {
    const struct {
        const char *name;
        float value;
        bool is_sliced;
    } fields[] = {
        {"guidance-scale", r->guidance_scale, false},
        {"true-cfg-scale", r->true_cfg_scale, false},
        {"guidance-rescale", r->guidance_rescale, true},
        {"strength", r->strength, true},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        float value = fields[i].value;
        if (!isfinite(value)) return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: must be a finite number", fields[i].name);
        if (fields[i].is_sliced && !(value >= 0.0f && value <= 1.0f))
            return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: %g: must lie between 0 and 1", fields[i].name, (double)value);
    }
    return TESSERA_OK;
}

tessera_status request_check(const tessera_request *r, tessera_error *error) {
    if (r->prompt == NULL) return error_set(error, TESSERA_ERROR_ARGUMENT, "prompt: is missing");
    const char *const texts[] = {r->prompt, r->negative_prompt}, *const names[] = {"prompt", "negative-prompt"};
    for (int i = 0; i < 2; i++)
        if (texts[i] != NULL && strnlen(texts[i], TESSERA_PROMPT_BYTES + 1) > TESSERA_PROMPT_BYTES)
            return error_set(error, TESSERA_ERROR_ARGUMENT, "%s: longer than %d bytes", names[i], TESSERA_PROMPT_BYTES);
    TRY(check_whole_numbers(r, error));
    if (r->width > MAX_SIDE || r->height > MAX_SIDE)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "size %dx%d: at most %d pixels a side", r->width, r->height, MAX_SIDE);
    if (r->first_image < 0 || r->first_image >= r->num_images || r->made_images < 0 || r->made_images > r->num_images - r->first_image)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "num-images: %d pictures from number %d on cannot be made of %d", r->made_images,
                         r->first_image, r->num_images);
    return check_numbers(r, error);
}

tessera_status request_read(const tessera_request *defaults, const tessera_request *given, tessera_request *out, tessera_error *error) {
    *out = *defaults;
    return sized_read(out, sizeof *out, given, REQUEST_LEAST_BYTES, "request", error);
}
