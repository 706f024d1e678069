/* Attention to keys and values that come in blocks, as others send them: each block is computed
 * with while the next one arrives.
 *
 *     out = sum_t exp(lse_t - lse) out_t,   lse = log sum_t exp(lse_t)        (the online softmax of Milakov and Gimelshein 2018)
 *
 * out_t and lse_t are of block t alone. The sum is float32; each out_t is rounded to the type of q.
 */
#ifndef TESSERA_PARALLEL_ONLINE_ATTENTION_H
#define TESSERA_PARALLEL_ONLINE_ATTENTION_H

#include "tensor/tensor.h"

struct run;

/* Softmax(scale q k^T) v: q [B, Q, N, D], k and v [B, K, N, D] -> [B, Q, N, D]; *lse F32 [B, N, Q]
 * unless it is NULL. */
struct tensor attention_to_block(struct run *run, struct tensor q, struct tensor k, struct tensor v, float scale, struct tensor *lse);

struct online_attention {
    struct run *run;
    struct tensor q, sum, lse, more_lse; /* sum: F32, as q; lse, more_lse: F32 [B, N, Q] */
    float scale;
    int blocks; /* so far */
};

struct online_attention online_attention_begin(struct run *run, struct tensor q, float scale);
void online_attention_add(struct online_attention *attention, struct tensor k, struct tensor v);
/* The result, of q's shape and type. At least one block must have been added. */
struct tensor online_attention_end(const struct online_attention *attention);

#endif
