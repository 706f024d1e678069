/* See balance.h. By dynamic programming: the shortest time in which the first `end` pieces are done
 * by the first s + 1 stages is, over where the last of these stages begins, the longer of what the
 * stages before it take and what it takes itself.
 *
 *     time[s][end] = min over begin of max(time[s - 1][begin], work of begin .. end - 1 / speed of s)
 */
#include "parallel/balance.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* Stage s of the programme: time[] of the stages before becomes that of one stage more;
 * begins[end]: where stage s then begins. */
static void add_stage(const double *done, int pieces, double speed, int s, double *time, int16_t *begins) {
    for (int end = pieces; end > s; end--) { /* downwards: time[begin] is still that of the stages before */
        double best = -1;
        for (int begin = s; begin < end; begin++) {
            double own = (done[end] - done[begin]) / speed, both = own > time[begin] ? own : time[begin];
            if (best >= 0 && both >= best) continue;
            best = both;
            begins[end] = (int16_t)begin;
        }
        time[end] = best;
    }
}

bool balance_work(const double *work, int pieces, const double *speeds, int stages, int *first) {
    assert(stages >= 1 && stages <= pieces && pieces < INT16_MAX);
    size_t ends = (size_t)pieces + 1;
    double *done = malloc(2 * ends * sizeof *done), *time = done + ends;
    int16_t *begins = calloc((size_t)stages * ends, sizeof *begins); /* [stages, ends] */
    bool good = done != NULL && begins != NULL;
    if (good) {
        done[0] = 0;
        for (int i = 0; i < pieces; i++) done[i + 1] = done[i] + work[i];
        for (int end = 0; end <= pieces; end++) time[end] = done[end] / (speeds != NULL ? speeds[0] : 1.0);
        for (int s = 1; s < stages; s++) add_stage(done, pieces, speeds != NULL ? speeds[s] : 1.0, s, time, begins + (size_t)s * ends);
        first[stages] = pieces;
        for (int s = stages - 1; s >= 0; s--) first[s] = begins[(size_t)s * ends + (size_t)first[s + 1]];
    }
    free(begins);
    free(done);
    return good;
}
