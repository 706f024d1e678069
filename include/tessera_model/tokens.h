/* Tokens of a picture and its text. A process computes with some of a picture's tokens, those that it
 * holds; in the layers below all tokens meet. Included by tessera_model.h. */
#ifndef TESSERA_MODEL_TOKENS_H
#define TESSERA_MODEL_TOKENS_H

#include "tessera_model/layers.h"

/* Which of a picture's tokens are held here, counted row by row. NULL: all of them. */
struct cut;

/* The cut of a picture of rows x columns tokens; the same one each time for the same grid. */
const struct cut *exchange_cut_tokens(struct run *run, int64_t rows, int64_t columns);
/* The tokens held here, of `total`. */
struct span cut_mine(const struct cut *cut, int64_t total);
/* The tokens of a text x [B, T, C] held here: some, as of the picture, or all. */
struct tensor exchange_text(struct run *run, struct tensor x);
/* The other way, for `finish`: x [B, tokens held, C] -> [B, all tokens, C]. */
struct tensor exchange_gather(struct run *run, struct tensor x, const struct cut *cut);

/* Text tokens among the rows of q, k and v. */
struct text_span {
    int64_t first, count; /* which rows of k and v are text (and of q, if in_queries) */
    int64_t total;        /* tokens of the whole text, before exchange_text */
    bool in_queries;
};
/* Attention among all tokens of a picture and, for joint attention, of its text: q, k and v hold
 * the tokens held here, and so does the result. No mask, no bias. */
struct tensor nn_joint_attention(struct run *run, struct attention_args args, const struct cut *cut, struct text_span text);

/* [B, H, W, C] -> [B, S, p p C] in the run's type: the tokens held here, of H / p rows of
 * W / p. A token's p x p pixels follow each other row by row. */
struct tensor nn_patchify(struct run *run, struct tensor picture, int64_t p, const struct cut *cut);
/* The inverse: [B, h w, p p C] -> F32 [B, h p, w p, C]. */
struct tensor nn_unpatchify(struct run *run, struct tensor tokens, int64_t p, int64_t h, int64_t w);

/* diffusers' get_2d_sincos_pos_embed: table [rows, columns, channels]; channels a multiple of 4.
 * Positions along a side of n are scaled so that `base_size` of them span it, then divided by
 * `interpolation_scale`. */
void position_sincos_2d(float *table, int64_t rows, int64_t columns, int64_t channels, double base_size, double interpolation_scale);

#endif
