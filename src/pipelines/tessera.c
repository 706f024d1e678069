/* The public API of include/tessera.h over a pipeline. */
#include "tessera.h"

#include <stdlib.h>
#include <string.h>

#include "pipelines/pipeline.h"

struct tessera_model {
    struct pipeline *pipeline;
};

tessera_model *tessera_model_open(const char *name, const tessera_model_options *options, tessera_error *error) {
    if (name == NULL) {
        error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_model_open: no model is named");
        return NULL;
    }
    tessera_model *model = calloc(1, sizeof *model);
    if (model == NULL) {
        error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
        return NULL;
    }
    if (pipeline_open(name, options, &model->pipeline, error) != TESSERA_OK) {
        free(model);
        return NULL;
    }
    return model;
}

void tessera_model_free(tessera_model *model) {
    if (model == NULL) return;
    pipeline_free(model->pipeline);
    free(model);
}

const char *tessera_model_kernel_path(const tessera_model *model) {
    return model->pipeline->backend->kernel_path;
}

int tessera_model_threads(const tessera_model *model) {
    return model->pipeline->backend->threads;
}

const char *tessera_model_pipeline_class(const tessera_model *model) {
    return model->pipeline->class->name;
}

int tessera_model_group(const tessera_model *model) {
    return team_coordinate(&model->pipeline->team, MESH_DATA);
}

int tessera_model_groups(const tessera_model *model) {
    return team_degree(&model->pipeline->team, MESH_DATA);
}

bool tessera_model_gets_pictures(const tessera_model *model) {
    return team_rank(&model->pipeline->team) == 0;
}

tessera_request tessera_request_default(const tessera_model *model) {
    return model != NULL ? model->pipeline->defaults : (tessera_request){0};
}

tessera_status tessera_generate(tessera_model *model, const tessera_request *request, tessera_image *image, tessera_error *error) {
    if (image != NULL) *image = (tessera_image){0};
    if (model == NULL || request == NULL || image == NULL)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "tessera_generate: model, request or image is NULL");
    return pipeline_generate(model->pipeline, request, image, error);
}

void tessera_image_free(tessera_image *image) {
    if (image == NULL) return;
    free(image->pixels);
    free(image->pixels_f32);
    free(image->latents);
    *image = (tessera_image){0};
}
