/* Blocks of keys and values as ranks send them, and which of a rank's rows are in them. */
#ifndef TESSERA_PARALLEL_BLOCKS_H
#define TESSERA_PARALLEL_BLOCKS_H

#include "tensor/tensor.h"

struct run;

/* Does this rank, and so each, have all of the text's tokens? Such a text is not exchanged. */
bool blocks_text_is_whole(struct text_span text);

/* Rows first .. first + count of each picture of x [B, S, N, D]: x itself where that is all. */
struct tensor blocks_rows(struct run *run, struct tensor x, int64_t first, int64_t count);
/* The rows of x that are exchanged: all but a whole text, which lies at one end. */
struct tensor blocks_shared_rows(struct run *run, struct tensor x, struct text_span text);

/* Keys (half 0) or values (half 1) of a block [2, B, tokens, N, D] whose shape is otherwise that of `like` [B, S, N, D]. */
struct tensor blocks_half(void *block, int half, struct tensor like, int64_t tokens);

#endif
