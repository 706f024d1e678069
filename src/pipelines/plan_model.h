/* A model as a plan sees it (parallel/plan.h), from its folder's config files alone. */
#ifndef TESSERA_PIPELINES_PLAN_MODEL_H
#define TESSERA_PIPELINES_PLAN_MODEL_H

#include "parallel/plan.h"
#include "tessera.h"

struct pipeline;

/* The pictures to plan for; 0 (and a negative scale or length) means the model's own default. */
struct plan_request {
    int width, height, steps, pictures;
    int max_sequence_length;
    double guidance_scale;
    bool has_negative_prompt; /* of models whose guidance is an input: a second prediction */
    bool no_binning;          /* width and height as they are, though the family has resolution bins */
};

/* Weights are not needed. Free *out with plan_model_free. Errors are those of tessera_model_open,
 * and of sizes. */
tessera_status plan_model_open(const char *model, const tessera_model_options *options, const struct plan_request *request,
                               struct plan_model *out, tessera_error *error);
/* The same of an open pipeline. */
tessera_status plan_model_of(const struct pipeline *pipeline, const struct plan_request *request, struct plan_model *out,
                             tessera_error *error);
/* The same for activations alone, from the descriptions that the pipeline keeps: it opens no file
 * of weights, and takes their bytes from the configs. */
tessera_status plan_model_of_activations(struct pipeline *pipeline, const struct plan_request *request, struct plan_model *out,
                                         tessera_error *error);

#endif
