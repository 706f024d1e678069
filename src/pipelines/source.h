/* Where a model's components lie: a folder in diffusers' layout, a single file, the hub's cache, or
 * what a request puts in their place. Private to this room. */
#ifndef TESSERA_PIPELINES_SOURCE_H
#define TESSERA_PIPELINES_SOURCE_H

#include "pipelines/pipeline.h"

/* Fills p->name, folder, file, index and loras from the user's name for the model. */
tessera_status source_open(struct pipeline *p, const char *model, const tessera_model_options *options, tessera_error *error);
/* Makes a slot for each component. `weigh`: with the bytes of its weights; otherwise it reads no
 * weights. */
tessera_status source_list(struct pipeline *p, const tessera_model_options *options, bool weigh, tessera_error *error);
/* The weights of a slot as they are stored; the caller closes them. */
tessera_status source_weights(const struct pipeline *p, const struct pipeline_slot *slot, struct weights **out, tessera_error *error);
/* Opens the component of a slot, as far as this rank's scope goes, and loads none of its segments.
 * The caller closes it. */
tessera_status source_component(const struct pipeline *p, const struct pipeline_slot *slot, struct component *out, tessera_error *error);
/* A component as its config.json describes it: widths and counts, without weights. `scope`: what
 * this rank loads of a denoiser (zeros: all). The caller closes it. */
tessera_status source_describe(const struct pipeline *p, const struct pipeline_slot *slot, struct load_scope scope, struct component *out,
                               tessera_error *error);
/* A description that tells `hooks` of its tensors (load_hooks.record). */
tessera_status source_describe_with(const struct pipeline *p, const struct pipeline_slot *slot, const struct load_hooks *hooks,
                                    struct component *out, tessera_error *error);
/* The same as source_describe, with the types that the weights have in the model's files, if there
 * are any. It reads no weights into memory. */
tessera_status source_weigh(const struct pipeline *p, const struct pipeline_slot *slot, struct load_scope scope, struct component *out,
                            tessera_error *error);
/* A slot's config.json; the caller frees it. */
tessera_status source_config(const struct pipeline *p, const struct pipeline_slot *slot, struct json **out, tessera_error *error);

#endif
