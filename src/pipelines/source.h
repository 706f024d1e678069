/* Where a model's components lie: a folder in diffusers' layout, a single file, the hub's cache, or what a request puts in their place. Private
 * to this room. */
#ifndef TESSERA_PIPELINES_SOURCE_H
#define TESSERA_PIPELINES_SOURCE_H

#include "pipelines/pipeline.h"

/* Fills p->name, folder, file, index and loras from what the user calls the model. */
tessera_status source_open(struct pipeline *p, const char *model, const tessera_model_options *options, tessera_error *error);
/* A slot for each component, with the bytes of its weights where `weigh`; otherwise no weights are looked at. */
tessera_status source_list(struct pipeline *p, const tessera_model_options *options, bool weigh, tessera_error *error);
/* The weights of a slot as they are stored; the caller closes them. */
tessera_status source_weights(const struct pipeline *p, const struct pipeline_slot *slot, struct weights **out, tessera_error *error);
/* Opens the component of a slot, this rank's share of it; none of its segments is loaded. The caller closes it. */
tessera_status source_component(const struct pipeline *p, const struct pipeline_slot *slot, struct component *out, tessera_error *error);
/* A component as its config.json describes it: widths and counts, without weights. `share`: of a denoiser, of which the description then is
 * (zeros: all). The caller closes it. */
tessera_status source_describe(const struct pipeline *p, const struct pipeline_slot *slot, struct load_scope scope, struct component *out,
                               tessera_error *error);
/* Another description, whose tensors `hooks` are told of (load_hooks.record). */
tessera_status source_describe_with(const struct pipeline *p, const struct pipeline_slot *slot, const struct load_hooks *hooks,
                                    struct component *out, tessera_error *error);
/* The same as source_describe, with the types that the weights have in the model's files, if it has any: a plan may be of a model that is described only. Nothing
 * of them is read into memory. */
tessera_status source_weigh(const struct pipeline *p, const struct pipeline_slot *slot, struct load_scope scope, struct component *out,
                            tessera_error *error);
/* A slot's config.json; the caller frees it. */
tessera_status source_config(const struct pipeline *p, const struct pipeline_slot *slot, struct json **out, tessera_error *error);

#endif
