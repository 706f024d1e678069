/* Loading layers from a component's weights: names, shapes and types are checked here, once, before anything is computed.
 *
 * A matrix whose stored type is the computing type stays where it is, in the mapped file; others are converted into the loader's
 * arena. Biases and norm weights become F32. Convolution weights [O, I, kh, kw] are re-ordered to [O, kh, kw, I].
 * Errors stick in loader->error, as in nn/run.h. Names are printf formats relative to `prefix`. */
#ifndef TESSERA_NN_LOAD_H
#define TESSERA_NN_LOAD_H

#include "base/arena.h"
#include "nn/layers.h"
#include "tensor/weights.h"

/* The part of a stored weight that a rank keeps. */
struct load_piece {
    const int64_t *shape;     /* the whole weight's in the file, of as many dimensions as the piece has */
    struct span rows, inputs; /* of its dimensions 0 and 1; a vector has no inputs: {0, 1} */
};

/* What may stand between the layers and the file. */
struct load_hooks {
    void *user;
    /* Told of every tensor that the layers ask for, once each; then nothing is read, the weights may be NULL, and layers come out with
     * shapes but without data: a model's own description is the list of what its file must hold. NULL: weights are read. */
    void (*record)(void *user, const char *name, int ndim, const int64_t *shape);
    /* Is this weight (full name) to be changed while it is loaded (LoRA)? Then `change` gets an F32 copy of the piece that is kept, in the
     * file's order; it may be called once for each piece of a weight. Both NULL: weights stay as stored. */
    bool (*changes)(void *user, const char *name);
    tessera_status (*change)(void *user, const char *name, struct load_piece piece, struct tensor *weight, tessera_error *);
};

/* This rank's share of a denoiser: part `index` of `count` where weights are cut over ranks (tensor parallelism; count 0 is as 1), and of the
 * list of blocks those that it runs (none: all). */
struct load_share {
    int index, count;
    struct span blocks;
};

struct loader {
    struct load_share share;
    const struct weights *weights;
    const struct load_hooks *hooks; /* or NULL */
    struct arena *arena;            /* the model's: lives as long as the layers */
    enum dtype dtype;               /* of matrices */
    char prefix[192];               /* e.g. "text_model.encoder.layers.3." */
    size_t bytes;                   /* of the weights that the layers hold so far, lent or converted */
    tessera_error error;
};

/* Weight [out, in] (or [out, in, 1, 1]) at "<name>.weight"; bias [out] at "<name>.bias" if `bias`. */
struct linear load_linear(struct loader *loader, int64_t in, int64_t out, bool bias, const char *name, ...)
    __attribute__((format(printf, 5, 6)));
/* How many of `units` (attention heads, hidden channels) are this rank's: units * index / count up to units * (index + 1) / count. An
 * ARGUMENT error where there are fewer units than ranks. */
int64_t load_units(struct loader *loader, int64_t units);
/* Which they are. */
struct span load_span(const struct loader *loader, int64_t units);
/* A linear whose outputs are `units` groups of `width` channels: [this rank's units * width, in]. Its outputs are this rank's alone. */
struct linear load_linear_outputs(struct loader *loader, int64_t in, int64_t units, int64_t width, bool bias, const char *name, ...)
    __attribute__((format(printf, 6, 7)));
/* A linear whose inputs are such groups: [out, this rank's units * width]. The ranks' outputs must be added (nn_linear_sum); the first
 * rank's has the bias. */
struct linear load_linear_inputs(struct loader *loader, int64_t units, int64_t width, int64_t out, bool bias, const char *name, ...)
    __attribute__((format(printf, 6, 7)));
/* The same of inputs that are `units` groups of `width`, then `channels` single ones: [out, this rank's units * width + its channels]. */
struct linear load_linear_joined_inputs(struct loader *loader, int64_t units, int64_t width, int64_t channels, int64_t out, bool bias,
                                        const char *name, ...) __attribute__((format(printf, 7, 8)));
/* Part `part` of `parts` matrices that the file keeps one above the other, [parts * units * width, in]; of it, as load_linear_outputs. */
struct linear load_linear_part(struct loader *loader, int64_t in, int part, int parts, int64_t units, int64_t width, bool bias,
                               const char *name, ...) __attribute__((format(printf, 8, 9)));
struct conv load_conv(struct loader *loader, int64_t in, int64_t out, int kernel, const char *name, ...)
    __attribute__((format(printf, 5, 6)));
/* As load_linear_outputs and load_linear_inputs (nn_conv_sum, nn_conv_inputs). */
struct conv load_conv_outputs(struct loader *loader, int64_t in, int64_t units, int64_t width, int kernel, const char *name, ...)
    __attribute__((format(printf, 6, 7)));
struct conv load_conv_inputs(struct loader *loader, int64_t units, int64_t width, int64_t out, int kernel, const char *name, ...)
    __attribute__((format(printf, 6, 7)));
/* "<name>.weight" [channels] and, if `bias`, "<name>.bias". */
struct norm load_norm(struct loader *loader, enum norm_kind kind, int64_t channels, float eps, bool bias, const char *name, ...)
    __attribute__((format(printf, 6, 7)));
/* A norm of `units` groups of `width` channels: this rank's. */
struct norm load_norm_share(struct loader *loader, enum norm_kind kind, int64_t units, int64_t width, float eps, bool bias,
                            const char *name, ...) __attribute__((format(printf, 7, 8)));
/* Any tensor by its full name below the prefix, converted to `dtype`; the shape must match. */
struct tensor load_tensor(struct loader *loader, enum dtype dtype, int ndim, const int64_t *shape, const char *name, ...)
    __attribute__((format(printf, 5, 6)));
/* As stored (for embedding tables), shape checked. */
struct tensor load_table(struct loader *loader, int64_t rows, int64_t columns, const char *name, ...) __attribute__((format(printf, 4, 5)));
/* `bytes` in the loader's arena, not zeroed; NULL and loader->error if they do not fit. */
void *load_alloc(struct loader *loader, size_t bytes);
/* Tells a recording hook of a tensor that the file holds and nothing computes with; otherwise does nothing. */
void load_unused(struct loader *loader, int ndim, const int64_t *shape, const char *name, ...) __attribute__((format(printf, 4, 5)));
/* Is block `index` this rank's? Does it have the first one, and so what turns latents into the blocks' first state? Has it the last of
 * `num_blocks`, and so what turns their last state into a prediction? */
bool load_keeps_block(const struct loader *loader, int index);
bool load_keeps_first(const struct loader *loader);
bool load_keeps_last(const struct loader *loader, int num_blocks);
/* True for every name where tensors are recorded: of two spellings, ask for the one that published files have. */
bool load_has(const struct loader *loader, const char *name, ...) __attribute__((format(printf, 2, 3)));
void load_set_prefix(struct loader *loader, const char *prefix, ...) __attribute__((format(printf, 2, 3)));
bool load_failed(const struct loader *loader);

#endif
