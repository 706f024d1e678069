/* Positions from all ranks to all: where a denoiser's prediction becomes a whole picture again, and where text is cut.
 *
 *     sent per rank: (n - 1) of its own part */
#include <assert.h>
#include <string.h>

#include "parallel/exchange.h"

struct tensor exchange_gather(struct run *run, struct tensor x, const struct cut *cut) {
    if (run_failed(run) || cut == NULL) return run_failed(run) ? (struct tensor){0} : x;
    assert(x.ndim == 3 && x.shape[1] == cut_count(cut, cut->me));
    int64_t batch = x.shape[0], total = cut->rows * cut->columns;
    size_t row = (size_t)x.shape[2] * dtype_size(x.dtype), bytes[cut->members];
    struct tensor out = run_tensor(run, x.dtype, SHAPE(batch, total, x.shape[2]));
    size_t scope = run_enter(run);
    struct tensor parts = run_tensor(run, x.dtype, SHAPE(batch * total, x.shape[2]));
    if (run_failed(run)) return (struct tensor){0};
    for (int i = 0; i < cut->members; i++) bytes[i] = (size_t)(batch * cut_count(cut, i)) * row;
    comm_label(run->parallel->rows, "gather");
    tessera_status status = comm_all_gather(run->parallel->rows, x.data, parts.data, bytes, &run->error);
    char *from = parts.data;
    for (int i = 0; i < cut->members && status == TESSERA_OK; from += bytes[i++]) {
        struct tensor part = tensor_of(from, x.dtype, SHAPE(batch, cut_count(cut, i), x.shape[2]));
        run->backend->ops->copy_rows(run->backend, &out, cut_first(cut, i), &part, 0, cut_count(cut, i));
    }
    arena_release(run->arena, scope);
    return run_checked(run, status, out);
}

struct tensor exchange_text(struct run *run, struct tensor x, bool *whole) {
    *whole = true;
    if (run_failed(run) || !parallel_cuts_rows(run->parallel)) return x;
    int members = comm_size(run->parallel->rows), me = comm_rank(run->parallel->rows);
    if (x.shape[1] % members != 0) return x;
    *whole = false;
    int64_t count = x.shape[1] / members;
    struct tensor out = run_tensor(run, x.dtype, SHAPE(x.shape[0], count, x.shape[2]));
    if (!run_failed(run)) run->backend->ops->copy_rows(run->backend, &out, 0, &x, count * me, count);
    return out;
}
