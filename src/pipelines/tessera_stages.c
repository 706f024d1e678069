/* The public API of include/tessera_stages.h: each call does one phase of a picture; tessera.c does
 * all of them in one call. */
#include "tessera_stages.h"

#include <stddef.h>
#include <stdlib.h>

#include "pipelines/model.h"
#include "pipelines/request.h"
#include "pipelines/sized.h"

/* One call's work on a model. */
struct call {
    const char *name;
    tessera_model *model;
    const tessera_request *request;
    tessera_states *states; /* of tessera_encode */
    const float *latents;   /* of tessera_decode, */
    size_t values;
    tessera_image *image;
};

static tessera_status carry_out(const struct call *c, tessera_error *error) {
    struct pipeline *p = c->model->pipeline;
    const struct generation_control control = {0};
    tessera_image costs = TESSERA_IMAGE;
    TRY(model_enter(c->model, c->name, error));
    tessera_status status = team_job_begin(&p->team, error);
    if (status == TESSERA_OK)
        status = c->states != NULL ? pipeline_encode(p, c->request, &control, c->states, &costs, error)
                                   : pipeline_decode(p, c->request, c->latents, c->values, c->image, error);
    status = team_job_end(&p->team, status, error);
    model_leave(c->model);
    return status;
}

#define STATES_LEAST_BYTES sizeof(tessera_states)
#define IMAGE_LEAST_BYTES (offsetof(tessera_image, blocks_skipped) + sizeof(int64_t))

/* The caller's error, or `own` where there is none; says nothing yet. */
static tessera_error *clear_error(tessera_error *given, tessera_error *own) {
    tessera_error *error = given != NULL ? given : own;
    error->status = TESSERA_OK;
    error->message[0] = 0;
    return error;
}

tessera_status tessera_encode(tessera_model *model, const tessera_request *given, tessera_states *out, tessera_error *error) {
    tessera_error own;
    tessera_request request;
    tessera_states states = TESSERA_STATES;
    error = clear_error(error, &own);
    if (model == NULL || given == NULL || out == NULL)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_encode: model, request or states is NULL");
    if (!sized_write(out, &states, sizeof states, STATES_LEAST_BYTES))
        return error_set(error, TESSERA_ERROR_ARGUMENT, "states: struct_size is not set: begin with TESSERA_STATES");
    TRY(request_read(&model->pipeline->defaults, given, &request, error));
    struct call call = {.name = "tessera_encode", .model = model, .request = &request, .states = &states};
    tessera_status status = carry_out(&call, error);
    if (status != TESSERA_OK) tessera_states_free(&states);
    sized_write(out, &states, sizeof states, STATES_LEAST_BYTES);
    return status;
}

void tessera_states_free(tessera_states *states) {
    static const tessera_states empty = TESSERA_STATES;
    if (states == NULL) return;
    for (int i = 0; i < states->count; i++) free(states->states[i].data);
    sized_write(states, &empty, sizeof empty, sizeof empty.struct_size);
}

tessera_status tessera_decode(tessera_model *model, const tessera_request *given, const float *latents, size_t values, tessera_image *out,
                              tessera_error *error) {
    tessera_error own;
    tessera_request request;
    tessera_image image = TESSERA_IMAGE;
    error = clear_error(error, &own);
    if (model == NULL || given == NULL || latents == NULL || out == NULL)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_decode: model, request, latents or image is NULL");
    if (!sized_write(out, &image, sizeof image, IMAGE_LEAST_BYTES))
        return error_set(error, TESSERA_ERROR_ARGUMENT, "image: struct_size is not set: begin with TESSERA_IMAGE");
    TRY(request_read(&model->pipeline->defaults, given, &request, error));
    struct call call = {.name = "tessera_decode", .model = model, .request = &request, .latents = latents, .values = values, .image = &image};
    tessera_status status = carry_out(&call, error);
    if (status != TESSERA_OK) tessera_image_free(&image);
    sized_write(out, &image, sizeof image, IMAGE_LEAST_BYTES);
    return status;
}

tessera_status tessera_fingerprint(tessera_model *model, tessera_fingerprint_kind kind, char out[TESSERA_FINGERPRINT_BYTES],
                                   tessera_error *error) {
    tessera_error own;
    error = clear_error(error, &own);
    if (model == NULL || out == NULL) return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_fingerprint: model or out is NULL");
    return pipeline_fingerprint(model->pipeline, kind, out, error);
}
