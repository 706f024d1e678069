/* Checks that a component's results are finite. One NaN in a weight makes a whole picture black,
 * and nothing else would notice. The host checks the sampler's latents and a picture's pixels,
 * which it has anyway; only a prompt's states are copied to it for this, once for each prompt. */
#include <math.h>

#include "pipelines/pipeline.h"

tessera_status pipeline_check_finite(const struct pipeline *p, const char *component, const char *when, const float *values, size_t count,
                                     tessera_error *error) {
    bool bad = false;
    for (size_t i = 0; i < count; i++) bad |= !isfinite(values[i]);
    if (!bad) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_FORMAT, "%s: %s%s: the results hold NaN or infinity: its weights are broken%s", p->name,
                     component, when, p->dtype == DTYPE_F32 ? "" : ", or its values too large for bfloat16 (try --dtype f32)");
}
