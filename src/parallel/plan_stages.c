/* Which blocks a plan gives to which stage of a pipeline. */
#include "parallel/balance.h"
#include "parallel/plan.h"

void plan_stages(const struct plan_model *m, int stages, int *first) {
    double work[PLAN_MAX_BLOCKS];
    for (int i = 0; i < m->num_blocks; i++) work[i] = m->blocks[i].work;
    if (balance_work(work, m->num_blocks, NULL, stages, first)) return;
    for (int s = 0; s <= stages; s++) first[s] = s * m->num_blocks / stages; /* no memory: an estimate can do with this */
}
