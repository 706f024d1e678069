/* Group norm over ranks: the mean and the variance of each group of channels of a whole picture,
 * from those of the ranks' rows (Chan, Golub and LeVeque 1979, equation 2.1).
 *
 *     merge ranks       group_statistics_merge   one (mean, variance) per rank; weights say how much each rank holds
 *     merge rows        exchange_row_stats       one (mean, variance) per row of the picture, for reproducible kernels
 *
 * A rank sends its numbers to the n - 1 others: 1 + 2 per group, or 2 per group and row. */
#include "parallel/group_statistics.h"

#include <stdlib.h>
#include <string.h>

#include "base/mean_variance.h"

/* Every member's numbers [weight, (mean, variance) of each group] in all[members][1 + 2 groups]:
 * float32. */
static tessera_status gather_stats(struct comm *group, float *all, int64_t each, const float *stats, double weight, tessera_error *error) {
    int members = comm_size(group);
    size_t *bytes = calloc((size_t)members, sizeof *bytes);
    float *mine = all + comm_rank(group) * each;
    if (bytes == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory for statistics");
    for (int i = 0; i < members; i++) bytes[i] = (size_t)each * sizeof(float);
    mine[0] = (float)weight;
    memcpy(mine + 1, stats, (size_t)(each - 1) * sizeof *stats);
    comm_label(group, "group norm");
    tessera_status status = comm_all_gather(group, mine, all, bytes, error);
    free(bytes);
    return status;
}

void group_statistics_merge(struct run *run, struct comm *group, struct tensor *stats, double weight) {
    int members = comm_size(group);
    int64_t groups = tensor_count(stats) / 2, each = 2 * groups + 1;
    float *values = run_map(run, stats, MAP_READ | MAP_WRITE), *all = calloc((size_t)(members * each), sizeof *all);
    if (all == NULL) error_set(&run->error, TESSERA_ERROR_MEMORY, "out of memory for statistics");
    if (!run_failed(run)) gather_stats(group, all, each, values, weight, &run->error);
    for (int64_t g = 0; g < groups && !run_failed(run); g++) {
        struct mean_variance whole = {0};
        double seen = 0;
        for (int i = 0; i < members; i++) {
            const float *numbers = all + i * each, *of_group = numbers + 1 + 2 * g;
            if (numbers[0] > 0) mean_variance_merge(&whole, seen, (struct mean_variance){of_group[0], of_group[1]}, numbers[0]);
            seen += numbers[0];
        }
        values[2 * g] = (float)whole.mean;
        values[2 * g + 1] = (float)whole.variance;
    }
    free(all);
    run_unmap(run, stats, values, MAP_READ | MAP_WRITE);
}

/* ---- row by row, so that the bits do not depend on the cut ---- */

/* All members' rows, one member after the other, [B, its rows, numbers]; the caller frees. counts
 * [members]: of rows. */
static float *gather_rows(struct run *run, const float *mine, int64_t batch, int64_t rows, int64_t numbers, int64_t *counts) {
    struct comm *group = parallel_cuts_positions(run->parallel) ? run->parallel->cut_group : NULL;
    int members = group != NULL ? comm_size(group) : 1;
    size_t bytes[members];
    int64_t total = 0;
    for (int i = 0; i < members; i++) bytes[i] = sizeof rows;
    counts[0] = rows;
    if (group != NULL) comm_label(group, "group norm");
    if (group != NULL && comm_all_gather(group, &rows, counts, bytes, &run->error) != TESSERA_OK) return NULL;
    for (int i = 0; i < members; i++) {
        bytes[i] = (size_t)(counts[i] * batch * numbers) * sizeof(float);
        total += counts[i];
    }
    float *all = malloc((size_t)(total * batch * numbers) * sizeof *all);
    if (all == NULL) error_set(&run->error, TESSERA_ERROR_MEMORY, "out of memory for statistics");
    if (all != NULL && group == NULL) memcpy(all, mine, bytes[0]);
    if (all != NULL && group != NULL) run_checked(run, comm_all_gather(group, mine, all, bytes, &run->error), (struct tensor){0});
    return all;
}

/* One group: `rows` have (mean, variance) `numbers` apart. seen, mean and spread (the sum of
 * variances) take them in. */
static void merge_rows(double *seen, double *mean, double *spread, const float *rows, int64_t count, int64_t numbers) {
    for (int64_t i = 0; i < count; i++, rows += numbers) {
        double distance = rows[0] - *mean, share = *seen / (*seen + 1.0);
        *seen += 1.0;
        *mean += distance / *seen;
        *spread += rows[1] + distance * distance * share;
    }
}

void exchange_row_stats(struct run *run, struct tensor stats, struct tensor rows) {
    int members = parallel_cuts_positions(run->parallel) ? comm_size(run->parallel->cut_group) : 1;
    int64_t counts[members], batch = rows.shape[0], numbers = 2 * rows.shape[2];
    float *mine = run_map(run, &rows, MAP_READ), *out = run_map(run, &stats, MAP_WRITE);
    float *all = run_failed(run) ? NULL : gather_rows(run, mine, batch, rows.shape[1], numbers, counts);
    for (int64_t i = 0; i < batch * rows.shape[2] && !run_failed(run); i++) {
        double seen = 0, mean = 0, spread = 0;
        const float *theirs = all;
        for (int m = 0; m < members; theirs += counts[m++] * batch * numbers)
            merge_rows(&seen, &mean, &spread, theirs + i / rows.shape[2] * counts[m] * numbers + i % rows.shape[2] * 2, counts[m], numbers);
        out[2 * i] = (float)mean;
        out[2 * i + 1] = (float)(spread / seen);
    }
    free(all);
    run_unmap(run, &rows, mine, MAP_READ);
    run_unmap(run, &stats, out, MAP_WRITE);
}
