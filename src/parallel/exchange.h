/* What layers ask of other ranks. This header is the one place where `parallel` and `nn` know each
 * other: nn/ calls it, and it works on nn/run.h's runs.
 *
 * Every function is the identity, or plain computing, where the run is alone. Errors stick in
 * run->error. All members of a group call the same functions in the same order.
 *
 * Models, too, call three of them, which tessera_model.h declares: exchange_cut_tokens,
 * exchange_text, exchange_gather. Text is cut in the same shares as the picture; where a picture
 * goes through the blocks in patches, or displaced patches do not split it, each rank holds all.
 *
 *     attention       heads for positions (all-to-all) and keys and values around a ring
 *     gather          all members' positions, on all
 *     halo            the neighbours' rows, for convolutions wider than 1x1
 *     group_stats     means and variances of a whole picture from those of each rank's rows
 *     sum             of partial products, where weights are cut
 */
#ifndef TESSERA_PARALLEL_EXCHANGE_H
#define TESSERA_PARALLEL_EXCHANGE_H

#include "nn/run.h"
#include "parallel/parallel.h"
#include "parallel/transfer.h"

/* The cut of a picture's rows; see cut_rows. */
const struct cut *exchange_cut_rows(struct run *run, int64_t rows, int64_t columns, int64_t unit, int levels);

/* Queries, keys and values of this rank's tokens, [B, tokens, N, D] each, in the model's order of
 * tokens: those of picture and text, or of text and picture, apart; or all in the first, and the
 * second is empty. */
struct attention_streams {
    struct tensor q[2], k[2], v[2];
    float scale;
};
/* Softmax(scale q k^T) v over all ranks' tokens; cut NULL: over those given. No mask, no bias. out:
 * as the queries, in one tensor or two. */
void exchange_attention(struct run *run, const struct attention_streams *in, const struct cut *cut, struct text_span text,
                        struct token_span out[2]);
/* A span as a tensor [B, count, N, D]. Nothing is copied where it is all of its tensor, or of one
 * picture. */
struct tensor token_span_tensor(struct run *run, struct token_span span);

/* The sum of all ranks' x, F32 or BF16, on each of them, in x's memory: where weights are cut. */
struct tensor exchange_sum(struct run *run, struct tensor x);
/* What is to be counted once in such a sum: x on the first of the ranks, NULL on the others. */
const struct tensor *exchange_once(const struct run *run, const struct tensor *x);
/* x [..., this rank's share of `channels`] -> [..., channels] on each of the ranks among which
 * weights are cut. */
struct tensor exchange_join(struct run *run, struct tensor x, int64_t channels);

/* The tokens that exchange_text leaves this rank of a text. */
struct span exchange_text_span(const struct run *run, int64_t tokens);

/* Rows of the neighbours in a picture that is cut by rows. */
struct halo {
    struct tensor above, below; /* [B, rows asked for, W, C]; empty at the picture's edge, and where the run is alone */
    struct transfer transfer;
};

/* Starts fetching the last `above` rows of the member above and the first `below` rows of the one
 * below x [B, rows, W, C] (and sending them theirs); each member has at least as many rows. x must
 * stay as it is until exchange_halo_wait. */
struct halo exchange_halo_start(struct run *run, struct tensor x, int64_t above, int64_t below);
/* After it the halo's rows are there. */
void exchange_halo_wait(struct run *run, struct halo *halo);

/* Merges group norms' statistics: stats F32 [B, groups, 2], (mean, variance) of this rank's rows,
 * become those of the whole picture, with the same bits on every rank (Chan, Golub and LeVeque 1979,
 * equation 2.1, in the order of ranks); with displaced patches, what their sync mode makes of them.
 * `weight` is this rank's number of rows, or of anything else that all ranks count. `elements` is the
 * number of elements of one group in this rank's rows. */
void exchange_group_stats(struct run *run, struct tensor *stats, double weight, double elements);

/* The same from statistics of each row: `rows` F32 [B, this rank's rows, groups, 2] gives `stats`
 * F32 [B, groups, 2] of the whole picture. All rows have the same number of elements. They are merged
 * in float64 in the picture's order, so the bits do not depend on which rank holds which row. */
void exchange_row_stats(struct run *run, struct tensor stats, struct tensor rows);

/* Where the strategy makes pictures of patches (parallel_splits_pictures): exchange_split gives
 * this rank's patch of the latents, in whole `unit`s; exchange_unite puts what all ranks made of
 * their patches (`mine`) side by side, in the size of `latents`. */
struct tensor exchange_split(struct run *run, struct tensor latents, int64_t unit);
struct tensor exchange_unite(struct run *run, struct tensor mine, struct tensor latents, int64_t unit);

/* Puts all ranks' rows x [B, this rank's rows, W, C] together on rank `root`, in the order of ranks:
 * [B, all rows, W, C]. The others get an empty tensor, without an error. Each rank may have any number
 * of rows. */
struct tensor exchange_gather_rows(struct run *run, struct tensor x, int root);

/* The sum of all ranks' counts. */
int64_t exchange_total(struct run *run, int64_t count);

#endif
