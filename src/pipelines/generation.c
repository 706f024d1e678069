/* A request's clock and its reports to the caller, which all of its phases use. */
#include "pipelines/generation.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "pipelines/sized.h"

tessera_status generation_report(const struct generation *g, tessera_phase phase, int done, int total, tessera_error *error) {
    const tessera_request *r = g->request;
    TRY(team_job_status(&g->pipeline->team, error));
    if (!atomic_load(&g->control->stop) && (r->progress == NULL || r->progress(r->progress_user, phase, done, total))) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_CANCELLED, "stopped on request");
}

void pipeline_notice(const struct pipeline *p, const tessera_request *request, const char *format, ...) {
    char text[sizeof((tessera_error *)0)->message];
    va_list arguments;
    if (request->notice == NULL) return;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    request->notice(request->notice_user, text);
}

double generation_clock(const struct generation *g) {
    return clock_seconds() - g->pipeline->seconds_load;
}

void tessera_image_free(tessera_image *image) {
    static const tessera_image empty = TESSERA_IMAGE;
    if (image == NULL) return;
    free(image->pixels);
    free(image->pixels_f32);
    free(image->latents);
    sized_write(image, &empty, sizeof empty, sizeof empty.struct_size);
}
