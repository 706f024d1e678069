/* A model's folder as a plan sees it: see plan_model.h. */
#include "pipelines/pipeline.h"
#include "pipelines/plan_model.h"

tessera_status plan_model_open(const char *model, const tessera_model_options *options, const struct plan_request *request,
                               struct plan_model *out, tessera_error *error) {
    struct pipeline *pipeline = NULL;
    *out = (struct plan_model){0};
    TRY(pipeline_open_described(model, options, &pipeline, error));
    tessera_status status = plan_model_of(pipeline, request, out, error);
    pipeline_free(pipeline);
    return status;
}
