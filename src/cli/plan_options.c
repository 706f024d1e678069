/* See plan_options.h. */
#include "cli/plan_options.h"

tessera_plan_request plan_options_request(const struct plan_options *o) {
    tessera_plan_request request = TESSERA_PLAN_REQUEST;
    request.width = o->width->integer;
    request.height = o->height->integer;
    request.steps = o->steps->integer;
    request.num_images = o->num_images;
    request.has_negative_prompt = o->has_negative_prompt;
    request.no_resolution_binning = o->no_binning;
    if (o->max_sequence_length->given) request.max_sequence_length = o->max_sequence_length->integer;
    if (o->guidance_scale->given) request.guidance_scale = o->guidance_scale->number;
    return request;
}
