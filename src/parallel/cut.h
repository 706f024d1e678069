/* Cuts: which positions of a picture each rank of a group works on.
 *
 * A picture is a grid of rows x columns positions (patches of a transformer, latent places of a U-Net), numbered row by row; member i has
 * the positions bounds[i] .. bounds[i + 1] - 1. A cut by tokens divides anywhere; a cut by rows divides between rows, at multiples of a
 * unit, so that the grids of the coarser levels (halved once or more) are cut at the same places:
 *
 *     level 0:  0 . . . | 4 . . . | 8 . . . |         unit 4
 *     level 1:  0   .   | 2   .   | 4   .   |
 *     level 2:  0       | 1       | 2       |
 */
#ifndef TESSERA_PARALLEL_CUT_H
#define TESSERA_PARALLEL_CUT_H

#include "base/error.h"

struct cut {
    int64_t rows, columns; /* of the whole picture */
    int members, me;
    int64_t *bounds;             /* [members + 1] positions */
    struct cut *finer, *coarser; /* of a cut by rows: the levels beside this one; owned by the finest */
};

/* Where part `part` of `parts` of so many units begins (`parts` itself: the end): units * part / parts, or, where ranks are unequal,
 * shares[part] of them, shares [parts + 1] rising from 0 to 1; but no part is empty while units last. */
int64_t cut_bound(int64_t units, int parts, int part, const double *shares);

/* rows x columns in `members` parts at the bounds of cut_bound; shares NULL: as equal as they can be. */
tessera_status cut_tokens(int64_t rows, int64_t columns, int members, int me, const double *shares, struct cut **out, tessera_error *error);

/* Of some rows of it: a part that is worked on by itself, cut in the same way; bounds[0] is where it begins. */
tessera_status cut_part(int64_t rows, int64_t columns, struct span part_rows, int members, int me, const double *shares, struct cut **out,
                        tessera_error *error);

/* Whole rows in multiples of `unit` (the last part may end between) on `levels` levels, each of half the rows and columns, rounded up, of
 * the one before. ARGUMENT if there are fewer units than members: it names the most that are possible. */
tessera_status cut_rows(int64_t rows, int64_t columns, int64_t unit, int levels, int members, int me, const double *shares,
                        struct cut **out, tessera_error *error);
/* With all coarser levels; NULL is fine. */
void cut_free(struct cut *cut);
/* cut_mine, this rank's positions, is in tessera_model.h. */

/* Positions of a member. */
static inline int64_t cut_first(const struct cut *cut, int member) {
    return cut->bounds[member];
}
static inline int64_t cut_count(const struct cut *cut, int member) {
    return cut->bounds[member + 1] - cut->bounds[member];
}

/* The cut of the level whose rows and columns are halved `level` times, of the finest level's; NULL stays NULL. */
static inline const struct cut *cut_at_level(const struct cut *cut, int level) {
    while (cut != NULL && level-- > 0) cut = cut->coarser;
    return cut;
}

/* Part `part` itself. */
static inline struct span cut_span(int64_t units, int parts, int part, const double *shares) {
    int64_t first = cut_bound(units, parts, part, shares);
    return (struct span){first, cut_bound(units, parts, part + 1, shares) - first};
}

/* A member's share of things that weights are cut by: heads, channels, groups of channels. */
static inline struct span cut_share(int64_t units, int members, int member) {
    return cut_span(units, members, member, NULL);
}

#endif
