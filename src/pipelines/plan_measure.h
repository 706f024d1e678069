/* How fast this rank computes, measured with a few products and attentions of a model's widths. */
#ifndef TESSERA_PIPELINES_PLAN_MEASURE_H
#define TESSERA_PIPELINES_PLAN_MEASURE_H

#include "parallel/plan.h"
#include "tessera.h"

/* Who measures: a rank of so many threads (0: all), one of `ranks` that measure at the same time on
 * this machine and use its memory and caches; `crowded`: also its processors. With one thread it
 * still finds the speed of a rank that is alone on its processor. */
struct plan_measurer {
    int threads, ranks;
    bool crowded;
};

/* Layers of one kind: channels of a token, heads, and how often the picture's rows and columns are
 * halved before them. */
struct plan_layer {
    int64_t width, heads;
    int level;
};
/* The layers with most of a step's operations: all of a transformer, one level of a U-Net. */
struct plan_layer plan_busiest_layer(const struct plan_model *model);
/* How many tokens to measure with, for spans of `positions` tokens of the picture: enough to tell
 * the speed, and not more than needed. */
int64_t plan_measured_tokens(struct plan_layer layer, int64_t positions);

/* Of the busiest layers, for spans of `positions` tokens: operations per second of products;
 * attention's rate, as a share of that; elements per second of norms; and bytes per second of
 * weights, which each product reads once however few tokens it has. Measuring takes about a second.
 */
struct plan_speed {
    double operations, attention_share, elements, streaming;
};
tessera_status plan_measure_speed(const struct plan_model *model, int64_t positions, struct plan_measurer measurer, struct plan_speed *out,
                                  tessera_error *error);

/* The same from $XDG_CACHE_HOME/tessera/speed.json (else ~/.cache/tessera), if that file has this
 * machine and these kernels; otherwise it measures, and writes the file if it can. (plan_cache.c)
 */
tessera_status plan_known_speed(const struct plan_model *model, int64_t positions, struct plan_measurer measurer, struct plan_speed *out,
                                tessera_error *error);

#endif
