/* A model as a plan sees it (parallel/plan.h), from its folder's config files alone. */
#ifndef TESSERA_PIPELINES_PLAN_MODEL_H
#define TESSERA_PIPELINES_PLAN_MODEL_H

#include "parallel/plan.h"
#include "tessera.h"

struct pipeline;

/* What pictures are planned for; 0 (and a negative scale or length): the model's own default. */
struct plan_request {
    int width, height, steps, pictures;
    int max_sequence_length;
    double guidance_scale;
    bool has_negative_prompt; /* of models whose guidance is an input: a second prediction */
    bool no_binning;          /* width and height as they are, though the family has resolution bins */
};

/* Weights are not needed. The caller ends *out with plan_model_free. Errors as tessera_model_open's and of sizes. */
tessera_status plan_model_open(const char *model, const tessera_model_options *options, const struct plan_request *request,
                               struct plan_model *out, tessera_error *error);
/* The same of an open pipeline. */
tessera_status plan_model_of(const struct pipeline *pipeline, const struct plan_request *request, struct plan_model *out,
                             tessera_error *error);
/* As far as activations go, from the descriptions that the pipeline keeps: no file of weights is opened, and their bytes count as the configs
 * have them. */
tessera_status plan_model_of_activations(struct pipeline *pipeline, const struct plan_request *request, struct plan_model *out,
                                         tessera_error *error);

#endif
