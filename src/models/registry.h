/* The models that the engine knows, by the class names that model folders use. */
#ifndef TESSERA_MODELS_REGISTRY_H
#define TESSERA_MODELS_REGISTRY_H

#include "models/autoencoder.h"
#include "models/denoiser.h"
#include "models/text_encoder.h"

/* The segments of a component whose weights come and go one by one: what stands before its blocks
 * (COMPONENT_EMBED), each block, and what follows the last (num_blocks). An autoencoder has two
 * blocks, its encoder and its decoder, and nothing around them.
 *
 * Whatever decides when weights are in memory does it with component_load_block and
 * component_drop_block: a whole model loads all segments, stages load a component and drop it,
 * streaming watches a component and keeps a window of its segments, and a device map, a pipeline
 * stage or a part of a split model loads some. */
/* One segment, with memory of its own. */
struct component_segment {
    struct arena *arena;  /* what its layers do not borrow from the file; NULL while it is not loaded */
    struct arena *memory; /* all of it on the component's backend; NULL where that shares the host's memory */
    size_t bytes;         /* of its weights, when they are loaded */
    size_t arena_bytes;   /* that the arena needs at most */
    struct load_span *spans; /* [num_spans] of the mapped file that it is made from; owned */
    int num_spans;
    size_t stored, converted;       /* bytes of the spans; of the layers that do not borrow from them */
    const struct load_copies *copies; /* of the spans, from which the next component_load_block makes the layers; NULL: from the map */
};

/* An opened component: config.json, weights, layers. It owns all of it. */
struct component {
    struct json *config;
    struct weights *weights;
    struct arena *arena; /* of the layers' structs */
    size_t weight_bytes; /* of the weights that this rank loads: what it touches of the file once all is loaded, in the computing type */
    struct backend *backend;   /* that it lives on; NULL: one whose memory is the host's */
    struct denoiser *denoiser; /* one of the three is set */
    struct text_encoder *text_encoder;
    struct autoencoder *autoencoder;
    int num_blocks;
    struct component_segment *segments; /* [num_blocks + 2]: embed, blocks, finish */
    struct load_hooks hooks;
    struct load_scope scope;
    bool scope_only, no_embed, no_finish; /* as in component_source */
    const struct span *elsewhere;         /* the same */
    int num_elsewhere;
    enum dtype dtype;
};

/* Where a component comes from. */
struct component_source {
    const char *folder;             /* holds config.json; may be NULL where config, and weights or hooks that record, are given */
    struct json *config;            /* becomes the component's, on failure too; NULL: the folder's own */
    struct weights *weights;        /* becomes the component's, on failure too; NULL: the folder's own (none where hooks record) */
    const struct load_hooks *hooks; /* copied, or NULL; their user must live as long as segments are loaded */
    const struct denoiser_class *const *denoisers; /* [num_denoisers] that config.json may name beside those of the registry */
    int num_denoisers;
    struct backend *backend; /* that it is to live on, and outlives it; NULL: one whose memory is the host's */
    struct load_scope scope; /* of a denoiser: of whose weights this rank loads its slice, and of whose blocks its stage; zeros: all */
    bool scope_only;         /* the weights hold only what is in scope: the others are described by the configuration */
    bool no_embed, no_finish;     /* what comes before the first block, or behind the last one, is another process's, not in scope */
    const struct span *elsewhere; /* [num_elsewhere] runs of blocks that others compute: not in scope either; copied */
    int num_elsewhere;
};

/* What a class name stands for; `denoisers` as in component_source. */
enum component_kind { COMPONENT_NONE, COMPONENT_DENOISER, COMPONENT_TEXT_ENCODER, COMPONENT_AUTOENCODER };
enum component_kind component_kind_of(const char *class_name, const struct denoiser_class *const *denoisers, int num_denoisers);

/* Opens a component of any class that the engine knows: it is described, and names, shapes and
 * types of all its weights are checked, but none is in memory. NULL-initialised `out` on failure. */
tessera_status component_open(const struct component_source *source, enum dtype dtype, struct component *out, tessera_error *error);
/* The same without weights: layers that say what they would ask of their file. Hooks of the source
 * are not used. */
tessera_status component_describe(const struct component_source *source, enum dtype dtype, struct component *out, tessera_error *error);
/* Tells hooks->record of the tensors that the layers of a segment ask for, once each. Of a
 * component that is only described. */
tessera_status component_ask(struct component *component, int segment, const struct load_hooks *hooks, tessera_error *error);
/* Brings the weights of one segment into memory; nothing happens if they are there. On failure the
 * segment is as if dropped. */
tessera_status component_load_block(struct component *component, int segment, tessera_error *error);
/* Gives the memory of one segment's weights back to the system, mapped pages included; its layers
 * are described only. */
void component_drop_block(struct component *component, int segment);
/* Does this rank load the segment? What stands before the blocks goes with the first one, what is
 * behind them with the last. */
bool component_has_segment(const struct component *component, int segment);
/* All segments that this rank loads, one by one. */
tessera_status component_load(struct component *component, tessera_error *error);
/* From now on `watch` is told before and after each segment is computed with (segment.h), by every
 * job that uses the component; NULL: nobody is. `watch` lives as long as the component, or until
 * another takes its place. */
void component_watch(struct component *component, const struct segment_watch *watch);
void component_close(struct component *component);

#endif
