/* Loading layers from a component's weights: names, shapes and types are checked here, once, before
 * anything is computed.
 *
 * A matrix stays as it is stored, in the mapped file, where its type is no wider than the computing
 * type; others are converted into the loader's arena. Biases and norm weights become F32.
 * Convolution weights [O, I, kh, kw] are re-ordered to [O, kh, kw, I]. What models call
 * (load_linear, ...) is declared in tessera_model.h; here is what stands behind it. Of a layer
 * whose units are divided a rank keeps its slice, from units * index / count up to units *
 * (index + 1) / count. Of what such layers sum, the first rank's has the bias. */
#ifndef TESSERA_NN_LOAD_H
#define TESSERA_NN_LOAD_H

#include "base/arena.h"
#include "nn/layers.h"
#include "tensor/weights.h"
#include "tessera_model/loading.h"

/* The slice of a stored weight that a rank keeps. */
struct load_piece {
    const int64_t *shape;     /* the whole weight's in the file, of as many dimensions as the piece has */
    struct span rows, inputs; /* of its dimensions 0 and 1; a vector has no inputs: {0, 1} */
};

/* What may stand between the layers and the file. */
struct load_hooks {
    void *user;
    /* Told of every tensor that the layers ask for, once each; then nothing is read, the weights
     * may be NULL, and layers come out with shapes but without data: a model's own description is
     * the list of what its file must hold. NULL: weights are read. */
    void (*record)(void *user, const char *name, int ndim, const int64_t *shape);
    /* Is this weight (full name) to be changed while it is loaded (LoRA)? Then `change` gets an F32
     * copy of the piece that is kept, in the file's order; it may be called once for each piece of
     * a weight. Both NULL: weights stay as stored. */
    bool (*changes)(void *user, const char *name);
    tessera_status (*change)(void *user, const char *name, struct load_piece piece, struct tensor *weight, tessera_error *);
    /* Does `change` of this weight depend on all of it? Then it gets the whole, of which the piece
     * is kept. NULL: never. */
    bool (*needs_whole)(void *user, const char *name);
    /* Matrices of small types are not changed: what `change` would add stands beside them (struct
     * linear_side). `rank` says of which low rank product number `index` of the change is; 0 behind
     * the last; -1 for index 0 if the change is no sum of such products, and then what `change`
     * adds is kept as it is. `product` writes F32 down [rank, piece.inputs.count] in rows `stride`
     * apart, and up [piece.rows.count, rank]; either may be NULL. Both NULL: every weight is
     * changed. */
    int64_t (*rank)(void *user, const char *name, int index);
    tessera_status (*product)(void *user, const char *name, int index, struct load_piece piece, float *down, int64_t stride, float *up,
                              tessera_error *);
};

/* What this rank loads of a denoiser: slice `index` of `count` where weights are cut over ranks (tensor
 * parallelism; count 0 is as 1), and of the list of blocks those that it runs (none: all). */
struct load_scope {
    int index, count;
    struct span blocks;
};

/* What the functions that load do: make layers; make layers that have shapes and types but no data;
 * or make such layers and let go of the mapped pages that the ones before had. */
enum load_mode { LOAD_READ, LOAD_DESCRIBE, LOAD_FORGET };

/* Is block `index` among the blocks that it runs? */
bool load_scope_has(const struct load_scope *scope, int index);

/* Bytes of the mapped file that a segment's layers are made from. */
struct load_span {
    const void *data;
    size_t bytes;
};

/* A buffer that such bytes have been copied into: layers are made from it, and the map is not
 * touched. */
struct load_copies {
    char *memory;
    size_t bytes;
    struct load_copy {
        const void *from;
        size_t bytes, at; /* from memory + at on */
        bool is_lent;     /* set by LOAD_READ: a layer borrows them */
    } *list;              /* [count], by `from` */
    int count;
};

struct loader {
    enum load_mode mode;
    struct load_span *spans; /* LOAD_DESCRIBE notes them where `notes_spans`: [num_spans], the caller's to free */
    int num_spans;
    bool notes_spans;
    const struct load_copies *copies; /* of LOAD_READ; or NULL */
    size_t converted; /* bytes of those that the layers do not borrow */
    struct load_scope scope;
    const struct weights *weights;
    const struct load_hooks *hooks; /* or NULL */
    struct arena *arena;            /* lives as long as the layers that are loaded with it */
    struct backend *backend;        /* that the model is for; NULL: one whose memory is the host's */
    struct arena *memory;           /* of its memory, as long as the layers; NULL where that is the host's */
    enum dtype dtype;               /* of matrices */
    char prefix[192];               /* e.g. "text_model.encoder.layers.3." */
    size_t bytes;                   /* of the weights that the layers hold so far, lent or converted */
    size_t room, largest;           /* what the arena needs at most for all tensors asked for: to keep, and for the largest beside */
    tessera_error error;
};

/* The arena that LOAD_READ needs at most after the same calls under LOAD_DESCRIBE. */
size_t load_arena_bytes(const struct loader *loader);

/* As load_linear_outputs and load_linear_inputs (nn_conv_sum, nn_conv_inputs). */
struct conv load_conv_outputs(struct loader *loader, int64_t in, int64_t units, int64_t width, int kernel, const char *name, ...)
    __attribute__((format(printf, 6, 7)));
struct conv load_conv_inputs(struct loader *loader, int64_t units, int64_t width, int64_t out, int kernel, const char *name, ...)
    __attribute__((format(printf, 6, 7)));

#endif
