/* Naive patches (DistriFusion's baseline; Li et al. 2024, section 3): each patch of a picture is
 * made as a picture of its own. */
#ifndef TESSERA_PARALLEL_NAIVE_PATCHES_H
#define TESSERA_PARALLEL_NAIVE_PATCHES_H

enum naive_split { NAIVE_ROWS, NAIVE_COLUMNS, NAIVE_ALTERNATE, NAIVE_SPLITS }; /* alternate: rows in even steps, columns in odd ones */

/* "row", "col", "alternate"; NULL behind the last. */
const char *naive_split_name(int split);

#endif
