/* What docs/parallel.md says of a strategy, as numbers for one rank: bytes sent, operations and
 * weights. The conformance program holds what a run counted against them. */
#ifndef TESSERA_TESTS_FORMULA_H
#define TESSERA_TESTS_FORMULA_H

#include "comm/mesh.h"
#include "models/denoiser.h"

/* One prediction of a denoiser, and where in the mesh it is made. */
struct formula {
    const struct mesh *mesh;
    const struct json *config;
    const struct denoiser *denoiser; /* opened whole */
    const struct weights *weights;   /* its file */
    enum dtype dtype;                /* of activations */
    int64_t batch, rows, columns;    /* of the latents that this rank is given */
    int64_t text_tokens, text_2_tokens;
    bool text_mask; /* some of the text does not count */
    /* of a pipeline; zeros without one */
    struct span blocks;   /* of the rank's stage; none: all */
    bool in_patches;      /* the picture goes through the blocks in patches: `rows` are one's, or all of them in a step as a whole */
    int64_t picture_rows; /* of the whole picture */
};

/* Bytes that this rank sends for the prediction; false where the class has no formula here. */
bool formula_bytes(const struct formula *f, uint64_t *bytes);
/* And for the exchange of `mine` bytes of prediction between the two predictions of guidance. */
uint64_t formula_guidance_bytes(const struct mesh *mesh, uint64_t mine);

/* The share of one rank's operations, `alone`, that the busiest rank has where nothing is repeated:
 * the product, over the axes, of the largest span (1 / N where all divides). A transformer's patch
 * embedding and last projection are not cut over the tensor axis. */
double formula_operations_share(const struct formula *f, double alone);
/* Operations that a rule repeats on several ranks, on this rank, or, if `alone`, on one rank that
 * has both predictions of guidance. */
struct formula_repeated {
    double text;         /* of the text's tokens: where they do not divide, and wherever they are only attended to */
    double conditioning; /* once per picture, of timestep, sizes and pooled text: no tokens to share */
};
struct formula_repeated formula_repeated_operations(const struct formula *f, bool alone);

/* The most bytes that this rank's layers hold of the weights: all of what is not cut by heads,
 * hidden channels or convolution channels, and the largest slice of what is. */
double formula_weight_bytes(const struct formula *f);

/* A picture's way through the stages of a pipeline (formula_pipeline.c). */
struct formula_pipeline {
    struct formula f; /* of the whole picture; batch: the predictions that this rank computes in a step */
    const int *first; /* [stages + 1] where their blocks begin */
    int patches, steps, whole_steps;
    bool guided;
    int64_t channels;                /* of the latents */
    double alone_whole, alone_patches; /* operations that one rank counts in a step as a whole, and in one in patches */
};
/* Bytes that this rank sends for the latents; false where the class has no formula. */
bool formula_pipeline_bytes(const struct formula_pipeline *p, uint64_t *bytes);
/* Operations of one rank with the same patches, without what rules repeat; the most that are this
 * rank's share of them; and what is repeated on this rank. */
struct formula_pipeline_work {
    double alone, share;
    struct formula_repeated repeated;
};
struct formula_pipeline_work formula_pipeline_operations(const struct formula_pipeline *p);

/* For formula.c: a patch's bytes. */

/* Positions of a picture over all ranks of a sequence: rank i's are bounds[i] .. bounds[i + 1] - 1. */
struct formula_sequence {
    const struct formula *f;
    const int64_t *bounds;
};
/* One attention over a sequence. text: the text's tokens among the keys (0: none). */
struct formula_attention {
    int64_t heads, width, text; /* heads of this rank */
    bool asks;                  /* the text is among the queries, too */
};
uint64_t formula_attention_bytes(const struct formula_sequence *s, const struct formula_attention *a);
/* [B, this rank's positions, channels] to all. */
uint64_t formula_gather_bytes(const struct formula_sequence *s, int64_t channels);
/* The sum of `count` elements over the tensor axis; shares of `channels` laid side by side for each
 * of `positions`. */
uint64_t formula_sum_bytes(const struct formula *f, int64_t count);
uint64_t formula_join_bytes(const struct formula *f, int64_t positions, int64_t channels);
/* A UNet's prediction (formula_unet.c). */
uint64_t formula_unet_bytes(const struct formula *f);

int formula_members(const struct formula *f); /* ring x ulysses */
/* This rank's tokens of the text. */
int64_t formula_text(const struct formula *f);
int formula_me(const struct formula *f);
/* This tensor rank's slice of heads, groups or channels. */
int64_t formula_units(const struct formula *f, int64_t units);

#endif
