/* Work that is local to a token, on some rows at a time: what it holds beside its result is then no
 * more than run->chunk_bytes.
 *
 *     x [B, S, C]    rows 0 .. n | rows n .. 2n | ...        f(rows) -> the same rows of the result
 *
 * With chunk_bytes 0, or where all rows fit, f is called once, with x itself. Norms, activations,
 * sums and attention of other rows are not touched, so results differ only where a product's kernel
 * sums a row in another order for another number of rows: oneDNN's in bfloat16 and, for some
 * shapes, in float32 may; reproducible kernels never do. All ranks that share x take the same
 * pieces: sums over ranks are inside. */
#ifndef TESSERA_NN_BY_ROWS_H
#define TESSERA_NN_BY_ROWS_H

#include "nn/layers.h"

/* f of rows [B, n, C], which begin at row `first`: [B, n, width] in the run's type. */
typedef struct tensor rows_function(struct run *run, const void *user, struct tensor rows, int64_t first);

/* [B, S, width]. `arrays`: how many tensors of the rows' size f holds at once, results included. */
struct tensor nn_by_rows(struct run *run, struct tensor x, int64_t width, int arrays, rows_function *f, const void *user);
/* The same into rows at .. at + S of out [B, all, width]. */
void nn_by_rows_into(struct run *run, struct tensor out, int64_t at, struct tensor x, int arrays, rows_function *f, const void *user);
/* Rows first .. first + count of x [B, S, C]: x itself, a view, or, of several pictures, a copy. */
struct tensor nn_some_rows(struct run *run, struct tensor x, int64_t first, int64_t count);

#endif
