/* Cuts: which positions of a picture each rank of a group works on.
 *
 * A picture is a grid of rows x columns positions (tokens of a transformer, latent places of a
 * U-Net), numbered row by row; member i has the positions bounds[i] .. bounds[i + 1] - 1. A cut by
 * tokens divides anywhere; a cut by rows divides between rows, at multiples of a unit, so that the
 * grids of the coarser levels (halved once or more) are cut at the same places:
 *
 *     level 0:  0 . . . | 4 . . . | 8 . . . |         unit 4
 *     level 1:  0   .   | 2   .   | 4   .   |
 *     level 2:  0       | 1       | 2       |
 */
#ifndef TESSERA_PARALLEL_CUT_H
#define TESSERA_PARALLEL_CUT_H

#include "base/error.h"
#include "tessera_model/tokens.h"

struct cut {
    int64_t rows, columns; /* of the whole picture */
    int members, me;
    int64_t *bounds;             /* [members + 1] positions */
    struct cut *finer, *coarser; /* of a cut by rows: the levels beside this one; owned by the finest */
};

/* Where the span of member `member` begins; member == members gives the end of the last one. Equal
 * members begin at units * member / members. Where ranks are unequal, shares [members + 1] rise from
 * 0 to 1 and the span begins at units * shares[member]. No span is empty unless there are fewer units
 * than members. */
int64_t cut_bound(int64_t units, int members, int member, const double *shares);

/* Cuts the tokens in `rows_held`, of a picture of rows x columns, over `members` at the bounds of
 * cut_bound (shares NULL: spans as equal as they can be). bounds[0] is where the first of those rows
 * begins. ARGUMENT if there are fewer tokens than members. */
tessera_status cut_tokens(int64_t rows, int64_t columns, struct span rows_held, int members, int me, const double *shares, struct cut **out,
                          tessera_error *error);

/* Cuts between rows, at multiples of `unit`, on `levels` levels; each level has half the rows and
 * columns of the one before, rounded up. The last span may be shorter than a multiple. ARGUMENT if
 * there are fewer units than members; the message says how many members are possible. */
tessera_status cut_rows(int64_t rows, int64_t columns, int64_t unit, int levels, int members, int me, const double *shares,
                        struct cut **out, tessera_error *error);
/* With all coarser levels; NULL is fine. */
void cut_free(struct cut *cut);
/* cut_mine, this rank's positions, is in tessera_model/tokens.h. */

/* Positions of a member. */
static inline int64_t cut_first(const struct cut *cut, int member) {
    return cut->bounds[member];
}
static inline int64_t cut_count(const struct cut *cut, int member) {
    return cut->bounds[member + 1] - cut->bounds[member];
}

/* From the finest level's cut to that of the level whose rows and columns are halved `level` times;
 * NULL stays NULL. */
static inline const struct cut *cut_at_level(const struct cut *cut, int level) {
    while (cut != NULL && level-- > 0) cut = cut->coarser;
    return cut;
}

/* The span of a member. */
static inline struct span cut_span(int64_t units, int members, int member, const double *shares) {
    int64_t first = cut_bound(units, members, member, shares);
    return (struct span){first, cut_bound(units, members, member + 1, shares) - first};
}

/* A member's share of things that weights are cut by: heads, channels, groups of channels. */
static inline struct span cut_evenly(int64_t units, int members, int member) {
    return cut_span(units, members, member, NULL);
}

#endif
