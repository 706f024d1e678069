/* The public API of include/tessera.h over a pipeline.
 *
 * This file checks what a caller can get wrong independently of a model, and gives every call an
 * error to write into, also if the caller passed none: the rooms below rely on both. A handle is
 * idle, in use, or abandoned: freed while in use, so that the call frees it at its end. */
#include "tessera.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "pipelines/model.h"
#include "pipelines/options.h"
#include "pipelines/request.h"
#include "pipelines/sized.h"
#include "pipelines/world.h"

enum { HANDLE_IDLE, HANDLE_AT_WORK, HANDLE_ABANDONED };

/* ---- the library ---- */

const char *tessera_version(void) {
    return TESSERA_VERSION;
}

const char *const *tessera_families(void) {
    return pipeline_class_names();
}

const char *const *tessera_schedulers(void) {
    return scheduler_names();
}

/* What the first version of tessera_family has. */
#define FAMILY_LEAST_BYTES (offsetof(tessera_family, is_unet) + sizeof(bool))

bool tessera_family_describe(const char *pipeline_class, tessera_family *out) {
    const struct pipeline_class *class = pipeline_class != NULL ? pipeline_class_find(pipeline_class) : NULL;
    if (class == NULL || out == NULL) return false;
    const tessera_family family = {.struct_size = sizeof family,
                                   .t5_encoder = class->t5_encoder,
                                   .flow_matching = class->flow_matching,
                                   .distilled = class->distilled,
                                   .has_control = class->has_control,
                                   .rounds_sizes = class->rounds_sizes,
                                   .is_unet = class->is_unet};
    return sized_write(out, &family, sizeof family, FAMILY_LEAST_BYTES);
}

/* ---- models ---- */

/* The caller's error, or `own` where there is none; says nothing yet. */
static tessera_error *clear_error(tessera_error *given, tessera_error *own) {
    tessera_error *error = given != NULL ? given : own;
    error->status = TESSERA_OK;
    error->message[0] = 0;
    return error;
}

static tessera_status open_model(const char *name, const tessera_model_options *options, tessera_model **out, tessera_error *error) {
    if (name == NULL || name[0] == 0) return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_model_open: no model is named");
    tessera_model *model = *out = calloc(1, sizeof *model);
    if (model == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    atomic_init(&model->state, HANDLE_IDLE);
    return pipeline_open(name, options, &model->pipeline, error);
}

static void destroy(tessera_model *model) {
    if (model != NULL) pipeline_free(model->pipeline);
    free(model);
}

/* A job of all ranks: where one cannot open its share, none does. */
tessera_model *tessera_model_open(const char *name, const tessera_model_options *given, tessera_error *error) {
    tessera_error own;
    tessera_model *model = NULL;
    struct model_options options;
    error = clear_error(error, &own);
    tessera_status readable = model_options_read(given, &options, error);
    struct comm *world = options.mesh.world != NULL ? options.mesh.world->comm : NULL;
    tessera_status status = comm_job_begin(world, error);
    if (status == TESSERA_OK) status = readable;
    if (status == TESSERA_OK) status = open_model(name, &options.own, &model, error);
    status = comm_job_end(world, status, error);
    model_options_free(&options);
    if (status == TESSERA_OK) return model;
    destroy(model);
    return NULL;
}

void tessera_model_free(tessera_model *model) {
    if (model != NULL && atomic_exchange(&model->state, HANDLE_ABANDONED) == HANDLE_IDLE) destroy(model);
}

tessera_status model_enter(tessera_model *model, const char *call, tessera_error *error) {
    int idle = HANDLE_IDLE;
    if (!atomic_compare_exchange_strong(&model->state, &idle, HANDLE_AT_WORK))
        return error_set(error, TESSERA_ERROR_ARGUMENT,
                         "%s: this model is in the middle of another call: one handle serves one call at a time; open another", call);
    pipeline_forget(model->pipeline);
    return TESSERA_OK;
}

void model_leave(tessera_model *model) {
    int at_work = HANDLE_AT_WORK;
    if (!atomic_compare_exchange_strong(&model->state, &at_work, HANDLE_IDLE)) destroy(model);
}

const char *tessera_model_kernel_path(const tessera_model *model) {
    return model != NULL ? model->pipeline->backends[ROLE_DENOISER]->kernel_path : "";
}

int tessera_model_threads(const tessera_model *model) {
    return model != NULL ? model->pipeline->backends[ROLE_DENOISER]->threads : 0;
}

const char *tessera_model_pipeline_class(const tessera_model *model) {
    return model != NULL ? model->pipeline->class->name : "";
}

const char *tessera_model_notice(const tessera_model *model, int index) {
    return model != NULL ? notices_at(&model->pipeline->notices, index) : NULL;
}

int tessera_model_group(const tessera_model *model) {
    return model != NULL ? team_coordinate(&model->pipeline->team, MESH_DATA) : 0;
}

int tessera_model_groups(const tessera_model *model) {
    return model != NULL ? team_degree(&model->pipeline->team, MESH_DATA) : 0;
}

bool tessera_model_gets_pictures(const tessera_model *model) {
    return model != NULL && team_rank(&model->pipeline->team) == 0;
}

/* ---- pictures ---- */

static bool give_defaults(const struct pipeline *p, bool from_picture, tessera_request *request) {
    tessera_request defaults = p->defaults;
    if (from_picture && !p->has_own_defaults) {
        if (p->class->img2img_steps > 0) defaults.num_inference_steps = p->class->img2img_steps;
        if (p->class->img2img_guidance_scale > 0.0f) defaults.guidance_scale = p->class->img2img_guidance_scale;
    }
    return sized_write(request, &defaults, sizeof defaults, REQUEST_LEAST_BYTES);
}

bool tessera_request_defaults(const tessera_model *model, bool from_picture, tessera_request *request) {
    return model != NULL && request != NULL && give_defaults(model->pipeline, from_picture, request);
}

static tessera_status describe(const char *name, const tessera_model_options *options, bool from_picture, tessera_family *family,
                               tessera_request *defaults, tessera_error *error) {
    struct pipeline *p;
    TRY(pipeline_open_described(name, options, &p, error));
    bool written = tessera_family_describe(p->class->name, family) && give_defaults(p, from_picture, defaults);
    pipeline_free(p);
    if (written) return TESSERA_OK;
    return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_model_describe: the size of family or of defaults is not set");
}

tessera_status tessera_model_describe(const char *name, const tessera_model_options *given, bool from_picture, tessera_family *family,
                                      tessera_request *defaults, tessera_error *error) {
    tessera_error own;
    struct model_options options;
    error = clear_error(error, &own);
    tessera_status status = model_options_read(given, &options, error);
    if (status == TESSERA_OK && (name == NULL || name[0] == 0 || family == NULL || defaults == NULL))
        status = error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_model_describe: model, family or defaults is missing");
    if (status == TESSERA_OK) status = describe(name, &options.own, from_picture, family, defaults, error);
    model_options_free(&options);
    return status;
}

int tessera_model_size_unit(tessera_model *model, tessera_error *error) {
    tessera_error own;
    int unit = 0;
    error = clear_error(error, &own);
    if (model == NULL)
        error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_model_size_unit: model is NULL");
    else if (pipeline_size_unit(model->pipeline, &unit, error) != TESSERA_OK)
        unit = 0;
    return unit;
}

int tessera_pictures_at_once(const tessera_model *model, const tessera_request *given) {
    tessera_request request;
    if (model == NULL || given == NULL || request_read(&model->pipeline->defaults, given, &request, NULL) != TESSERA_OK) return 1;
    return pipeline_at_once(model->pipeline, &request);
}

/* What the first version of tessera_image has; all memory of an image is in it. */
#define IMAGE_LEAST_BYTES (offsetof(tessera_image, blocks_skipped) + sizeof(int64_t))

static tessera_status generate(tessera_model *model, const tessera_request *request, tessera_image *image, tessera_error *error) {
    struct generation_control control = {0};
    struct team *team = &model->pipeline->team;
    TRY(model_enter(model, "tessera_generate", error));
    tessera_status status = team_job_begin(team, error);
    if (status == TESSERA_OK) status = pipeline_generate(model->pipeline, request, &control, image, error);
    status = team_job_end(team, status, error);
    if (status != TESSERA_OK) tessera_image_free(image);
    model_leave(model);
    return status;
}

tessera_status tessera_generate(tessera_model *model, const tessera_request *given, tessera_image *out, tessera_error *error) {
    tessera_error own;
    tessera_request request;
    tessera_image image = TESSERA_IMAGE;
    error = clear_error(error, &own);
    if (model == NULL || given == NULL || out == NULL)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_generate: model, request or image is NULL");
    if (!sized_write(out, &image, sizeof image, IMAGE_LEAST_BYTES))
        return error_set(error, TESSERA_ERROR_ARGUMENT, "image: struct_size is not set: begin with TESSERA_IMAGE");
    TRY(request_read(&model->pipeline->defaults, given, &request, error));
    TRY(generate(model, &request, &image, error));
    sized_write(out, &image, sizeof image, IMAGE_LEAST_BYTES);
    return TESSERA_OK;
}
