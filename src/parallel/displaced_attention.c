/* Attention of a part of a picture to the whole of it, the others' keys and values being those of one step before (displaced.h).
 *
 *     keys and values   [ this rank's, fresh | the others', of step t - 1 ]    each one's positions and its part T_i of the text
 *     queries           this rank's positions and its part of the text
 *
 * Sent per rank and step: 2 B (S_me + T_me) C to each of the n - 1 others, behind the computing of a whole step. A text that is not split
 * (displaced.split_text) or has fewer tokens than there are ranks never travels: each rank carries its own stream of it, T_me is 0, and
 * the keys end with the whole text, fresh. In synchronous steps all blocks are fresh, and each is computed with while others arrive. */
#include <assert.h>
#include <string.h>

#include "parallel/blocks.h"
#include "parallel/exchange.h"
#include "parallel/online_attention.h"

/* Tokens that member i sends. */
static int64_t tokens_of(const struct run *run, const struct cut *cut, int i, struct text_span text) {
    int64_t words = blocks_text_is_whole(text) ? 0 : cut_span(text.total, cut->members, i, run->parallel->shares).count;
    return cut_count(cut, i) + words;
}

/* The others' keys and values beside this rank's: *data, and this rank's on their way for the next step. */
static tessera_status exchange_blocks(struct run *run, struct tensor k, struct tensor v, const struct cut *cut, struct text_span text,
                                      struct displaced_data *data) {
    struct displaced *d = run->parallel->displaced;
    size_t bytes[cut->members], token = 2 * tensor_bytes(&k) / (size_t)k.shape[1];
    for (int i = 0; i < cut->members; i++) bytes[i] = token * (size_t)tokens_of(run, cut, i, text);
    comm_label(d->group, "attention");
    TRY(displaced_receive(d, &(struct displaced_sizes){.all = bytes}, data, &run->error));
    memcpy(data->all[cut->me], k.data, tensor_bytes(&k));
    memcpy(data->all[cut->me] + tensor_bytes(&k), v.data, tensor_bytes(&v));
    displaced_send(d);
    return TESSERA_OK;
}

/* To this rank's block (all of its keys and values, with a whole text), and to each of the others': in a synchronous step while those
 * behind it arrive. */
static struct tensor attend_blocks(struct run *run, const struct attention_args *args, const struct cut *cut, struct text_span text,
                                   char *const *all) {
    struct displaced *d = run->parallel->displaced;
    struct online_attention attention = online_attention_begin(run, *args->q, args->scale);
    online_attention_add(&attention, *args->k, *args->v);
    for (int step = 1; step < cut->members && !run_failed(run); step++) {
        int i = (cut->me - step + cut->members) % cut->members;
        int64_t tokens = tokens_of(run, cut, i, text);
        if (displaced_wait(d, i, &run->error) != TESSERA_OK) break;
        online_attention_add(&attention, blocks_half(all[i], 0, *args->k, tokens), blocks_half(all[i], 1, *args->v, tokens));
    }
    struct tensor out = online_attention_end(&attention);
    return run_checked(run, run_failed(run) ? run->error.status : displaced_wait_all(d, &run->error), out);
}

struct tensor displaced_attention(struct run *run, const struct attention_args *args, const struct cut *cut, struct text_span text) {
    struct displaced_data data;
    size_t scope = run_enter(run);
    struct tensor k = blocks_shared_rows(run, *args->k, text), v = blocks_shared_rows(run, *args->v, text);
    if (run_failed(run)) return (struct tensor){0};
    assert(k.shape[1] == tokens_of(run, cut, cut->me, text));
    if (exchange_blocks(run, k, v, cut, text, &data) != TESSERA_OK) return (struct tensor){0};
    return run_leave(run, scope, attend_blocks(run, args, cut, text, data.all));
}
