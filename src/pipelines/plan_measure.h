/* How fast this rank computes, measured by a few products and attentions of a model's widths. */
#ifndef TESSERA_PIPELINES_PLAN_MEASURE_H
#define TESSERA_PIPELINES_PLAN_MEASURE_H

#include "parallel/plan.h"
#include "tessera.h"

/* Who measures: a rank of so many threads (0: all), of `ranks` that do so at once on this machine, and share its memory and caches;
 * `crowded`: their processors, too. What one would do alone on a processor is found nevertheless, if it has one thread. */
struct plan_measurer {
    int threads, ranks;
    bool crowded;
};

/* Layers of one kind: channels of a token, heads, and how often the picture's rows and columns are halved before them. */
struct plan_layer {
    int64_t width, heads;
    int level;
};
/* Those in which most of a step's operations are: a transformer's all, a U-Net's of one level. */
struct plan_layer plan_busiest_layer(const struct plan_model *model);
/* With how many tokens they are measured for spans of `positions` tokens of the picture: not too few to tell their speed, and no more than
 * say something new. */
int64_t plan_measured_tokens(struct plan_layer layer, int64_t positions);

/* Operations a second of products, attention's rate in shares of it, elements a second of norms, and bytes a second of weights, which each
 * product costs once however few tokens it has: of the busiest layers, for spans of `positions` tokens. Takes a second or so. */
struct plan_speed {
    double operations, attention_share, elements, streaming;
};
tessera_status plan_measure_speed(const struct plan_model *model, int64_t positions, struct plan_measurer measurer, struct plan_speed *out,
                                  tessera_error *error);

/* The same from $XDG_CACHE_HOME/tessera/speed.json (else ~/.cache/tessera), where it is known of this machine and these kernels; else
 * measured, and kept there if it can be written. (plan_cache.c) */
tessera_status plan_known_speed(const struct plan_model *model, int64_t positions, struct plan_measurer measurer, struct plan_speed *out,
                                tessera_error *error);

#endif
