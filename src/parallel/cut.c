/* See cut.h. */
#include "parallel/cut.h"

#include <math.h>
#include <stdlib.h>

static struct cut *cut_new(int64_t rows, int64_t columns, int members, int me) {
    struct cut *cut = calloc(1, sizeof *cut);
    if (cut == NULL) return NULL;
    *cut = (struct cut){.rows = rows, .columns = columns, .members = members, .me = me};
    cut->bounds = calloc((size_t)members + 1, sizeof *cut->bounds);
    if (cut->bounds != NULL) return cut;
    free(cut);
    return NULL;
}

void cut_free(struct cut *cut) {
    while (cut != NULL) {
        struct cut *next = cut->coarser;
        free(cut->bounds);
        free(cut);
        cut = next;
    }
}

struct span cut_mine(const struct cut *cut, int64_t total) {
    if (cut == NULL) return (struct span){0, total};
    return (struct span){cut->bounds[cut->me], cut->bounds[cut->me + 1] - cut->bounds[cut->me]};
}

int64_t cut_bound(int64_t units, int members, int member, const double *shares) {
    if (shares == NULL || units < members) return units * member / members;
    int64_t bound = 0;
    for (int i = 1; i <= member; i++) {
        int64_t wanted = llround((double)units * shares[i]), most = units - (members - i);
        bound = wanted > bound + 1 ? wanted : bound + 1;
        if (bound > most) bound = most;
    }
    return bound;
}

tessera_status cut_tokens(int64_t rows, int64_t columns, struct span rows_held, int members, int me, const double *shares, struct cut **out,
                          tessera_error *error) {
    int64_t first = rows_held.first * columns, total = rows_held.count * columns;
    *out = NULL;
    if (members > total)
        return error_set(error, TESSERA_ERROR_ARGUMENT, "a picture of %lld tokens cannot be cut over %d ranks: at most %lld are possible",
                         (long long)total, members, (long long)total);
    struct cut *cut = cut_new(rows, columns, members, me);
    if (cut == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    for (int i = 0; i <= members; i++) cut->bounds[i] = first + cut_bound(total, members, i, shares);
    *out = cut;
    return TESSERA_OK;
}

/* The level of half the rows and columns; NULL if memory is out. */
static struct cut *halve(struct cut *cut) {
    struct cut *half = cut_new((cut->rows + 1) / 2, (cut->columns + 1) / 2, cut->members, cut->me);
    if (half == NULL) return NULL;
    for (int i = 0; i <= cut->members; i++) half->bounds[i] = (cut->bounds[i] / cut->columns + 1) / 2 * half->columns;
    half->finer = cut;
    cut->coarser = half;
    return half;
}

tessera_status cut_rows(int64_t rows, int64_t columns, int64_t unit, int levels, int members, int me, const double *shares,
                        struct cut **out, tessera_error *error) {
    int64_t units = (rows + unit - 1) / unit;
    *out = NULL;
    if (members > units)
        return error_set(
            error, TESSERA_ERROR_ARGUMENT,
            "a picture of %lld latent rows cannot be cut by rows over %d ranks: each rank has a multiple of %lld rows, so at most "
            "%lld ranks are possible",
            (long long)rows, members, (long long)unit, (long long)units);
    struct cut *cut = cut_new(rows, columns, members, me);
    if (cut == NULL) return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
    for (int i = 0; i < members; i++) cut->bounds[i] = cut_bound(units, members, i, shares) * unit * columns;
    cut->bounds[members] = rows * columns;
    for (struct cut *level = cut; levels > 1; levels--)
        if ((level = halve(level)) == NULL) {
            cut_free(cut);
            return error_set(error, TESSERA_ERROR_MEMORY, "out of memory");
        }
    *out = cut;
    return TESSERA_OK;
}
