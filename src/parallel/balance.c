/* See balance.h. The smallest time that no stage exceeds is searched for by halving; stages are then filled up to it, each as far as it goes
 * while enough pieces are left for the rest. */
#include "parallel/balance.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>

/* More would not change a double. */
enum { HALVINGS = 60 };

/* Does all of it fit into stages that take at most `bound` each? */
static bool fill(const double *work, int pieces, const double *speeds, int stages, double bound, int *first) {
    int next = 0;
    for (int s = 0; s < stages; s++) {
        double sum = 0, most = bound * (speeds != NULL ? speeds[s] : 1.0);
        first[s] = next;
        int last = pieces - (stages - s - 1); /* leave one for each stage to come */
        while (next < last && (next == first[s] || sum + work[next] <= most)) sum += work[next++];
        if (sum > most) return false;
    }
    first[stages] = next;
    return next == pieces;
}

void balance_work(const double *work, int pieces, const double *speeds, int stages, int *first) {
    double low = 0, high = 0, slowest = 1.0;
    assert(stages >= 1 && stages <= pieces);
    for (int s = 0; s < stages && speeds != NULL; s++) slowest = s == 0 || speeds[s] < slowest ? speeds[s] : slowest;
    for (int i = 0; i < pieces; i++) high += work[i] / slowest;
    double enough = high *= 1 + 1e-9; /* the sums above and in fill are rounded differently */
    for (int i = 0; i < HALVINGS; i++) {
        double middle = (low + high) / 2;
        if (fill(work, pieces, speeds, stages, middle, first))
            enough = high = middle;
        else
            low = middle;
    }
    bool fits = fill(work, pieces, speeds, stages, enough, first);
    assert(fits);
    (void)fits;
}
