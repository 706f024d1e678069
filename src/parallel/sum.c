/* Sums where weights are cut (Shoeybi et al. 2019, section 3): a layer's outputs are cut over ranks, the next layer's inputs alike, and what
 * each rank gets from its share of the inputs is added.
 *
 *     sent per rank: 2 (n - 1) / n of x */
#include "parallel/exchange.h"

struct tensor exchange_sum(struct run *run, struct tensor x) {
    if (run_failed(run) || run->parallel == NULL || comm_size(run->parallel->tensor) == 1) return run_failed(run) ? (struct tensor){0} : x;
    comm_label(run->parallel->tensor, "tensor");
    enum comm_type type = x.dtype == DTYPE_F32 ? COMM_F32 : COMM_BF16;
    return run_checked(run, comm_all_reduce(run->parallel->tensor, x.data, (size_t)tensor_count(&x), type, &run->error), x);
}
